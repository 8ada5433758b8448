"""A context that is computed once and read by all options of its question."""

from __future__ import annotations

import torch
from torch import Tensor

from tsugiki.models.attention import KeyValueCache


class SharedPrefix(KeyValueCache):
    """Keys and values of one row of tokens, K_1KTH and V_1KTH a layer, that later rows attend to.

    The first forward pass (one row) fills it; every later one, of any number of rows, reads it and leaves it
    as it is. With a question of four options of a third of the context's length this halves the tokens that
    are computed.
    """

    def __init__(self, layers: int) -> None:
        super().__init__(layers, capacity=0)
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        """The prefix's keys and values of a layer, repeated for each row, and the new ones behind them."""
        if not self.length:
            self._kept[layer] = (k_BKTH, v_BKTH)
            return k_BKTH, v_BKTH
        rows = k_BKTH.shape[0]
        k_1KTH, v_1KTH = self._kept[layer]
        return (
            torch.cat((k_1KTH.expand(rows, -1, -1, -1), k_BKTH), dim=2),
            torch.cat((v_1KTH.expand(rows, -1, -1, -1), v_BKTH), dim=2),
        )

    def advance(self, tokens: int) -> None:
        """Count the tokens of the first pass; those of later ones are not kept."""
        if not self.length:
            self.length = tokens
