"""A first phase in which only the rows of new tokens learn: embeddings and head, before all other weights.

New rows begin as guesses, and their errors would move weights that were right. All other gradients are set to
zero and nothing is decayed, so AdamW leaves every other number as it is, to the bit (its moments stay zero);
that costs a whole backward pass, but works in every layout, and checkpoints need nothing special.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from tsugiki.training.checkpoint import TIED_COPY
from tsugiki.training.placement import box_of, local_part

_ROWS = ("model.embed_tokens.weight", "lm_head.weight", TIED_COPY)


@torch.no_grad()
def keep_rows_from(first: int, parameters: Mapping[str, nn.Parameter]) -> None:
    """Set all gradients to zero but those of the rows from `first` on, in embedding and head.

    parameters: this process's parts, by their names in the decoder; a last pipeline stage's copy of a tied
    embedding is one of the rows too.
    """
    for name, parameter in parameters.items():
        if parameter.grad is None:
            continue
        gradient = local_part(parameter.grad)
        if name.endswith(_ROWS):
            gradient[: max(0, first - box_of(parameter).offset[0])].zero_()
        else:
            gradient.zero_()


def decay(optimizer: torch.optim.Optimizer, *, on: bool) -> None:
    """Let the optimizer decay weights as it was made to, or not at all."""
    for group in optimizer.param_groups:
        wanted = group.setdefault("asked_weight_decay", group["weight_decay"])
        group["weight_decay"] = wanted if on else 0.0
