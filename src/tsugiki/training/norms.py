"""Norms of gradients and weights, layer by layer, where a spike begins shows first; and AdamW's moments.

AdamW moves a weight by m / (sqrt(v) + epsilon). Gradients shrink as models grow: where epsilon is no longer
small beside sqrt(v), it is gradient descent in small steps, and nothing else tells. LLM-jp gave two models
of 172B up for that (epsilon 1e-5; the organisation's account of LLM-jp-3 172B alpha1 and alpha2). So the
median of sqrt(v) / epsilon is written down beside the norms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tsugiki.training.placement import local_part, own_square, shards_of

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_ENDS = ("embedding", "norm", "head")

_OCTAVES, _BINS_AN_OCTAVE = 128, 16
"""Ratios from 2^-64 to 2^64 in bins of 4.4 %: histograms of all processes can be added up, medians can't."""

LEAST_RATIO = 10.0
"""A median of sqrt(v) / epsilon below this is warned of: epsilon takes an eleventh off the step there."""

_NUMBERS_AT_ONCE = 1 << 24
"""So many are looked at together, to take little memory beside a model that fills a device."""


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


@torch.no_grad()
def are_finite(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> bool:
    """Whether all that this process holds of weights and of AdamW's moments is finite: one pass over each.

    Losses do not tell: the row of a token that no text has may be NaN, and stay so for weeks.
    """
    found: list[Tensor] = []
    for parameter in parameters.values():
        state = optimizer.state.get(parameter, {})
        for tensor in (parameter, *(state[name] for name in ("exp_avg", "exp_avg_sq") if name in state)):
            held = local_part(tensor)
            if held.numel():
                found += torch.aminmax(held)  # NaN where any number is
    return not found or bool(torch.isfinite(torch.stack([one.float() for one in found])).all())


@torch.no_grad()
def moments_by_group(
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    layers: int,
    stage_size: int = 1,
) -> Tensor:
    """This process's share of how many numbers have which log2(sqrt(v) / epsilon), (groups, bins), float64.

    v is AdamW's second moment without its bias towards 0; numbers that never had a gradient (rows of tokens
    that no text has) don't count. Arguments as of `squares_by_group`.
    """
    device = next(iter(parameters.values())).device
    bins = _OCTAVES * _BINS_AN_OCTAVE
    found = torch.zeros(len(groups_of(layers)), bins, dtype=torch.float64, device=device)
    for settings in optimizer.param_groups:
        held = {id(parameter) for parameter in settings["params"]}
        for name, parameter in parameters.items():
            state = optimizer.state.get(parameter)
            if id(parameter) not in held or not state:
                continue
            bias = 1 - settings["betas"][1] ** float(state["step"])
            copies = stage_size / shards_of(parameter)
            for second in torch.split(local_part(state["exp_avg_sq"]).flatten(), _NUMBERS_AT_ONCE):
                octaves = (second[second > 0] / bias).log2() / 2 - math.log2(settings["eps"])
                places = ((octaves + _OCTAVES / 2) * _BINS_AN_OCTAVE).long().clamp(0, bins - 1)
                counts = torch.bincount(places, minlength=bins)
                found[_group_of(name, layers)] += counts / copies
    return found


def medians_of(histograms: Tensor, layers: int) -> dict[str, float]:
    """The median of sqrt(v) / epsilon of each group and of `all`, to 2.2 %; the sums over all processes."""
    rows = {"all": histograms.sum(dim=0), **dict(zip(groups_of(layers), histograms, strict=True))}
    found = {}
    for name, row in rows.items():
        if total := float(row.sum()):
            place = int((row.cumsum(0) < total / 2).sum())
            found[name] = 2.0 ** ((place + 0.5) / _BINS_AN_OCTAVE - _OCTAVES / 2)
    return found


def epsilon_warning(medians: Mapping[str, float]) -> str | None:
    """What a person is told where epsilon is not small beside sqrt(v)."""
    ratio = medians.get("all")
    if ratio is None or ratio >= LEAST_RATIO:
        return None
    return (
        f"AdamW's epsilon is not small: the median of sqrt(v) is {ratio:.2g} times as large; lower epsilon, "
        "or training turns into small steps of gradient descent"
    )


def row_of(squares: Tensor, layers: int, scale: float) -> dict[str, dict[str, float | None]]:
    """For metrics.jsonl: the norms by group, None where one is not finite.

    scale: what clipping multiplied the gradients by.
    """
    gradients, weights = squares.sqrt().tolist()
    names = groups_of(layers)
    held = [number for number, weight in enumerate(weights) if weight != 0]  # tied: no head of its own
    return {
        "gradient": {names[number]: _finite(gradients[number] / scale) for number in held},
        "weight": {names[number]: _finite(weights[number]) for number in held},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
