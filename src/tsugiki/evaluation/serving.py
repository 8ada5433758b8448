"""Asking an OpenAI-style address (`http://host:8000/v1`): for models that are scored, and for judges.

A request that fails for a passing reason (no connection, no answer in time, an answer that breaks off, 408,
409, 425, 429, 5xx) is sent again after a pause, which doubles; Retry-After is obeyed, up to a minute. One
that goes on failing, or that the server refuses (400: too long a prompt), is that request's error. An address
that is wrong as a whole (no such path, no right to it) raises InputError at once.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as LateError

from tsugiki.errors import InputError

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP states that may be gone the next time (RFC 9110, section 15; RFC 6585, section 4; RFC 8470)."""
_WRONG_ADDRESS = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 405})
"""A key must not follow a redirect to another host, so a redirect is a wrong address too."""
_LONGEST_PAUSE_S = 60.0
_ANSWER_BYTES = 256 << 20
_BLOCK_BYTES = 1 << 16
_SHOWN_BYTES = 500
_OK = 200


class RefusedError(Exception):
    """There is no answer to this one request; the message says why."""


class _PassingError(Exception):
    """The request may be answered the next time; `wait_s` is what the server asks for."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Address:
    """Where a model is asked, and how patiently.

    url: up to and with /v1. timeout_s: for one try, until its last byte. tries: the first one included.
    pause_s: before the second try; doubled each time. Raises InputError for what is no address.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 600.0
    tries: int = 5
    pause_s: float = 1.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, half an IPv6 address
            fits = False
        if not fits:
            raise InputError(
                f"{self.url} is no address of a server", hint="write one such as http://localhost:8000/v1"
            )


class Client:
    """Requests to one address; threads may share it. connections: kept open, and under way at a time."""

    def __init__(self, address: Address, connections: int) -> None:
        self._address = address
        self._pool = _pool_of(address.url, connections)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that the server answers with.

        path: behind the address, such as "/completions". Raises RefusedError where there is no answer,
        InputError where asking is pointless.
        """
        data = json.dumps(body).encode()
        pause_s = self._address.pause_s
        for left in reversed(range(self._address.tries)):
            try:
                return self._send(path, data)
            except _PassingError as error:
                if not left:
                    raise RefusedError(f"{error}, {self._address.tries} times") from error
                time.sleep(min(_LONGEST_PAUSE_S, max(pause_s, error.wait_s)))
                pause_s *= 2
        raise RefusedError("no try was allowed")

    def _send(self, path: str, data: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._address.key:
            headers["Authorization"] = f"Bearer {self._address.key}"
        end = time.monotonic() + self._address.timeout_s
        try:
            response = self._pool.request(
                "POST",
                self._address.url.rstrip("/") + path,
                body=data,
                headers=headers,
                timeout=self._address.timeout_s,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                content = _content(response, end)
                response.drain_conn()
            finally:
                response.release_conn()
        except (HTTPError, OSError) as error:  # late, refused, reset, cut off
            # urllib3 counts a connection that is refused among those that come late.
            late = isinstance(error, LateError) and not isinstance(error, NewConnectionError)
            reason = "timed out" if late else error.__cause__ or error
            raise _PassingError(f"the server did not answer ({reason})") from error
        if response.status != _OK:
            raise self._fault(response, content)
        return _object(content)

    def _fault(self, response: urllib3.BaseHTTPResponse, content: bytes) -> Exception:
        said = content[:_SHOWN_BYTES].decode("utf-8", "replace").strip()
        message = f"the server says {response.status}: {said or response.reason}"
        if response.status in _WRONG_ADDRESS:
            return InputError(
                f"{self._address.url}: {message}",
                hint="check the address (it ends with /v1), the model's name and the key",
            )
        if response.status in _PASSING:
            return _PassingError(message, _asked_wait_s(response.headers.get("Retry-After")))
        return RefusedError(message)


def nonsense(error: Exception) -> str:
    """What is said of an answer that is JSON, and not what the protocol has."""
    return f"the server's answer is not in OpenAI's form ({type(error).__name__}: {error})"


def _pool_of(url: str, connections: int) -> urllib3.PoolManager:
    """Connections, through the proxy that the environment names for the address, if any."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, maxsize=connections, block=True)
    return urllib3.PoolManager(maxsize=connections, block=True)


def _content(response: urllib3.BaseHTTPResponse, end: float) -> bytes:
    """The whole answer. A server that sends a byte now and then has timed out too."""
    content = bytearray()
    while block := response.read1(_BLOCK_BYTES):
        content += block
        if time.monotonic() > end:
            response.close()
            raise LateError
        if len(content) > _ANSWER_BYTES:
            response.close()
            raise RefusedError(f"the server's answer has more than {_ANSWER_BYTES} bytes")
    return bytes(content)


def _object(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except ValueError as error:
        raise _PassingError(f"the server's answer is not JSON ({error})") from error
    except RecursionError as error:
        raise RefusedError(nonsense(error)) from error
    if not isinstance(said, dict):
        raise RefusedError(nonsense(TypeError(f"a {type(said).__name__}")))
    return said


def _asked_wait_s(header: str | None) -> float:
    """Seconds of a Retry-After header, which holds them or a date (RFC 9110, section 10.2.3); else 0."""
    if not header:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
