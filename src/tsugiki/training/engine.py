"""What carries a step out: one process, or many that share the work. The loop knows only this."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from tsugiki.dataset.mixture import Batch, Mixture
from tsugiki.models.decoder import Decoder
from tsugiki.training.compute import Compute
from tsugiki.training.counts import Counts
from tsugiki.training.validation import ValidationSet, measure


@dataclass(frozen=True)
class StepResult:
    """One step: cross entropy in nats summed over `counted` targets; the gradient's norm before clipping.

    figures: more of the step, by the names of the metrics.
    """

    nats: float
    counted: int
    gradient_norm: float
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Mean cross entropy in nats a counted token."""
        return self.nats / max(1, self.counted)

    @property
    def is_finite(self) -> bool:
        """Whether the step may be taken."""
        return math.isfinite(self.nats) and math.isfinite(self.gradient_norm)


class Engine(Protocol):
    """Trains parameters on batches; every process of a run holds one and calls it in the same order."""

    optimizer: torch.optim.Optimizer
    rank: int
    ranks: int

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What this process holds of the model, by the names in the decoder."""

    def load(self, mixture: Mixture, step: int) -> Batch:
        """The rows of a step that this process trains on."""

    def add_up(self, counts: Counts) -> Counts:
        """The counts of the whole batch, from those of the rows of every process."""

    def train(self, batch: Batch, clip: float, counted: int) -> StepResult:
        """One optimizer step; weights stay as they were where a figure is not finite.

        batch: what `load` gave. counted: targets that count in the rows of all processes.
        """

    def measure(self, held_out: ValidationSet) -> float:
        """Bits per byte of a validation set."""

    def in_any(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether the flag is set in any process."""

    def in_all(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether the flag is set in every process."""


class Alone:
    """The engine of one process."""

    rank, ranks = 0, 1

    def __init__(
        self, decoder: Decoder, optimizer: torch.optim.Optimizer, compute: Compute, rows_at_once: int
    ) -> None:
        self.decoder = decoder
        self.optimizer = optimizer
        self.compute = compute
        self.rows_at_once = rows_at_once
        self.parameters = dict(decoder.named_parameters())

    def load(self, mixture: Mixture, step: int) -> Batch:
        """All rows."""
        return mixture.batch(step)

    def add_up(self, counts: Counts) -> Counts:
        """The counts themselves."""
        return counts

    def train(self, batch: Batch, clip: float, _counted: int) -> StepResult:
        """See `Engine.train`."""
        return optimizer_step(
            self.decoder,
            self.optimizer,
            batch,
            compute=self.compute,
            rows_at_once=self.rows_at_once,
            clip=clip,
        )

    def measure(self, held_out: ValidationSet) -> float:
        """See `Engine.measure`."""
        return measure(self.decoder, held_out, rows_at_once=self.rows_at_once, compute=self.compute)

    def in_any(self, flag: bool) -> bool:  # noqa: FBT001
        """The flag itself."""
        return flag

    in_all = in_any


def optimizer_step(
    decoder: Decoder,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    compute: Compute,
    rows_at_once: int,
    clip: float,
) -> StepResult:
    """One step on a whole batch, in micro-batches of `rows_at_once` rows.

    Every counted target of the batch weighs the same, however the rows are split. Where loss or gradient
    are not finite, the weights are left as they were.
    """
    counted = int((batch.targets_BT >= 0).sum())
    nats = torch.zeros((), device=compute.device)
    optimizer.zero_grad(set_to_none=True)
    for start in range(0, len(batch), rows_at_once):
        sums = compute.loss(decoder, batch.rows(start, start + rows_at_once), 1.0 / max(1, counted))
        torch.autograd.backward(sums.objective)
        nats += sums.cross_entropy
    norm = clip_gradients(decoder, clip)
    routers = compute.routers
    figures = {} if routers is None else routers.figures(routers.take(), counted)
    result = StepResult(float(nats), counted, float(norm), figures)
    if result.is_finite:
        optimizer.step()
    return result


def clip_gradients(decoder: Decoder, clip: float) -> Tensor:
    """Scale all gradients so that their joint L2 norm is at most `clip`; gives the norm before that."""
    return torch.nn.utils.clip_grad_norm_(decoder.parameters(), clip)
