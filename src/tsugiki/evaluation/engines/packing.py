"""Questions as rows of tokens: a context once, and all its tails behind it, side by side.

Shapes as in `tsugiki.evaluation.engines.decoder`: B rows, T tokens of each, N scored tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsugiki.evaluation.engines.tokens import Ids, Scored

BoolMask = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """Some tails of one question. question, first: their numbers, for the answer.

    context_T: what has to be computed of the context (its beginning may be a shared prefix of `start`
    tokens); one token at least, since its last one predicts the first token of every tail.
    """

    question: int
    first: int
    start: int
    context_T: Ids
    tails: tuple[Ids, ...]

    @property
    def length(self) -> int:
        """Tokens that are fed: the context's, and all of each tail but its last one."""
        return len(self.context_T) + sum(len(tail) - 1 for tail in self.tails)


@dataclass(frozen=True)
class Packed:
    """Rows side by side, padded on the right.

    part_BT: 0 in the context, the tail's number (from 1) behind it; None where every row has at most one
    tail with inputs, so that the causal order alone is right. place_N: where in the flattened (B · T) the
    prediction of a scored token stands. owner_N: the number of the tail, counted over all rows.
    """

    ids_BT: Ids
    positions_BT: Ids
    part_BT: Ids | None
    place_N: Ids
    target_N: Ids
    owner_N: Ids


def make_rows(asked: Sequence[Scored], numbers: Sequence[int], start: int, budget: int) -> list[Row]:
    """One row a question behind a prefix of `start` tokens, or several where its tails are very many.

    budget: tokens of tails that one row should hold at most (or the context's length, if that is more).
    """
    rows = []
    for number in numbers:
        context_T = asked[number].context_T[start:]
        for first, tails in _runs(asked[number].tails, max(budget, len(context_T))):
            rows.append(Row(number, first, start, context_T, tails))
    return rows


def _runs(tails: tuple[Ids, ...], budget: int) -> Iterator[tuple[int, tuple[Ids, ...]]]:
    first, tokens = 0, 0
    for number, tail in enumerate(tails):
        if tokens and tokens + len(tail) - 1 > budget:
            yield first, tails[first:number]
            first, tokens = number, 0
        tokens += len(tail) - 1
    yield first, tails[first:]


def batches(rows: Sequence[Row], budget: int) -> Iterator[list[Row]]:
    """Rows by length, the longest first so that memory peaks at once; `budget` tokens with padding each."""
    order = sorted(rows, key=lambda row: (-row.length, row.question, row.first))
    while order:
        count = max(1, budget // order[0].length)
        yield order[:count]
        order = order[count:]


def pack(rows: Sequence[Row]) -> Packed:
    """Lay the rows out."""
    longest = max(row.length for row in rows)
    ids_BT = np.zeros((len(rows), longest), dtype=np.int64)
    positions_BT = np.zeros((len(rows), longest), dtype=np.int64)
    part_BT = np.zeros((len(rows), longest), dtype=np.int64)
    places, targets, sizes = [], [], []
    branching = False
    for number, row in enumerate(rows):
        end = len(row.context_T)
        ids_BT[number, :end] = row.context_T
        positions_BT[number, :end] = np.arange(row.start, row.start + end)
        base, last = number * longest, number * longest + end - 1
        branching |= sum(len(tail) > 1 for tail in row.tails) > 1
        for part, tail in enumerate(row.tails, start=1):
            inputs, at = len(tail) - 1, row.start + len(row.context_T)
            ids_BT[number, end : end + inputs] = tail[:-1]
            positions_BT[number, end : end + inputs] = np.arange(at, at + inputs)
            part_BT[number, end : end + inputs] = part
            places.append(np.concatenate(([last], np.arange(base + end, base + end + inputs))))
            targets.append(tail)
            sizes.append(len(tail))
            end += inputs
        part_BT[number, end:] = -1
    return Packed(
        ids_BT,
        positions_BT,
        part_BT if branching else None,
        np.concatenate(places),
        np.concatenate(targets),
        np.repeat(np.arange(len(sizes)), sizes),
    )


def visible(part_BT: Ids) -> BoolMask:
    """Who may see whom in each row, (B, T, T): what stands before, in the context or in the own tail.

    Padding sees the context, so that no token sees nothing.
    """
    times = part_BT.shape[1]
    before_TT = np.tri(times, dtype=np.bool_)
    own_BTT = part_BT[:, :, None] == part_BT[:, None, :]
    return before_TT & (own_BTT | (part_BT[:, None, :] == 0))
