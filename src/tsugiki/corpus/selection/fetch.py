"""One output file: its requests, fetched side by side, checked, and written in the order of the rows."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.selection.ranges import Request, Row
from tsugiki.corpus.selection.records import RecordError, check_record
from tsugiki.corpus.transfer_answers import HttpStatusError
from tsugiki.errors import StageError

ReadRange = Callable[[str, int, int], bytes]
"""(WARC file, offset, length) -> exactly these bytes."""

GAVE_UP = "gave up"
_NOT_SATISFIABLE = 416
_SILENT_REQUESTS = 24
"""So many requests in a row given up (each was tried for minutes): the server is not there."""
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Failure:
    """A record that did not come, or was not what the index promised."""

    file: str
    offset: int
    url: str
    reason: str
    message: str


@dataclass
class Unit:
    """One finished output file; all of it depends on the rows and the server's bytes alone."""

    name: str
    records: int = 0
    bytes: int = 0
    sha256: str = ""
    requests: int = 0
    bytes_asked: int = 0
    """Of the records."""
    bytes_fetched: int = 0
    """Of the requests: with what lies between merged neighbours; repeated tries count once."""
    failures: list[Failure] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Unit:
        """What `as_dict` gave."""
        return cls(**{**data, "failures": [Failure(**failure) for failure in data["failures"]]})


@dataclass(frozen=True)
class _Record:
    row: Row
    data: bytes = b""
    failure: Failure | None = None


def fetch_unit(
    requests: Sequence[Request],
    target: Path,
    read: ReadRange,
    *,
    executor: Executor,
    threads: int,
    on_records: Callable[[int, list[Failure]], None],
) -> Unit:
    """Write the records of `requests` to `target`, byte for byte as they came, in the order given.

    `threads` requests are in flight and as many wait to be written; the order of answers changes nothing.
    `on_records` is told how many records were settled and which failed, and may raise to end it all. Raises
    StageError where the server is silent; no file appears then, nor where not one record came.
    """
    unit = Unit(target.name, requests=len(requests), bytes_fetched=sum(item.length for item in requests))
    digest = hashlib.sha256()
    silent = 0
    with atomic_path(target) as partial, partial.open("wb") as file:
        for records in in_order(executor, lambda request: fetch(request, read), requests, 2 * threads):
            failures = [record.failure for record in records if record.failure is not None]
            data = b"".join(record.data for record in records)
            file.write(data)
            digest.update(data)
            unit.failures += failures
            unit.records += len(records) - len(failures)
            unit.bytes += len(data)
            unit.bytes_asked += sum(record.row.length for record in records)
            on_records(len(records), failures)
            silent = silent + 1 if failures and failures[0].reason == GAVE_UP else 0
            if silent >= _SILENT_REQUESTS:
                raise StageError(
                    f"{silent} requests in a row were given up; the last: {failures[0].message}",
                    hint="wait until the server answers; the same command goes on where it was",
                )
    unit.sha256 = digest.hexdigest()
    if not unit.records:
        target.unlink()
    return unit


def fetch(request: Request, read: ReadRange) -> list[_Record]:
    """The records of one request, each with its bytes or with the reason why it has none."""
    try:
        data = read(request.file, request.offset, request.length)
    except HttpStatusError as error:
        if error.status == _NOT_SATISFIABLE and len(request.rows) > 1:  # the others may still be there
            alone = (Request(row.file, row.offset, row.length, (row,)) for row in request.rows)
            return [record for single in alone for record in fetch(single, read)]
        return [_failed(row, f"status {error.status}", error.message) for row in request.rows]
    except StageError as error:
        return [_failed(row, GAVE_UP, error.message) for row in request.rows]
    return [_checked(row, data[row.offset - request.offset :][: row.length]) for row in request.rows]


def _checked(row: Row, data: bytes) -> _Record:
    try:
        check_record(data, row.url)
    except RecordError as error:
        return _failed(row, error.reason, str(error))
    return _Record(row, data)


def _failed(row: Row, reason: str, message: str) -> _Record:
    return _Record(row, failure=Failure(row.file, row.offset, row.url, reason, message))


def in_order(executor: Executor, function: Callable[[A], B], items: Iterable[A], window: int) -> Iterator[B]:
    """`map` on an executor with at most `window` results begun and not yet taken: memory stays bounded."""
    pending: deque[Future[B]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
