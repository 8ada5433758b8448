"""Experts on several devices: each cut in its width (tensor parallelism), or each whole on one of them.

Expert parallelism (GShard, Lepikhin et al. 2020, arXiv 2006.16668): the experts are spread over a group of
data and context ranks; tokens are sent to where their experts are, computed there together with those of the
others, and sent back. No token is ever dropped: every process takes as many rows as fall on its experts.

Under tensor parallelism the router sees the part of the sequence that the norms see, so that every token is
routed once, and all processes of the group learn the same decision; then tokens and decisions are gathered,
each process computes its columns of every expert, and the sums are scattered back along the sequence.

A shared expert is cut as a dense feed-forward is (`tensor`), never spread; its gate sees what the router
sees.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from tsugiki.models.moe import Routing, SparseFeedForward, through_experts
from tsugiki.training.parallel.collectives import add_and_scatter, exchange, gather
from tsugiki.training.parallel.mesh import World

ExpertsForward = Callable[[Tensor, Tensor], Tensor]
"""Rows in order of their experts (R, D) and where experts end (E, int32) -> rows (R, D)."""

TIME = 1
"""The dimension of the residual stream (B, T, D) that tensor parallelism cuts."""

_WIDTH = {"gate_proj": 1, "up_proj": 1, "down_proj": 2}
"""The feed-forward dimension of the experts' stacked matrices."""


def spread_sparse_block(sparse: SparseFeedForward, world: World) -> None:
    """Cut a block of experts as the layout says, in place; its weights are lost (NaN)."""
    if world.parallel.tensor > 1:
        for seeing_a_part in (sparse.gate, sparse.shared_expert_gate):
            if seeing_a_part is not None:
                whole = seeing_a_part.weight.detach()
                copied = DTensor.from_local(whole, world.mesh["tensor"], [Replicate()], run_check=False)
                seeing_a_part.weight = nn.Parameter(copied)
    if world.expert_cuts is not None:
        for name, width in _WIDTH.items():
            stacked = getattr(sparse.experts, name)
            setattr(sparse.experts, name, nn.Parameter(_cut(stacked, world.expert_cuts, width)))
    run = partial(
        through_spread_experts,
        tensor=world.group("tensor") if world.parallel.tensor > 1 else None,
        expert=world.experts.get_group("expert") if world.experts is not None else None,
    )
    sparse.compute = run


def _cut(stacked: Tensor, mesh: DeviceMesh, width: int) -> DTensor:
    """A DTensor of the stacked matrices' shape, of which this process holds NaN."""
    names = mesh.mesh_dim_names or ()
    placements: list[Placement] = [Shard(0 if name == "expert" else width) for name in names]
    local = list(stacked.shape)
    for size, placement in zip(mesh.shape, placements, strict=True):
        local[placement.dim] //= size  # type: ignore[attr-defined]
    part = torch.full(local, torch.nan, dtype=stacked.dtype, device=stacked.device)
    return DTensor.from_local(part, mesh, placements, run_check=False)


def through_spread_experts(
    experts: ExpertsForward,
    x_BQD: Tensor,
    routing: Routing,
    *,
    tensor: dist.ProcessGroup | None,
    expert: dist.ProcessGroup | None,
) -> Tensor:
    """As `models.moe.through_experts`, for this process's tokens (B, Q, D)."""
    compute = experts if expert is None else partial(through_distant_experts, experts, group=expert)
    if tensor is None:
        return through_experts(compute, x_BQD, routing)
    rows = x_BQD.shape[:2]
    weights_BTK = gather(routing.weights_SK.view(*rows, -1), TIME, tensor)
    with torch.no_grad():
        experts_BTK = gather(routing.experts_SK.view(*rows, -1), TIME, tensor)
    decided = Routing(routing.logits_SE, weights_BTK.flatten(0, 1), experts_BTK.flatten(0, 1))
    y_BTD = through_experts(compute, gather(x_BQD, TIME, tensor), decided)
    return add_and_scatter(y_BTD, TIME, tensor)


def through_distant_experts(
    experts: ExpertsForward, rows_RD: Tensor, ends_E: Tensor, *, group: dist.ProcessGroup
) -> Tensor:
    """As `Experts.forward` for all experts, of which each process of a group holds an equal share."""
    sent, received, arriving_GE = count_rows(rows_RD, ends_E, group)
    arrived_RD = exchange(rows_RD, sent, received, group)
    numbers_E = torch.arange(arriving_GE.shape[1], device=rows_RD.device).repeat(len(received))
    # the number of rows is known here: a GPU need not be asked for it
    numbers_R = numbers_E.repeat_interleave(arriving_GE.flatten(), output_size=len(arrived_RD))
    order_R = numbers_R.argsort(stable=True)
    ends_here_E = arriving_GE.sum(dim=0).cumsum(dim=0).to(torch.int32)
    y_RD = experts(arrived_RD[order_R], ends_here_E)
    back_R = torch.empty_like(order_R)
    back_R[order_R] = torch.arange(len(order_R), device=order_R.device)
    return exchange(y_RD[back_R], received, sent, group)


def count_rows(
    rows_RD: Tensor,  # noqa: ARG001 (its length is all that the dry run's stand-in has)
    ends_E: Tensor,
    group: dist.ProcessGroup,
) -> tuple[list[int], list[int], Tensor]:
    """How many rows go to each process of a group, how many come from each, and for which expert here.

    rows_RD: in order of the experts, which end at ends_E. The last is (G, E / G), int64. The dry run, whose
    rows have no numbers, replaces this.
    """
    processes = dist.get_world_size(group)
    counts_E = ends_E.diff(prepend=ends_E.new_zeros(1)).to(torch.int64)
    arriving_E = torch.empty_like(counts_E)
    dist.all_to_all_single(arriving_E, counts_E, group=group)
    arriving_GE = arriving_E.view(processes, -1)
    both = torch.stack([counts_E.view(processes, -1).sum(dim=1), arriving_GE.sum(dim=1)])
    sent, received = both.tolist()
    return sent, received, arriving_GE


def even_cut(parameter: nn.Parameter, processes: int) -> int:
    """The dimension along which FSDP cuts a stacked matrix: by experts, model width or feed-forward width.

    The first that `processes` divide; else by experts, where some processes then hold more than others. torch
    cuts other dimensions than the first only into equal parts.
    """
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    by_size = [dimension for dimension, size in enumerate(local.shape) if size % processes == 0]
    return by_size[0] if by_size else 0
