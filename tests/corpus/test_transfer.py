"""The HTTP client against a real server on loopback that misbehaves as told."""

import io
import re
import threading
import time
from contextlib import suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus.transfer import Policy, Transfer
from tsugiki.corpus.transfer_answers import GaveUpError, HttpStatusError, StoppedError, retry_after, shown
from tsugiki.errors import InputError

DATA = bytes(i * 7 % 251 for i in range(3_000_000))
QUICK = Policy(attempts=4, first_wait_seconds=0.005, longest_wait_seconds=0.02, timeout_seconds=1, seed=1)


class Scripted:
    """Answers GET with ranges of `data`; `script` holds one fault for each of the first requests."""

    def __init__(self):  # noqa: C901 (a handler in a closure)
        self.data, self.script, self.requests, self.etag = DATA, [], [], '"one"'
        self.active = self.most_active = 0
        self.hold = 0.0
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer()

            def do_GET(self):
                self.answer()

            def answer(self):
                with lock:
                    outer.active += 1
                    outer.most_active = max(outer.most_active, outer.active)
                    outer.requests.append((self.command, self.headers.get("Range"), time.monotonic()))
                    fault = outer.script.pop(0) if outer.script else None
                time.sleep(outer.hold)  # the client surely waits here; later its reading may overtake us
                with lock:
                    outer.active -= 1
                self.respond(fault)

            def respond(self, fault):  # noqa: C901 (as above)
                status, headers = fault if isinstance(fault, tuple) else (fault, {})
                if isinstance(status, int):
                    self.send_response(status)
                    for name, value in {"Content-Length": "0", **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    return
                if status == "silence":
                    time.sleep(1.5)
                span, data = self.headers.get("Range"), outer.data
                fresh = self.headers.get("If-Range") in {None, outer.etag}
                first, last = 0, len(data) - 1
                if span and fresh and status != "whole":
                    a, b = re.fullmatch(r"bytes=(\d+)-(\d*)", span).groups()
                    first, last = int(a), min(int(b or last), last)
                    if first > last:
                        self.send_response(416)
                        self.send_header("Content-Length", "0")
                        self.end_headers()
                        return
                    self.send_response(206)
                    moved = first + 1 if status == "moved" else first
                    said = "bytes nonsense" if status == "nonsense" else f"bytes {moved}-{last}/{len(data)}"
                    self.send_header("Content-Range", said)
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(last - first + 1))
                if outer.etag:
                    self.send_header("ETag", outer.etag)
                self.end_headers()
                piece = data[first : last + 1]
                if status in {"short", "reset"}:
                    piece = piece[: len(piece) // 2]
                if self.command == "GET":
                    self.wfile.write(piece)
                if status in {"short", "reset"}:
                    self.wfile.flush()
                    if status == "reset":
                        self.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER 0
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
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.bin?token=SECRET"
        threading.Thread(target=lambda: self.http.serve_forever(0.01), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def transfer():
    with Transfer(QUICK) as transfer:
        yield transfer


def test_range_gives_exactly_the_bytes(server, transfer):
    assert transfer.get_range(server.url, 1000, 777) == DATA[1000:1777]
    assert transfer.traffic.bytes == 777
    assert transfer.traffic.requests == 1


@pytest.mark.parametrize("fault", [503, 429, 500, "short", "reset", "moved", "nonsense", "silence"])
def test_passing_fault_is_retried_until_it_is_gone(server, transfer, fault):
    server.script = [fault]
    assert transfer.get_range(server.url, 5, 100_000) == DATA[5:100_005]
    assert transfer.traffic.retries == 1


def test_lasting_fault_is_given_up_with_attempts_and_status_but_no_secret(server, transfer):
    server.script = [503] * 9
    with pytest.raises(GaveUpError, match="gave up after 4 attempts; the last: status 503") as caught:
        transfer.get_range(server.url, 0, 10)
    assert len(server.requests) == 4
    assert "file.bin" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_final_status_is_not_retried(server, transfer, status):
    server.script = [status]
    with pytest.raises(HttpStatusError, match=f"status {status}") as caught:
        transfer.get_range(server.url, 0, 10)
    assert caught.value.status == status
    assert len(server.requests) == 1
    assert caught.value.hint


def test_range_behind_the_end_is_final(server, transfer):
    with pytest.raises(HttpStatusError) as caught:
        transfer.get_range(server.url, len(DATA) + 5, 10)
    assert caught.value.status == 416
    assert len(server.requests) == 1


def test_whole_answer_to_a_range_is_refused_where_large_and_cut_where_small(server, transfer):
    server.script = ["whole"]
    with pytest.raises(HttpStatusError, match="sends the whole file"):
        transfer.get_range(server.url, 10, 10)
    assert transfer.traffic.bytes == 0  # its body was not read
    server.data, server.script = DATA[:5000], ["whole"]
    assert transfer.get_range(server.url, 10, 10) == DATA[10:20]


def test_retry_after_is_honoured_by_every_thread(server):
    server.script = [(503, {"Retry-After": "1"})]
    with Transfer(QUICK) as transfer:
        transfer.get_range(server.url, 0, 10)
        again = server.requests[1][2] - server.requests[0][2]
        assert again >= 0.99
        server.script = [(503, {"Retry-After": "1"})]
        other = threading.Thread(target=transfer.get_range, args=(server.url, 0, 10))
        other.start()
        while len(server.requests) < 3:
            time.sleep(0.005)
        time.sleep(0.05)
        transfer.get_range(server.url, 20, 10)  # this thread never saw the 503, and waits all the same
        other.join()
    assert server.requests[3][2] - server.requests[2][2] >= 0.99


def test_waits_grow_and_repeat_under_a_seed(server):
    def waits():
        server.requests.clear()
        server.script = [503] * 3
        with Transfer(Policy(attempts=4, first_wait_seconds=0.05, seed=7)) as transfer:
            transfer.get_range(server.url, 0, 10)
        times = [when for _, _, when in server.requests]
        return [after - before for before, after in pairwise(times)]

    first, second = waits(), waits()
    for number, (one, two) in enumerate(zip(first, second, strict=True)):
        assert 0.025 * 2**number <= one < 0.05 * 2**number + 0.05
        assert abs(one - two) < 0.04


def test_requests_in_flight_stay_below_the_cap(server):
    server.hold = 0.02
    with Transfer(Policy(connections=3)) as transfer:
        threads = [
            threading.Thread(target=transfer.get_range, args=(server.url, i * 1000, 500_000))
            for i in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.most_active == 3


def test_close_ends_waiting_at_once(server):
    server.script = [(503, {"Retry-After": "60"})] * 2
    transfer = Transfer(QUICK)
    failed = []

    def ask():
        try:
            transfer.get_range(server.url, 0, 10)
        except StoppedError:
            failed.append("stopped")

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.requests:
        time.sleep(0.005)
    transfer.close()
    thread.join(timeout=5)
    assert failed == ["stopped"]


def test_size_is_found_with_and_without_head(server, transfer):
    assert transfer.size_of(server.url) == len(DATA)
    server.script = [405]
    assert transfer.size_of(server.url) == len(DATA)
    assert [method for method, _, _ in server.requests] == ["HEAD", "HEAD", "GET"]


def test_download_survives_breaks_and_fetches_no_byte_twice(server, transfer, tmp_path):
    server.script = ["short", "reset", 503, "short"]
    pieces = []
    transfer.download(server.url, tmp_path / "file.bin", pieces.append)
    assert (tmp_path / "file.bin").read_bytes() == DATA
    assert sum(pieces) <= len(DATA) + 2**18  # a reset may lose what the kernel still held
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_download_goes_on_after_a_kill(server, tmp_path):
    with Transfer(Policy(attempts=1)) as transfer, pytest.raises(GaveUpError):
        server.script = ["short"]
        transfer.download(server.url, tmp_path / "file.bin")
    left = (tmp_path / "file.bin.partial").stat().st_size
    assert left == len(DATA) // 2
    assert not (tmp_path / "file.bin").exists()
    with Transfer(QUICK) as transfer:
        transfer.download(server.url, tmp_path / "file.bin")
        assert transfer.traffic.bytes == len(DATA) - left
    assert server.requests[-1][1] == f"bytes={left}-"
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_download_begins_anew_where_the_file_has_changed(server, tmp_path):
    with Transfer(Policy(attempts=1)) as transfer, pytest.raises(GaveUpError):
        server.script = ["short"]
        transfer.download(server.url, tmp_path / "file.bin")
    server.data, server.etag = DATA[::-1], '"two"'
    with Transfer(QUICK) as transfer:
        transfer.download(server.url, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == DATA[::-1]


def test_download_without_validator_gives_up_in_place_of_looping(server, transfer, tmp_path):
    server.etag, server.script = "", ["short"] * 50
    with pytest.raises(GaveUpError):
        transfer.download(server.url, tmp_path / "file.bin")
    assert len(server.requests) < 8


@given(
    steps=st.lists(st.tuples(st.integers(0, 40_000), st.integers(0, 15_000)), max_size=12),
    block=st.sampled_from([64, 1000, 4096]),
    blocks=st.integers(1, 4),
)
@settings(max_examples=30, deadline=None)
def test_reader_equals_a_local_file(small, steps, block, blocks):
    transfer, url, data = small
    local, remote = io.BytesIO(data), transfer.open(url, block_bytes=block, blocks=blocks)
    for place, size in steps:
        assert remote.seek(place) == local.seek(place)
        assert remote.read(size) == local.read(size)
        assert remote.tell() == local.tell()


@pytest.fixture(scope="module")
def small():
    server = Scripted()
    server.data = DATA[:30_001]
    with Transfer(QUICK) as transfer:
        yield transfer, server.url, server.data
    server.close()


def test_reader_serves_pyarrow_and_reads_only_the_column(server, transfer):
    buffer = io.BytesIO()
    wide = {"a": list(range(50_000)), "b": [str(i * 7919) for i in range(50_000)]}
    pq.write_table(pa.table(wide), buffer, compression="none", use_dictionary=False)
    server.data = buffer.getvalue()
    reader = transfer.open(server.url, block_bytes=1 << 14)
    assert pq.ParquetFile(reader).read(columns=["b"])["b"].to_pylist() == wide["b"]
    assert transfer.traffic.bytes < 0.75 * len(server.data)


@pytest.mark.parametrize("url", ["ftp://host/x", "http://", "https://user:pw@host/x", "http://[::1/x"])
def test_unusable_address_is_refused_without_its_secrets(transfer, url):
    with pytest.raises(InputError) as caught:
        transfer.get_range(url, 0, 1)
    assert "pw" not in str(caught.value)


def test_host_that_is_not_there_is_given_up(transfer):
    with pytest.raises(GaveUpError, match="no connection"):
        transfer.get_range("http://127.0.0.1:9/x", 0, 1)


def test_small_file_and_limit(server, transfer):
    server.data = DATA[:100]
    assert transfer.get_small(server.url, 100) == DATA[:100]
    with pytest.raises(InputError, match="more than 99 bytes"):
        transfer.get_small(server.url, 99)


def test_retry_after_reads_seconds_and_dates():
    assert retry_after("7") == 7
    assert 28 < retry_after(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert [retry_after(said) for said in (None, "soon", "-1", "Wed, 99 Foo", "")] == [0, 0, 0, 0, 0]


def test_shown_address_has_no_secrets():
    assert shown("https://user:pw@host/a/b?key=SECRET#x") == "https://host/a/b"
