"""All units of a corpus: one large file on several workers, joins that are mended, progress within a unit."""

import gc
import gzip
import hashlib
import json
import random
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.artifacts.files import read_json
from tsugiki.corpus import spans, stage, unit_progress
from tsugiki.corpus.stage import Config
from tsugiki.corpus.unit_progress import Amounts, UnitProgress, Watch, speed

DAFT_LEAVES_PIPES_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def execute(root, file, *, told=None, workers=1):
    """Run the stage on one file; gives its outcome and the hash of every file that it made."""
    config = Config.model_validate(
        {
            "source": "crawl",
            "language": "ja",
            "workers": workers,
            "heldout": 0.1,
            "rules": "none",
            "hosts": {"statistics": False},
        }
    )
    out = open_workspace(root, (lambda *event: told.append(event)) if told is not None else lambda *_: None)
    try:
        outcome = stage.run(config, Inputs({"crawl": (file,)}), out)
    finally:
        out.metrics.close()
        for handler in out.log.handlers:
            handler.close()
    made = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] not in {"work", "metrics.jsonl", "log.txt"}
    }
    return outcome, made


def units(root):
    return sorted((root / "work" / "units").glob("*.json"))


@pytest.fixture
def file(request, tmp_path, warc, japanese, page):
    """A file of each kind that is several units where a unit has 8000 bytes."""
    contents = [japanese(i, sentences=12) for i in range(24)]
    kind = request.param
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": one}, ensure_ascii=False) + "\n" for one in contents))
    elif kind == "jsonl.gz":
        noise = [random.Random(i).randbytes(2000).hex() for i in range(24)]
        rows = [json.dumps({"text": f"{one}", "x": x}) + "\n" for one, x in zip(contents, noise, strict=True)]
        path.write_bytes(gzip.compress("".join(rows).encode(), mtime=0))
    elif kind == "parquet":
        pq.write_table(pa.table({"text": contents}), path, row_group_size=5)
    else:
        inner = b"".join(warc.member(warc.record(page(one))) for one in contents[:9])
        pages = [warc.record(page(one), url=f"http://a.jp/{i}") for i, one in enumerate(contents)]
        pages.insert(12, warc.record(b"<html>" + inner, url="http://a.jp/warc"))
        path.write_bytes(b"".join(gzip.compress(one, 0 if i == 12 else 9) for i, one in enumerate(pages)))
    return path


@pytest.mark.parametrize("file", ["jsonl", "jsonl.gz", "parquet", "warc.gz"], indirect=True)
def test_stage_on_parts_of_a_file_makes_the_same_bytes_as_on_the_whole(tmp_path, file, monkeypatch):
    whole, expected = execute(tmp_path / "whole", file)
    assert len(units(tmp_path / "whole")) == 1
    monkeypatch.setattr(spans, "UNIT_BYTES", 8000)
    parts, made = execute(tmp_path / "parts", file)
    assert len(units(tmp_path / "parts")) > 2
    assert made == expected
    assert (parts.counts, parts.facts) == (whole.counts, whole.facts)
    if file.name != "a.warc.gz":  # there some were made in vain
        sizes = [read_json(path)["statistics"]["input_bytes"] for path in units(tmp_path / "parts")]
        assert sum(sizes) == file.stat().st_size


@pytest.mark.parametrize("file", ["warc.gz"], indirect=True)
def test_stage_makes_parts_anew_that_do_not_join_and_keeps_them(tmp_path, file, monkeypatch):
    monkeypatch.setattr(spans, "UNIT_BYTES", 8000)
    _, expected = execute(tmp_path / "out", file)
    made = units(tmp_path / "out")
    assert len(made) > -(-file.stat().st_size // 8000)  # those that were made in vain lie there too
    made[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in made[1:]}
    told = []
    assert execute(tmp_path / "out", file, told=told)[1] == expected
    assert {path: path.stat().st_mtime_ns for path in made[1:]} == before
    assert any("units" in note for *_, note in told)


@DAFT_LEAVES_PIPES_OPEN
@pytest.mark.slow
@pytest.mark.parametrize("file", ["warc.gz"], indirect=True)
def test_stage_on_parts_by_two_processes_makes_the_same_bytes(tmp_path, file, monkeypatch):
    monkeypatch.setattr(spans, "UNIT_BYTES", 8000)
    assert execute(tmp_path / "two", file, workers=2)[1] == execute(tmp_path / "one", file)[1]
    gc.collect()


@pytest.mark.parametrize("file", ["jsonl"], indirect=True)
def test_progress_moves_within_a_unit_and_leaves_nothing(tmp_path, file, monkeypatch):
    monkeypatch.setattr(unit_progress, "_EVERY_SECONDS", 0.0005)
    told = []
    execute(tmp_path / "out", file, told=told)
    total = file.stat().st_size / 1e6
    within = [event for event in told if event[2] == "MB" and 0 < event[0] < total]
    assert within
    assert [event[0] for event in within] == sorted(event[0] for event in within)
    assert all(event[1] == total and "pages/s" in event[3] for event in within)
    assert (total, total, "MB") in {event[:3] for event in told}
    assert not list(tmp_path.rglob("*.progress"))


def test_watch_adds_what_workers_say_and_forgets_what_dead_ones_said(tmp_path, monkeypatch):
    monkeypatch.setattr(unit_progress, "_EVERY_SECONDS", 0.001)
    (tmp_path / "dead.progress").write_text("999 9")
    told = []
    with Watch(tmp_path, lambda done, _: told.append(done)) as watch:
        watch.finished(100, 10)
        with UnitProgress(tmp_path / "a", 50) as first, UnitProgress(tmp_path / "b", 50) as second:
            (tmp_path / "c.progress").write_text("half a lin")
            time.sleep(0.01)
            first(20, 2)
            second(70, 7)  # more than the part has: a guess of the reader's
            deadline = time.monotonic() + 10
            while Amounts(170, 19, 1) not in told and time.monotonic() < deadline:
                time.sleep(0.001)
            assert (tmp_path / "a.progress").exists()
        assert not (tmp_path / "a.progress").exists()
        watch.finished(50, 7)
        watch.finished(50, 9)
    assert Amounts(170, 19, 1) in told
    assert told[-1] == Amounts(200, 26, 3)
    assert [done.bytes for done in told] == sorted(done.bytes for done in told)


def test_speed_tells_pages_a_second_and_the_time_left():
    assert speed(0, 0.0, 5) == "0 pages/s"
    assert speed(8, 0.01, 2) == "4 pages/s"
    assert speed(12_000, 0.25, 10) == "1,200 pages/s, 30 s left"
    assert speed(5, 0.01, 10).endswith(" 16 min left")
    assert speed(5, 0.001, 10).endswith(" 2.8 h left")
    assert speed(5, 1.0, 1).endswith(" 0 s left")


@pytest.mark.parametrize("file", ["parquet"], indirect=True)
def test_progress_without_sizes_counts_units(tmp_path, file, monkeypatch):
    found = stage.input_files
    unknown = lambda *given: [replace(one, bytes=None) for one in found(*given)]  # noqa: E731
    monkeypatch.setattr(stage, "input_files", unknown)
    told = []
    execute(tmp_path / "out", file, told=told)
    assert (1, 1, "units") in {event[:3] for event in told}
    assert read_json(units(tmp_path / "out")[0])["statistics"]["input_bytes"] == file.stat().st_size
