"""Loss spikes: found, undone, and the data that came before them left out.

A spike that does not fall back within a few steps has often harmed the model for good. PaLM (arXiv
2204.02311, section 5.1) went back to a checkpoint from about 100 steps before each spike and left out 200 to
500 batches, those seen before and during it; the same data did no harm elsewhere. Here that happens by
itself: back to the newest checkpoint from before the rise, and the steps up to its end take spare data, which
follow the schedule's end by the weights of its last phase. All other steps keep theirs.

A step whose loss or gradient is not finite is not taken (the weights stay as they were), so it is enough to
give it other data; several in a row are a sign of harm done earlier, and treated as a spike.

What was left out stands in `work/spikes.json`, not in checkpoints: it outlives the rewind that it caused.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tsugiki.artifacts.files import read_json, write_json
from tsugiki.errors import StageError

if TYPE_CHECKING:
    from tsugiki.dataset.mixture import Mixture
    from tsugiki.training.settings import SpikeRule

FILE = "spikes.json"

Kind = Literal["loss spike", "not finite"]

_DEVIATIONS_OF_MAD = 1.4826
"""Median absolute deviation times this is the standard deviation of normal numbers."""

_LEAST_RISE = 0.05
"""A spike rises by this share of the median at least: where losses hardly vary, any step would be one."""


@dataclass(frozen=True)
class LeftOut:
    """Steps first..stop-1 (0-based) take the spare data steps from `spare` on.

    step: the step whose loss showed it. back_to: finished steps of the checkpoint that training went on from;
    `step` itself where nothing was undone. fell_back: bfloat16 is used in place of float8 since then.
    """

    kind: Kind
    step: int
    first: int
    stop: int
    spare: int
    back_to: int
    loss: float | None = None
    usual_loss: float | None = None
    fell_back: bool = False


class Losses(Protocol):
    """The part of a run's counters that the detector reads and writes; it is in every checkpoint."""

    window: list[float]
    high: int
    not_finite: int


def judge(rule: SpikeRule, losses: Losses, loss: float, *, finite: bool, settled: bool) -> Kind | None:
    """What is wrong with a step, if it is time to act.

    finite: loss and gradient are. settled: the warm-up is over; a rise before that is expected. The usual
    loss is the median of the last `rule.window` ones that were not high; a loss is high if it lies more than
    `rule.threshold` robust deviations above it. Acts after `rule.patience` high ones in a row, and at once
    where a step is not finite.
    """
    if not finite:
        losses.not_finite += 1
        return "not finite"
    losses.not_finite = 0
    if rule.action == "ignore" or not settled:
        return None
    if loss > limit(rule, losses.window):
        losses.high += 1
        return "loss spike" if losses.high >= rule.patience else None
    losses.high = 0
    losses.window = [*losses.window, loss][-rule.window :]
    return None


def limit(rule: SpikeRule, window: Sequence[float]) -> float:
    """The loss above which a step is high; infinite while half of the window is not full."""
    if 2 * len(window) < rule.window:
        return math.inf
    middle = median(window)
    deviation = _DEVIATIONS_OF_MAD * median(abs(loss - middle) for loss in window)
    return middle + max(rule.threshold * deviation, _LEAST_RISE * abs(middle))


@dataclass
class DataSteps:
    """Which step of the data each training step takes. Every process holds the same; the first one writes."""

    rule: SpikeRule
    file: Path
    left_out: list[LeftOut] = field(default_factory=list)

    @classmethod
    def read(cls, rule: SpikeRule, work: Path) -> DataSteps:
        """As an earlier attempt left it."""
        file = work / FILE
        found = read_json(file) if file.exists() else []
        return cls(rule, file, [LeftOut(**one) for one in found])

    def of(self, step: int, steps: int) -> int:
        """The data step of training step `step` of `steps`; what was left out last counts."""
        for one in reversed(self.left_out):
            if one.first <= step < one.stop:
                return steps + one.spare + step - one.first
        return step

    def leave_out(self, kind: Kind, step: int, back_to: int, **more: Any) -> LeftOut:
        """Give the steps up to `step`, and from `back_to` on, other data.

        Raises StageError where that was done `rule.most` times already.
        """
        if len(self.left_out) >= self.rule.most:
            raise StageError(
                f"step {step + 1}: {kind}, after {len(self.left_out)} of {self.rule.most} times that data "
                "were left out",
                hint="lower learning_rate, lengthen the warm-up, train in float32, or look at the data "
                "(spikes.most allows more)",
            )
        first = max(back_to, step + 1 - self.rule.skip_steps)
        spare = (
            self.left_out[-1].spare + self.left_out[-1].stop - self.left_out[-1].first if self.left_out else 0
        )
        one = LeftOut(kind, step, first, step + 1, spare, back_to, **more)
        self.left_out.append(one)
        return one

    def write(self) -> None:
        """Keep it; called by the first process."""
        write_json(self.file, [asdict(one) for one in self.left_out])

    @property
    def fell_back(self) -> bool:
        """Whether training went on in bfloat16 after any of them."""
        return any(one.fell_back for one in self.left_out)

    def added_sequences(self, mixture: Mixture) -> NDArray[np.int64]:
        """Sequences of each source that the run takes beyond its schedule (S), negative where fewer."""
        added = np.zeros(len(mixture.shares), np.int64)
        touched = {step for one in self.left_out for step in range(one.first, one.stop)}
        for step in touched:
            added += mixture.sequences_of(self.of(step, mixture.steps)) - mixture.sequences_of(step)
        return added


def tell(one: LeftOut, log: logging.Logger) -> None:
    """Into the log, for a person."""
    undone = f"back to the checkpoint after step {one.back_to}" if one.back_to < one.step else "not taken"
    log.warning(
        "step %d: %s (loss %s, usual %s): %s; steps %d to %d take other data%s",
        one.step + 1,
        one.kind,
        "-" if one.loss is None else f"{one.loss:.3f}",
        "-" if one.usual_loss is None else f"{one.usual_loss:.3f}",
        undone,
        one.first + 1,
        one.stop,
        ", in bfloat16 from here on" if one.fell_back else "",
    )
