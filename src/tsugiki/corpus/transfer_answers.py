"""What an HTTP answer says: statuses, lengths, ranges, waits; and the errors that follow from them."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from urllib3.response import BaseHTTPResponse

from tsugiki.errors import InputError, StageError

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
NOT_SATISFIABLE = 416
_HINTS = {
    401: "the file needs credentials; fetch it through s3:// or gs://, or use another mirror",
    403: "the server refuses; it may be throttling you: use fewer connections, wait, or try another mirror",
    404: "check the address; the snapshot may have been moved or withdrawn",
    416: "the file is shorter than its index says: index and file do not belong together",
}


class HttpStatusError(InputError):
    """The server's answer will not get better by asking again; `status` says which it was."""

    def __init__(self, message: str, *, hint: str, status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class GaveUpError(StageError):
    """The request was tried as often as the policy allows."""


class AgainError(Exception):
    """Try again; `wait` is the server's Retry-After in seconds, `progressed` says that bytes came."""

    def __init__(self, reason: str, *, wait: float = 0.0, progressed: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.progressed = progressed


class StoppedError(Exception):
    """`Transfer.close` was called while a request waited."""


def shown(url: str) -> str:
    """The address for messages: without user, query and fragment, where secrets may stand."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def check_url(url: str) -> None:
    """Raises InputError for what is no address of a file, or holds credentials."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise InputError("an address can't be read as a URL", hint="write https://host/path") from None
    if not usable:
        raise InputError(f"{shown(url)} is no web address", hint="write https://host/path")
    if "@" in parts.netloc:
        raise InputError(
            f"{shown(url)}: the address holds a user name or password",
            hint="give an address without credentials; s3:// and gs:// take theirs from the environment",
        )


def check_status(url: str, response: BaseHTTPResponse, *wanted: int) -> None:
    """Raises HttpStatusError where the status is none of `wanted`."""
    if response.status == NOT_SATISFIABLE:
        raise outside(url, response)
    if response.status not in wanted:
        hint = _HINTS.get(response.status, "check the address in a browser")
        raise HttpStatusError(f"{shown(url)}: status {response.status}", hint=hint, status=response.status)


def outside(url: str, response: BaseHTTPResponse) -> HttpStatusError:
    """The error for a range that ends after the file does."""
    said = response.headers.get("Content-Range") or response.headers.get("Content-Length") or "unknown"
    message = f"{shown(url)}: the range lies outside of the file (its size: {said})"
    return HttpStatusError(message, hint=_HINTS[NOT_SATISFIABLE], status=NOT_SATISFIABLE)


def content_range(response: BaseHTTPResponse) -> tuple[int, int, int | None]:
    """First byte, last byte, and size of the whole file where it is said."""
    said = response.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(said.strip())
    if match is None:
        raise AgainError(f'Content-Range "{said[:60]}" can\'t be read')
    return int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])


def length_of(response: BaseHTTPResponse) -> int | None:
    """Content-Length, where there is a sound one."""
    said = response.headers.get("Content-Length", "")
    return int(said) if re.fullmatch(r"\d{1,18}", said, re.ASCII) else None


def validator_of(response: BaseHTTPResponse) -> str:
    """What proves later that the file is the same: a strong ETag, else its date; empty if neither."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def retry_after(said: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110, 10.2.3)."""
    if said is None:
        return 0.0
    if re.fullmatch(r"\d{1,9}", said.strip(), re.ASCII):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def cause_of(error: BaseException) -> str:
    """What happened on the wire, without the address: urllib3 repeats it, query and all."""
    reason = getattr(error, "reason", None)
    while isinstance(reason, BaseException):
        error, reason = reason, getattr(reason, "reason", None)
    names = {
        "ReadTimeoutError": "the server was silent for too long",
        "ConnectTimeoutError": "no connection in time",
        "NameResolutionError": "the host's name can't be resolved",
        "NewConnectionError": "no connection",
        "SSLError": "the connection can't be made secure",
        "IncompleteRead": "the body ends early",
        "ProtocolError": "the connection broke",
    }
    return names.get(type(error).__name__, type(error).__name__)
