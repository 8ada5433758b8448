"""The next token of many texts at once: the most likely one, or one that is drawn.

Each text has its own generator and each choice takes one number of it, so that its neighbours don't matter.

Shapes: B texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tsugiki.evaluation.backend import Sampling
from tsugiki.models.sampling import draw as sampled

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
    """The tokens (B,) that `sampling` gives for these numbers: see `models.sampling.draw`."""
    return sampled(
        logits_BV,
        uniforms_B,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
    )
