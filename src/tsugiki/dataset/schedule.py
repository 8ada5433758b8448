"""Which source each place of the training data draws from: exact at every prefix, over any number of phases.

This is the chairman assignment problem: states (sources) with weights that may change from term to term
each want their share of the terms so far. Tijdeman ("The chairman assignment problem", Discrete Mathematics
32, 1980) keeps every one within 1 - 1/(2S - 2) of its exact share at every prefix, which is the best that is
possible. At each place, those sources are eligible that are owed at least 1/(2S - 2) of a place; of them the
one is taken whose debt would first become too large.

Everything is in whole numbers, so the schedule is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tsugiki.dataset.kernels import draw_places

_WHOLE_BITS = 60
"""places x the worth of one place stays below 2^60, so that sums fit in 64 bits."""


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

    Setting up is one pass over the places (about 10 ns each); it remembers S numbers a step. Reading a step
    costs the same wherever it stands. `used_FS[f]` says how many places each source has had before phase f,
    the last row at the end.
    """

    def __init__(self, phases: Sequence[tuple[int, Sequence[float | Fraction]]], rows_per_step: int) -> None:
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
        self._used_at_step = self._pass_over()
        ends = np.cumsum([0, *(steps for steps, _ in phases)])
        self.used_FS: NDArray[np.int64] = self._used_at_step[ends]

    def step(self, step: int) -> Places:
        """The places of step `step`, in order."""
        return self._draw(self._used_at_step[step].copy(), step)

    def _draw(self, used_S: NDArray[np.int64], step: int) -> Places:
        places = Places(np.empty(self.rows_per_step, np.int64), np.empty(self.rows_per_step, np.int64))
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
        used = np.zeros((self.steps + 1, self._weights_FS.shape[1]), dtype=np.int64)
        current = used[0].copy()
        for step in range(self.steps):
            self._draw(current, step)
            used[step + 1] = current
        return used
