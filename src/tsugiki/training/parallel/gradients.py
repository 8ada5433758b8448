"""The norm of gradients that are spread in different ways, and clipping by it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tsugiki.training.placement import local_part, own_square


def own_squares(parameters: Iterable[nn.Parameter], stage_size: int) -> Tensor:
    """This process's share of the squared L2 norm of all gradients of all processes; float32 scalar.

    stage_size: the processes of one pipeline stage.

    torch's `clip_grad_norm_` can't add up tensors that lie on different meshes (FSDP with tensor parallelism,
    or experts).
    """
    squares = [
        own_square(gradient, stage_size)
        for gradient in (parameter.grad for parameter in parameters)
        if gradient is not None
    ]
    return torch.stack(squares).sum() if squares else torch.zeros(())


@torch.no_grad()
def scale_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, clip: float) -> None:
    """Scale all gradients so that their joint norm is at most `clip` (as `clip_grad_norm_` does)."""
    factor = float((clip / (norm + 1e-6)).clamp(max=1.0))
    for parameter in parameters:
        if parameter.grad is not None:
            local_part(parameter.grad).mul_(factor)
