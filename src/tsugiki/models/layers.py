"""The pieces that every part of the decoder is made of: matrices, tables of rows, norms, feed-forwards.

They hold NaN (norms 1) until weights are loaded or `initialise` is called, and draw nothing: the global
random state stays as it is, and forgotten weights show at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tsugiki.models.products import linear


class Linear(nn.Linear):
    """A matrix, without bias unless asked for.

    `multiply` is `products.linear`; `training.precision` replaces it where a recipe computes in float8.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.multiply: Callable[[Tensor, Tensor, Tensor | None], Tensor] = linear

    def reset_parameters(self) -> None:
        """Fill with NaN."""
        for parameter in self.parameters():
            nn.init.constant_(parameter, math.nan)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (..., I) to outputs (..., O)."""
        return self.multiply(x, self.weight, self.bias)


class Embedding(nn.Embedding):
    """A table of rows."""

    def reset_parameters(self) -> None:
        """Fill with NaN."""
        nn.init.constant_(self.weight, math.nan)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight (Zhang and Sennrich 2019), the division in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Shape in = shape out."""
        if x_BTD.dtype == torch.float32:
            return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)
        normed_BTD = F.rms_norm(x_BTD.float(), self.weight.shape, None, self.eps)
        return self.weight * normed_BTD.to(x_BTD.dtype)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x)) (Shazeer 2020). width: of the model; inner: of the feed-forward."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, inner)
        self.up_proj = Linear(width, inner)
        self.down_proj = Linear(inner, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The feed-forward block's contribution to the residual stream, (B, T, D)."""
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
