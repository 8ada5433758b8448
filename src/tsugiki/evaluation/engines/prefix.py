"""A beginning that many rows share: its keys and values are kept once, and every row attends to them.

Softmax over two sets of keys is the mean of the softmaxes over each, weighted by their sums of exponentials
(as in FlashAttention: Dao et al. 2022, arXiv 2205.14135, section 3.1). So attention to the shared beginning
is one product for all rows together, no row needs a copy of it, and attention to a row's own tokens follows.

Shapes as in `tsugiki.models.decoder`: B rows, T new tokens of each, P tokens of the prefix, S own keys, N
query heads, K key-value heads, H head dimension.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tsugiki.models.attention import KeyValueCache, attend

HAS_KERNEL = frozenset({"cpu"})
"""Devices for which torch has a kernel that gives sums of exponentials beside the attention."""
_SCORES_BYTES = 64 * 2**20
"""Bound on one block of scores where the library has no kernel that gives sums of exponentials."""


@dataclass(frozen=True)
class Prefix:
    """`length` tokens from a sequence's start: (k_1KPH, v_1KPH) of each layer."""

    length: int
    layers: tuple[tuple[Tensor, Tensor], ...]

    @property
    def size_bytes(self) -> int:
        """Memory of all keys and values."""
        return sum(tensor.nbytes for pair in self.layers for tensor in pair)


def attention_part(
    q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, mask: Tensor | None = None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attention over some of a query's keys, and the logarithm of its sum of exponentials.

    Returns (B, N, T, H) and (B, N, T), in float32 whatever the input. mask: what is added to the scores, (B
    or 1, 1, T, S); every query sees at least one key. causal: query t sees keys 0..t.
    """
    q_BNTH, k_BKSH, v_BKSH = q_BNTH.float(), k_BKSH.float(), v_BKSH.float()
    if q_BNTH.device.type in HAS_KERNEL:
        out_BNTH, sums_BNT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
            q_BNTH, k_BKSH, v_BKSH, 0.0, causal, attn_mask=mask
        )
        return out_BNTH, sums_BNT
    groups = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH, v_BNSH = (x.repeat_interleave(groups, dim=1) for x in (k_BKSH, v_BKSH))
    rows, heads, queries, width = q_BNTH.shape
    block = max(1, _SCORES_BYTES // (4 * rows * heads * k_BKSH.shape[2]))
    parts = []
    for start in range(0, queries, block):
        part = slice(start, min(queries, start + block))
        scores_BNTS = q_BNTH[:, :, part] @ k_BNSH.transpose(2, 3) / math.sqrt(width)
        if causal:
            hidden_TS = torch.ones(queries, k_BKSH.shape[2], dtype=torch.bool, device=q_BNTH.device).triu(1)
            scores_BNTS = scores_BNTS.masked_fill(hidden_TS[part], -torch.inf)
        if mask is not None:
            scores_BNTS = scores_BNTS + mask[:, :, part]
        sums_BNT1 = scores_BNTS.logsumexp(dim=-1, keepdim=True)
        parts.append(((scores_BNTS - sums_BNT1).exp() @ v_BNSH, sums_BNT1[..., 0]))
    outs, sums = zip(*parts, strict=True)
    return torch.cat(outs, dim=2), torch.cat(sums, dim=2)


def prefix_part(q_BNTH: Tensor, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`attention_part` over a shared prefix: the rows' queries stand in one line, so keys are read once."""
    rows, heads, queries, width = q_BNTH.shape
    q_1NXH = q_BNTH.transpose(0, 1).reshape(1, heads, rows * queries, width)
    out_1NXH, sums_1NX = attention_part(q_1NXH, *pair)
    return (
        out_1NXH.view(heads, rows, queries, width).transpose(0, 1),
        sums_1NX.reshape(heads, rows, queries).transpose(0, 1),
    )


def merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over the keys of both parts, (B, N, T, H)."""
    share_BNT1 = (first[1] - second[1]).sigmoid()[..., None]
    return torch.lerp(second[0], first[0], share_BNT1)


class Pass(KeyValueCache):
    """One forward pass of B rows behind a prefix; the rows' own keys and values are kept if asked for.

    mask_B1TT: 0 where a query may see one of its row's own keys, -inf elsewhere; None is causal.
    positions_BT: of the rows' tokens; the prefix has 0..P-1. Padding is on the right: what stands behind a
    token does not change it.
    """

    def __init__(
        self,
        layers: int,
        positions_BT: Tensor,
        prefix: Prefix | None = None,
        mask_B1TT: Tensor | None = None,
        *,
        keep: bool = False,
    ) -> None:
        super().__init__(layers, capacity=0)
        self.prefix = prefix
        self.kept: list[tuple[Tensor, Tensor]] = []
        self._keep = keep
        self._positions_BT = positions_BT
        self._mask_B1TT = mask_B1TT
        self._end = int(positions_BT.max()) + 1

    def attention(
        self, layer: int, q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, window: int | None
    ) -> Tensor:
        """See `KeyValueCache`."""
        if self._keep:
            self.kept.append((k_BKTH, v_BKTH))
        if window is not None and window < self._end:
            return self._within_window(layer, q_BNTH, k_BKTH, v_BKTH, window)
        if self.prefix is None and self._mask_B1TT is None:
            return attend(q_BNTH, k_BKTH, v_BKTH)
        causal = self._mask_B1TT is None
        own = attention_part(q_BNTH, k_BKTH, v_BKTH, self._mask_B1TT, causal=causal)
        if self.prefix is None:
            return own[0].to(q_BNTH.dtype)
        return merged(prefix_part(q_BNTH, self.prefix.layers[layer]), own).to(q_BNTH.dtype)

    def _within_window(
        self, layer: int, q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, window: int
    ) -> Tensor:
        """A layer that sees `window` keys back: all keys in one row each, and a mask by distance."""
        rows, _, queries, _ = q_BNTH.shape
        device, positions_BT = q_BNTH.device, self._positions_BT.expand(rows, -1)
        mask = self._mask_B1TT
        if mask is None:
            hidden_TT = torch.ones(queries, queries, dtype=torch.bool, device=device).triu(1)
            mask = torch.zeros(1, 1, queries, queries, device=device).masked_fill(hidden_TT, -torch.inf)
        mask, keys_BS = mask.expand(rows, -1, -1, -1), positions_BT
        if self.prefix is not None:
            k_1KPH, v_1KPH = self.prefix.layers[layer]
            length = self.prefix.length
            k_BKTH = torch.cat((k_1KPH.expand(rows, -1, -1, -1), k_BKTH), dim=2)
            v_BKTH = torch.cat((v_1KPH.expand(rows, -1, -1, -1), v_BKTH), dim=2)
            keys_BS = torch.cat((torch.arange(length, device=device).expand(rows, -1), keys_BS), dim=1)
            mask = torch.cat((mask.new_zeros(rows, 1, queries, length), mask), dim=3)
        far_B1TS = (positions_BT[:, :, None] - keys_BS[:, None, :] >= window)[:, None]
        return attention_part(q_BNTH, k_BKTH, v_BKTH, mask.masked_fill(far_B1TS, -torch.inf))[0].to(
            q_BNTH.dtype
        )

    def whole(self) -> list[tuple[Tensor, Tensor]]:
        """The kept keys and values of each layer, every row's with those of the prefix before them."""
        if self.prefix is None:
            return self.kept
        return [
            (_joined(k_1KPH, k_BKTH), _joined(v_1KPH, v_BKTH))
            for (k_1KPH, v_1KPH), (k_BKTH, v_BKTH) in zip(self.prefix.layers, self.kept, strict=True)
        ]

    def extended(self) -> Prefix:
        """The prefix with the kept tokens of the pass's one row behind it."""
        if self.prefix is None:
            return Prefix(self._end, tuple((k.contiguous(), v.contiguous()) for k, v in self.kept))
        layers = tuple(
            (torch.cat((k, new_k), dim=2), torch.cat((v, new_v), dim=2))
            for (k, v), (new_k, new_v) in zip(self.prefix.layers, self.kept, strict=True)
        )
        return Prefix(self._end, layers)


def _joined(before_1KPH: Tensor, own_BKTH: Tensor) -> Tensor:
    return torch.cat((before_1KPH.expand(len(own_BKTH), -1, -1, -1), own_BKTH), dim=2)
