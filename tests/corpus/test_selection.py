"""`tsugiki corpus select` against a real server on loopback: an index, listings, WARC files with ranges."""

import csv
import gzip
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.commands.corpus_select import progress_line
from tsugiki.commands.corpus_select import select as command
from tsugiki.corpus.read import Tally, read_warc
from tsugiki.corpus.selection.ask import make_ask
from tsugiki.corpus.selection.estimate import estimate
from tsugiki.corpus.selection.plan import make_plan
from tsugiki.corpus.selection.ranges import Row, merge
from tsugiki.corpus.selection.select import select
from tsugiki.corpus.transfer import Policy, Transfer
from tsugiki.errors import DataError, DriftError, InputError, StageError
from tsugiki.languages import load_pack

SNAPSHOT = "CC-MAIN-2026-47"
CRAWL = Path(__file__).parents[2] / "examples" / "crawl"
CODES = {"ja": "jpn", "en": "eng", "ko": "kor", "zh": "zho", "de": "deu", "": None}
TABLE = f"cc-index/table/cc-main/warc/crawl={SNAPSHOT}"


def members(data):
    """Offset, length and content of each whole gzip member."""
    offset = 0
    while offset < len(data):
        inflate = zlib.decompressobj(31)
        content = inflate.decompress(data[offset:])
        if not inflate.eof:
            return
        length = len(data) - offset - len(inflate.unused_data)
        yield offset, length, content
        offset += length


def index_rows(name, data, languages):
    for offset, length, content in members(data):
        head, _, http = content.partition(b"\r\n\r\n")
        uri = re.search(rb"WARC-Target-URI: <?([^>\r\n]+)", head)
        if b"WARC-Type: response" not in head or not uri:
            continue
        status = re.match(rb"HTTP/1\.[01] (\d{3})", http)
        kind = re.search(rb"(?i)^content-type: *([^;\r\n]+)", http.partition(b"\r\n\r\n")[0], re.MULTILINE)
        url = uri[1].decode()
        yield {
            "url_surtkey": url.removeprefix("http://"),
            "url": url,
            "url_host_name": url.split("/")[2],
            "fetch_status": int(status[1]) if status else 0,
            "content_mime_detected": kind[1].decode("latin-1").strip().lower() if kind else None,
            "content_charset": "UTF-8",
            "content_languages": languages.get(url),
            "warc_filename": name,
            "warc_record_offset": offset,
            "warc_record_length": length,
            "warc_segment": "1",
        }


ROW_KEYS = ("warc_filename", "warc_record_offset", "warc_record_length", "url")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("url_surtkey", "url", "url_host_name")]
    + [("fetch_status", pa.int16())]
    + [(name, pa.string()) for name in ("content_mime_detected", "content_charset", "content_languages")]
    + [("warc_filename", pa.string()), ("warc_record_offset", pa.int32()), ("warc_record_length", pa.int32())]
    + [("warc_segment", pa.string())]
)


@pytest.fixture(scope="session")
def mirror(tmp_path_factory):
    """A mirror of Common Crawl with one snapshot: three of the example's WARC files, two index files."""
    root = tmp_path_factory.mktemp("mirror")
    with (CRAWL / "truth.csv").open(encoding="utf-8") as file:
        truth = {row["url"]: row["language"] for row in csv.DictReader(file)}
    languages = {url: CODES[code] for url, code in truth.items()}
    japanese = sorted(url for url, code in languages.items() if code == "jpn")
    languages |= dict.fromkeys(japanese[::7], "jpn,eng") | dict.fromkeys(japanese[3::50], "eng,jpn")
    rows = []
    for i in (1, 4, 8):  # sample-008 is cut at its end
        name = f"crawl-data/{SNAPSHOT}/segments/1/warc/sample-{i:03d}.warc.gz"
        data = (CRAWL / f"sample-{i:03d}.warc.gz").read_bytes()
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        rows += index_rows(name, data, languages)
    rows.sort(key=lambda row: row["url_surtkey"])
    paths = []
    for number, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        for subset in ("warc", "crawldiagnostics"):
            name = f"{TABLE}/subset={subset}/part-{number:05d}.gz.parquet"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(part if subset == "warc" else part[:3], schema=SCHEMA)
            pq.write_table(table, root / name, row_group_size=64)
            paths.append(name)
    listing = root / f"crawl-data/{SNAPSHOT}/cc-index-table.paths.gz"
    listing.write_bytes(gzip.compress("\n".join(paths).encode(), mtime=0))
    return root, rows


class Server:
    """Serves a folder with ranges. `fault(path, range, times)` may return a way to misbehave."""

    def __init__(self, root):  # noqa: C901 (a handler in a closure)
        self.asked = Counter()
        self.ranges = []
        self.sent = Counter()
        self.agents = set()
        self.fault = lambda *_: None
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, *, body):
                path = unquote(self.path.partition("?")[0])
                span = self.headers.get("Range")
                with lock:
                    outer.agents.add(self.headers.get("User-Agent"))
                    outer.asked[self.command, path, span] += 1
                    times = outer.asked[self.command, path, span]
                fault = outer.fault(path, span, times) if body else None
                if isinstance(fault, int):
                    self.send_response(fault)
                    self.send_header("Retry-After", "0")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                file = root / path.lstrip("/")
                if not file.is_file():
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_file(path, file.read_bytes(), span, fault, body=body)

            def send_file(self, path, data, span, fault, *, body):
                first, last = 0, len(data) - 1
                if span and fault != "whole":
                    a, b = re.fullmatch(r"bytes=(\d+)-(\d*)", span).groups()
                    first, last = int(a), min(int(b or last), last)
                    if first > last:
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{len(data)}")
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    shift = 1 if fault == "range" else 0
                    self.send_header("Content-Range", f"bytes {first + shift}-{last + shift}/{len(data)}")
                else:
                    self.send_response(200)
                piece = data[first : last + 1]
                if fault == "damage":
                    piece = b"\0" * len(piece)
                self.send_header("Content-Length", str(len(piece)))
                self.end_headers()
                if not body:
                    return
                if fault == "slow":
                    time.sleep(0.05)
                if fault in {"short", "reset"}:
                    piece = piece[: len(piece) // 2]
                self.wfile.write(piece)
                with lock:
                    outer.sent[path] += len(piece)
                    if span:
                        outer.ranges.append((path, first, len(piece)))
                if fault == "short":
                    self.close_connection = True
                if fault == "reset":
                    self.wfile.flush()
                    self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0: a reset, not an end
                    self.connection.close()
                    self.close_connection = True

            def finish(self):
                with suppress(OSError):
                    super().finish()

        class Quiet(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_):
                pass

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=lambda: self.http.serve_forever(0.01), daemon=True)
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(mirror):
    server = Server(mirror[0])
    yield server
    server.close()


QUICK = Policy(attempts=5, first_wait_seconds=0.01, longest_wait_seconds=0.05, timeout_seconds=5, seed=0)


def run(out, server, *, policy=QUICK, progress=lambda *_: None, **options):
    ask = make_ask(
        load_pack(options.pop("language", "ja")), base=server.url, **({"snapshot": SNAPSHOT} | options)
    )
    with Transfer(policy) as transfer:
        return select(out, ask, transfer, progress)


def wanted(rows, language="jpn", *, anywhere=False):
    return [
        row
        for row in rows
        if row["fetch_status"] == 200
        and row["content_mime_detected"] in {"text/html", "application/xhtml+xml"}
        and language in (row["content_languages"] or "").split(",")[: None if anywhere else 1]
    ]


def pages(out):
    tally = Tally()
    found = [
        (page.url, page.body) for path in sorted(out.glob("*.warc.gz")) for page in read_warc(path, tally)
    ]
    return found, tally


def contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


def test_selection_from_a_snapshot_holds_exactly_the_index_rows_of_the_language(tmp_path, mirror, server):
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


def read_pairs(path):
    return [(page.url, page.body) for page in read_warc(path, Tally())]


def test_selection_fetches_only_the_bytes_of_its_ranges(tmp_path, mirror, server):
    root, rows = mirror
    result = run(tmp_path / "out", server, gap=0)
    from_warcs = sum(size for path, size in server.sent.items() if path.endswith(".warc.gz"))
    asked = sum(row["warc_record_length"] for row in wanted(rows))
    assert from_warcs == asked == result["counts"]["bytes_fetched"] == result["counts"]["bytes_asked"]
    whole = sum(path.stat().st_size for path in root.rglob("*.warc.gz"))
    assert result["counts"]["bytes_of_whole_warc_files"] == whole
    assert result["counts"]["bytes_saved"] == whole - asked
    assert all(agent.startswith("tsugiki/") for agent in server.agents)


def test_merged_neighbours_give_the_same_bytes_with_fewer_requests(tmp_path, server):
    apart = run(tmp_path / "a", server, gap=0)
    merged = run(tmp_path / "b", server, gap=64 << 10)
    assert merged["counts"]["requests"] < apart["counts"]["requests"] / 4
    assert merged["counts"]["bytes_fetched"] > apart["counts"]["bytes_fetched"]
    assert merged["files"] == apart["files"]


def test_concurrency_changes_no_byte(tmp_path, server):
    options = {"file_bytes": 300_000, "gap": 0}
    one = run(tmp_path / "a", server, connections=1, **options)
    many = run(tmp_path / "b", server, connections=16, policy=Policy(connections=16), **options)
    assert len(one["files"]) >= 3
    assert one == many
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_every_passing_fault_is_survived(tmp_path, server):
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


def test_lasting_faults_are_listed_with_file_offset_and_reason(tmp_path, mirror, server):
    rows = sorted(wanted(mirror[1]), key=lambda row: (row["warc_filename"], row["warc_record_offset"]))
    alone = [
        request
        for request in merge([Row(*map(row.get, ROW_KEYS)) for row in rows], gap=0)
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


def test_too_many_failures_end_it_early_and_the_rerun_asks_again(tmp_path, server):
    server.fault = lambda path, *_: 503 if path.endswith(".warc.gz") else None
    with pytest.raises(StageError, match="failed; at most") as caught:
        run(tmp_path / "out", server, policy=Policy(attempts=2, first_wait_seconds=0.001))
    assert "gave up after 2 attempts" in str(caught.value)
    assert "--max-failed" in caught.value.hint
    server.fault = lambda *_: None
    assert run(tmp_path / "out", server) == run(tmp_path / "clean", server)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_given_up_requests_of_a_finished_file_are_asked_again_by_the_rerun(tmp_path, server):
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


def test_silent_server_ends_it_whatever_share_may_fail(tmp_path, server):
    server.fault = lambda path, *_: 503 if path.endswith(".warc.gz") else None
    patience = Policy(attempts=1, first_wait_seconds=0.001)
    with pytest.raises(StageError, match="24 requests in a row were given up"):
        run(tmp_path / "out", server, policy=patience, gap=0, maximum_failed=1.0)


def test_an_index_that_lies_about_a_record_is_noticed(tmp_path, mirror, server):
    rows = [dict(row) for row in wanted(mirror[1])[:40]]
    rows[0]["url"] += "?other"
    rows[1]["warc_record_length"] -= 1
    rows[2]["warc_record_length"] += 1
    rows[3]["warc_record_offset"] = 2_000_000_000
    rows[4]["warc_filename"] = "../../etc/passwd"
    rows[5]["warc_record_length"] = -1
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "index.parquet")
    options = {"snapshot": None, "index": (str(tmp_path / "index.parquet"),), "maximum_failed": 0.2}
    result = run(tmp_path / "out", server, **options)
    assert result["failed"] == {"another page": 1, "cut short": 1, "wrong length": 1, "status 416": 1}
    assert result["left_out"] == {"unusable row": 2}
    assert result["counts"]["records"] == 34


def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(tmp_path, server):
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


def test_finished_selection_is_reused_and_another_question_refused(tmp_path, server):
    first = run(tmp_path / "out", server)
    server.asked.clear()
    assert run(tmp_path / "out", server) == first
    assert not server.asked
    with pytest.raises(DriftError, match="sample: 1.0 -> 0.5"):
        run(tmp_path / "out", server, sample=0.5)


def test_foreign_directory_is_refused(tmp_path, server):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="no selection made"):
        run(tmp_path, server)


def test_languages_any_takes_pages_with_the_language_in_second_place(tmp_path, mirror, server):
    primary = run(tmp_path / "a", server)["counts"]["records"]
    anywhere = run(tmp_path / "b", server, languages="any")["counts"]["records"]
    assert (primary, anywhere) == (len(wanted(mirror[1])), len(wanted(mirror[1], anywhere=True)))
    assert anywhere > primary


def test_samples_are_nested_and_limits_exact(tmp_path, server):
    def urls(name, **options):
        run(tmp_path / name, server, **options)
        return {url for url, _ in pages(tmp_path / name)[0]}

    tenth, half = urls("a", sample=0.1), urls("b", sample=0.5)
    assert tenth < half
    assert 0.4 < len(half) / len(urls("c")) < 0.6
    result = run(tmp_path / "d", server, limit=25)
    assert result["counts"]["records"] == 25
    assert {url for url, _ in pages(tmp_path / "d")[0]} <= urls("e", limit=50)


def test_blocked_hosts_and_long_records_are_left_out_and_counted(tmp_path, mirror, server):
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


def test_dry_run_fetches_no_page_and_foretells_the_real_run(tmp_path, mirror, server):
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


def test_dry_run_of_another_question_does_not_stand_in_the_way(tmp_path, server):
    options = {"language": "ja", "snapshot": SNAPSHOT, "base": server.url, "json": True}
    command(tmp_path / "out", index_files=1, dry_run=True, **options)
    assert run(tmp_path / "out", server) == run(tmp_path / "clean", server)


def test_local_folder_as_base_gives_the_same_files_as_http(tmp_path, mirror, server):
    remote = run(tmp_path / "a", server)
    ask = make_ask(load_pack("ja"), base=str(mirror[0]), snapshot=SNAPSHOT)
    with Transfer(QUICK) as transfer:
        local = select(tmp_path / "b", ask, transfer, lambda *_: None)
    assert local["files"] == remote["files"]


def test_nothing_of_the_language_is_an_error_that_says_what_was_seen(tmp_path, mirror, server):
    row = {**wanted(mirror[1])[0], "content_mime_detected": "application/pdf"}
    pq.write_table(pa.Table.from_pylist([row], schema=SCHEMA), tmp_path / "index.parquet")
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
def test_index_of_another_shape_is_refused(tmp_path, mirror, server, change, words):
    table = pa.Table.from_pylist(mirror[1][:5], schema=SCHEMA)
    pq.write_table(change(table), tmp_path / "index.parquet")
    with pytest.raises(InputError, match=words):
        run(tmp_path / "out", server, snapshot=None, index=(str(tmp_path / "index.parquet"),))


def test_index_that_is_no_parquet_is_refused(tmp_path, server):
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
