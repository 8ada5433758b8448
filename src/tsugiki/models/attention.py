"""Causal attention over whole rows, packed documents and windows, and over a cache of earlier tokens.

Shapes as in `tsugiki.models.decoder`: B batch, T time, N query heads, K key-value heads, H head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tsugiki.models.block_attention import attend_blocks, is_for_blocks
from tsugiki.models.products import is_slow
from tsugiki.models.varlen_attention import (
    Kernel,
    Segments,
    attend_segments,
    in_one_row,
    is_for_kernel,
    whole_rows,
)

_WINDOW_BLOCK = 256
"""Fewest queries of one block of windowed attention: smaller blocks save scores and pay for it in calls."""


@dataclass(frozen=True)
class DocumentLayout:
    """Which tokens of a packed batch belong together.

    starts_BT: true where a document starts (the first token of a row always does).
    positions_BT: each token's distance from the start of its document.
    given_starts_BT: `starts_BT` where the document ids lay.
    """

    starts_BT: Tensor
    positions_BT: Tensor
    given_starts_BT: Tensor | None = None

    @classmethod
    def from_ids(cls, document_ids_BT: Tensor, device: torch.device | None = None) -> DocumentLayout:
        """A document is a run of equal values within one row.

        device: where the layout is used. Ids in the host's memory are best: `lengths` are read from them, and
        nothing waits for a GPU.
        """
        starts_BT = torch.ones_like(document_ids_BT, dtype=torch.bool)
        starts_BT[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
        places_T = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device)
        start_places_BT = torch.where(starts_BT, places_T, 0).cummax(dim=1).values
        positions_BT = places_T - start_places_BT
        if device is None:
            return cls(starts_BT, positions_BT)
        starts_there_BT, positions_there_BT = (
            x.to(device, non_blocking=True) for x in (starts_BT, positions_BT)
        )
        return cls(starts_there_BT, positions_there_BT, starts_BT)

    @property
    def known_starts_BT(self) -> Tensor:  # noqa: N802
        """Where documents start, in the host's memory if that was known there."""
        return self.starts_BT if self.given_starts_BT is None else self.given_starts_BT

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each document, row after row; their sum is B · T."""
        flat = self.known_starts_BT.flatten()
        bounds = torch.cat((flat.nonzero()[:, 0], torch.tensor([flat.numel()], device=flat.device)))
        return bounds.diff().tolist()

    @cached_property
    def segments(self) -> Segments:
        """For a kernel that takes documents in one row."""
        return Segments.of(self.lengths, self.lengths, self.starts_BT.device)

    @cached_property
    def mask_B1TT(self) -> Tensor:  # noqa: N802
        """True where a query (second last dimension) may see a key (last)."""
        numbers_BT = self.starts_BT.cumsum(dim=1)
        same_BTT = numbers_BT[:, :, None] == numbers_BT[:, None, :]
        return same_BTT.tril()[:, None]


class KeyValueCache:
    """Keys and values of the tokens seen so far, for generation: one growing buffer a layer.

    capacity: the most tokens that will be held. Buffers are made at the first `extend` of a layer. A layer
    with a window keeps all tokens too, and attends to the last ones.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._buffers: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def extend(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values of a layer; all of that layer's so far are returned."""
        buffers = self._buffers[layer]
        if buffers is None:
            batch, heads, _, width = k_BKTH.shape
            buffers = (
                k_BKTH.new_empty(batch, heads, self.capacity, width),
                v_BKTH.new_empty(batch, heads, self.capacity, width),
            )
            self._buffers[layer] = buffers
        end = self.length + k_BKTH.shape[2]
        buffers[0][:, :, self.length : end] = k_BKTH
        buffers[1][:, :, self.length : end] = v_BKTH
        return buffers[0][:, :, :end], buffers[1][:, :, :end]

    def advance(self, tokens: int) -> None:
        """Count `tokens` as held, after every layer was extended by them."""
        self.length += tokens

    def attention(
        self, layer: int, q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, window: int | None
    ) -> Tensor:
        """Extend a layer, and attend from the new tokens to all that it holds: (B, N, T, H)."""
        k_BKTH, v_BKTH = self.extend(layer, k_BKTH, v_BKTH)
        return attend(q_BNTH, k_BKTH, v_BKTH, None, window)


def attend(
    q_BNTH: Tensor,
    k_BKTH: Tensor,
    v_BKTH: Tensor,
    layout: DocumentLayout | None = None,
    window: int | None = None,
    *,
    kernel: Kernel | None = None,
) -> Tensor:
    """Causal attention, (B, N, T, H).

    The last query stands at the last key: with a cache there are more keys than queries. window: a query sees
    that many keys at most, its own included. kernel: for documents and windows on a GPU
    (`varlen_attention.attend_by_kernel`). Every layer's attention goes through this function
    (`decoder.Attention.attend`), so whoever spreads a sequence over several devices replaces it alone.
    """
    if kernel is not None and is_for_kernel(q_BNTH):
        segments = _segments(q_BNTH, k_BKTH, layout, window)
        if segments is not None:
            keys, values = in_one_row(k_BKTH), in_one_row(v_BKTH)
            return attend_segments(q_BNTH, keys, values, segments, kernel=kernel, window=window)
    if layout is not None and len(layout.lengths) > layout.starts_BT.shape[0]:
        return _attend_documents(q_BNTH, k_BKTH, v_BKTH, layout, window)
    return _attend_causal(q_BNTH, k_BKTH, v_BKTH, window)


def _segments(
    q_BNTH: Tensor, k_BKTH: Tensor, layout: DocumentLayout | None, window: int | None
) -> Segments | None:
    """What a kernel for documents is to compute; None where torch's causal attention computes no more."""
    rows, time = q_BNTH.shape[0], q_BNTH.shape[2]
    if layout is not None and len(layout.lengths) > rows:
        return layout.segments
    if window is not None and window < time == k_BKTH.shape[2]:
        return whole_rows(rows, time, q_BNTH.device)
    return None


def _attend_causal(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, window: int | None) -> Tensor:
    queries, keys = q_BNTH.shape[2], k_BKTH.shape[2]
    if window is not None and window < keys:
        return _attend_window(q_BNTH, k_BKTH, v_BKTH, window)
    if queries == keys:
        if is_for_blocks(q_BNTH):
            return attend_blocks(q_BNTH, k_BKTH, v_BKTH)
        return _sdpa(q_BNTH, k_BKTH, v_BKTH, causal=True)
    if queries == 1:
        return _sdpa(q_BNTH, k_BKTH, v_BKTH)
    mask_TT = torch.ones(queries, keys, dtype=torch.bool, device=q_BNTH.device).tril(keys - queries)
    return _sdpa(q_BNTH, k_BKTH, v_BKTH, mask=mask_TT)


def _attend_window(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, window: int) -> Tensor:
    """Blocks of queries, each with the keys that any of them sees: T · (W + block) scores rather than T²."""
    queries, keys = q_BNTH.shape[2], k_BKTH.shape[2]
    block, earlier = max(window, _WINDOW_BLOCK), keys - queries
    parts = []
    for start in range(0, queries, block):
        end = min(start + block, queries)
        first = max(0, earlier + start - window + 1)
        seen = slice(first, earlier + end)
        shape = (end - start, seen.stop - first)
        before = shape[1] - shape[0]
        mask_TT = torch.ones(shape, dtype=torch.bool, device=q_BNTH.device)
        mask_TT = mask_TT.tril(before).triu(before - window + 1)
        parts.append(_sdpa(q_BNTH[:, :, start:end], k_BKTH[:, :, seen], v_BKTH[:, :, seen], mask=mask_TT))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _attend_documents(
    q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, layout: DocumentLayout, window: int | None
) -> Tensor:
    """One causal call a document on a CPU, where the work saved outweighs the calls; a mask elsewhere.

    Measured on one core (float32, forward and backward, documents of 30 to 400 tokens in rows of 256 to
    2,048): the loop takes 0.2 to 0.7 of the time of a boolean mask, which computes every score and then
    throws most away.
    """
    if q_BNTH.device.type != "cpu":
        return _attend_masked(q_BNTH, k_BKTH, v_BKTH, layout, window)
    batch, heads, time, width = q_BNTH.shape
    parts = (
        torch.split(x.transpose(0, 1).flatten(1, 2), layout.lengths, dim=1) for x in (q_BNTH, k_BKTH, v_BKTH)
    )
    documents = [_attend_causal(q[None], k[None], v[None], window)[0] for q, k, v in zip(*parts, strict=True)]
    out_NSH = torch.cat(documents, dim=1)
    return out_NSH.view(heads, batch, time, width).transpose(0, 1)


def _attend_masked(
    q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, layout: DocumentLayout, window: int | None
) -> Tensor:
    mask_B1TT = layout.mask_B1TT if window is None else layout.mask_B1TT.triu(1 - window)
    return _sdpa(q_BNTH, k_BKTH, v_BKTH, mask=mask_B1TT)


def _sdpa(
    q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, *, causal: bool = False, mask: Tensor | None = None
) -> Tensor:
    if is_slow(q_BNTH):  # autocast would round float32 (which rotary positions make of queries and keys) too
        with torch.autocast("cpu", enabled=False):
            q_BNTH, k_BKTH, v_BKTH = (x.bfloat16().float() for x in (q_BNTH, k_BKTH, v_BKTH))
            return _sdpa(q_BNTH, k_BKTH, v_BKTH, causal=causal, mask=mask).bfloat16()
    groups = q_BNTH.shape[1] // k_BKTH.shape[1]
    return F.scaled_dot_product_attention(
        q_BNTH, k_BKTH, v_BKTH, attn_mask=mask, is_causal=causal, enable_gqa=groups > 1
    )
