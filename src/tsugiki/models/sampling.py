"""Drawing tokens from logits, by numbers that the caller has drawn: no hidden random state.

Shapes: B texts, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

_HEAD = 64
"""Most likely tokens that are looked at first. Sorting all of 6,144 takes ten times as long as finding these,
and they decide nearly every draw of a trained model."""


def draw(
    logits_BV: Tensor, uniforms_B: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Tensor:
    """The tokens (B,) at which the distribution function, most likely token first, passes `uniforms_B`.

    The distribution is softmax(logits / temperature), temperature above 0. uniforms_B: from 0 to 1, below 1.
    top_k keeps that many tokens (0: all); top_p then keeps those before which less than this share has been
    reached (nucleus sampling: Holtzman et al. 2020, arXiv 1904.09751, section 3.1), the most likely one at
    least.
    """
    size = logits_BV.shape[-1]
    kept = min(top_k or size, size)
    if kept < size or size <= 4 * _HEAD:
        return _draw_sorted(logits_BV, uniforms_B, temperature, kept, top_p)
    tokens_B, decided_B = _draw_from_head(logits_BV, uniforms_B, temperature, top_p)
    left_R = (~decided_B).nonzero()[:, 0]
    if len(left_R):
        tokens_B[left_R] = _draw_sorted(logits_BV[left_R], uniforms_B[left_R], temperature, size, top_p)
    return tokens_B


def _draw_from_head(
    logits_BV: Tensor, uniforms_B: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """The tokens (B,), and whether the most likely ones alone decide each: the others are not to be used."""
    ids_BH = logits_BV.topk(_HEAD + 1, dim=-1).indices.sort(dim=-1).values
    head_BH, order_BH = logits_BV.gather(1, ids_BH).sort(dim=-1, descending=True, stable=True)
    clear_B = head_BH[:, -2] > head_BH[:, -1]  # of equals at its end the head may hold any
    tokens_BH = ids_BH.gather(1, order_BH[:, :-1])
    whole_B1 = (logits_BV.double() / temperature).logsumexp(dim=-1, keepdim=True)
    share_BH = (head_BH[:, :-1].double() / temperature - whole_B1).exp()
    reached_B = share_BH.sum(dim=-1)
    decided_B = reached_B >= top_p if top_p < 1 else uniforms_B < reached_B
    total_B1 = torch.ones_like(whole_B1) if top_p == 1 else None
    return _place(share_BH, tokens_BH, uniforms_B, top_p, total_B1), decided_B & clear_B


def _draw_sorted(
    logits_BV: Tensor, uniforms_B: Tensor, temperature: float, kept: int, top_p: float
) -> Tensor:
    scaled_BV = logits_BV.double() / temperature
    sorted_BV, tokens_BV = (
        scaled_BV.sort(dim=-1, descending=True, stable=True)
        if kept == logits_BV.shape[-1]
        else scaled_BV.topk(kept, dim=-1)
    )
    return _place(sorted_BV.softmax(dim=-1), tokens_BV, uniforms_B, top_p, None)


def _place(
    share_BV: Tensor, tokens_BV: Tensor, uniforms_B: Tensor, top_p: float, total_B1: Tensor | None
) -> Tensor:
    """The token at the place of each number. share_BV: descending; total_B1: of all tokens, or those kept."""
    reached_BV = share_BV.cumsum(dim=-1)
    if top_p < 1:
        outside_BV = reached_BV - share_BV >= top_p
        outside_BV[:, 0] = False
        share_BV = share_BV.masked_fill(outside_BV, 0.0)
        reached_BV = share_BV.cumsum(dim=-1)
    aim_B1 = uniforms_B[:, None] * (reached_BV[:, -1:] if total_B1 is None else total_B1)
    place_B1 = torch.searchsorted(reached_BV, aim_B1, right=True)
    last_B1 = (share_BV > 0).sum(dim=-1, keepdim=True) - 1
    return tokens_BV.gather(1, torch.minimum(place_B1, last_B1))[:, 0]
