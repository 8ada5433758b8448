"""Safetensors files that are written piece by piece, by several threads, and go on after a kill.

A file's header says where each tensor will lie, so tensors may come in any order, and none has to be held
once it is written. A file gets its name when the last of its tensors is there and on the disk: what has its
name is whole, and is kept when the same is written again.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import Any, Self

from tsugiki.artifacts.files import PARTIAL, fsync_directory
from tsugiki.errors import InputError, StageError, storage_errors
from tsugiki.models.weights import INDEX, WEIGHTS, TensorEntry, write_index
from tsugiki.upcycling.output import PAGE_BYTES, Output, page_buffer

BYTES_OF_DTYPE = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""By safetensors' names: the types that weights may have here."""

_COPIED_AT_ONCE_BYTES = 1 << 24
_FLUSHED_AT_ONCE_BYTES = 1 << 28
"""So much is written through the system's cache before the disk is told to begin: by itself Linux would wait
for a tenth of the memory, and the disk would be idle meanwhile."""


@dataclass(frozen=True)
class Part:
    """A tensor of the result; dtype is safetensors' name."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return BYTES_OF_DTYPE[self.dtype] * math.prod(self.shape)


@dataclass
class _File:
    """A file that is being written: its place, header, and the tensors that it still lacks."""

    path: Path
    header: bytes
    begins: Mapping[str, int]
    size_bytes: int
    missing: set[str]
    output: Output | None = None
    unflushed_bytes: int = 0
    flushing: Future[None] | None = None


class Shards:
    """The weight files of a model; a context that closes them, and removes what is unfinished on an error.

    Of a directory that holds some of these files whole already, those are kept: files with the same tensors
    and the same `label`, which stands in their headers and for what the tensors are made from. Weight files
    that are none of these are removed first. Raises StorageError where the disk is full.
    """

    def __init__(self, directory: Path, parts: Sequence[Part], shard_bytes: int, label: str) -> None:
        self.directory = directory
        plan = _plan(parts, shard_bytes)
        names = [WEIGHTS] if len(plan) == 1 else [_name(number, len(plan)) for number in range(len(plan))]
        self._files = [
            _planned(directory / name, held, label) for name, held in zip(names, plan, strict=True)
        ]
        self._file_of = {name: file for file in self._files for name in file.begins}
        self._sizes = {part.name: part.bytes for part in parts}
        self._lock = threading.Lock()
        self._flusher = ThreadPoolExecutor(1, thread_name_prefix="flushing")
        directory.mkdir(parents=True, exist_ok=True)
        wanted = {file.path for file in self._files}
        for path in [directory / INDEX, *directory.glob("model*.safetensors*")]:
            if path not in wanted:
                path.unlink(missing_ok=True)
        for file in self._files:
            if _is_whole(file):
                file.missing.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._flusher.shutdown()
        for file in self._files:
            if file.output is not None:
                file.output.close()
                file.output = None
                _partial(file.path).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether a tensor lies in a file that is whole."""
        return not self._file_of[name].missing

    def write(self, name: str, content: memoryview) -> None:
        """Write a tensor's bytes. Each tensor has to be written, or copied, once; any thread may do it."""
        if len(content) != self._sizes[name]:
            raise StageError(
                f"{name} has {len(content)} bytes where {self._sizes[name]} were planned",
                hint="this is a fault in Tsugiki; please report it",
            )
        with self._writing(name) as write:
            write(content, 0)

    def copy(self, name: str, source: TensorEntry) -> None:
        """Write a tensor that is the same in another file, a piece at a time."""
        with self._writing(name) as write, source.file.open("rb", buffering=0) as stream:
            buffer = page_buffer(min(source.bytes, _COPIED_AT_ONCE_BYTES))
            stream.seek(source.begins)
            for place in range(0, source.bytes, _COPIED_AT_ONCE_BYTES):
                piece = buffer[: source.bytes - place]
                read_fully(stream, piece)
                write(piece, place)

    @contextmanager
    def _writing(self, name: str) -> Iterator[Callable[[memoryview, int], None]]:
        """Gives what writes bytes at a place of the tensor; the tensor is there when the context ends."""
        file, cached = self._file_of[name], 0
        with storage_errors(file.path):
            with self._lock:
                if file.output is None:
                    file.output = Output(_partial(file.path), file.size_bytes)
                    file.output.write(memoryview(file.header), 0)
            output = file.output

            def write(content: memoryview, place: int) -> None:
                nonlocal cached
                cached += output.write(content, file.begins[name] + place)

            yield write
            with self._lock:
                file.missing.discard(name)
                finished = not file.missing
                file.unflushed_bytes += cached
                if file.unflushed_bytes >= _FLUSHED_AT_ONCE_BYTES and not finished:
                    self._flush(file, output)
            if finished:
                _finish(file)

    def _flush(self, file: _File, output: Output) -> None:
        """Let a thread write to the disk what the system has taken, unless it is still at it."""
        if file.flushing is not None:
            if not file.flushing.done():
                return
            file.flushing.result()  # a full disk may show here first
        file.unflushed_bytes = 0
        file.flushing = self._flusher.submit(os.fdatasync, output.descriptor)

    def finish(self) -> None:
        """Write the index where there are several files. Raises StageError where a tensor never came."""
        missing = sorted(name for file in self._files for name in file.missing)
        if missing:
            raise StageError(
                f"{missing[0]} was never written (of {len(missing)})",
                hint="this is a fault in Tsugiki; please report it",
            )
        if len(self._files) > 1:
            files = {name: file.path.name for name, file in self._file_of.items()}
            write_index(self.directory, files, self._sizes)


def _name(number: int, files: int) -> str:
    return f"model-{number + 1:05d}-of-{files:05d}.safetensors"


def _partial(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL)


def _plan(parts: Sequence[Part], shard_bytes: int) -> list[list[Part]]:
    """Parts in order, cut before the one that would overfill a file; a single larger one is a file."""
    plan: list[list[Part]] = []
    room = 0
    for part in parts:
        if not plan or part.bytes > room:
            plan.append([])
            room = shard_bytes
        plan[-1].append(part)
        room -= part.bytes
    return plan


def _planned(path: Path, parts: Sequence[Part], label: str) -> _File:
    """Where each tensor will lie: those of whole pages first, so that they can be written directly.

    Behind them wider types come first, so that every tensor is aligned to its own type.
    """
    fields: dict[str, Any] = {"__metadata__": {"format": "pt", "upcycling": label}}
    offsets, place = {}, 0
    for part in sorted(parts, key=lambda part: (part.bytes % PAGE_BYTES > 0, -BYTES_OF_DTYPE[part.dtype])):
        offsets[part.name] = place
        fields[part.name] = {
            "dtype": part.dtype,
            "shape": list(part.shape),
            "data_offsets": [place, place + part.bytes],
        }
        place += part.bytes
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % PAGE_BYTES)
    header = len(text).to_bytes(8, "little") + text
    begins = {name: len(header) + offset for name, offset in offsets.items()}
    return _File(path, header, begins, len(header) + place, set(offsets))


def _is_whole(file: _File) -> bool:
    try:
        with file.path.open("rb") as stream:
            same = stream.read(len(file.header)) == file.header
        return same and file.path.stat().st_size == file.size_bytes
    except FileNotFoundError:
        return False


def _finish(file: _File) -> None:
    if file.flushing is not None:
        file.flushing.result()
    if file.output is not None:
        file.output.sync()
        file.output.close()
        file.output = None
    _partial(file.path).replace(file.path)
    fsync_directory(file.path.parent)


def read_fully(stream: RawIOBase, target: memoryview) -> None:
    """Read as many bytes as `target` holds. Raises InputError where the file ends before."""
    done = 0
    while done < len(target):
        count = stream.readinto(target[done:])
        if not count:
            raise InputError("a weight file became shorter while it was read", hint="fetch the model again")
        done += count
