"""A small HTTP client: byte ranges, whole files, and files that are read as if they were local.

Retried with growing waits: statuses 408, 429 and 5xx, time-outs, reset connections, bodies that end early,
answers to another range than was asked. A `Retry-After` holds for every thread that talks to that host. What
can't get better (404, a server without ranges) fails at once.

Common Crawl asks its readers to be polite: requests in flight are capped, and each names Tsugiki.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3.response import BaseHTTPResponse

from tsugiki import __version__
from tsugiki.artifacts.files import PARTIAL, fsync_directory, fsync_file
from tsugiki.corpus.transfer_answers import (
    AgainError,
    GaveUpError,
    HttpStatusError,
    StoppedError,
    cause_of,
    check_status,
    check_url,
    content_range,
    length_of,
    outside,
    retry_after,
    shown,
)
from tsugiki.corpus.transfer_files import Download, RangeReader
from tsugiki.errors import InputError, storage_errors

USER_AGENT = f"tsugiki/{__version__} (+https://tsugiki.readthedocs.io)"
SMALL_BYTES = 1 << 20
"""A server that ignores ranges is tolerated for files up to this size: they are cut here."""

_RETRIED = frozenset({408, 429, 500, 502, 503, 504, 509})
_NO_HEAD = frozenset({403, 405, 501})  # HEAD refused; 403: signed addresses are signed for GET alone
_OK, _PARTIAL_CONTENT = 200, 206
T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """How patient and how polite the client is."""

    attempts: int = 8
    """Tries of one request before it is given up; a download that gets further begins to count anew."""
    first_wait_seconds: float = 1.0
    """Wait before the second try; it doubles with each further one, and half of it is random."""
    longest_wait_seconds: float = 60.0
    longest_retry_after_seconds: float = 600.0
    """A server's Retry-After is honoured up to here."""
    timeout_seconds: float = 60.0
    """Silence of the server after which a request is tried again."""
    connections: int = 8
    """Requests in flight at any time."""
    seed: int | None = None
    """Seed of the random part of waits; None: another one each time."""


@dataclass
class Traffic:
    """What went over the wire so far. `seconds` are those of requests, added over threads."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    seconds: float = 0.0


@dataclass
class Transfer:
    """A client, to be shared by threads. Close it, or use it in a `with`."""

    policy: Policy = field(default_factory=Policy)
    traffic: Traffic = field(default_factory=Traffic)

    def __post_init__(self) -> None:
        size = self.policy.connections
        self._pool = urllib3.PoolManager(num_pools=8, maxsize=size, block=False)
        self._turn = threading.BoundedSemaphore(size)
        self._random = random.Random(self.policy.seed)  # noqa: S311 (jitter is no secret)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._quiet_until: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all waiting, in every thread, and close the connections."""
        self._stopped.set()
        self._pool.clear()

    def get_range(self, url: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on: all of them, or an error.

        Raises HttpStatusError where there is no such file or range, or where the server gives whole files
        larger than SMALL_BYTES alone; GaveUpError after the last try.
        """
        last = offset + length - 1

        def take(response: BaseHTTPResponse) -> bytes:
            if response.status == _OK:
                return self._cut(url, response, offset, length)
            check_status(url, response, _PARTIAL_CONTENT)
            first, end, _ = content_range(response)
            if (first, end) != (offset, last):
                raise AgainError(f"asked for bytes {offset}-{last}, was given bytes {first}-{end}")
            return self._body(response, length)

        return self._try("GET", url, {"Range": f"bytes={offset}-{last}"}, take)

    def get_small(self, url: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes; raises InputError where it is larger."""

        def take(response: BaseHTTPResponse) -> bytes:
            check_status(url, response, _OK)
            declared = length_of(response)
            if declared is not None and declared <= limit:
                return self._body(response, declared)
            data = b"" if declared is not None else response.read(limit + 1)
            if declared is not None or len(data) > limit:
                raise InputError(
                    f"{shown(url)} has more than {limit} bytes, which is too much for a listing",
                    hint="check the address",
                )
            self.count(len(data))
            return data

        return self._try("GET", url, {}, take)

    def size_of(self, url: str) -> int:
        """The file's size in bytes, by HEAD, or by a range of one byte where the server knows no HEAD."""

        def head(response: BaseHTTPResponse) -> int | None:
            if response.status in _NO_HEAD:
                return None
            check_status(url, response, _OK)
            return length_of(response)

        def one(response: BaseHTTPResponse) -> int | None:
            check_status(url, response, _PARTIAL_CONTENT, _OK)
            return length_of(response) if response.status == _OK else content_range(response)[2]

        size = self._try("HEAD", url, {}, head)
        if size is None:
            size = self._try("GET", url, {"Range": "bytes=0-0"}, one)
        if size is None:
            raise InputError(
                f"{shown(url)}: the server does not say how large the file is",
                hint="download it by other means, and give the local path",
            )
        return size

    def open(self, url: str, *, block_bytes: int = 1 << 20, blocks: int = 32) -> RangeReader:
        """The file for reading at any place; `blocks` blocks of `block_bytes` bytes stay in memory."""
        return RangeReader(self, url, self.size_of(url), block_bytes, blocks)

    def download(self, url: str, target: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        """Bring a whole file to `target`, which appears when all of it is there.

        What an earlier call left in `target`.partial is kept where the server can prove, by ETag or date
        (RFC 9110, 13.1.5), that the file is still the same. `on_bytes` is told the size of every piece.
        """
        partial = target.with_name(target.name + PARTIAL)
        note = partial.with_name(partial.name + ".json")
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            take = Download(self, url, partial, note, on_bytes or (lambda _: None))
            self._try("GET", url, take.headers, take)
            fsync_file(partial)
            partial.replace(target)
            note.unlink(missing_ok=True)
            fsync_directory(target.parent)

    def _cut(self, url: str, response: BaseHTTPResponse, offset: int, length: int) -> bytes:
        """The range out of a whole file that came in its place."""
        declared = length_of(response)
        if declared is None or declared > SMALL_BYTES:
            size = "an unknown number of" if declared is None else declared
            raise HttpStatusError(
                f"{shown(url)}: asked for {length} bytes, the server sends the whole file ({size} bytes)",
                hint="this server knows no byte ranges: use another mirror, or whole files",
                status=_OK,
            )
        data = self._body(response, declared)
        if offset + length > declared:
            raise outside(url, response)
        return data[offset : offset + length]

    def _body(self, response: BaseHTTPResponse, length: int) -> bytes:
        """Exactly `length` bytes of the body."""
        data = response.read(length + 1)
        self.count(len(data))
        if len(data) != length:
            raise AgainError(f"the body has {len(data)} bytes instead of {length}")
        return data

    def count(self, size: int) -> None:
        """Add bytes of a body to the traffic."""
        with self._lock:
            self.traffic.bytes += size

    def _try(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]],
        take: Callable[[BaseHTTPResponse], T],
    ) -> T:
        """Send the request until `take` accepts an answer, an error is final, or the tries are used up."""
        check_url(url)
        attempt = 0
        while True:
            self._wait_for(urlsplit(url).netloc)
            started = time.monotonic()
            try:
                with self._turn:
                    return self._once(method, url, headers() if callable(headers) else headers, take)
            except AgainError as error:
                attempt = 1 if error.progressed else attempt + 1
                reason, wait = str(error), error.wait
            except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
                attempt += 1
                reason, wait = cause_of(error), 0.0
            finally:
                with self._lock:
                    self.traffic.requests += 1
                    self.traffic.seconds += time.monotonic() - started
            if attempt >= self.policy.attempts:
                raise GaveUpError(
                    f"{shown(url)}: gave up after {attempt} attempts; the last: {reason}",
                    hint="check the network; the same command goes on where it was",
                )
            with self._lock:
                self.traffic.retries += 1
            self._rest(url, attempt, wait)

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], take: Callable[[BaseHTTPResponse], T]
    ) -> T:
        """One request; a connection whose body was not read to its end is not used again."""
        policy = self.policy
        response = self._pool.request(
            method,
            url,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
            timeout=urllib3.Timeout(connect=min(20.0, policy.timeout_seconds), read=policy.timeout_seconds),
            retries=urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5),
            preload_content=False,
            decode_content=False,
        )
        whole = False
        try:
            if response.status in _RETRIED:
                wait = retry_after(response.headers.get("Retry-After"))
                raise AgainError(f"status {response.status}", wait=wait)
            result = take(response)
            whole = True
            return result
        finally:
            if not whole or response.length_remaining:
                response.close()
            response.release_conn()

    def _wait_for(self, host: str) -> None:
        """Wait while the host has asked for silence."""
        while not self._stopped.is_set():
            rest = self._quiet_until.get(host, 0.0) - time.monotonic()
            if rest <= 0:
                return
            self._stopped.wait(rest)
        raise StoppedError

    def _rest(self, url: str, attempt: int, asked: float) -> None:
        """Wait before try `attempt` + 1: exponential, half of it random; at least what the server asked."""
        policy = self.policy
        with self._lock:
            longest = min(policy.longest_wait_seconds, policy.first_wait_seconds * 2.0 ** (attempt - 1))
            wait = longest * (0.5 + 0.5 * self._random.random())
            if asked:
                asked = min(asked, policy.longest_retry_after_seconds)
                host = urlsplit(url).netloc
                self._quiet_until[host] = max(self._quiet_until.get(host, 0.0), time.monotonic() + asked)
        self._stopped.wait(max(wait, asked))
