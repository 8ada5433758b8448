"""All units of a corpus: parts of files, made by any number of workers, checked where they join."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsugiki.artifacts.files import read_json
from tsugiki.corpus.engine import Engine, run_tasks
from tsugiki.corpus.items import WHOLE, Span
from tsugiki.corpus.remote import is_local
from tsugiki.corpus.spans import UNIT_BYTES, part_bytes, spans_of
from tsugiki.corpus.unit_progress import Amounts, Watch, speed

if TYPE_CHECKING:
    from tsugiki.artifacts.contract import Workspace
    from tsugiki.corpus.stage import InputFile

_MEGABYTE = 1e6


def make_unit(job: dict[str, Any]) -> dict[str, Any]:
    """`unit.make_unit`; what that needs is loaded only here, so that workers load it beside each other."""
    from tsugiki.corpus import unit

    return unit.make_unit(job)


@dataclass(frozen=True)
class Piece:
    """A part of a file that is a unit; `bytes` of the file, None where its size isn't known."""

    file: InputFile
    span: Span
    bytes: int | None


@dataclass(frozen=True)
class Making:
    """What all units have in common: directory, what their names begin with, the job, who makes them."""

    directory: Path
    version: str
    job: dict[str, Any]
    engine: Engine
    out: Workspace

    def path(self, piece: Piece) -> Path:
        """Of a unit, without suffix: its name stands for the configuration, the file and the part of it."""
        key = f"{self.version}\n{piece.file.key}"
        if piece.span != WHOLE:
            key += f"\n{sorted(asdict(piece.span).items())}"
        return self.directory / hashlib.blake2b(key.encode(), digest_size=12).hexdigest()

    def is_made(self, piece: Piece) -> bool:
        """Whether the unit is whole."""
        return self.path(piece).with_suffix(".json").exists()

    def reach(self, piece: Piece) -> tuple[int, int]:
        """Where in the file a unit that is made began, and where it ended."""
        begin, end = read_json(self.path(piece).with_suffix(".json"))["reach"]
        return begin, end


def make_units(files: Sequence[InputFile], making: Making, unit_bytes: int = UNIT_BYTES) -> list[Path]:
    """Make the units that are not there yet; the paths of all, in the order of `files`.

    Local files are cut into units of `unit_bytes` at most (`spans.part_bytes`), remote ones are one each.
    """
    making.out.progress(0, len(files), "files", "looking how to cut them")
    with ThreadPoolExecutor(making.engine.workers) as pool:  # reading and unpacking run beside each other
        cut = list(pool.map(lambda file: _pieces(file, unit_bytes), files))
    pieces = [piece for some in cut for piece in some]
    _make([piece for piece in pieces if not making.is_made(piece)], pieces, making)
    return [making.path(piece) for piece in _joined(pieces, making)]


def _pieces(file: InputFile, unit_bytes: int) -> list[Piece]:
    if not is_local(file.address) or not file.bytes:
        return [Piece(file, WHOLE, file.bytes)]
    spans = spans_of(Path(file.address), part_bytes(file.bytes, unit_bytes))
    share, rest = divmod(file.bytes, len(spans))
    return [Piece(file, span, share + (number < rest)) for number, span in enumerate(spans)]


def _make(missing: Sequence[Piece], pieces: Sequence[Piece], making: Making) -> None:
    """Make the units of the `missing` ones of all `pieces`, and tell how far that is."""
    missing = sorted(
        missing, key=lambda piece: -(piece.bytes or 0)
    )  # so that all workers end at about one time
    jobs = [
        {
            **making.job,
            "file": piece.file.address,
            "span": asdict(piece.span),
            "bytes": piece.bytes,
            "unit": str(making.path(piece)),
        }
        for piece in missing
    ]
    left = sum(piece.bytes or 0 for piece in missing)
    total = sum(piece.bytes or 0 for piece in pieces)
    all_known = all(piece.bytes is not None for piece in pieces)

    def report(done: Amounts, seconds: float) -> None:
        units = len(pieces) - len(missing) + done.units
        share = done.bytes / max(1, left) if all_known else done.units / max(1, len(missing))
        note = f"{speed(done.pages, share, seconds)}, {units} of {len(pieces)} units"
        if all_known:
            megabytes = (total - left + done.bytes) / _MEGABYTE
            making.out.progress(megabytes, total / _MEGABYTE, "MB", note)
        else:
            making.out.progress(units, len(pieces), "units", note)

    with Watch(making.directory, report) as watch:
        for made in run_tasks(make_unit, jobs, making.engine):
            watch.finished(made["bytes"], made["pages"])


def _joined(pieces: Sequence[Piece], making: Making) -> list[Piece]:
    """The pieces, each of which begins where the one before it ended; those that did not are made anew.

    A part of a WARC file begins at what looks like a record. Where that lies within another record (a page
    about WARC files, a WARC file in a WARC file), the walk over the part before doesn't stop there.
    """
    joined: list[Piece] = []
    end = 0
    for found in pieces:
        piece = found
        begin, reached = (0, 0) if piece.span == WHOLE else making.reach(piece)
        if not piece.span.exact and begin != end:
            piece = replace(piece, span=replace(piece.span, start=end, exact=True))
            if not making.is_made(piece):
                _make([piece], pieces, making)
            _, reached = making.reach(piece)
        joined.append(piece)
        end = reached
    return joined
