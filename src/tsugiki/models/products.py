"""Matrix products in bfloat16 where the processor has no instructions for them.

A CPU without AVX-512 BF16 or AMX multiplies bfloat16 matrices number by number: measured on such a one, 0.6
to 12 GFLOP/s against 30 to 42 in float32, and attention's backward pass takes five times as long. The product
of two rounded matrices in float32, rounded at the end, is what the instructions compute (products of bfloat16
numbers are exact in float32, and sums are kept in float32), so it is taken instead.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 matrices."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001


def is_slow(x: Tensor) -> bool:
    """Whether products of `x` would be in bfloat16 on a CPU that is slow at them."""
    if x.device.type != "cpu" or multiplies_bfloat16():
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.dtype == torch.bfloat16


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, in bfloat16 by way of float32 where `is_slow` says so; the result is bfloat16 then.

    Weights that are no plain tensors (those of tensor parallelism) are left to torch.
    """
    if not is_slow(x) or type(weight.data) is not Tensor:
        return F.linear(x, weight, bias)
    y: Tensor = _RoundedProduct.apply(x, weight)  # type: ignore[no-untyped-call]
    return y if bias is None else y + bias.to(y.dtype)


class _RoundedProduct(torch.autograd.Function):
    """x @ w.T of operands rounded to bfloat16, accumulated in float32, rounded; so are both gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        rounded_x, rounded_w = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(rounded_x, rounded_w)
        ctx.dtypes = (x.dtype, weight.dtype)
        with torch.autocast("cpu", enabled=False):  # it would take bfloat16 again
            return (rounded_x.float() @ rounded_w.float().T).bfloat16()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, w = ctx.saved_tensors
        grad = grad.float()
        grad_x = grad_w = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ w.float()).bfloat16().to(ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            grad_w = grad.flatten(0, -2).T @ x.float().flatten(0, -2)
            grad_w = grad_w.bfloat16().to(ctx.dtypes[1])
        return grad_x, grad_w
