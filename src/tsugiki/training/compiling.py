"""Layers compiled by `torch.compile`: what lies between matrix products becomes few kernels.

As torchtitan does (parallelize.py, `apply_compile`), each layer is compiled on its own: all layers share the
compiled code, and FSDP's and the checkpointing's hooks stay outside. Attention is called as it is, because
which documents lie in a batch differs from step to step, and it is one kernel already. So are experts, whose
shapes follow the router. Validation, generation and the steps in which float8 is measured go through the
layers uncompiled: there are few of them, of other shapes.

Float8 needs this to pay on a GPU: rounding to float8 and its scales are passes over memory of their own where
nothing fuses them (torchao's README measures float8 with torch.compile only).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from tsugiki.errors import DependencyError
from tsugiki.models import products
from tsugiki.models.decoder import Block, Decoder
from tsugiki.models.layers import Linear
from tsugiki.models.moe import SparseFeedForward


def compile_layers(decoders: Iterable[Decoder], device: torch.device) -> None:
    """Compile the layers of decoders, or of parts of one, in place; the first step then takes longer.

    Called when everything else is in its place: parallelism, recomputation, float8. Raises DependencyError
    where torch finds no compiler for `device`.
    """
    check_compiler(device)
    torch.compiler.assume_constant_result(products.multiplies_bfloat16)  # type: ignore[no-untyped-call]
    warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")  # that one
    for decoder in decoders:
        for block in decoder.modules():
            if isinstance(block, Block):
                _compile(block)


def check_compiler(device: torch.device) -> None:
    """Compile and run something small; raises DependencyError where that fails."""
    numbers = torch.ones(8, device=device)
    try:
        torch.compile(_small)(numbers)
    except Exception as error:
        missing = "a C++ compiler (g++)" if device.type == "cpu" else "Triton and a C compiler (gcc)"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DependencyError(
            f"torch can compile nothing for {device.type} here: {reason}",
            hint=f"install {missing}, or leave out `compile: true`",
        ) from error


def _small(x: torch.Tensor) -> torch.Tensor:
    return (x * 2 + 1).relu()


def _compile(block: Block) -> None:
    as_it_is: Callable[[Any], Any] = torch.compiler.disable
    block.self_attn.attend = as_it_is(block.self_attn.attend)
    if isinstance(block.mlp, SparseFeedForward):
        block.mlp.forward = as_it_is(block.mlp.forward)  # type: ignore[method-assign]
    plain: Callable[..., Any] = block.forward
    compiled = torch.compile(plain, dynamic=False)
    matrices = [module for module in block.modules() if isinstance(module, Linear)]

    @functools.wraps(plain)
    def forward(*arguments: Any, **keywords: Any) -> Any:
        measured = any(getattr(matrix.multiply, "gauge", None) is not None for matrix in matrices)
        learns = torch.is_grad_enabled() and not measured
        return (compiled if learns else plain)(*arguments, **keywords)

    block.forward = forward  # type: ignore[method-assign]
