"""Documents, files, lists and packs made to hurt, through the whole unit or the whole stage.

Each is counted or refused in bounded time and memory; the page that follows it is kept.
"""

import gzip
import json
import shutil
import time
from pathlib import Path

import brotli
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.artifacts.documents import iterate_documents
from tsugiki.artifacts.files import read_json
from tsugiki.corpus import stage
from tsugiki.corpus.config import Config
from tsugiki.corpus.toolbox import Resources
from tsugiki.corpus.unit import make_unit
from tsugiki.errors import InputError

LANGUAGES = Path(stage.__file__).parents[1] / "languages"
FORMS = ("warc", "wet", "jsonl", "parquet")
MEGABYTE = 1 << 20


class Peak:
    """How much the memory of this process grew at most since `start`, as the kernel counts it."""

    def start(self):
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pytest.skip("the kernel does not let the peak of memory be reset")
        self._before = self._value("VmRSS")

    def grown_bytes(self):
        return self._value("VmHWM") - self._before

    @staticmethod
    def _value(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))


@pytest.fixture
def peak():
    return Peak()


@pytest.fixture
def process(tmp_path):
    """Make the unit of a file; its statistics and its rows."""

    def process(name, data, **options):
        path, unit = tmp_path / name, tmp_path / name.replace(".", "-")
        if data is not None:
            path.write_bytes(data)
        config = Config.model_validate({"source": "x", "language": "ja", "rules": "none", **options})
        job = {
            "config": config.model_dump(mode="json"),
            "resources": Resources().as_dict(),
            "file": str(path),
            "span": {},
            "bytes": None,
            "unit": str(unit),
            "downloads": str(tmp_path),
        }
        make_unit(job)
        made = read_json(unit.with_suffix(".json"))
        tables = [pq.read_table(f"{one['stem']}.parquet") for one in made["segments"]]
        return made["statistics"], [row for table in tables for row in table.to_pylist()]

    return process


def file_of(form, texts, warc, page):
    """The texts as a file of one form."""
    if form == "warc":
        return b"".join(
            warc.member(warc.record(page(text).encode("utf-8", "surrogatepass"))) for text in texts
        )
    if form == "wet":
        return b"".join(map(conversion, texts))
    if form == "jsonl":
        return b"".join(line_of(text) for text in texts)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [text.encode("utf-8", "replace") for text in texts]}), sink)
    return sink.getvalue().to_pybytes()


def conversion(text):
    body = text.encode("utf-8", "replace")
    head = (
        f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: http://a.jp/\r\nContent-Length: {len(body)}"
    )
    return head.encode() + b"\r\n\r\n" + body + b"\r\n\r\n"


def line_of(text):
    return json.dumps({"text": text}).encode() + b"\n"


# ---- documents --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("character", ["あ", "a", "。", "\u3099", "\U0001f600", "�"])
def test_document_of_one_character_is_a_row_with_features(process, warc, page, japanese, form, character):
    data = file_of(form, [character, japanese(1)], warc, page)
    statistics, rows = process(f"a.{form}", data, rules="pack")
    texts = [row["text"] for row in rows]
    assert texts[-1] == japanese(1)
    assert not rows[-1]["rejected_by"]
    assert texts[:-1] == [character] or (form == "warc" and texts[:-1] == [])  # no candidate
    assert all(row["rejected_by"] for row in rows[:-1])
    assert statistics["records"] == 2


@pytest.mark.parametrize("form", FORMS)
def test_document_of_nothing_but_surrogates_is_no_harm(process, warc, page, japanese, form):
    statistics, rows = process(f"a.{form}", file_of(form, ["\ud800" * 300_000, japanese(1)], warc, page))
    assert rows[-1]["text"] == japanese(1)
    assert statistics["records"] == 2
    assert all(row["rejected_by"] for row in rows[:-1])


@pytest.mark.parametrize(
    "form",
    ["jsonl", pytest.param("wet", marks=pytest.mark.slow), pytest.param("parquet", marks=pytest.mark.slow)],
)
def test_document_of_fifty_megabytes_takes_bounded_time_and_memory(process, warc, page, japanese, peak, form):
    text = "\n".join([japanese(1, sentences=2000)] * 260)
    assert 50e6 < len(text.encode()) < 64e6
    process("warm.jsonl", line_of(japanese(1)))
    data = file_of(form, [text, japanese(2)], warc, page)
    peak.start()
    start = time.process_time()
    statistics, rows = process(f"a.{form}", data)
    assert time.process_time() - start < 60
    assert peak.grown_bytes() < 1500 * MEGABYTE
    assert [len(row["text"]) for row in rows] == [len(text), len(japanese(2))]
    assert statistics["documents"]["passed rules"] == 2


@pytest.mark.parametrize(("form", "size"), [("warc", 11 << 20), ("jsonl", 65 << 20), ("wet", 65 << 20)])
def test_document_over_the_limit_is_counted_in_little_memory(
    tmp_path, process, warc, page, japanese, peak, form, size
):
    data = file_of(form, ["x" * size, japanese(1)], warc, page)
    process("warm.jsonl", line_of(japanese(1)))
    peak.start()
    statistics, rows = process(f"a.{form}", data)
    assert statistics["skipped"] == {"too large": 1}
    assert [row["text"] for row in rows] == [japanese(1)]
    assert peak.grown_bytes() < 250 * MEGABYTE


@pytest.mark.parametrize(
    "element", ["<div>", "<b>", "<table><tr><td>", "<svg><g>", "<ul><li>", "<x-y>", "<p><i>"]
)
def test_page_nested_a_hundred_thousand_deep_is_counted_or_flat(process, warc, page, japanese, element):
    html = f"<html lang=ja><body><p>{japanese(2)}</p>" + element * 100_000 + "あ"
    start = time.process_time()
    records = [warc.record(html, url="http://deep.example.jp/"), warc.record(page(japanese(1)))]
    statistics, rows = process("a.warc", b"".join(records))
    assert time.process_time() - start < 20
    assert rows[-1]["text"] == japanese(1)
    assert statistics["skipped"].get("too deep", 0) + len(rows) == 2


# ---- bombs ------------------------------------------------------------------------------------------------

BOMB = 150 << 20


def quickly(data):
    return gzip.compress(data, 1, mtime=0)


CODINGS = {
    "gzip": quickly,
    "zstd": zstandard.compress,
    "br": lambda data: brotli.compress(data, quality=1),
    "gzip, gzip": lambda data: quickly(quickly(data)),
    "zstd, gzip": lambda data: gzip.compress(zstandard.compress(data), mtime=0),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_bomb_of_a_content_coding_is_counted_in_little_memory(process, warc, page, japanese, peak, coding):
    body = CODINGS[coding](b"<p>" + bytes(BOMB))
    good = warc.record(page(japanese(1)))
    data = warc.record(body, headers=(f"Content-Encoding: {coding}",)) + good
    process("warm.warc", good)
    peak.start()
    statistics, rows = process("a.warc", data)
    assert statistics["skipped"] == {"too large": 1}
    assert [row["text"] for row in rows] == [japanese(1)]
    assert peak.grown_bytes() < 120 * MEGABYTE


@pytest.mark.parametrize("pack", [quickly, zstandard.compress])
@pytest.mark.parametrize("declared", [True, False])
def test_bomb_of_a_member_is_counted_in_little_memory(process, warc, page, japanese, peak, pack, declared):
    length = BOMB if declared else 100
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: {length}\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".encode()
    )
    good = pack(warc.record(page(japanese(1))))
    data = good + pack(head + bytes(BOMB)) + good
    process("warm.warc.gz", good)
    peak.start()
    statistics, rows = process("a.warc.gz", data)
    assert statistics["skipped"]
    assert [row["text"] for row in rows] == [japanese(1)] * 2
    assert peak.grown_bytes() < 120 * MEGABYTE


@pytest.mark.parametrize(("suffix", "pack"), [("gz", quickly), ("zst", zstandard.compress)])
def test_bomb_of_one_line_is_counted_in_bounded_memory(process, japanese, peak, suffix, pack):
    data = pack(line_of(japanese(1)) + b'{"text": "' + b"x" * BOMB + b'"}\n' + line_of(japanese(2)))
    process("warm.jsonl", line_of(japanese(1)))
    peak.start()
    statistics, rows = process(f"a.jsonl.{suffix}", data)
    assert statistics["skipped"] == {"too large": 1}
    assert [row["text"] for row in rows] == [japanese(1), japanese(2)]
    assert peak.grown_bytes() < 350 * MEGABYTE  # a line may be twice the limit of a text


def test_bomb_of_a_dictionary_in_parquet_is_counted_in_bounded_memory(tmp_path, process, japanese, peak):
    """Twenty rows of 65 MB in a file of a few kB: one entry of a dictionary, named again and again."""
    values = pa.DictionaryArray.from_arrays(
        pa.array([0] * 20 + [1], pa.int32()), pa.array(["x" * (65 << 20), japanese(1)])
    )
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet", compression="zstd")
    del values
    pa.default_memory_pool().release_unused()
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    process("warm.jsonl", line_of(japanese(1)))
    peak.start()
    start = time.process_time()
    statistics, rows = process("a.parquet", None)
    assert time.process_time() - start < 60
    assert statistics["skipped"] == {"too large": 20}
    assert [row["text"] for row in rows] == [japanese(1)]
    assert peak.grown_bytes() < 800 * MEGABYTE


# ---- hosts, lists, packs ----------------------------------------------------------------------------------

HOSTS = {
    "例え.テスト": "xn--r8jz45g.xn--zckzah",
    "EXAMPLE.JP.": "example.jp",
    "192.0.2.7": "192.0.2.7",
    "[2001:db8::1]": "2001:db8::1",
    ".".join("a" * 300): None,
    "x" * 5000: None,
    "": None,
    "..": None,
    "%00%ff": None,
    "user:pass@b.example.jp:99999": "b.example.jp",
    "a b.jp": None,
    "xn--.jp": None,
    "\ud800.jp": None,
}


def execute(root, files, inputs=(), **options):
    config = Config.model_validate({"source": "crawl", "language": "ja", **options})
    out = open_workspace(root)
    try:
        return stage.run(config, Inputs({"crawl": tuple(files), **dict(inputs)}), out)
    finally:
        out.metrics.close()
        for handler in out.log.handlers:
            handler.close()


def test_documents_of_hosts_with_odd_names_go_through_the_whole_stage(tmp_path, japanese):
    """One form for each host, the same that lists are compared in; names that no host has do no harm."""
    rows = [
        {"url": f"http://{host}/{number}", "text": japanese(number), "date": "2026-01-01"}
        for number, host in enumerate(HOSTS)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = execute(tmp_path / "out", [tmp_path / "a.jsonl"], heldout=0.2)
    found = list(iterate_documents(tmp_path / "out"))
    assert outcome.counts["documents"] == len(found) == len(HOSTS)
    by_text = {row["text"]: row for row in found}
    for number, expected in enumerate(HOSTS.values()):
        host = by_text[japanese(number)]["host"]
        assert host is None or host.isascii()
        if expected is not None:
            assert host == expected
    hosts = pq.read_table(tmp_path / "out" / "hosts.parquet")
    assert sum(hosts["documents"].to_pylist()) == len(HOSTS)


def test_block_list_that_is_not_utf8_still_blocks_what_it_names(tmp_path, warc, japanese):
    domains = tmp_path / "lists" / "adult"
    domains.mkdir(parents=True)
    (domains / "domains").write_bytes(
        b"\xff\xfe\x00bad\n\x83G\x83\x8d.jp\nh1.example.jp\r\n\n" + b"\x80" * 5000
    )
    file = warc.crawl(tmp_path / "a.warc.gz", [japanese(seed) for seed in range(6)])
    given = {"lists": (tmp_path / "lists",)}
    outcome = execute(tmp_path / "out", [file], given, hosts={"lists": "lists"})
    rejected = {
        row["url"]: row["rejected_by"] for row in iterate_documents(tmp_path / "out", part="rejected")
    }
    assert set(map(tuple, rejected.values())) == {("url:adult",)}
    assert {url.split("/")[2] for url in rejected} == {"h1.example.jp"}
    assert outcome.counts["documents"] == 4


def test_benchmark_items_that_are_not_utf8_are_refused_with_their_line(tmp_path, warc, japanese):
    (tmp_path / "items.jsonl").write_bytes(b'{"text": "abc"}\n{"text": "\x83\x8d\xff"}\n')
    file = warc.crawl(tmp_path / "a.warc.gz", [japanese(1)])
    with pytest.raises(InputError, match=r"items\.jsonl") as caught:
        execute(
            *(tmp_path / "out", [file], {"items": (tmp_path / "items.jsonl",)}),
            decontaminate={"items": ["items"]},
        )
    assert caught.value.hint


FAULTS = {
    "an unknown feature": ('feature = "letters"', 'feature = "leters"', "leters"),
    "a threshold that is text": ("min = 400", 'min = "four hundred"', "min"),
    "a threshold that is a list": ("min = 400", "min = [400]", "min"),
    "a threshold that is no number": ("min = 400", "min = nan", "min"),
    "an unknown key of a rule": ("min = 400", "least = 400", "least"),
    "a rule that is no table": ("[rules]", "rules = 3\n[rulez]", "rules"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_pack_with_a_fault_ends_the_stage_before_any_work(tmp_path, warc, japanese, what):
    old, new, named = FAULTS[what]
    folder = tmp_path / "packs" / "ja"
    shutil.copytree(LANGUAGES / "ja", folder)
    pack = (folder / "pack.toml").read_text()
    assert old in pack
    (folder / "pack.toml").write_text(pack.replace(old, new, 1))
    file = warc.crawl(tmp_path / "a.warc.gz", [japanese(1)])
    with pytest.raises(InputError, match=named) as caught:
        execute(tmp_path / "out", [file], language_packs=[str(tmp_path / "packs")])
    assert caught.value.hint
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_pack_whose_list_is_not_utf8_ends_the_stage_with_the_name_of_the_list(tmp_path, warc, japanese):
    folder = tmp_path / "packs" / "ja"
    shutil.copytree(LANGUAGES / "ja", folder)
    listed = folder / "ng.txt"
    listed.write_bytes(listed.read_bytes() + b"\x83G\x83\x8d\n")
    file = warc.crawl(tmp_path / "a.warc.gz", [japanese(1)])
    with pytest.raises(InputError, match=listed.name) as caught:
        execute(tmp_path / "out", [file], language_packs=[str(tmp_path / "packs")])
    assert caught.value.hint
