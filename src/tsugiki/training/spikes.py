"""Loss spikes: found, undone, and the data that came before them left out.

A spike that does not fall back within a few steps has often harmed the model for good. PaLM (arXiv
2204.02311, section 5.1) went back to a checkpoint from about 100 steps before each spike and left out 200 to
500 batches, those seen before and during it; the same data did no harm elsewhere. Here that happens by
itself: back to the newest good checkpoint, and the steps up to the end of the rise take spare data, which
follow the schedule's end by the weights of its last phase. All other steps keep theirs.

The loss of step s (0-based) is that of the weights after s steps. So where the first high loss is that of
step s, the checkpoint after s steps may hold the harm already: a good one was made after fewer. No checkpoint
is made while losses are high, and none of weights or moments that are not finite. The update of the last step
has no loss of its own, so the run ends with a look at one (`recovery.hidden_trouble`).

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

    step: the step whose loss showed it. back_to: finished steps of the checkpoint that training went on from,
    0 for the start; `step` itself where it was not taken; `step` + 1, and no data left out, where it was
    lived with. fell_back: bfloat16 is used in place of float8 since then.
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

    @property
    def lived_with(self) -> bool:
        """Whether there was nothing good to go back to, and training went on from what it had."""
        return self.first == self.stop


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
    run_identity: str = ""
    left_out: list[LeftOut] = field(default_factory=list)

    @classmethod
    def read(cls, rule: SpikeRule, work: Path, run_identity: str) -> DataSteps:
        """As an earlier attempt at the same run left it; what another run left out is nothing to this one."""
        file = work / FILE
        found = read_json(file) if file.exists() else {}
        ours = isinstance(found, dict) and found.get("run_identity") == run_identity
        return cls(rule, file, run_identity, [LeftOut(**one) for one in found["left_out"]] if ours else [])

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
        times = sum(not one.lived_with for one in self.left_out)
        if times >= self.rule.most:
            raise StageError(
                f"step {step + 1}: {kind}, after {times} of {self.rule.most} times that data were left out",
                hint="lower learning_rate, lengthen the warm-up, train in float32, look at the data, or "
                "raise spikes.most; with other settings the stage begins anew",
            )
        first = max(back_to, step + 1 - self.rule.skip_steps)
        one = LeftOut(kind, step, first, step + 1, self._next_spare, back_to, **more)
        self.left_out.append(one)
        return one

    def live_with(self, kind: Kind, step: int, **more: Any) -> LeftOut:
        """Note that step `step` went wrong and nothing was undone."""
        one = LeftOut(kind, step, step + 1, step + 1, self._next_spare, step + 1, **more)
        self.left_out.append(one)
        return one

    @property
    def _next_spare(self) -> int:
        last = self.left_out[-1] if self.left_out else None
        return 0 if last is None else last.spare + last.stop - last.first

    def came_back_to(self, step: int) -> bool:
        """Whether a spike was undone by going back to the checkpoint after `step` steps."""
        return any(one.back_to == step < one.step for one in self.left_out)

    def write(self) -> None:
        """Keep it; called by the first process."""
        rows = [asdict(one) for one in self.left_out]
        write_json(self.file, {"run_identity": self.run_identity, "left_out": rows})

    @property
    def notes(self) -> list[str]:
        """For the progress line: how often something went wrong so far, if it did."""
        times = len(self.left_out)
        return [f"went wrong {times} time{'s' * (times > 1)} (log.txt)"] if times else []

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
    if one.lived_with:
        done = "nothing good to go back to: going on"
    else:
        if one.kind == "not finite" and one.back_to == one.step == one.first:
            undone = "not taken"
        else:
            undone = (
                f"back to the checkpoint after step {one.back_to}" if one.back_to else "back to the start"
            )
        done = f"{undone}; steps {one.first + 1} to {one.stop} take other data"
    log.warning(
        "step %d: %s (loss %s, usual %s): %s%s",
        one.step + 1,
        one.kind,
        "-" if one.loss is None else f"{one.loss:.3f}",
        "-" if one.usual_loss is None else f"{one.usual_loss:.3f}",
        done,
        ", in bfloat16 from here on" if one.fell_back else "",
    )
