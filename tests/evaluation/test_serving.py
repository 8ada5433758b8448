"""The client of OpenAI-style addresses, against servers on loopback that are busy, slow, broken or dead."""

from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tsugiki.errors import InputError
from tsugiki.evaluation.serving import Address, Client, RefusedError, _asked_wait_s


def post(url, **changes):
    patience = {"timeout_s": 5.0, "tries": 3, "pause_s": 0.01} | changes
    return Client(Address(url, **patience), 2).post("/completions", {"prompt": "x"})


def test_post_sends_the_key_to_the_path_and_gives_the_object(serve):
    server = serve(lambda *_: (200, {}, {"a": 1}))
    assert post(server.address + "/", key="sesame") == {"a": 1}
    assert (server.paths, server.keys) == (["/v1/completions"], ["Bearer sesame"])
    assert "sesame" not in repr(Address(server.address, "sesame"))


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_post_passing_faults_are_asked_again(serve, status):
    server = serve(lambda _, turn: (200, {}, {}) if turn == 3 else (status, {}, b"busy"))
    assert post(server.address) == {}
    with pytest.raises(RefusedError, match=f"the server says {status}: busy, 2 times"):
        post(serve(lambda *_: (status, {}, b"busy")).address, tries=2)


def test_post_waits_as_long_as_the_server_asks(serve):
    server = serve(lambda _, turn: (200, {}, {}) if turn == 2 else (429, {"Retry-After": "1"}, b""))
    begun = time.monotonic()
    post(server.address)
    assert time.monotonic() - begun >= 1


def test_retry_after_is_seconds_or_a_date_and_nonsense_is_nothing():
    now = datetime.now(UTC)
    assert _asked_wait_s("7") == 7
    assert _asked_wait_s(format_datetime(now + timedelta(seconds=30), usegmt=True)) == pytest.approx(
        30, abs=2
    )
    assert _asked_wait_s(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0
    assert {_asked_wait_s(text) for text in (None, "", "-3", "soon", "1.5", "\u00b2")} == {0.0}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_post_refused_request_is_not_repeated(serve, status):
    server = serve(lambda *_: (status, {}, b"maximum context length is 128"))
    with pytest.raises(RefusedError, match="maximum context length is 128"):
        post(server.address)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 401, 403, 404, 405])
def test_post_wrong_address_or_key_raises_at_once_and_no_redirect_is_followed(serve, status):
    other = serve(lambda *_: (200, {}, {}))
    server = serve(lambda *_: (status, {"Location": other.address}, b""))
    with pytest.raises(InputError, match=f"says {status}"):
        post(server.address)
    assert (len(server.requests), len(other.requests)) == (1, 0)


def test_post_server_that_is_late_is_given_up(serve):
    server = serve(lambda *_: time.sleep(0.5) or (200, {}, {}))
    with pytest.raises(RefusedError, match=r"did not answer \(timed out\), 2 times"):
        post(server.address, timeout_s=0.1, tries=2)


def test_post_nobody_there_is_given_up_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RefusedError, match=r"did not answer \(.*refused\), 2 times"):
        post(f"http://127.0.0.1:{port}/v1", tries=2)


def raw(answers):
    """A server that sends each connection the parts of `answers`, 0.1 s apart, and hangs up."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve_one():
        for _ in range(2):
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                asked = b""
                while not asked.endswith(b"}"):
                    asked += connection.recv(65536)
                try:
                    for part in answers:
                        connection.sendall(part)
                        time.sleep(0.1)
                except OSError:
                    pass

    thread = threading.Thread(target=serve_one, daemon=True)
    thread.start()
    return listening, thread


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([b""], "did not answer"),
        ([b"nonsense\r\n\r\n"], "did not answer"),
        ([b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a"'], "did not answer"),
        ([b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n{\xff\xff}"], "not JSON"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n", *[b" "] * 9], "timed out"),
    ],
)
def test_post_broken_and_endless_answers_are_asked_again_then_given_up(answers, said):
    listening, thread = raw(answers)
    with listening, pytest.raises(RefusedError, match=f"{said}.*, 2 times"):
        post(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", timeout_s=0.4, tries=2)
    thread.join()


@pytest.mark.parametrize("content", [b"[]", b"3", b"[" * 100_000])
def test_post_json_that_is_no_object_is_refused(serve, content):
    with pytest.raises(RefusedError, match="not in OpenAI's form"):
        post(serve(lambda *_: (200, {}, content)).address)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "file:///etc/passwd", "http://", "http://h:x/v1", "http://[::1"]
)
def test_address_that_is_none_raises(url):
    with pytest.raises(InputError, match="is no address"):
        Address(url)
