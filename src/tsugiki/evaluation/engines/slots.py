"""Keys and values of texts that are written side by side, one token each at a time; texts come and go.

Shapes as in `tsugiki.evaluation.engines.prefix`: B rows at work, S own keys of a row, P tokens of the shared
prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tsugiki.evaluation.engines.prefix import Prefix, attention_part, merged, prefix_part
from tsugiki.models.attention import KeyValueCache

_STEP = 16
"""Buffers and masks grow by so many keys: 64 bytes of mask, one line of a processor's cache."""


class Slots(KeyValueCache):
    """At most `slots` rows behind a shared prefix. Row b holds `lengths_B[b]` own tokens.

    `add` rows with their first tokens; then, for each token: `begin_step`, a forward pass of one token a row,
    `advance`. `drop` a row when it is done: the last row takes its place.
    """

    def __init__(self, layers: int, prefix: Prefix | None, slots: int) -> None:
        super().__init__(layers, capacity=0)
        self.prefix = prefix
        self.lengths_B = torch.zeros(0, dtype=torch.int64)
        self._slots = slots
        self._layers = layers
        self._start = prefix.length if prefix else 0
        self._step: tuple[Tensor, int, Tensor] | None = None

    def positions_B1(self) -> Tensor:  # noqa: N802
        """Where each row's next token stands, (B, 1)."""
        return (self._start + self.lengths_B)[:, None]

    def add(self, lengths_B: Tensor, kept: Sequence[tuple[Tensor, Tensor]]) -> None:
        """More rows, with the keys and values of their first tokens (padded on the right) of each layer."""
        longest = int(lengths_B.max())
        self._grow(longest, kept[0][0])
        first = len(self.lengths_B)
        for layer, pair in enumerate(kept):
            for buffer, new in zip(self._pair(layer), pair, strict=True):
                buffer[first : first + len(new), :, :longest] = new[:, :, :longest]
        self.lengths_B = torch.cat((self.lengths_B, lengths_B))

    def drop(self, row: int) -> None:
        """Forget a row; the last one moves to its number."""
        last = len(self.lengths_B) - 1
        length = int(self.lengths_B[last])
        if row != last:
            for layer in range(self._layers):
                for buffer in self._pair(layer):
                    buffer[row, :, :length] = buffer[last, :, :length]
        self.lengths_B[row] = self.lengths_B[last]
        self.lengths_B = self.lengths_B[:last]

    def begin_step(self) -> None:
        """Make room for one token a row, and the mask over the rows' own keys."""
        longest = int(self.lengths_B.max()) + 1
        like = self._pair(0)[0]
        self._grow(longest, like)
        seen = -(-longest // _STEP) * _STEP
        lengths_B = self.lengths_B.to(like.device)
        hidden_BS = torch.arange(seen, device=like.device) > lengths_B[:, None]
        mask_BS = torch.zeros(hidden_BS.shape, device=like.device).masked_fill_(hidden_BS, -torch.inf)
        self._step = (lengths_B, seen, mask_BS[:, None, None])

    def attention(
        self, layer: int, q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, window: int | None
    ) -> Tensor:
        """See `KeyValueCache`; T is 1."""
        assert self._step is not None  # noqa: S101 (begin_step was called)
        lengths_B, seen, mask_B11S = self._step
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        k_BKSH, v_BKSH = self._pair(layer)
        k_BKSH[rows_B, :, lengths_B] = k_BKTH[:, :, 0]
        v_BKSH[rows_B, :, lengths_B] = v_BKTH[:, :, 0]
        k_BKSH, v_BKSH = (x[: len(lengths_B), :, :seen] for x in (k_BKSH, v_BKSH))
        if window is not None and window <= self._start + int(self.lengths_B.max()):
            return self._within_window(layer, q_BNTH, k_BKSH, v_BKSH, window)
        own = attention_part(q_BNTH, k_BKSH, v_BKSH, mask_B11S)
        if self.prefix is None:
            return own[0].to(q_BNTH.dtype)
        return merged(prefix_part(q_BNTH, self.prefix.layers[layer]), own).to(q_BNTH.dtype)

    def _within_window(
        self, layer: int, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, window: int
    ) -> Tensor:
        """A layer that sees `window` keys back: all keys in one row each, and a mask by distance."""
        assert self._step is not None  # noqa: S101 (begin_step was called)
        lengths_B, seen, mask_B11S = self._step
        rows, device = len(lengths_B), lengths_B.device
        keys_S = self._start + torch.arange(seen, device=device)
        if self.prefix is not None:
            k_1KPH, v_1KPH = self.prefix.layers[layer]
            k_BKSH = torch.cat((k_1KPH.expand(rows, -1, -1, -1), k_BKSH), dim=2)
            v_BKSH = torch.cat((v_1KPH.expand(rows, -1, -1, -1), v_BKSH), dim=2)
            keys_S = torch.cat((torch.arange(self._start, device=device), keys_S))
            mask_B11S = torch.cat((mask_B11S.new_zeros(rows, 1, 1, self._start), mask_B11S), dim=3)
        far_BS = self._start + lengths_B[:, None] - keys_S >= window
        mask_B11S = mask_B11S.masked_fill(far_BS[:, None, None], -torch.inf)
        return attention_part(q_BNTH, k_BKSH, v_BKSH, mask_B11S)[0].to(q_BNTH.dtype)

    def advance(self, tokens: int) -> None:
        """Count the token that every row was extended by."""
        self.lengths_B = self.lengths_B + tokens

    def _pair(self, layer: int) -> tuple[Tensor, Tensor]:
        pair = self._buffers[layer]
        assert pair is not None  # noqa: S101 (rows were added)
        return pair

    def _grow(self, capacity: int, like: Tensor) -> None:
        """Room for `capacity` own tokens of every row, half as much again where there was too little."""
        if capacity <= self.capacity:
            return
        self.capacity = -(-max(capacity, self.capacity * 3 // 2) // _STEP) * _STEP
        shape = (self._slots, like.shape[1], self.capacity, like.shape[3])
        for layer, pair in enumerate(self._buffers):
            # Zeros, since what was never written is multiplied with a weight of 0 and must be a number.
            grown = (like.new_zeros(shape), like.new_zeros(shape))
            for old, new in zip(pair or (), grown, strict=False):
                new[:, :, : old.shape[2]] = old
            self._buffers[layer] = grown
