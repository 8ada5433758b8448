"""Arbitrary and damaged bytes through the whole unit, from reading to cleaning.

Each example is a file as a crawl may hold it, in one of fifteen forms; nothing in it may raise, get lost
without being counted, or leave a file that later steps can't read.
"""

import gzip
import json
import math
import shutil
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsugiki.artifacts.contract import open_workspace
from tsugiki.artifacts.files import read_json
from tsugiki.corpus.classifier.model import (
    Calibration,
    Card,
    FeatureSettings,
    LinearClassifier,
    save_classifier,
    weights_digest,
)
from tsugiki.corpus.config import Config
from tsugiki.corpus.engine import Engine
from tsugiki.corpus.segments import Segment
from tsugiki.corpus.stage import InputFile
from tsugiki.corpus.statistics import UnitStatistics
from tsugiki.corpus.toolbox import Resources, open_toolbox, save_host_lists
from tsugiki.corpus.unit import make_unit
from tsugiki.corpus.units import Making, make_units
from tsugiki.errors import InputError

EXAMPLES = 120
CUT_EXAMPLES = 40
CONTAINERS = ("warc", "warc.gz", "warc.zst", "wet", "wet.gz", "wet.zst", "jsonl", "jsonl.gz", "jsonl.zst")
ODD = (
    *(
        "",
        "\0",
        "\ud800\udfff",
        "\ufeff",
        "\u2028",
        "\U0010ffff",
        "\u202e",
        "<",
        "&#x110000;",
        "&#0;&#xd800;",
    ),
    *("<div>" * 600, "<p>" * 60, "<script>", "<!--", "<title>", "</title>", "<table><tr><td>", "<br>" * 50),
    *("。" * 300, "…" * 99, "…\n" * 20, "ー", "\u3099", "エロ動画", "03-1234-5678 ", "4111111111111111 "),
    *(
        "taro@example.co.jp ",
        "〒150-0001",
        "Copyright © 2026 All rights reserved.",
        "{",
        "lorem ipsum ",
        "\r",
    ),
    *(
        '<meta charset="shift_jis">',
        '<html lang="ja">',
        '<meta http-equiv=content-type content="x;charset=">',
    ),
)
URLS = (
    *(
        "http://www.example.jp/",
        "https://例え.テスト/",
        "http://127.0.0.1:80/",
        "http://[::1]/",
        "http://a.jp./",
    ),
    *(
        "",
        "http://",
        "//",
        "http:///x",
        "http://" + "a." * 300 + "jp/",
        "http://user:pass@エロ.jp:99999/",
        "\0",
    ),
    *(
        "http://xn--.jp/",
        "http://[::1",
        "http://" + "x" * 3000,
        "javascript:alert(1)",
        "http://.../",
        "http://%00/",
    ),
)
DATES = (
    *("2026-01-01T00:00:00Z", "", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-W01-1"),
    *("20260101", "yesterday", "2026-13-45", "\0", "-1", "2026-01-01T00:00:00.123456789Z"),
)
CODECS = ("utf-8", "cp932", "euc_jp", "iso2022_jp", "utf-16", "latin-1", "gb18030")
CODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
    "br": bytes,
    "x": bytes,
}


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    """A block list, benchmark items and a classifier of arbitrary weights."""
    root = tmp_path_factory.mktemp("resources")
    domains = root / "lists" / "adult"
    domains.mkdir(parents=True)
    (domains / "domains").write_text("example.jp\n127.0.0.1\n")
    save_host_lists([root / "lists"], None, root / "lists.safetensors")
    item = {"id": "1", "text": "この装置の電源を入れる手順として正しいものを一つ選びなさい。"}
    (root / "items.jsonl").write_text(json.dumps(item))
    features = FeatureSettings(bits=10)
    weights = np.linspace(-1, 1, 1 << features.bits).astype(np.float32)
    card = Card(
        features=features,
        bias=0.1,
        calibration=Calibration(slope=0.5, offset=0.0),
        weights_sha256=weights_digest(weights),
    )
    save_classifier(LinearClassifier(card, weights), {}, root / "model")
    return Resources(str(root / "lists.safetensors"), (str(root / "items.jsonl"),), str(root / "model"))


SHARED = {
    "source": "x",
    "language": "ja",
    "hosts": {"lists": "lists"},
    "decontaminate": {"items": ["items"]},
    "classifier": {"model": "model", "minimum": 0.01},
    "near_duplicates": {"bands": 4, "rows": 3},
}
CONFIGS = (
    SHARED,
    {**SHARED, "rules": "none", "cleanup": {"nfkc": True, "footer": "swallow"}},
    {"source": "x", "language": "en", "rules": "none", "extractor": "trafilatura"},
    {"source": "x", "language": "zh", "rules": "none", "extractor": "resiliparse"},
)


@st.composite
def pages(draw, japanese):
    """Text or markup: runs of good Japanese with odd things between them, or anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.text(max_size=200))
    seed = draw(st.integers(0, 3))
    parts = japanese(seed).split("\n")
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(parts)))
        parts.insert(place, draw(st.sampled_from(ODD)) * draw(st.sampled_from([1, 1, 1, 30])))
    joint = draw(st.sampled_from(["<p>", "<p>", "\n", "", "<li><a href=x>"]))
    return joint.join(parts)


def splice(draw, data, most=3):
    """The bytes with some cut out, put in or exchanged."""
    for _ in range(draw(st.sampled_from([0, 0, 1, most]))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        data = data[:start] + draw(st.binary(max_size=12)) + data[end:]
    return data


def response(draw, warc, text):
    """A record whose body is in some encoding, content coding and state, with a header that may lie."""
    codec = draw(st.sampled_from(CODECS))
    body = splice(draw, text.encode(codec, "ignore"))
    headers = []
    if draw(st.integers(0, 3)) == 0:
        coding = draw(st.sampled_from(sorted(CODINGS)))
        headers.append(f"Content-Encoding: {coding}")
        body = splice(draw, CODINGS[coding](body), 1)
    declared = draw(st.sampled_from([codec, "utf-8", "x-sjis", "\xff", "utf-7", "unicode", "base64"]))
    record = warc.record(
        body,
        url=draw(st.sampled_from(URLS)),
        date=draw(st.sampled_from(DATES)),
        content_type=f"text/html; charset={declared}",
        headers=headers,
    )
    return splice(draw, record, 1)


def conversion(draw, text):
    body = splice(draw, text.encode("utf-8", "ignore"))
    head = (
        f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {draw(st.sampled_from(URLS))}\r\n"
        f"WARC-Date: {draw(st.sampled_from(DATES))}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return splice(draw, head.encode() + body + b"\r\n\r\n", 1)


def row(draw, text):
    odd = st.one_of(st.none(), st.integers(), st.sampled_from(DATES), st.just({"a": [1e308]}))
    record = {"text": text, "url": draw(st.sampled_from(URLS)), "date": draw(odd), "title": draw(odd)}
    if draw(st.integers(0, 5)) == 0:
        record["metadata"] = {"url": draw(odd), "date": draw(odd)}
    return record


def packed(draw, suffix, records):
    """Records one a member, or all in one."""
    pack = {"gz": lambda data: gzip.compress(data, mtime=0), "zst": zstandard.compress}.get(suffix, bytes)
    if draw(st.booleans()):
        return b"".join(map(pack, records))
    return pack(b"".join(records))


def table_of(draw, texts, path):
    """A Parquet file of the texts, whose bytes may not be UTF-8, as one of several types."""
    rows = [(splice(draw, text.encode("utf-8", "replace"), 1), row(draw, "")) for text in texts]
    kind = draw(st.sampled_from([pa.binary(), pa.large_binary(), pa.string(), pa.large_string()]))
    values = pa.array([body for body, _ in rows], pa.binary())
    if kind in (pa.large_binary(), pa.large_string()):
        values = values.cast(pa.large_binary())
    columns = {"text": values.view(kind)}  # a string that is not UTF-8, where the bytes are not
    if draw(st.booleans()):
        columns["url"] = pa.array([known["url"].encode("utf-8", "replace") for _, known in rows])
    pq.write_table(
        pa.table(columns),
        path,
        row_group_size=2,
        compression=draw(st.sampled_from(["none", "zstd", "snappy"])),
    )
    return path.read_bytes()


def crawled(draw, warc, japanese, directory):
    """The name and the bytes of a file."""
    texts = draw(st.lists(pages(japanese), min_size=1, max_size=3))
    name = draw(st.sampled_from([*CONTAINERS, "warc", "warc.gz", "parquet"]))
    if name == "parquet":
        return "a.parquet", table_of(draw, texts, directory / "made")
    kind, _, suffix = name.partition(".")
    if kind == "warc":
        records = [response(draw, warc, text) for text in texts]
    elif kind == "wet":
        records = [conversion(draw, text) for text in texts]
    else:
        lines = (json.dumps(row(draw, text), ensure_ascii=draw(st.booleans())) for text in texts)
        records = [splice(draw, line.encode("utf-8", "surrogatepass")) + b"\n" for line in lines]
    return f"a.{name}", packed(draw, suffix, records)


def process(directory, name, data, config, resources):
    """Make the unit; its statistics and its documents, checked."""
    path, unit = directory / name, directory / "unit"
    path.write_bytes(data)
    config = Config.model_validate(config)
    given_files = resources if config.classifier else Resources()
    job = {
        "config": config.model_dump(mode="json"),
        "resources": given_files.as_dict(),
        "file": str(path),
        "span": {},
        "bytes": None,
        "unit": str(unit),
        "downloads": str(directory),
    }
    for left in directory.glob("unit*"):
        left.unlink()
    make_unit(job)
    made = read_json(unit.with_suffix(".json"))
    return made["statistics"], check(made, open_toolbox(config, given_files))


def check(made, toolbox):
    """What holds for every unit: all is counted, and what is written can be read."""
    statistics, reached = made["statistics"], made["statistics"]["documents"]
    later = reached.get("candidate language", 0) - reached.get("extracted", 0)
    skipped = sum(statistics["skipped"].values())
    assert statistics["records"] == reached.get("pages", 0) + skipped - later
    rows, passed = [], 0
    for one in made["segments"]:
        segment = Segment(**one)
        table = pq.read_table(segment.table)
        assert table.schema.equals(toolbox.schema)
        assert table.num_rows == segment.documents
        rows += table.to_pylist()
        records = segment.records()
        assert len(records) == segment.passed == sum(not row["rejected_by"] for row in table.to_pylist())
        passed += segment.passed
    assert len(rows) == reached.get("extracted", 0)
    assert passed == reached.get("passed rules", 0)
    assert len({row["id"] for row in rows}) == len(rows)
    for row_ in rows:
        assert row_["text"].strip()
        assert "\0" not in row_["text"]
        if row_["rejected_by"] != ["language"]:
            features = [row_[name] for name in toolbox.columns]
            assert all(isinstance(value, list) or math.isfinite(value) for value in features)
    return rows


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_unit_of_odd_and_damaged_documents_is_whole_and_counts_everything(
    tmp_path, warc, japanese, resources, data
):
    name, content = crawled(data.draw, warc, japanese, tmp_path)
    if data.draw(st.integers(0, 3)) == 0:
        content = splice(data.draw, content, 1)
    config = data.draw(st.sampled_from(CONFIGS))
    try:
        process(tmp_path, name, content, config, resources)
    except InputError:  # the damage hit the name or the type of the column
        assert name == "a.parquet"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    out = open_workspace(tmp_path_factory.mktemp("workspace"))
    yield out
    out.metrics.close()
    for handler in out.log.handlers:
        handler.close()


def made_of_parts(directory, path, workspace, unit_bytes):
    """The statistics and documents of a file that is cut into units of so many bytes."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    config = Config.model_validate(
        {"source": "x", "language": "zh", "rules": "none", "extractor": "resiliparse"}
    )
    job = {
        "config": config.model_dump(mode="json"),
        "resources": Resources().as_dict(),
        "downloads": str(directory),
    }
    making = Making(directory, "version", job, Engine(), workspace)
    statistics, rows = UnitStatistics(), []
    for unit in make_units([InputFile(str(path), path.name, path.stat().st_size)], making, unit_bytes):
        made = read_json(unit.with_suffix(".json"))
        statistics.add(UnitStatistics.from_dict(made["statistics"]))
        for one in made["segments"]:
            rows += pq.read_table(f"{one['stem']}.parquet").to_pylist()
    counted = statistics.as_dict()
    del counted["cpu_seconds"]
    return counted, rows


@settings(
    max_examples=CUT_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_parts_of_any_file_hold_together_what_the_whole_holds(tmp_path, warc, japanese, workspace, data):
    name, content = crawled(data.draw, warc, japanese, tmp_path)
    path = tmp_path / name
    path.write_bytes(splice(data.draw, content, 1))
    parts = data.draw(st.integers(2, 5))
    try:
        whole = made_of_parts(tmp_path / "whole", path, workspace, 1 << 40)
    except InputError:  # the damage hit the name or the type of the column
        assert name == "a.parquet"
        return
    assert made_of_parts(tmp_path / "parts", path, workspace, max(20, path.stat().st_size // parts)) == whole
