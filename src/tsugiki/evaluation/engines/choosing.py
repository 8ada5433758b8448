"""The next token of many texts at once: the most likely one, or one that is drawn.

Each text has its own generator and each choice takes one number of it, so that its neighbours don't matter.

Shapes: B texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tsugiki.evaluation.backend import Sampling

BROKEN = -1
"""In place of a token, where the logits are not numbers."""


def choose(
    logits_BV: Tensor, samplings: Sequence[Sampling | None], generators: Sequence[torch.Generator]
) -> list[int]:
    """One token a row; None takes the most likely one (the smallest id among equals)."""
    best_B, chosen_B = logits_BV.max(dim=-1)
    chosen = chosen_B.tolist()
    for row in torch.nonzero(~best_B.isfinite())[:, 0].tolist():
        chosen[row] = BROKEN
    groups: dict[Sampling, list[int]] = {}
    for row, sampling in enumerate(samplings):
        if sampling is not None and sampling.temperature > 0 and chosen[row] != BROKEN:
            groups.setdefault(sampling, []).append(row)
    for sampling, rows in groups.items():
        uniforms_B = torch.stack(
            [torch.rand((), dtype=torch.float64, generator=generators[row]) for row in rows]
        )
        drawn_B = draw(logits_BV[rows], sampling, uniforms_B.to(logits_BV.device))
        for row, token in zip(rows, drawn_B.tolist(), strict=True):
            chosen[row] = token
    return chosen


def draw(logits_BV: Tensor, sampling: Sampling, uniforms_B: Tensor) -> Tensor:
    """The tokens (B,) at which the distribution function, most likely token first, passes `uniforms_B`.

    top_k keeps that many tokens; top_p then keeps those before which less than this share has been reached
    (nucleus sampling: Holtzman et al. 2020, arXiv 1904.09751, section 3.1), the most likely one at least.
    """
    kept = min(sampling.top_k or logits_BV.shape[-1], logits_BV.shape[-1])
    scaled_BV = logits_BV.double() / sampling.temperature
    sorted_BV, tokens_BV = (
        scaled_BV.sort(dim=-1, descending=True, stable=True)
        if kept == logits_BV.shape[-1]
        else scaled_BV.topk(kept, dim=-1)
    )
    share_BV = sorted_BV.softmax(dim=-1)
    reached_BV = share_BV.cumsum(dim=-1)
    if sampling.top_p < 1:
        outside_BV = reached_BV - share_BV >= sampling.top_p
        outside_BV[:, 0] = False
        share_BV = share_BV.masked_fill(outside_BV, 0.0)
        reached_BV = share_BV.cumsum(dim=-1)
    aim_B1 = uniforms_B[:, None] * reached_BV[:, -1:]
    place_B1 = torch.searchsorted(reached_BV, aim_B1, right=True)
    last_B1 = (share_BV > 0).sum(dim=-1, keepdim=True) - 1
    return tokens_BV.gather(1, torch.minimum(place_B1, last_B1))[:, 0]
