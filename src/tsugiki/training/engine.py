"""What carries a step out: one process, or many that share the work. The loop knows only this."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from tsugiki.dataset.mixture import Batch, Mixture
from tsugiki.models.decoder import Decoder
from tsugiki.models.generation import generate
from tsugiki.training.compute import Compute
from tsugiki.training.counts import Counts
from tsugiki.training.new_rows import keep_rows_from
from tsugiki.training.norms import moments_by_group, squares_by_group
from tsugiki.training.precision.products import Float8
from tsugiki.training.precision.watch import Float8Report
from tsugiki.training.validation import ValidationSet, measure


@dataclass(frozen=True)
class StepResult:
    """One step: cross entropy in nats summed over `counted` targets; the gradient's norm before clipping.

    figures: more of the step, by the names of the metrics. float8: see `Engine.watch_float8`.
    """

    nats: float
    counted: int
    gradient_norm: float
    figures: Mapping[str, float] = field(default_factory=dict)
    float8: Float8Report | None = None

    @property
    def loss(self) -> float:
        """Mean cross entropy in nats a counted token."""
        return self.nats / max(1, self.counted)

    def with_float8(self, report: Float8Report | None) -> StepResult:
        """With what was found of float8, if anything was."""
        if report is None:
            return self
        return replace(self, float8=report, figures={**self.figures, **report.figures})

    @property
    def is_finite(self) -> bool:
        """Whether the step may be taken."""
        return math.isfinite(self.nats) and math.isfinite(self.gradient_norm)


class Engine(Protocol):
    """Trains parameters on batches; every process of a run holds one and calls it in the same order."""

    optimizer: torch.optim.Optimizer
    rank: int
    ranks: int
    rows_from: int | None
    """Only rows of tokens from this one on learn in the next step (see `new_rows`); None: everything."""

    @property
    def precision(self) -> str:
        """What is in force now: float32, bfloat16 or one of the float8 recipes."""

    def fall_back(self) -> bool:
        """From the next step on bfloat16 in place of float8; False where there is nothing to fall back from.

        Every process calls it at the same step. Weights and optimizer state stay as they are.
        """

    def watch_float8(self) -> None:
        """Measure in the next step how well float8 keeps numbers (`StepResult.float8`), if it is in force.

        Every process calls it at the same step.
        """

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

    def squares(self) -> tuple[Tensor, int]:
        """Squared norms by group (`norms.squares_by_group`) of all processes, and the model's layers."""

    def moments(self) -> Tensor:
        """Histograms of AdamW's second moments by group (`norms.moments_by_group`) of all processes."""

    def measure(self, held_out: ValidationSet) -> float:
        """Bits per byte of a validation set."""

    def continuations(
        self, prompts: Sequence[Sequence[int]], tokens: int, eos_id: int | None, pieces: int
    ) -> list[list[int]]:
        """The most likely ids after each prompt, at most `tokens`, without the end token.

        None where a prompt is empty or leaves no room.

        pieces: ids that the tokenizer has; those behind them are never chosen. Every process calls it alike.
        """

    def in_any(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether the flag is set in any process."""

    def in_all(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether the flag is set in every process."""


class InPrecision:
    """What every engine says and does of its precision, and of the rows that learn."""

    float8: Float8 | None
    without_float8: str
    """The precision where float8 is not in force: float32 or bfloat16."""
    rows_from: int | None = None

    @property
    def precision(self) -> str:
        """See `Engine.precision`."""
        return self.without_float8 if self.float8 is None else self.float8.precision

    def fall_back(self) -> bool:
        """See `Engine.fall_back`."""
        return self.float8 is not None and self.float8.fall_back()

    def watch_float8(self) -> None:
        """See `Engine.watch_float8`."""
        if self.float8 is not None:
            self.float8.watch()


class Alone(InPrecision):
    """The engine of one process."""

    rank, ranks = 0, 1

    def __init__(
        self,
        decoder: Decoder,
        optimizer: torch.optim.Optimizer,
        compute: Compute,
        rows_at_once: int,
        float8: Float8 | None = None,
    ) -> None:
        self.decoder = decoder
        self.optimizer = optimizer
        self.compute = compute
        self.rows_at_once = rows_at_once
        self.float8 = float8
        self.without_float8 = "bfloat16" if compute.bfloat16 else "float32"
        self.parameters = dict(decoder.named_parameters())

    def load(self, mixture: Mixture, step: int) -> Batch:
        """All rows."""
        return mixture.batch(step)

    def add_up(self, counts: Counts) -> Counts:
        """The counts themselves."""
        return counts

    def train(self, batch: Batch, clip: float, counted: int) -> StepResult:
        """See `Engine.train`."""
        result = optimizer_step(
            self.decoder,
            self.optimizer,
            batch,
            compute=self.compute,
            rows_at_once=self.rows_at_once,
            clip=clip,
            counted=counted,
            rows_from=self.rows_from,
        )
        found = None if self.float8 is None else self.float8.report(self.compute.device)
        return result.with_float8(found)

    def squares(self) -> tuple[Tensor, int]:
        """See `Engine.squares`."""
        layers = self.decoder.config.layers
        return squares_by_group(self.parameters, layers), layers

    def moments(self) -> Tensor:
        """See `Engine.moments`."""
        return moments_by_group(self.parameters, self.optimizer, self.decoder.config.layers)

    def measure(self, held_out: ValidationSet) -> float:
        """See `Engine.measure`."""
        return measure(self.decoder, held_out, rows_at_once=self.rows_at_once, compute=self.compute)

    @torch.no_grad()
    def continuations(
        self, prompts: Sequence[Sequence[int]], tokens: int, eos_id: int | None, pieces: int
    ) -> list[list[int]]:
        """See `Engine.continuations`; here with a cache."""
        found = []
        for prompt in prompts:
            most = min(tokens, self.decoder.config.max_positions - len(prompt)) if prompt else 0
            with self.compute.autocast():  # the precision in force
                written = generate(self.decoder, prompt, most, eos_id, pieces=pieces) if most > 0 else []
            found.append(written)
        return found

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
    counted: int,
    rows_from: int | None = None,
) -> StepResult:
    """One step on a whole batch, in micro-batches of `rows_at_once` rows.

    counted: targets of the batch that count. rows_from: as `Engine.rows_from`.

    Every counted target of the batch weighs the same, however the rows are split. Where loss or gradient
    are not finite, the weights are left as they were.
    """
    nats, z_loss = torch.zeros(2, device=compute.device)
    optimizer.zero_grad(set_to_none=True)
    for start in range(0, len(batch), rows_at_once):
        sums = compute.loss(decoder, batch.rows(start, start + rows_at_once), 1.0 / max(1, counted))
        torch.autograd.backward(sums.objective)
        nats += sums.cross_entropy
        z_loss += sums.z_loss
    if rows_from is not None:
        keep_rows_from(rows_from, dict(decoder.named_parameters()))
    norm = clip_gradients(decoder, clip)
    routers = compute.routers
    figures = {} if routers is None else dict(routers.figures(routers.take(), counted))
    if compute.z_loss:
        figures["z_loss"] = float(z_loss) / max(1, counted)
    result = StepResult(float(nats), counted, float(norm), figures)
    if result.is_finite:
        optimizer.step()
    return result


def clip_gradients(decoder: Decoder, clip: float) -> Tensor:
    """Scale all gradients so that their joint L2 norm is at most `clip`; gives the norm before that."""
    return torch.nn.utils.clip_grad_norm_(decoder.parameters(), clip)
