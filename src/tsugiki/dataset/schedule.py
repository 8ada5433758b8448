"""Which source each place of the training data draws from: exact at every prefix, over any number of phases.

This is the chairman assignment problem: states (sources) with weights that may change from term to term
each want their share of the terms so far. Tijdeman ("The chairman assignment problem", Discrete Mathematics
32, 1980) keeps every one within 1 - 1/(2S - 2) of its exact share at every prefix, which is the best that is
possible. At each place, those sources are eligible that are owed at least 1/(2S - 2) of a place; of them the
one is taken whose debt would first become too large.

Everything is in whole numbers, so the schedule is the same on every machine.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tsugiki.artifacts.files import write_bytes
from tsugiki.dataset.kernels import draw_places
from tsugiki.errors import StorageError

_WHOLE_BITS = 60
"""places x the worth of one place stays below 2^60, so that sums fit in 64 bits."""

PLACES_BETWEEN_MARKS = 1 << 14
"""How far a step is from the nearest place where the state is known, at most: well under a millisecond."""

WORTH_REMEMBERING = 1 << 22
"""Places from which on the pass takes longer than a file is worth (0.2 s)."""

_DIGEST_BYTES = 32


def apportion(weights: Sequence[float | Fraction], total: int) -> list[int]:
    """Split `total` into whole parts in proportion to `weights`, by largest remainder (Hamilton's method).

    The parts add up to `total` and each is within 1 of its exact share. Ties go to the earlier one. Weights
    are taken as exact binary fractions, so the split is the same on every machine.
    """
    exact = [Fraction(weight) for weight in weights]
    quotas = [weight * total / sum(exact) for weight in exact]
    parts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(parts)), key=lambda index: (parts[index] - quotas[index], index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


@dataclass(frozen=True)
class Places:
    """What some consecutive places draw: the source, and how many earlier places drew from it."""

    source: NDArray[np.int64]
    use: NDArray[np.int64]


class Schedule:
    """The source of every place. `step(n)` gives the places of one step.

    phases: for each, its number of steps and the weight of each source (not negative; at least one positive).
    A weight is rounded to a part of about 2^60 / places of the whole: for 2^28 places, 4e-9 of it.
    directory: where a long schedule is remembered, so that the next process need not go through it again.

    Setting up is one pass over the places (about 40 ns each), or reading what an earlier pass left: S numbers
    for every `PLACES_BETWEEN_MARKS` places. Reading a step costs the same wherever it stands. `used_FS[f]`
    says how many places each source has had before phase f, the last row at the end.
    """

    def __init__(
        self,
        phases: Sequence[tuple[int, Sequence[float | Fraction]]],
        rows_per_step: int,
        directory: Path | None = None,
    ) -> None:
        self.rows_per_step = rows_per_step
        self.steps = sum(steps for steps, _ in phases)
        places = self.steps * rows_per_step
        self._whole = 1 << max(1, _WHOLE_BITS - places.bit_length())
        self._weights_FS = np.asarray(
            [apportion(weights, self._whole) for _, weights in phases], dtype=np.int64
        )
        lengths = np.asarray([steps * rows_per_step for steps, _ in phases], dtype=np.int64)
        self._starts_F = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)
        owed = np.cumsum(self._weights_FS * lengths[:, None], axis=0)
        self._owed_FS = np.concatenate((np.zeros_like(owed[:1]), owed[:-1]))
        ends = np.cumsum([0, *(steps for steps, _ in phases)])
        between = max(1, PLACES_BETWEEN_MARKS // rows_per_step)
        self._marks_M = np.union1d(np.arange(0, self.steps + 1, between), ends)
        self._used_MS = self._remembered(directory if places >= WORTH_REMEMBERING else None)
        self.used_FS: NDArray[np.int64] = self._used_MS[np.searchsorted(self._marks_M, ends)]
        self._next = (0, self._used_MS[0])

    def step(self, step: int) -> Places:
        """The places of step `step`, in order."""
        at, used = self._next
        if step != at:
            mark = int(np.searchsorted(self._marks_M, step, side="right")) - 1
            at, used = int(self._marks_M[mark]), self._used_MS[mark]
        used_S = used.copy()
        if step > at:
            self._draw(used_S, at, step - at)
        places = self._draw(used_S, step, 1)
        self._next = (step + 1, used_S)  # the step that is asked for most often
        return places

    def _draw(self, used_S: NDArray[np.int64], step: int, steps: int) -> Places:
        count = steps * self.rows_per_step
        places = Places(np.empty(count, np.int64), np.empty(count, np.int64))
        draw_places(
            used_S,
            step * self.rows_per_step,
            self._whole,
            self._weights_FS,
            self._starts_F,
            self._owed_FS,
            places.source,
            places.use,
        )
        return places

    def _pass_over(self) -> NDArray[np.int64]:
        used_MS = np.zeros((len(self._marks_M), self._weights_FS.shape[1]), dtype=np.int64)
        current = used_MS[0].copy()
        marks = self._marks_M.tolist()
        for number, (mark, following) in enumerate(pairwise(marks), start=1):
            self._draw(current, mark, following - mark)
            used_MS[number] = current
        return used_MS

    def _remembered(self, directory: Path | None) -> NDArray[np.int64]:
        """What `_pass_over` gives, from a file of an earlier pass where there is one that is whole."""
        if directory is None:
            return self._pass_over()
        path = directory / f"schedule-{self._key()[:16]}.bin"
        shape = (len(self._marks_M), self._weights_FS.shape[1])
        data = path.read_bytes() if path.exists() else b""
        numbers, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
        if len(numbers) == 8 * shape[0] * shape[1] and digest == hashlib.sha256(numbers).digest():
            return np.frombuffer(numbers, dtype="<i8").reshape(shape)
        used_MS = self._pass_over()
        numbers = used_MS.astype("<i8").tobytes()
        with contextlib.suppress(OSError, StorageError):  # several may write it at once
            write_bytes(path, numbers + hashlib.sha256(numbers).digest())
        return used_MS

    def _key(self) -> str:
        """A name for everything that the marks depend on."""
        facts = (self.rows_per_step, self._whole, self._weights_FS.tolist(), self._starts_F.tolist())
        marks = self._marks_M.astype("<i8").tobytes()
        return hashlib.sha256(repr(facts).encode() + marks).hexdigest()
