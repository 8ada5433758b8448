"""`tsugiki corpus select` against a real server on loopback: what is fetched, faults, kills, reruns."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.corpus.selection.ranges import Row, merge
from tsugiki.corpus.transfer import Policy
from tsugiki.errors import DriftError, InputError, StageError

SNAPSHOT = "CC-MAIN-2026-47"


def test_selection_from_a_snapshot_holds_exactly_the_index_rows_of_the_language(
    tmp_path, mirror, server, run, wanted, pages, read_pairs
):
    root, rows = mirror
    result = run(tmp_path / "out", server, gap=0)
    expected = wanted(rows)
    assert 200 < len(expected) < len(rows)
    data = b"".join(
        (root / row["warc_filename"]).read_bytes()[row["warc_record_offset"] :][: row["warc_record_length"]]
        for row in sorted(expected, key=lambda row: (row["warc_filename"], row["warc_record_offset"]))
    )
    assert (tmp_path / "out" / f"selected-{SNAPSHOT}-ja-00000.warc.gz").read_bytes() == data
    found, tally = pages(tmp_path / "out")
    whole = {url: body for path in root.rglob("*.warc.gz") for url, body in read_pairs(path)}
    urls = {row["url"] for row in expected}
    assert dict(found) == {url: body for url, body in whole.items() if url in urls}
    assert tally.records == len(expected)
    assert not tally.warnings
    counts = result["counts"]
    assert counts["records"] == counts["records_wanted"] == len(expected)
    assert counts["index_files"] == 2  # the listing's other subset is not read
    assert not (tmp_path / "out" / "work").exists()


def test_selection_fetches_only_the_bytes_of_its_ranges(tmp_path, mirror, server, run, wanted):
    root, rows = mirror
    result = run(tmp_path / "out", server, gap=0)
    from_warcs = sum(size for path, size in server.sent.items() if path.endswith(".warc.gz"))
    asked = sum(row["warc_record_length"] for row in wanted(rows))
    assert from_warcs == asked == result["counts"]["bytes_fetched"] == result["counts"]["bytes_asked"]
    whole = sum(path.stat().st_size for path in root.rglob("*.warc.gz"))
    assert result["counts"]["bytes_of_whole_warc_files"] == whole
    assert result["counts"]["bytes_saved"] == whole - asked
    assert all(agent.startswith("tsugiki/") for agent in server.agents)


def test_merged_neighbours_give_the_same_bytes_with_fewer_requests(tmp_path, server, run):
    apart = run(tmp_path / "a", server, gap=0)
    merged = run(tmp_path / "b", server, gap=64 << 10)
    assert merged["counts"]["requests"] < apart["counts"]["requests"] / 4
    assert merged["counts"]["bytes_fetched"] > apart["counts"]["bytes_fetched"]
    assert merged["files"] == apart["files"]


def test_concurrency_changes_no_byte(tmp_path, server, run, contents):
    options = {"file_bytes": 300_000, "gap": 0}
    one = run(tmp_path / "a", server, connections=1, **options)
    many = run(tmp_path / "b", server, connections=16, policy=Policy(connections=16), **options)
    assert len(one["files"]) >= 3
    assert one == many
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_every_passing_fault_is_survived(tmp_path, server, run, contents):
    clean = run(tmp_path / "clean", server, gap=0)
    kinds = [503, 429, "short", "reset", "range", "slow", None]
    seen = Counter()

    def fault(path, span, times):
        if not path.endswith((".warc.gz", ".parquet")) or times > 1:
            return None
        kind = kinds[sum(map(ord, path + (span or ""))) % len(kinds)]
        seen[kind] += 1
        return kind

    server.fault = fault
    server.asked.clear()
    assert run(tmp_path / "out", server, gap=0) == clean
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")
    assert all(seen[kind] > 0 for kind in kinds)


def test_lasting_faults_are_listed_with_file_offset_and_reason(
    tmp_path, mirror, server, run, wanted, row_keys
):
    rows = sorted(wanted(mirror[1]), key=lambda row: (row["warc_filename"], row["warc_record_offset"]))
    alone = [
        request
        for request in merge([Row(*map(row.get, row_keys)) for row in rows], gap=0)
        if len(request.rows) == 1
    ]
    chosen = dict(zip((404, 503, "damage", "whole"), alone, strict=False))
    kinds = {
        (f"/{request.file}", f"bytes={request.offset}-{request.offset + request.length - 1}"): kind
        for kind, request in chosen.items()
    }
    server.fault = lambda path, span, _: kinds.get((path, span))
    result = run(tmp_path / "out", server, gap=0, maximum_failed=0.05)
    lines = [json.loads(line) for line in (tmp_path / "out" / "failures.jsonl").read_text().splitlines()]
    assert {(line["file"], line["offset"], line["url"]): line["reason"] for line in lines} == {
        (chosen[kind].file, chosen[kind].offset, chosen[kind].rows[0].url): reason
        for kind, reason in ((404, "status 404"), (503, "gave up"), ("damage", "not a gzip member"))
    }  # and not "whole": a small file may come whole in place of a range
    assert result["counts"]["failed"] == 3 == sum(result["failed"].values())
    assert result["counts"]["records"] == len(rows) - 3


def test_too_many_failures_end_it_early_and_the_rerun_asks_again(tmp_path, server, run, contents):
    server.fault = lambda path, *_: 503 if path.endswith(".warc.gz") else None
    with pytest.raises(StageError, match="failed; at most") as caught:
        run(tmp_path / "out", server, policy=Policy(attempts=2, first_wait_seconds=0.001))
    assert "gave up after 2 attempts" in str(caught.value)
    assert "--max-failed" in caught.value.hint
    server.fault = lambda *_: None
    assert run(tmp_path / "out", server) == run(tmp_path / "clean", server)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_given_up_requests_of_a_finished_file_are_asked_again_by_the_rerun(tmp_path, server, run, contents):
    def stop(phase, done, total, _):
        if phase == "fetch" and done > total // 2:
            raise KeyboardInterrupt

    options = {"gap": 0, "file_bytes": 200_000, "maximum_failed": 0.5}
    server.fault = lambda path, span, _: (
        503 if "sample-001" in path and sum(map(ord, span)) % 3 == 0 else None
    )
    patience = Policy(attempts=1, first_wait_seconds=0.001)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", server, policy=patience, progress=stop, **options)
    units = [json.loads(path.read_text()) for path in (tmp_path / "out" / "work" / "done").iterdir()]
    assert any(failure["reason"] == "gave up" for unit in units for failure in unit["failures"])
    server.fault = lambda *_: None
    assert run(tmp_path / "out", server, **options) == run(tmp_path / "clean", server, **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_silent_server_ends_it_whatever_share_may_fail(tmp_path, server, run):
    server.fault = lambda path, *_: 503 if path.endswith(".warc.gz") else None
    patience = Policy(attempts=1, first_wait_seconds=0.001)
    with pytest.raises(StageError, match="24 requests in a row were given up"):
        run(tmp_path / "out", server, policy=patience, gap=0, maximum_failed=1.0)


def test_an_index_that_lies_about_a_record_is_noticed(tmp_path, mirror, server, run, wanted, index_schema):
    rows = [dict(row) for row in wanted(mirror[1])[:40]]
    rows[0]["url"] += "?other"
    rows[1]["warc_record_length"] -= 1
    rows[2]["warc_record_length"] += 1
    rows[3]["warc_record_offset"] = 2_000_000_000
    rows[4]["warc_filename"] = "../../etc/passwd"
    rows[5]["warc_record_length"] = -1
    pq.write_table(pa.Table.from_pylist(rows, schema=index_schema), tmp_path / "index.parquet")
    options = {"snapshot": None, "index": (str(tmp_path / "index.parquet"),), "maximum_failed": 0.2}
    result = run(tmp_path / "out", server, **options)
    assert result["failed"] == {"another page": 1, "cut short": 1, "wrong length": 1, "status 416": 1}
    assert result["left_out"] == {"unusable row": 2}
    assert result["counts"]["records"] == 34


def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(tmp_path, server, run, contents):
    clean = run(tmp_path / "clean", server, gap=0, file_bytes=200_000)
    program = (
        "import sys; from pathlib import Path; from tsugiki.commands.corpus_select import select\n"
        "select(Path(sys.argv[1]), language='ja', snapshot=sys.argv[3], base=sys.argv[2], gap=0,"
        " file_bytes=200_000, connections=2, json=True)"
    )
    server.fault = lambda path, *_: "slow" if path.endswith(".warc.gz") else None
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", program, str(out), server.url, SNAPSHOT]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not list(out.glob("work/done/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_ino for path in out.glob("*.warc.gz")}
    assert kept
    assert not (out / "selection.json").exists()
    assert len(kept) < len(clean["files"])
    server.fault = lambda *_: None
    assert run(out, server, gap=0, file_bytes=200_000) == clean
    assert contents(out) == contents(tmp_path / "clean")
    done = [name for name in kept if (out / name).stat().st_ino == kept[name]]
    assert done  # finished files were kept, not fetched again


def test_finished_selection_is_reused_and_another_question_refused(tmp_path, server, run):
    first = run(tmp_path / "out", server)
    server.asked.clear()
    assert run(tmp_path / "out", server) == first
    assert not server.asked
    with pytest.raises(DriftError, match="sample: 1.0 -> 0.5"):
        run(tmp_path / "out", server, sample=0.5)


def test_foreign_directory_is_refused(tmp_path, server, run):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no selection made"):
        run(tmp_path, server)
