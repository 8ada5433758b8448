"""The stage: figures, files, every error, order and worker independence, kill -9 and resume."""

import gc
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tsugiki.artifacts.contract import ArtifactType, Forecast, Reference
from tsugiki.artifacts.documents import iterate_documents
from tsugiki.corpus import stage
from tsugiki.corpus.stage import Config
from tsugiki.errors import InputError

DAFT_LEAVES_PIPES_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def contents(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("documents", "rejected")
        for path in sorted((root / part).rglob("*"))
    }


@pytest.fixture
def crawl(tmp_path, warc, japanese, english, page):
    """Three files: 24 Japanese pages, 2 near-duplicates, a short one, English ones, a redirect, damage."""
    directory = tmp_path / "crawl"
    directory.mkdir()
    texts = [japanese(seed) for seed in range(24)]
    files = [warc.crawl(directory / f"{i}.warc.gz", texts[i * 8 : i * 8 + 8]) for i in range(3)]
    newer = texts[0].replace("です。", "です！", 1)
    extra = [
        warc.record(page(newer), url="http://mirror.example.jp/0", date="2026-06-01T00:00:00Z"),
        warc.record(
            page(texts[1]).encode("cp932"), url="http://mirror.example.jp/1", content_type="text/html"
        ),
        warc.record(page("短い文章です。"), url="http://short.example.jp/"),
        warc.record(page(english(1), lang="en", title="A page"), url="http://english.example/"),
        warc.record(page(english(2), lang="ja"), url="http://untranslated.example/"),
        warc.record("", status="302 Found"),
    ]
    members = b"".join(map(warc.member, extra))
    files[2].write_bytes(files[2].read_bytes() + members + warc.member(extra[0])[:40])
    return files


@pytest.fixture
def config():
    return Config(source="crawl/*.warc.gz", language="ja", heldout=0.15)


def test_run_counts_what_the_files_hold(tmp_path, crawl, config, execute):
    outcome = execute(config, crawl, tmp_path / "out")
    rows = list(iterate_documents(tmp_path / "out"))
    rejected = list(iterate_documents(tmp_path / "out", part="rejected"))
    counts = outcome.counts
    assert counts["documents"] == len(rows) == 24
    assert counts["rejected"] == len(rejected) == 4
    assert counts["characters"] == sum(len(row["text"]) for row in rows)
    assert counts["bytes"] == sum(len(row["text"].encode()) for row in rows)
    assert counts["train_documents"] + counts["heldout_documents"] == 24
    assert counts["train_bytes"] == sum(len(row["text"].encode()) for row in rows if row["split"] == "train")
    assert counts["heldout_documents"] == sum(row["split"] == "heldout" for row in rows) == 4
    assert counts["records"] == 24 + 7
    json.dumps(outcome.facts, allow_nan=False)


def test_run_writes_typed_rows_with_reasons_and_clusters(tmp_path, crawl, config, execute):
    execute(config, crawl, tmp_path / "out")
    rows = {row["url"]: row for row in iterate_documents(tmp_path / "out")}
    rejected = {row["url"]: row for row in iterate_documents(tmp_path / "out", part="rejected")}
    newest = rows["http://mirror.example.jp/0"]
    assert (newest["cluster"], newest["cluster_size"], newest["survivor"]) == (newest["id"], 2, True)
    older = rejected["http://h0.example.jp/0.warc/0"]
    assert older["rejected_by"] == ["near_duplicate"]
    assert (older["cluster"], older["survivor"], older["split"]) == (newest["id"], False, None)
    short = rejected["http://short.example.jp/"]
    assert "letters<400" in short["rejected_by"]
    assert short["letters"] == len(short["text"])
    assert rejected["http://untranslated.example/"]["rejected_by"] == ["language"]
    assert rejected["http://untranslated.example/"]["language"] == "en"
    one = rows["http://h2.example.jp/0.warc/2"]
    assert one["rejected_by"] == []
    assert (one["host"], one["language"], one["title"]) == ("h2.example.jp", "ja", "日本語の題名です")
    assert one["source"] == {"file": "0.warc.gz", "offset": one["source"]["offset"]}
    assert one["hiragana_share"] > 0.2
    assert len({row["id"] for row in rows.values()} | {row["id"] for row in rejected.values()}) == 28


def test_run_reports_the_funnel_reasons_and_damage(tmp_path, crawl, config, execute):
    facts = execute(config, crawl, tmp_path / "out").facts
    funnel = {step["step"]: step["documents"] for step in facts["funnel"]}
    assert funnel == {
        "records read": 31,  # a stretch that can't be read is one broken record
        "pages": 29,
        "candidate language": 28,
        "decoded": 28,
        "extracted": 28,
        "language identified": 27,
        "passed rules": 26,
        "after near-duplicates": 24,
        "after host filter": 24,
    }
    reasons = {entry["reason"]: (entry["documents"], entry["alone"]) for entry in facts["reasons"]}
    assert reasons["near_duplicate"] == (2, 2)
    assert reasons["language"] == (1, 1)
    assert reasons["letters<400"] == (1, 0)
    assert facts["encodings"] == {"utf-8": 27, "shift_jis": 1}
    assert facts["skipped_records"] == {"broken": 1, "redirect": 1}
    assert [warning["file"] for warning in facts["warnings"]] == ["2.warc.gz"]
    near = facts["near_duplicates"]
    assert (near["clusters"], near["removed"], near["largest"]) == (2, 2, 2)
    assert near["sizes"] == [
        {"from": 1, "to": 1, "clusters": 22, "documents": 22},
        {"from": 2, "to": 2, "clusters": 2, "documents": 4},
    ]
    split = facts["split"]
    assert (split["train"], split["heldout"]) == (20, 4)
    assert split["max_similarity"] < 0.5
    assert sum(entry["documents"] for entry in facts["similarity_histogram"]) == 4
    samples = {entry["reason"] for entry in facts["rejected_samples"]}
    assert samples == set(reasons)
    assert sum(host["documents"] for host in facts["hosts"]) == 24


@DAFT_LEAVES_PIPES_OPEN
def test_run_gives_the_same_bytes_for_any_order_place_and_number_of_workers(tmp_path, crawl, config, execute):
    first = execute(config, crawl, tmp_path / "one")
    moved = tmp_path / "elsewhere"
    (tmp_path / "crawl").rename(moved)
    files = [moved / path.name for path in reversed(crawl)]
    second = execute(config.model_copy(update={"workers": 2}), files, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert first == second
    gc.collect()


@DAFT_LEAVES_PIPES_OPEN
def test_run_in_worker_processes_raises_the_same_errors(tmp_path, warc, japanese, execute):
    warc.crawl(tmp_path / "a.warc.gz", [japanese(1)])
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "b.parquet")
    files = [tmp_path / "a.warc.gz", tmp_path / "b.parquet"]
    with pytest.raises(InputError, match='no column "text"'):
        execute(Config(source="x", language="ja", workers=2), files, tmp_path / "out")
    gc.collect()


def test_run_with_seed_and_without_rules_changes_what_they_name(tmp_path, crawl, config, execute):
    execute(config, crawl, tmp_path / "one")
    execute(config.model_copy(update={"seed": 5, "rules": "none"}), crawl, tmp_path / "two")
    held = [
        {row["id"] for row in iterate_documents(tmp_path / name, split="heldout")} for name in ("one", "two")
    ]
    assert held[0] != held[1]
    urls = {row["url"] for row in iterate_documents(tmp_path / "two")}
    assert "http://short.example.jp/" in urls


def test_run_with_overrides_rejects_by_them(tmp_path, crawl, config, execute):
    changed = config.model_copy(update={"rule_overrides": {"letters": 5.0, "language_letters": 5.0}})
    facts = execute(changed, crawl, tmp_path / "out").facts
    assert not any(entry["reason"].startswith("letters") for entry in facts["reasons"])


def test_run_without_heldout_puts_everything_into_training(tmp_path, crawl, config, execute):
    outcome = execute(config.model_copy(update={"heldout": 0.0}), crawl, tmp_path / "out")
    assert outcome.counts["heldout_documents"] == 0
    assert outcome.facts["split"]["method"] == "none held out"


def test_run_holds_out_no_more_than_the_maximum(tmp_path, crawl, config, execute):
    changed = config.model_copy(update={"heldout": 0.5, "heldout_max_documents": 3})
    assert execute(changed, crawl, tmp_path / "out").counts["heldout_documents"] == 3


def test_run_on_texts_of_every_kind_gives_the_same_documents(tmp_path, japanese, execute):
    rows = [{"text": japanese(seed), "url": f"http://a.example/{seed}"} for seed in range(6)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(lines))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    texts = []
    for suffix in ("jsonl", "jsonl.gz", "jsonl.zst", "parquet"):
        execute(Config(source="a", language="ja"), [tmp_path / f"a.{suffix}"], tmp_path / suffix)
        texts.append([(row["url"], row["text"]) for row in iterate_documents(tmp_path / suffix)])
    assert all(found == [(row["url"], row["text"]) for row in rows] for found in texts)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"language": "jp"}, "no language pack"), ({"rule_overrides": {"leters": 1.0}}, "no rule")],
)
def test_run_and_estimate_of_an_unknown_name_are_input_errors(
    tmp_path, crawl, config, change, message, execute
):
    changed = config.model_copy(update=change)
    with pytest.raises(InputError, match=message):
        execute(changed, crawl, tmp_path / "out")
    with pytest.raises(InputError, match=message):
        stage.estimate(changed, {})


def test_config_names_its_files_and_keeps_execution_out_of_the_identity():
    config = Config(source=["a/*.warc.gz", "b.jsonl"], language="ja", workers=3)
    assert config.references() == (
        Reference("source", "a/*.warc.gz", ArtifactType.FILES),
        Reference("source", "b.jsonl", ArtifactType.FILES),
    )
    payload = config.identity_payload()
    assert "source" not in payload
    assert "workers" not in payload
    expected = {"ngram": 5, "bands": 40, "rows": 20, "keep": "newest", "verify": None, "weights": None}
    assert payload["near_duplicates"] == {**expected, "against": [], "index": False}
    assert not {"engine", "memory", "language_packs", "expected"} & set(payload)
    described = [field.description for field in (*Config.model_fields.values(),)]
    assert all(described)


def test_estimate_uses_the_forecast_of_the_files_or_their_sizes(tmp_path, crawl, config):
    given = Forecast(type=ArtifactType.FILES, counts={"files": 3, "bytes": 9e9})
    forecast = stage.estimate(config, {"crawl/*.warc.gz": given})
    assert forecast.counts["documents"] == pytest.approx(7e5, rel=0.5)
    assert forecast.counts["train_documents"] == pytest.approx(0.85 * forecast.counts["documents"])
    assert forecast.seconds is not None
    assert forecast.seconds > 1000
    seen = stage.estimate(config.model_copy(update={"source": str(tmp_path / "crawl" / "*")}), {})
    assert seen.counts["bytes"] > 0


@pytest.mark.parametrize(("heldout", "counts"), [(0.1, {}), (0.0, {"heldout_documents": 0.0})])
def test_estimate_of_files_that_nothing_is_known_of_counts_nothing_rather_than_zero(config, heldout, counts):
    forecast = stage.estimate(config.model_copy(update={"heldout": heldout}), {})
    assert forecast.counts == counts
    assert forecast.problems[0].severity == "warning"


def test_estimate_of_data_that_is_elsewhere_believes_what_is_expected_of_it(config):
    expected = {"bytes": "1B", "documents": "300k"}
    forecast = stage.estimate(Config(**{**config.model_dump(), "expected": expected}), {})
    assert forecast.counts["bytes"] == 1e9
    assert forecast.counts["documents"] == 300_000
    assert forecast.counts["characters"] == pytest.approx(1e9 / 2.57)
    assert forecast.seconds is None
    assert forecast.problems[0].severity == "warning"


KILLED = """
import os, signal, sys
from pathlib import Path
from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.corpus import stage

root, left, *files = sys.argv[1:]
left = int(left)

seen = set()

def progress(done, total, unit, note):  # called for each unit that is made, and once a second
    made = len(list(Path(root).glob("work/units/*.json")))
    seen.add(made if unit in {"files", "MB"} else (unit, done))
    if len(seen) > left:
        os.kill(os.getpid(), signal.SIGKILL)

config = stage.Config(source="crawl/*.warc.gz", language="ja", heldout=0.15)
stage.run(config, Inputs({"crawl/*.warc.gz": tuple(map(Path, files))}), open_workspace(Path(root), progress))
"""


@pytest.mark.parametrize("calls", [2, 4, pytest.param(6, marks=pytest.mark.slow)])
def test_run_killed_and_started_again_ends_with_the_same_bytes(tmp_path, crawl, config, calls, execute):
    expected = execute(config, crawl, tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(calls), *map(str, crawl)]
    died = subprocess.run(command, check=False, capture_output=True, timeout=120)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    finished = sorted((tmp_path / "killed" / "work" / "units").glob("*.json"))
    assert len(finished) >= min(calls - 1, 3)
    before = {path: path.stat().st_mtime_ns for path in finished}
    time.sleep(0.01)
    again = execute(config, crawl, tmp_path / "killed")
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    assert again == expected
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_run_with_a_torn_unit_makes_it_again(tmp_path, crawl, config, execute):
    expected = execute(config, crawl, tmp_path / "whole")
    units = tmp_path / "whole" / "work" / "units"
    first, second, *_ = sorted(units.glob("*.parquet"))
    units.joinpath(first.name.removesuffix("-00000.parquet") + ".json").unlink()
    first.write_bytes(first.read_bytes()[:100])
    second.with_name(second.name + ".partial").write_bytes(b"torn")
    before = contents(tmp_path / "whole")
    assert execute(config, crawl, tmp_path / "whole") == expected
    assert contents(tmp_path / "whole") == before


def test_import_of_the_stage_is_light():
    code = "import sys, tsugiki.corpus.stage; print([m for m in %r if m in sys.modules])"
    heavy = ["numpy", "numba", "daft", "pyarrow", "fastwarc", "torch", "trafilatura", "py3langid"]
    out = subprocess.run(
        [sys.executable, "-c", code % heavy], check=True, capture_output=True, env=os.environ
    )
    assert out.stdout.decode().strip() == "[]"


SAMPLE = sorted((Path(__file__).parents[2] / "examples" / "crawl").glob("*.warc.gz"))


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLE, reason="the sample crawl is not in this checkout")
def test_run_on_the_sample_crawl_keeps_only_japanese_pages_and_removes_planted_duplicates(tmp_path, execute):
    import csv

    with SAMPLE[0].with_name("truth.csv").open(encoding="utf-8", newline="") as file:
        truth = {(row["warc"], row["url"]): row for row in csv.DictReader(file)}
    config = Config(source="crawl", language="ja", heldout=0.05)
    outcome = execute(config, SAMPLE, tmp_path / "out")
    rows = [
        (row, truth[row["source"]["file"], row["url"]])
        for row in iterate_documents(tmp_path / "out", columns=["url", "source", "split", "text"])
    ]
    japanese = sum(page["language"] == "ja" for _, page in rows)
    assert japanese >= 0.995 * len(rows)
    texts = [row["text"] for row, _ in rows]
    assert len(set(texts)) == len(texts)
    assert outcome.facts["split"]["max_similarity"] < 0.5
    assert outcome.facts["near_duplicates"]["removed"] > 10
