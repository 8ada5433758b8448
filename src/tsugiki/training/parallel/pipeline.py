"""Pipeline parallelism: which layers a process holds, and the order in which it works on micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B

from tsugiki.models.config import DecoderConfig
from tsugiki.training.parallel.trainee import Trainee

ScheduleName = Literal["1f1b", "gpipe", "interleaved"]


def layers_of(layers: int, stages: int) -> list[range]:
    """The layers of each stage: as even as can be, the first and the last stage with the fewer ones.

    The first holds the embedding and the last the head and the loss besides.
    """
    base, rest = divmod(layers, stages)
    order = [*range(1, stages - 1), 0, stages - 1]
    extra = set(order[:rest])
    bounds, start = [], 0
    for stage in range(stages):
        stop = start + base + (stage in extra)
        bounds.append(range(start, stop))
        start = stop
    return bounds


def stages_of(rank: int, degree: int, chunks: int) -> list[int]:
    """The stages that a process holds: one of each round of `chunks` (interleaved; Narayanan et al. 2021)."""
    return [rank + chunk * degree for chunk in range(chunks)]


class Pipeline:
    """This process's stages and their schedule."""

    def __init__(
        self,
        trainees: Sequence[Trainee],
        shape: DecoderConfig,
        *,
        micro_batches: int,
        rows: int,
        sequence_length: int,
        dtype: torch.dtype,
        schedule: ScheduleName,
    ) -> None:
        world = trainees[0].world
        degree = world.parallel.pipeline
        group = world.group("pipeline")
        numbers = stages_of(world.rank_in("pipeline"), degree, len(trainees))
        length = sequence_length // (world.parallel.context * world.parallel.tensor)
        stream = torch.empty(rows, length, shape.hidden_size, dtype=dtype, device="meta", requires_grad=True)
        objective = torch.empty(1, device="meta", requires_grad=True)
        ids = torch.empty(rows, sequence_length, dtype=torch.int64, device="meta")
        total = degree * len(trainees)
        self.stages = [
            PipelineStage(
                trainee,
                number,
                total,
                world.device,
                input_args=(ids if number == 0 else stream,),
                output_args=(objective if number == total - 1 else stream,),
                group=group,
            )
            for trainee, number in zip(trainees, numbers, strict=True)
        ]
        options: dict[str, Any] = {"loss_fn": _is_the_loss, "scale_grads": False}
        if len(trainees) > 1:
            self.schedule: Any = ScheduleInterleaved1F1B(list(self.stages), micro_batches, **options)
        else:
            kind = ScheduleGPipe if schedule == "gpipe" else Schedule1F1B
            self.schedule = kind(self.stages[0], micro_batches, **options)
        self.holds_first = numbers[0] == 0
        self.holds_last = numbers[-1] == total - 1

    def run(self, ids_BT: Tensor, document_ids_BT: Tensor, targets_BT: Tensor, *, backward: bool) -> None:
        """Forward (and backward) of all micro-batches; gradients are left in the parameters."""
        given = {"document_ids_BT": document_ids_BT, "targets_BT": targets_BT}
        arguments = (ids_BT,) if self.holds_first else ()
        target = targets_BT if self.holds_last else None
        losses: list[Tensor] | None = [] if self.holds_last else None
        go = self.schedule.step if backward else self.schedule.eval
        go(*arguments, target=target, losses=losses, **given)


def _is_the_loss(output: Tensor, _target: Tensor) -> Tensor:
    return output.sum()


def add_tied_gradients(trainees: Sequence[Trainee]) -> None:
    """Add the gradients of the two copies of a tied matrix: the embedding's, and the last stage's head's."""
    world = trainees[0].world
    if world.parallel.pipeline == 1 or not trainees[0].decoder.config.tied_embeddings:
        return
    ends = [0, world.parallel.pipeline - 1]
    group = world.group("pipeline")
    for trainee in trainees:
        decoder = trainee.decoder
        holder = decoder.model.embed_tokens or decoder.lm_head
        if holder is None:
            continue
        gradient = holder.weight.grad
        local = gradient.to_local()  # type: ignore[union-attr]
        other = ends[1] if decoder.model.embed_tokens is not None else ends[0]
        peer = dist.get_global_rank(group, other)
        received = torch.empty_like(local)
        operations = [
            dist.P2POp(dist.isend, local.contiguous(), peer, group),
            dist.P2POp(dist.irecv, received, peer, group),
        ]
        for request in dist.batch_isend_irecv(operations):
            request.wait()
        # the same order on both sides: the copies have to stay equal to the bit
        first, second = (local, received) if decoder.model.embed_tokens is not None else (received, local)
        local.copy_(first + second)
