"""The engine of many processes: each takes its rows of a batch, its layers, its part of every sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from tsugiki.dataset.mixture import Batch, Mixture
from tsugiki.dataset.packing import IGNORED
from tsugiki.models.config import DecoderConfig
from tsugiki.models.decoder import Decoder
from tsugiki.training.checkpoint import TIED_COPY
from tsugiki.training.counts import Counts
from tsugiki.training.engine import InPrecision, StepResult
from tsugiki.training.new_rows import keep_rows_from
from tsugiki.training.norms import moments_by_group, squares_by_group
from tsugiki.training.parallel.continuing import Offer, continuations
from tsugiki.training.parallel.gradients import own_squares, scale_gradients
from tsugiki.training.parallel.mesh import World
from tsugiki.training.parallel.pipeline import Pipeline, add_tied_gradients, layers_of, stages_of
from tsugiki.training.parallel.recompute import Recompute
from tsugiki.training.parallel.trainee import Trainee, drop_gathered, named_parts, spread
from tsugiki.training.placement import local_part
from tsugiki.training.precision.products import Float8
from tsugiki.training.precision.recipes import Precision
from tsugiki.training.routers import Balancing, Routers, routers_of
from tsugiki.training.validation import ValidationSet, bits_per_byte


class Together(InPrecision):
    """The engine of one of several processes; see `tsugiki.training.engine.Engine`.

    rows_at_once: sequences of a micro-batch on one process. float8: puts matrices of the decoders here into
    float8, before they are cut and wrapped.
    """

    optimizer: torch.optim.Optimizer

    def __init__(
        self,
        shape: DecoderConfig,
        world: World,
        *,
        sequence_length: int,
        rows_at_once: int,
        precision: Precision,
        document_masking: bool,
        z_loss: float,
        balancing: Balancing | None = None,
        recompute: Recompute = "none",
        float8: Callable[[Sequence[Decoder]], Float8 | None] | None = None,
    ) -> None:
        self.world, self.shape = world, shape
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self.sequence_length, self.rows_at_once = sequence_length, rows_at_once
        self.dtype = torch.float32 if precision == "float32" else torch.bfloat16
        with torch.device("meta"):  # no process ever holds more of the model than its own part
            parts = decoder_parts(shape, world)
        self.float8 = None if float8 is None else float8(parts)
        self.without_float8 = "float32" if precision == "float32" else "bfloat16"
        sequence, data = (
            [world.group(name) for name in names] for names in (("context", "tensor"), ("replicate", "shard"))
        )
        self.trainees = [
            Trainee(
                part,
                world,
                document_masking=document_masking,
                z_loss=z_loss,
                routers=routers_of(part, balancing or Balancing(), groups=sequence, data=data),
            )
            for part in parts
        ]
        for trainee in self.trainees:
            spread(trainee, bfloat16=precision != "float32", recompute=recompute)
            trainee.to_empty(device=world.device)
            forget(trainee)
        self.parameters = named_parts(self.trainees)
        self.decoders = [trainee.decoder for trainee in self.trainees]
        self._pipelines: dict[int, Pipeline] = {}

    def load(self, mixture: Mixture, step: int) -> Batch:
        """See `Engine.load`."""
        return mixture.batch(step, self.world.data_rank, self.world.parallel.data)

    def add_up(self, counts: Counts) -> Counts:
        """See `Engine.add_up`."""
        mine = torch.tensor(np.stack(counts), device=self.world.device)
        # processes that share a sequence or the model have the same rows
        mine *= all(self.world.rank_in(name) == 0 for name in ("pipeline", "context", "tensor"))
        dist.all_reduce(mine)
        return Counts(*mine.cpu().numpy())

    def train(self, batch: Batch, clip: float, counted: int) -> StepResult:
        """See `Engine.train`."""
        self.optimizer.zero_grad(set_to_none=True)
        for trainee in self.trainees:
            trainee.scale = 1.0 / max(1, counted)
        own_sums = self._pass(batch, backward=True)
        add_tied_gradients(self.trainees)
        if self.rows_from is not None:
            keep_rows_from(self.rows_from, self.parameters)
        squares = own_squares(self._counted_once.values(), self._stage_size)
        z_loss = self._sum_of([value for trainee in self.trainees for value in trainee.z_losses])
        sums = torch.cat([own_sums, squares.double().view(1), z_loss, *self._router_sums()])
        dist.all_reduce(sums)
        nats, norm = sums[0], sums[1].sqrt()
        figures = dict(self._figures(sums[3:], counted))
        if self.trainees[0].z_loss:
            figures["z_loss"] = float(sums[2]) / max(1, counted)
        result = StepResult(float(nats), counted, float(norm), figures)
        if result.is_finite:
            scale_gradients(self.parameters.values(), norm, clip)
            self.optimizer.step()
        found = None if self.float8 is None else self.float8.report(self.world.device, _of_all)
        return result.with_float8(found)

    @property
    def _counted_once(self) -> Mapping[str, nn.Parameter]:
        """The parameters here, without the last stage's copy of a tied embedding."""
        return {name: one for name, one in self.parameters.items() if name != TIED_COPY}

    @property
    def _stage_size(self) -> int:
        """Processes of one pipeline stage."""
        return self.ranks // self.world.parallel.pipeline

    @property
    def _rows_a_pass(self) -> int:
        """Rows of all processes that are measured at once: a micro-batch a stage at least."""
        return self.rows_at_once * self.world.parallel.data * self.world.parallel.pipeline

    def squares(self) -> tuple[Tensor, int]:
        """See `Engine.squares`."""
        squares = squares_by_group(self._counted_once, self.shape.layers, self._stage_size)
        dist.all_reduce(squares)
        return squares, self.shape.layers

    def moments(self) -> Tensor:
        """See `Engine.moments`."""
        histograms = moments_by_group(self._counted_once, self.optimizer, self.shape.layers, self._stage_size)
        dist.all_reduce(histograms)
        return histograms

    @torch.no_grad()
    def measure(self, held_out: ValidationSet) -> float:
        """See `Engine.measure`."""
        group = self._rows_a_pass
        parts = (
            self._own_rows(_filled_up(held_out.rows.rows(start, start + group), group))
            for start in range(0, len(held_out.rows), group)
        )
        nats = torch.stack([self._pass(part, backward=False) for part in parts]).sum()
        for trainee in self.trainees:
            drop_gathered(trainee)
        dist.all_reduce(nats)
        return bits_per_byte(float(nats), held_out.target_bytes)

    def continuations(
        self, prompts: Sequence[Sequence[int]], tokens: int, eos_id: int | None, pieces: int
    ) -> list[list[int]]:
        """See `Engine.continuations`."""
        return continuations(self, prompts, tokens, eos_id, pieces)

    @torch.no_grad()
    def offers(self, rows: Batch, pieces: int) -> Iterator[Offer]:
        """What this process offers as the token that follows in each row, some rows at a time.

        Rows of other processes, and those that are added to fill a batch up, have no offer here.
        """
        group = self._rows_a_pass
        share = group // self.world.parallel.data
        for start in range(0, len(rows), group):
            for trainee in self.trainees:
                trainee.pieces = pieces
            self._pass(self._own_rows(_filled_up(rows.rows(start, start + group), group)), backward=False)
            logits_R = torch.full((group,), -math.inf, device=self.world.device)
            ids_R = torch.zeros(group, dtype=torch.int64, device=self.world.device)
            mine = slice(self.world.data_rank * share, (self.world.data_rank + 1) * share)
            for trainee in self.trainees:
                trainee.pieces = None
                drop_gathered(trainee)
                if trainee.offers:
                    logits_R[mine] = torch.cat([found.logits_B for found in trainee.offers])
                    ids_R[mine] = torch.cat([found.ids_B for found in trainee.offers])
                    trainee.offers.clear()
            yield Offer(logits_R, ids_R)

    def _router_sums(self) -> list[Tensor]:
        """What the routers here did, to be added up over all processes; empty without routers."""
        taken = [routers.take() for routers in self.routers]
        return [torch.stack(taken).sum(dim=0).double().to(self.world.device)] if taken else []

    def _figures(self, router_sums: Tensor, counted: int) -> Mapping[str, float]:
        return self.routers[0].figures(router_sums, counted) if self.routers else {}

    @property
    def routers(self) -> list[Routers]:
        """Those of the parts here, all or none."""
        return [trainee.routers for trainee in self.trainees if trainee.routers is not None]

    def in_any(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether the flag is set in any process."""
        return self._agreed(flag, dist.ReduceOp.MAX)

    def in_all(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether the flag is set in every process."""
        return self._agreed(flag, dist.ReduceOp.MIN)

    def _agreed(self, flag: bool, operation: dist.ReduceOp.RedOpType) -> bool:  # noqa: FBT001
        value = torch.tensor(int(flag), device=self.world.device)
        dist.all_reduce(value, operation)
        return bool(value)

    def _own_rows(self, batch: Batch) -> Batch:
        rows = len(batch) // self.world.parallel.data
        return batch.rows(self.world.data_rank * rows, (self.world.data_rank + 1) * rows)

    def _pass(self, rows: Batch, *, backward: bool) -> Tensor:
        """Forward (and backward) over this process's rows; its share of the nats of all, float64 (1)."""
        given = [self._tensor(x) for x in (rows.ids_BT, rows.document_ids_BT, rows.targets_BT)]
        for trainee in self.trainees:
            trainee.cross_entropies.clear()
            trainee.z_losses.clear()
            on_host_BT = torch.from_numpy(np.ascontiguousarray(rows.document_ids_BT))
            trainee.host_documents = list(torch.split(on_host_BT, self.rows_at_once))
        if self.world.parallel.pipeline > 1:
            self._pipeline(len(rows)).run(*given, backward=backward)
        else:
            self._in_turn(given, backward=backward)
        return self._nats()

    def _in_turn(self, given: Sequence[Tensor], *, backward: bool) -> None:
        trainee = self.trainees[0]
        cuts = list(range(self.rows_at_once, len(given[0]), self.rows_at_once))
        pieces = list(zip(*(x.tensor_split(cuts) for x in given), strict=True))
        for number, piece in enumerate(pieces):
            # each micro-batch's gradients are added up over the processes that spread weights, so that none
            # holds whole ones; copies of weights are told of the sum, once
            trainee.set_requires_all_reduce(number == len(pieces) - 1)  # type: ignore[operator]
            objective = trainee(*piece)
            if backward:
                objective.sum().backward()

    def _pipeline(self, rows: int) -> Pipeline:
        """The pipeline for so many rows: torch's schedules fix the number of micro-batches."""
        micro_batches = rows // self.rows_at_once
        if micro_batches not in self._pipelines:
            self._pipelines[micro_batches] = Pipeline(
                self.trainees,
                self.shape,
                micro_batches=micro_batches,
                rows=self.rows_at_once,
                sequence_length=self.sequence_length,
                dtype=self.dtype,
                schedule=self.world.parallel.schedule,
            )
        return self._pipelines[micro_batches]

    def _nats(self) -> Tensor:
        return self._sum_of([value for trainee in self.trainees for value in trainee.cross_entropies])

    def _sum_of(self, found: list[Tensor]) -> Tensor:
        """Only the last stage has the loss, and the processes of a tensor group all have the same."""
        if not found or self.world.rank_in("tensor"):
            return torch.zeros(1, dtype=torch.float64, device=self.world.device)
        return torch.stack(found).sum(dtype=torch.float64).view(1)

    def _tensor(self, array: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.world.device, non_blocking=True)


def _of_all(sums: Tensor, maxima: Tensor) -> None:
    dist.all_reduce(sums)
    dist.all_reduce(maxima, dist.ReduceOp.MAX)


@torch.no_grad()
def forget(module: nn.Module) -> None:
    """Fill all parameters with NaN, so that forgotten weights show at once."""
    for parameter in module.parameters():
        local_part(parameter).fill_(math.nan)


def decoder_parts(shape: DecoderConfig, world: World) -> list[Decoder]:
    """The decoder, or this process's pipeline stages of it; their weights are NaN."""
    degree, chunks = world.parallel.pipeline, world.parallel.chunks
    if degree == 1:
        return [Decoder(shape)]
    total = degree * chunks
    held = layers_of(shape.layers, total)
    return [
        Decoder(shape, layers=held[stage], first=stage == 0, last=stage == total - 1)
        for stage in stages_of(world.rank_in("pipeline"), degree, chunks)
    ]


def _filled_up(rows: Batch, count: int) -> Batch:
    """Exactly `count` rows: the missing ones have no counted target."""
    missing = count - len(rows)
    if not missing:
        return rows

    def more(array: NDArray[Any], value: int) -> NDArray[Any]:
        widths = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
        return np.pad(array, widths, constant_values=value)

    return Batch(
        more(rows.ids_BT, 0),
        more(rows.targets_BT, IGNORED),
        more(rows.document_ids_BT, 0),
        more(rows.source_B, 0),
    )
