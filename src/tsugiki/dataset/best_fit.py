"""Packing that cuts no document that fits: best-fit decreasing (Ding et al. 2024, arXiv 2404.10830).

A document of n tokens is n - 1 pairs of an input and the token that follows. Documents of more pairs than a
window holds are cut into pieces of that many (every pair is in exactly one piece); pieces, from the longest
to the shortest, go where the least room is left over. What stays free is padding.

A plan is made once for a unit and a sequence length, and lies beside the unit's tokens:

    <unit>/best-fit-00512/windows.bin   int64: windows + 1 offsets into the pieces, the first one 0
    <unit>/best-fit-00512/pieces.bin    uint32: (document, offset in it, pairs), window after window
    <unit>/best-fit-00512/header.json   counts

Epochs differ in the order of the windows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tsugiki.artifacts.files import atomic_directory, read_json, write_json
from tsugiki.dataset.kernels import best_fit, copy_pieces, count_pieces
from tsugiki.dataset.packing import Window
from tsugiki.dataset.permutation import Permutation
from tsugiki.dataset.tokenise import HEADER
from tsugiki.dataset.tokens import TokenSource, TokenUnit
from tsugiki.errors import DataError, InputError

WINDOWS = "windows.bin"
PIECES = "pieces.bin"


class PlanHeader(BaseModel):
    """The contents of a plan's `header.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    sequence_length: int = Field(gt=0)
    windows: int = Field(ge=0)
    pieces: int = Field(ge=0)
    pairs: int = Field(ge=0)


@dataclass(frozen=True)
class Plan:
    """Which pieces each of W windows of one unit holds: pieces windows[w] .. windows[w + 1] - 1."""

    windows_W1: NDArray[np.int64]
    pieces_P3: NDArray[np.uint32]
    pairs: int


def plan_directory(unit: Path, sequence_length: int) -> Path:
    """Where the plan of a unit lies."""
    return unit / f"best-fit-{sequence_length:05d}"


def make_plan(offsets: NDArray[np.int64], sequence_length: int) -> Plan:
    """Pack documents into windows of `sequence_length` pairs. Memory: 40 bytes a piece."""
    count = int(count_pieces(offsets, sequence_length))
    pieces_P3 = np.empty((count, 3), dtype=np.uint32)
    bin_of_piece_P = np.empty(count, dtype=np.int64)
    windows = int(best_fit(offsets, sequence_length, pieces_P3, bin_of_piece_P))
    order_P = np.argsort(bin_of_piece_P, kind="stable")
    windows_W1 = np.searchsorted(bin_of_piece_P[order_P], np.arange(windows + 1))
    return Plan(windows_W1.astype(np.int64), pieces_P3[order_P], int(pieces_P3[:, 2].sum(dtype=np.int64)))


def plan_units(source: TokenSource, sequence_length: int) -> None:
    """Make the plans of all units of `source` that have none yet; they appear whole or not at all.

    To be called by one process, before several open the source.
    """
    for unit in source.units:
        directory = plan_directory(unit.directory, sequence_length)
        if directory.exists():
            continue
        plan = make_plan(unit.offsets, sequence_length)
        with atomic_directory(directory) as partial:
            (partial / WINDOWS).write_bytes(plan.windows_W1.astype("<i8").tobytes())
            (partial / PIECES).write_bytes(plan.pieces_P3.astype("<u4").tobytes())
            header = PlanHeader(
                sequence_length=sequence_length,
                windows=len(plan.windows_W1) - 1,
                pieces=len(plan.pieces_P3),
                pairs=plan.pairs,
            )
            write_json(partial / HEADER, header.model_dump(mode="json"))


def _open_plan(unit: TokenUnit, sequence_length: int) -> Plan:
    directory = plan_directory(unit.directory, sequence_length)
    hint = f"delete {directory} and run the stage again: it is made anew"
    try:
        header = PlanHeader.model_validate(read_json(directory / HEADER))
    except ValidationError as error:
        raise InputError(f"{directory / HEADER} is not a plan's header", hint=hint) from error
    sizes = {WINDOWS: (header.windows + 1) * 8, PIECES: header.pieces * 12}
    for name, size in sizes.items():
        found = (directory / name).stat().st_size if (directory / name).exists() else 0
        if found != size:
            raise InputError(f"{directory / name} is {found} bytes long; its header says {size}", hint=hint)
    windows_W1 = np.asarray(np.memmap(directory / WINDOWS, dtype="<i8", mode="r"))
    pieces_P3 = np.empty((0, 3), dtype=np.uint32)
    if header.pieces:
        pieces_P3 = np.asarray(np.memmap(directory / PIECES, dtype="<u4", mode="r")).reshape(-1, 3)
    if not _adds_up(unit, windows_W1, pieces_P3, header):
        raise InputError(f"{directory} does not agree with the tokens beside it", hint=hint)
    return Plan(windows_W1, pieces_P3, header.pairs)


def _adds_up(
    unit: TokenUnit, windows_W1: NDArray[np.int64], pieces_P3: NDArray[np.uint32], header: PlanHeader
) -> bool:
    """Whether every piece lies in its document and every window in its length (nothing is read beyond)."""
    if (int(windows_W1[0]), int(windows_W1[-1])) != (0, header.pieces) or (np.diff(windows_W1) < 1).any():
        return False
    if not header.pieces:
        return header.pairs == 0
    pairs_P = pieces_P3[:, 2].astype(np.int64)
    if int(pieces_P3[:, 0].max()) >= unit.documents or int(pairs_P.sum()) != header.pairs:
        return False
    documents_P = pieces_P3[:, 0].astype(np.int64)
    room_P = unit.offsets[documents_P + 1] - unit.offsets[documents_P] - 1
    filled_W = np.add.reduceat(pairs_P, windows_W1[:-1])
    return bool(
        (pieces_P3[:, 1].astype(np.int64) + pairs_P <= room_P).all()
        and filled_W.max() <= header.sequence_length
    )


class BestFitWindows:
    """A source packed by best fit (`packing.Windows`); plans that are missing are made.

    Raises DataError where no document has two tokens.
    """

    def __init__(self, source: TokenSource, sequence_length: int) -> None:
        plan_units(source, sequence_length)
        self._source = source
        self._plans = [_open_plan(unit, sequence_length) for unit in source.units]
        self._ends_U = np.cumsum([len(plan.windows_W1) - 1 for plan in self._plans])
        self.count = int(self._ends_U[-1])
        if not self.count:
            raise DataError(
                f'"{source.name}" has no document of two tokens: there is nothing to predict',
                hint="give more text",
            )
        self.tokens_per_window = Fraction(sum(plan.pairs for plan in self._plans), self.count)

    def epoch(self, key: int) -> BestFitEpoch:
        """The windows of one epoch."""
        return BestFitEpoch(self, Permutation(self.count, key))

    def fill(self, window: int, row: Window) -> None:
        """Write window `window` (in the plans' own order) into `row`."""
        number = int(np.searchsorted(self._ends_U, window, side="right"))
        plan, unit = self._plans[number], self._source.units[number]
        place = window - int(self._ends_U[number]) + len(plan.windows_W1) - 1
        copy_pieces(
            unit.tokens,
            unit.offsets,
            plan.pieces_P3,
            int(plan.windows_W1[place]),
            int(plan.windows_W1[place + 1]),
            row.ids_T,
            row.targets_T,
            row.document_ids_T,
        )


@dataclass(frozen=True)
class BestFitEpoch:
    """One pass over the windows of a source (`packing.Epoch`)."""

    windows: BestFitWindows
    order: Permutation

    def fill(self, position: int, row: Window) -> None:
        """Write the window at `position` into `row`."""
        self.windows.fill(self.order.at(position), row)


def padding_share(sources: Sequence[TokenSource], sequence_length: int) -> float:
    """The share of positions that best-fit packing leaves empty, over all of `sources`."""
    packed = [BestFitWindows(source, sequence_length) for source in sources]
    positions = sum(windows.count for windows in packed) * sequence_length
    return 1 - float(sum(windows.tokens_per_window * windows.count for windows in packed) / positions)
