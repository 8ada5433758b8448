"""Norms of gradients and weights, layer by layer: where a spike begins shows here first."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tsugiki.training.placement import own_square

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_ENDS = ("embedding", "norm", "head")


def groups_of(layers: int) -> list[str]:
    """The groups that norms are taken over: each layer, the embedding, the last norm, the head."""
    return [*(f"layer {number}" for number in range(layers)), *_ENDS]


def _group_of(name: str, layers: int) -> int:
    found = _LAYER.match(name)
    if found:
        return int(found[1])
    return layers + (0 if "embed_tokens" in name else 1 if name.startswith("model.norm") else 2)


@torch.no_grad()
def squares_by_group(parameters: Mapping[str, nn.Parameter], layers: int, stage_size: int = 1) -> Tensor:
    """This process's share of the squared norms of gradients and weights, (2, groups), float64.

    The sum over all processes counts each number once; stage_size: the processes of one pipeline stage (see
    `parallel.gradients.own_squares`). parameters: by their names in the decoder.
    """
    device = next(iter(parameters.values())).device
    squares = torch.zeros(2, len(groups_of(layers)), dtype=torch.float64, device=device)
    for name, parameter in parameters.items():
        group = _group_of(name, layers)
        for row, tensor in enumerate((parameter.grad, parameter)):
            if tensor is not None:
                squares[row, group] += own_square(tensor, stage_size)
    return squares


def row_of(squares: Tensor, layers: int, scale: float) -> dict[str, dict[str, float]]:
    """For metrics.jsonl: the norms by group. scale: what clipping multiplied the gradients by."""
    gradients, weights = squares.sqrt().tolist()
    names = groups_of(layers)
    held = [number for number, weight in enumerate(weights) if weight > 0]  # tied: no head of its own
    return {
        "gradient": {names[number]: gradients[number] / scale for number in held},
        "weight": {names[number]: weights[number] for number in held},
    }
