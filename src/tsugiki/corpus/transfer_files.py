"""Remote files over a `Transfer`: read in blocks as if they were local, or brought here whole."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import urllib3
from urllib3.response import BaseHTTPResponse

from tsugiki.artifacts.files import write_json
from tsugiki.corpus.transfer_answers import (
    NOT_SATISFIABLE,
    AgainError,
    cause_of,
    check_status,
    content_range,
    length_of,
    validator_of,
)

if TYPE_CHECKING:
    from tsugiki.corpus.transfer import Transfer

_PIECE = 1 << 18
_OK, _PARTIAL_CONTENT = 200, 206


class RangeReader(io.RawIOBase):
    """A remote file as a seekable, read-only one, for pyarrow and others. Not for several threads at once."""

    def __init__(self, transfer: Transfer, url: str, size: int, block_bytes: int, blocks: int) -> None:
        super().__init__()
        self._transfer, self._url, self._size = transfer, url, size
        self._block_bytes, self._blocks = block_bytes, blocks
        self._cache: dict[int, bytes] = {}  # by number of the block; the least recently used comes first
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            message = f"{start + offset} is before the file's beginning"
            raise ValueError(message)
        self._position = start + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        end = min(self._position + len(target), self._size)
        if end <= self._position:
            return 0
        size = end - self._position
        if size > self._block_bytes * self._blocks:
            target[:size] = self._transfer.get_range(self._url, self._position, size)
        else:
            self._fill(self._position // self._block_bytes, (end - 1) // self._block_bytes)
            while self._position < end:
                number, inside = divmod(self._position, self._block_bytes)
                block = self._cache.pop(number)
                self._cache[number] = block
                piece = block[inside : inside + end - self._position]
                done = size - (end - self._position)
                target[done : done + len(piece)] = piece
                self._position += len(piece)
            while len(self._cache) > self._blocks:
                del self._cache[next(iter(self._cache))]
        self._position = end
        return size

    def _fill(self, first: int, last: int) -> None:
        """Fetch the missing blocks among `first` … `last`, neighbours in one request."""
        number = first
        while number <= last:
            until = number
            while until <= last and until not in self._cache:
                until += 1
            if until > number:
                start = number * self._block_bytes
                size = min(until * self._block_bytes, self._size) - start
                data = self._transfer.get_range(self._url, start, size)
                for i in range(until - number):
                    self._cache[number + i] = data[i * self._block_bytes : (i + 1) * self._block_bytes]
            number = until + 1


class Download:
    """Takes answers to a download: appends where the server goes on, begins anew where it does not."""

    def __init__(
        self, transfer: Transfer, url: str, partial: Path, note: Path, on_bytes: Callable[[int], None]
    ) -> None:
        self._transfer, self._url = transfer, url
        self._partial, self._note, self._on_bytes = partial, note, on_bytes
        self._validator, self._total = _read_note(note)
        self._furthest = partial.stat().st_size if partial.exists() else 0

    def headers(self) -> Mapping[str, str]:
        have = self._partial.stat().st_size if self._partial.exists() else 0
        if not have or not self._validator or have > self._total:
            return {}
        if have == self._total:  # ask for the last byte again: a proof that the file is still the same
            have -= 1
        return {"Range": f"bytes={have}-", "If-Range": self._validator}

    def __call__(self, response: BaseHTTPResponse) -> None:
        if response.status == NOT_SATISFIABLE:
            self._forget()
            raise AgainError("the file has become shorter")
        check_status(self._url, response, _OK, _PARTIAL_CONTENT)
        if response.status == _OK:
            start, self._total = 0, length_of(response) or -1
            self._validator = validator_of(response)
            write_json(self._note, {"validator": self._validator, "bytes": self._total})
        else:
            start, last, total = content_range(response)
            if (
                total != self._total
                or last != self._total - 1
                or not 0 <= start <= self._partial.stat().st_size
            ):
                self._forget()
                raise AgainError("the server went on at another place than was asked")
        self._append(response, start)

    def _append(self, response: BaseHTTPResponse, start: int) -> None:
        with self._partial.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            came = 0
            try:
                for piece in response.stream(_PIECE):
                    file.write(piece)
                    came += len(piece)
                    self._transfer.count(len(piece))
                    self._on_bytes(len(piece))
            except (urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
                raise AgainError(cause_of(error), progressed=self._progressed(start + came)) from error
        if self._total >= 0 and start + came != self._total:
            message = f"the body ends at {start + came} of {self._total} bytes"
            raise AgainError(message, progressed=self._progressed(start + came))

    def _progressed(self, reached: int) -> bool:
        """Whether more of the file came than ever before: only that begins the count of tries anew."""
        further = reached > self._furthest
        self._furthest = max(self._furthest, reached)
        return further

    def _forget(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._validator = ""


def _read_note(note: Path) -> tuple[str, int]:
    """Validator and size of a partial download; empty where the note is missing or broken."""
    try:
        said = json.loads(note.read_bytes())
        return str(said["validator"]), int(said["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", -1
