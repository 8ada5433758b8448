"""AdamW and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

ScheduleName = Literal["cosine", "constant", "wsd"]

DecayShape = Literal["linear", "1-sqrt"]

WSD_DECAY = 0.1
"""Share of the steps in which "wsd" decays: 10-20 % in use (reference: warm-up, stable, decay)."""


def learning_rate(
    step: int,
    *,
    steps: int,
    peak: float,
    minimum: float,
    warmup_steps: int,
    schedule: ScheduleName,
    decay: float = WSD_DECAY,
    decay_shape: DecayShape = "linear",
) -> float:
    """The learning rate of step `step` (0-based) of `steps`.

    Warm-up is linear, peak (step + 1) / warmup_steps, so the first step moves and the last one of the warm-up
    reaches the peak. Afterwards, with progress u from 0 (the step after the warm-up) to 1 (the last step):
        cosine     minimum + (peak - minimum) (1 + cos(pi u)) / 2          (Loshchilov and Hutter 2017)
        constant   peak
        wsd        peak, then over the last share `decay` of all steps to the minimum (Hu et al. 2024, arXiv
                   2404.06395): with d from 0 to 1 there, by d (linear) or by sqrt(d) (1-sqrt), which Hägele
                   et al. 2024 (arXiv 2405.18392) found better
    A run that starts from a trained model warms up again (re-warming, Ibrahim et al. 2024, arXiv 2403.08763).
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    after = steps - 1 - warmup_steps
    if schedule == "constant":
        return peak
    if schedule == "wsd":
        decay_steps = max(1, round(steps * decay))
        begun = max(0, step - (steps - 1 - decay_steps)) / decay_steps
        return peak - (peak - minimum) * (begun if decay_shape == "linear" else math.sqrt(begun))
    progress = (step - warmup_steps) / after if after > 0 else 1.0
    return minimum + 0.5 * (peak - minimum) * (1 + math.cos(math.pi * progress))


def adamw(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    epsilon: float,
    weight_decay: float,
    decay_embeddings: bool,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) in torch's fused form, with decay on matrices only.

    Norms are never decayed. Embeddings are not either unless `decay_embeddings`: the row of a token that does
    not occur has no gradient, and in continual pre-training decay alone would wear the old language's rows
    away; OLMo 2 found decayed embeddings harmful when training from scratch too (arXiv 2501.00656). An output
    head of its own is decayed, since the softmax gives every row a gradient at every step. parameters: with
    their names.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in parameters:
        is_embedding = "embed_tokens" in name
        decays = parameter.ndim >= 2 and (decay_embeddings or not is_embedding)  # noqa: PLR2004
        (decayed if decays else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        betas=betas,
        eps=epsilon,
        fused=True,
    )
