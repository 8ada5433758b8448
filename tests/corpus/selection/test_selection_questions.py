"""`tsugiki corpus select`: samples, limits, dry runs, other bases, wrong questions, the command."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.commands.corpus_select import progress_line
from tsugiki.commands.corpus_select import select as command
from tsugiki.corpus.selection.ask import make_ask
from tsugiki.corpus.selection.estimate import estimate
from tsugiki.corpus.selection.plan import make_plan
from tsugiki.corpus.selection.select import select
from tsugiki.corpus.transfer import Policy, Transfer
from tsugiki.errors import DataError, InputError
from tsugiki.languages import load_pack

SNAPSHOT = "CC-MAIN-2026-47"
QUICK = Policy(attempts=5, first_wait_seconds=0.01, longest_wait_seconds=0.05, timeout_seconds=5, seed=0)


def test_languages_any_takes_pages_with_the_language_in_second_place(tmp_path, mirror, server, run, wanted):
    primary = run(tmp_path / "a", server)["counts"]["records"]
    anywhere = run(tmp_path / "b", server, languages="any")["counts"]["records"]
    assert (primary, anywhere) == (len(wanted(mirror[1])), len(wanted(mirror[1], anywhere=True)))
    assert anywhere > primary


def test_samples_are_nested_and_limits_exact(tmp_path, server, run, pages):
    def urls(name, **options):
        run(tmp_path / name, server, **options)
        return {url for url, _ in pages(tmp_path / name)[0]}

    tenth, half = urls("a", sample=0.1), urls("b", sample=0.5)
    assert tenth < half
    assert 0.4 < len(half) / len(urls("c")) < 0.6
    result = run(tmp_path / "d", server, limit=25)
    assert result["counts"]["records"] == 25
    assert {url for url, _ in pages(tmp_path / "d")[0]} <= urls("e", limit=50)


def test_blocked_hosts_and_long_records_are_left_out_and_counted(tmp_path, mirror, server, run, wanted):
    rows = wanted(mirror[1])
    host = Counter(row["url_host_name"] for row in rows).most_common(1)[0][0]
    (tmp_path / "hosts.txt").write_text(f"# a comment\n{host.upper()}\nnowhere.test\n")
    result = run(tmp_path / "out", server, blocked_hosts=tmp_path / "hosts.txt", maximum_bytes=20_000)
    blocked = [
        row
        for row in rows
        if f".{row['url_host_name']}".endswith(f".{host}") and row["warc_record_length"] <= 20_000
    ]
    assert len({row["url_host_name"] for row in blocked}) > 1  # hosts below the listed one go with it
    long = [row for row in rows if row["warc_record_length"] > 20_000]
    assert result["left_out"]["blocked host"] == len(blocked) > 0
    assert result["left_out"]["too long"] == len(long) > 0
    assert result["counts"]["records"] == len(rows) - len(blocked) - len(long)


def test_dry_run_fetches_no_page_and_foretells_the_real_run(tmp_path, mirror, server, run):
    ask = make_ask(load_pack("ja"), base=server.url, snapshot=SNAPSHOT)
    with Transfer(QUICK) as transfer:
        plan = make_plan(tmp_path / "out", ask, transfer, lambda *_: None)
        found = estimate(plan, ask, transfer)
    assert not any(path.endswith(".warc.gz") and method == "GET" for method, path, _ in server.asked)
    assert found.seconds > 0
    assert found.bytes_of_whole_warc_files > plan.bytes_fetched
    result = run(tmp_path / "out", server)["counts"]
    assert (plan.records, plan.requests, plan.bytes_fetched) == (
        result["records"],
        result["requests"],
        result["bytes_fetched"],
    )


def test_index_files_reads_some_and_scales_the_estimate(tmp_path, server):
    ask = make_ask(load_pack("ja"), base=server.url, snapshot=SNAPSHOT, index_files=1)
    with Transfer(QUICK) as transfer:
        plan = make_plan(tmp_path / "out", ask, transfer, lambda *_: None)
        assert (plan.index_files, plan.index_files_known) == (1, 2)
        assert estimate(plan, ask, transfer).scaled_records == 2 * plan.records


def test_dry_run_of_another_question_does_not_stand_in_the_way(tmp_path, server, run):
    options = {"language": "ja", "snapshot": SNAPSHOT, "base": server.url, "json": True}
    command(tmp_path / "out", index_files=1, dry_run=True, **options)
    assert run(tmp_path / "out", server) == run(tmp_path / "clean", server)


def test_local_folder_as_base_gives_the_same_files_as_http(tmp_path, mirror, server, run):
    remote = run(tmp_path / "a", server)
    ask = make_ask(load_pack("ja"), base=str(mirror[0]), snapshot=SNAPSHOT)
    with Transfer(QUICK) as transfer:
        local = select(tmp_path / "b", ask, transfer, lambda *_: None)
    assert local["files"] == remote["files"]


def test_nothing_of_the_language_is_an_error_that_says_what_was_seen(
    tmp_path, mirror, server, run, wanted, index_schema
):
    row = {**wanted(mirror[1])[0], "content_mime_detected": "application/pdf"}
    pq.write_table(pa.Table.from_pylist([row], schema=index_schema), tmp_path / "index.parquet")
    with pytest.raises(DataError, match="1 rows in 1 files.*"):
        run(tmp_path / "out", server, snapshot=None, index=(str(tmp_path / "index.parquet"),))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop_columns(["content_languages"]), "lacks content_languages"),
        (
            lambda table: table.set_column(3, "fetch_status", pa.array(["200"] * len(table))),
            "expected integers",
        ),
    ],
)
def test_index_of_another_shape_is_refused(tmp_path, mirror, server, change, words, run, index_schema):
    table = pa.Table.from_pylist(mirror[1][:5], schema=index_schema)
    pq.write_table(change(table), tmp_path / "index.parquet")
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", server, snapshot=None, index=(str(tmp_path / "index.parquet"),))


def test_index_that_is_no_parquet_is_refused(tmp_path, server, run):
    (tmp_path / "index.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match="can't be read as Parquet"):
        run(tmp_path / "out", server, snapshot=None, index=(str(tmp_path / "index.parquet"),))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snapshot": "2024-51"}, "no snapshot"),
        ({}, "either a snapshot or index"),
        ({"snapshot": SNAPSHOT, "connections": 500}, "--connections is 500"),
        ({"snapshot": SNAPSHOT, "sample": 0.0}, "--sample is 0"),
        ({"snapshot": SNAPSHOT, "name": "a/b"}, "--name"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(InputError, match=words):
        make_ask(load_pack("ja"), **options)


def test_command_prints_plan_and_result(tmp_path, server, capsys):
    options = {"language": "ko", "snapshot": SNAPSHOT, "base": server.url}
    command(tmp_path / "out", dry_run=True, **options)
    assert "to fetch" in capsys.readouterr().out
    command(tmp_path / "out", **options)
    assert "records of" in capsys.readouterr().out
    command(tmp_path / "out", json=True, **options)
    assert json.loads(capsys.readouterr().out)["counts"]["records"] > 0


def test_progress_line_says_rate_and_rest():
    line = progress_line("fetch", (600, 1000), (200, 50_000_000), 10.0)
    assert line == "600/1000 records (60%), 20 records/s, 5.0 MB/s, ETA 20 s"
