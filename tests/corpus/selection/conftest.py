"""A mirror of Common Crawl on loopback: an index, listings, WARC files with ranges, and faults on request."""

import csv
import gzip
import re
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

from tsugiki.corpus.read import Tally, read_warc
from tsugiki.corpus.selection.ask import make_ask
from tsugiki.corpus.selection.select import select
from tsugiki.corpus.transfer import Policy, Transfer
from tsugiki.languages import load_pack

SNAPSHOT = "CC-MAIN-2026-47"


CRAWL = Path(__file__).parents[3] / "examples" / "crawl"


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


def _run(out, server, *, policy=QUICK, progress=lambda *_: None, **options):
    ask = make_ask(
        load_pack(options.pop("language", "ja")), base=server.url, **({"snapshot": SNAPSHOT} | options)
    )
    with Transfer(policy) as transfer:
        return select(out, ask, transfer, progress)


def _wanted(rows, language="jpn", *, anywhere=False):
    return [
        row
        for row in rows
        if row["fetch_status"] == 200
        and row["content_mime_detected"] in {"text/html", "application/xhtml+xml"}
        and language in (row["content_languages"] or "").split(",")[: None if anywhere else 1]
    ]


def _pages(out):
    tally = Tally()
    found = [
        (page.url, page.body) for path in sorted(out.glob("*.warc.gz")) for page in read_warc(path, tally)
    ]
    return found, tally


def _contents(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


def _read_pairs(path):
    return [(page.url, page.body) for page in read_warc(path, Tally())]


@pytest.fixture(scope="session")
def run():
    return _run


@pytest.fixture(scope="session")
def wanted():
    return _wanted


@pytest.fixture(scope="session")
def pages():
    return _pages


@pytest.fixture(scope="session")
def contents():
    return _contents


@pytest.fixture(scope="session")
def read_pairs():
    return _read_pairs


@pytest.fixture(scope="session")
def index_schema():
    return SCHEMA


@pytest.fixture(scope="session")
def row_keys():
    return ROW_KEYS
