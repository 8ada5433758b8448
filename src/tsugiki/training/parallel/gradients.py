"""The norm of gradients that are spread in different ways, and clipping by it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def global_norm(parameters: Iterable[nn.Parameter], world_size: int) -> Tensor:
    """The L2 norm of all gradients of all processes, each number counted once; float32 scalar.

    torch's `clip_grad_norm_` can't add up tensors that lie on different meshes (FSDP with tensor parallelism,
    or experts). Here every process adds up the squares of its parts, divided by how many processes hold the
    same part, and one all-reduce does the rest.
    """
    squares = [
        gradient.square().sum(dtype=torch.float32) / copies
        for gradient, copies in (_local(p, world_size) for p in parameters if p.grad is not None)
    ]
    total = torch.stack(squares).sum() if squares else torch.zeros(())
    dist.all_reduce(total)
    return total.sqrt()


def _local(parameter: nn.Parameter, world_size: int) -> tuple[Tensor, float]:
    """This process's part of the gradient, and how many processes of a pipeline stage hold the same."""
    gradient = parameter.grad
    if not isinstance(gradient, DTensor):
        return gradient, world_size  # type: ignore[return-value]
    mesh = gradient.device_mesh
    shards = 1
    for dimension, placement in enumerate(gradient.placements):
        if placement.is_partial():
            raise AssertionError("a gradient has not been reduced")
        if placement.is_shard() or type(placement).__name__ == "_StridedShard":
            shards *= mesh.size(dimension)
    return gradient.to_local(), world_size / shards


@torch.no_grad()
def scale_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, clip: float) -> None:
    """Scale all gradients so that their joint norm is at most `clip` (as `clip_grad_norm_` does)."""
    factor = float((clip / (norm + 1e-6)).clamp(max=1.0))
    for parameter in parameters:
        if parameter.grad is not None:
            local = parameter.grad.to_local() if isinstance(parameter.grad, DTensor) else parameter.grad
            local.mul_(factor)
