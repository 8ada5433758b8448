"""The next batch, made while the present one is trained on.

A batch is a function of its step, so one that was made ahead is the one that would be made later. Making it
costs a thousandth of a step where tokens lie in memory; a corpus larger than memory, or on a network's disk,
has to be waited for, and this is where the waiting goes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeAlias, TypeVar

Made = TypeVar("Made")

Rows: TypeAlias = tuple[int, int, int]
"""Step, first row, row after the last."""


class Ahead(Generic[Made]):
    """`make(step, start, stop)`, and the same rows of the following step begun in a thread.

    steps: how many there are; nothing is made beyond them. What `make` raises for a step is raised when that
    step is asked for.
    """

    def __init__(self, make: Callable[[int, int, int], Made], steps: int) -> None:
        self._make = make
        self._steps = steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feeding")
        self._coming: tuple[Rows, Future[Made]] | None = None

    def get(self, step: int, start: int, stop: int) -> Made:
        """Rows start..stop-1 of `step`, from the thread if they were begun there."""
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] == (step, start, stop):
            made = coming[1].result()
        else:
            made = self._make(step, start, stop)
        if step + 1 < self._steps:
            following = (step + 1, start, stop)
            self._coming = (following, self._thread.submit(self._make, *following))
        return made
