"""Which beginnings of many sequences are worth computing once: a tree of shared prefixes.

A benchmark's prompts begin alike (the instruction, the shots), some of them for longer (a subject's own
shots, a passage with several questions). A prefix that n sequences share saves (n - 1) · its length tokens;
running it alone costs a pass of one row, which uses a processor worse than a batch does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MINIMUM_SAVING = 256
"""Tokens that a shared prefix has to save. A short pass of one row is slower by the token than a batch (two
cores, 60 M parameters: 890 tokens/s for 64, 1,280 for 512), and has its calls: below some hundred tokens the
gain is too small to be seen."""
_MAXIMUM_DEPTH = 64
"""Nested differences that are looked at; what lies deeper is computed row by row."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Branch:
    """Sequences whose first `length` tokens are equal; `start` of them are the parent's.

    rows: the sequences (their numbers) that go on from here each on their own. example: one whose first
    `length` tokens these are.
    """

    start: int
    length: int
    example: int
    rows: tuple[int, ...]
    children: tuple[Branch, ...]

    def leads_to(self, wanted: Callable[[Branch], bool]) -> bool:
        """Whether this branch, or one below it, is wanted."""
        return wanted(self) or any(child.leads_to(wanted) for child in self.children)


def plan_branches(sequences: Sequence[Ids], minimum_saving: int = MINIMUM_SAVING) -> Branch:
    """The tree of sequences; its root has length 0. Every sequence is in the rows of exactly one branch.

    The tree depends on the set of sequences only, their order in it aside.
    """
    order = sorted(range(len(sequences)), key=lambda number: (sequences[number].tolist(), number))
    shared = [common_prefix(sequences[left], sequences[right]) for left, right in pairwise(order)]
    planner = _Planner(order, shared, minimum_saving)
    rows, children = planner.grow(0, len(order), 0, 0)
    return Branch(0, 0, order[0] if order else 0, tuple(rows), tuple(children))


def common_prefix(left: NDArray[np.integer], right: NDArray[np.integer]) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


@dataclass(frozen=True)
class _Planner:
    """order: sequences sorted by their tokens. shared[i]: tokens that i and i + 1 have in common."""

    order: list[int]
    shared: list[int]
    minimum_saving: int

    def grow(self, low: int, high: int, depth: int, level: int) -> tuple[list[int], list[Branch]]:
        """The rows and children of a branch of length `depth`, of the sequences low..high-1 in order."""
        if high - low <= 1 or level >= _MAXIMUM_DEPTH:
            return self.order[low:high], []
        length = min(self.shared[low : high - 1])
        saving = (high - low - 1) * (length - depth)
        if saving < self.minimum_saving:
            return self._parts(low, high, length, depth, level)
        rows, children = self._parts(low, high, length, length, level)
        return [], [Branch(depth, length, self.order[low], tuple(rows), tuple(children))]

    def _parts(
        self, low: int, high: int, length: int, depth: int, level: int
    ) -> tuple[list[int], list[Branch]]:
        """Cut where neighbours share no more than `length`, and go on in each part."""
        cuts = [place + 1 for place in range(low, high - 1) if self.shared[place] == length]
        rows: list[int] = []
        children: list[Branch] = []
        for start, end in zip([low, *cuts], [*cuts, high], strict=True):
            more_rows, more_children = self.grow(start, end, depth, level + 1)
            rows += more_rows
            children += more_children
        return rows, children
