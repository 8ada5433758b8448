"""What a framework's kernels keep in memory: switches, and how three frameworks set them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tsugiki.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Kernels:
    """Assumptions about what is kept between the forward and the backward pass, and beside it.

    swiglu_saved: bytes a feed-forward keeps of each of its f columns of a token in bfloat16: 8 (gate, up,
    silu(gate), product) or 6 (fused: silu(gate) is computed again). norm_bytes: what a norm keeps of each
    element of its input in bfloat16: 2 (the input), 6 where a float32 copy is kept beside it.
    logit_bytes: of each logit at the peak: 6 for vocabulary-parallel cross entropy in place (bfloat16 logits
    and their float32 copy), 4 without the first, 14 for torch's own (bfloat16 logits, float32 log_softmax,
    8 more in its backward pass). logit_chunk: logits that exist at once; None: all of the micro-batch.
    selective: what selective recomputation keeps: "attention" (all but the core of attention, which flash
    attention never keeps: no effect), "products" (of matrix products and attention the results, and the
    layer's input), "every-other-product" (of every second matrix product only).
    gathers_keys: attention over a part of a sequence gets all keys, and keeps them. masks_gathered: under
    a mask, which is kept too (always so in float32, which no kernel takes, and on a CPU).
    routed_copies: copies of tokens that go to experts and come back are kept. routing_imbalance: tokens of
    the busiest expert process by those of the mean one.
    master_weights: the weights themselves are float32 and cast for use (FSDP2), not a float32 copy beside
    bfloat16 ones (Megatron). whole_gradients: gradients of several micro-batches add up whole, in float32,
    and are shared out after the last one only (FSDP2 without synchronisation between micro-batches; torch's
    pipelines always do so, after a single one too, and keep weights gathered meanwhile).
    copies_alone: one process alone keeps a copy of all weights in the products' type until the backward pass
    is over (torch.autocast), where several gather one layer after the other.
    experts_follow_tensor: experts are cut as everything else is, and spread over data and context processes
    only. communicator_bytes: buffers of one NCCL communicator.
    context_bytes: CUDA context, libraries and workspace of a process.
    """

    name: str
    swiglu_saved: Literal[6, 8] = 8
    norm_bytes: float = 2
    keeps_gathered: bool = False
    keeps_statistics: bool = False
    gathers_keys: bool = False
    masks_gathered: bool = False
    keeps_float8: bool = False
    logit_bytes: float = 6.0
    logit_chunk: int | None = None
    selective: Literal["attention", "products", "every-other-product"] = "attention"
    routed_copies: bool = True
    routing_imbalance: float = 1.0
    master_weights: bool = False
    whole_gradients: bool = False
    copies_alone: bool = False
    experts_follow_tensor: bool = False
    communicator_bytes: float = 0.5e9
    context_bytes: float = 0.5 * 2**30


KERNELS: Mapping[str, Kernels] = {
    # 8f, as the authors of arXiv 2411.06465 count: Megatron's fused SwiGLU keeps 6f (its autograd function
    # saves its input only), but Transformer Engine's attention copies q, k, v and its output into another
    # layout, which they don't count; their sum is what was held against 454 runs. Cross entropy: 4 bytes in
    # place and 2 of the bfloat16 logits. Communicators: half a gigabyte each, by the same authors' web tool.
    # Context: 0.3 to 0.5 GiB.
    "megatron-lm": Kernels("megatron-lm", keeps_float8=True),
    # FSDP2 over float32 weights; torch.compile fuses SwiGLU (saves gate and up, and the product for the next
    # matrix) and the norms; cross entropy is torch's, under compile: logits in bfloat16 and float32, and the
    # gradient in bfloat16. Its op-level selective recomputation keeps every second matrix product.
    "torchtitan": Kernels(
        "torchtitan",
        swiglu_saved=6,
        keeps_gathered=True,
        keeps_statistics=True,
        logit_bytes=8.0,
        selective="every-other-product",
        master_weights=True,
    ),
    # FSDP2 over float32 weights, eager: F.rms_norm on a float32 copy keeps 4 bytes of its input and the 2 of
    # its normalised output that the weight multiplies; SwiGLU keeps all four; the head's loss makes
    # 2^26 logits at once (training/loss.py).
    "tsugiki": Kernels(
        "tsugiki",
        norm_bytes=6,
        keeps_gathered=True,
        keeps_statistics=True,
        gathers_keys=True,
        logit_bytes=12.0,
        logit_chunk=2**26,
        selective="products",
        master_weights=True,
        copies_alone=True,
        experts_follow_tensor=True,
    ),
}


def _one_of(*allowed: object) -> Callable[[str], Any]:
    """A reader of one of these values as they are written."""

    def read(text: str) -> Any:
        for value in allowed:
            if text.lower() == str(value).lower():
                return value
        raise ValueError(" or ".join(map(str, allowed)))

    return read


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError("a number of 0 or more")
    return number


def _chunk(text: str) -> int | None:
    return round(_amount(text)) or None


SWITCHES: Mapping[str, Callable[[str], Any]] = {
    "swiglu_saved": _one_of(6, 8),
    "norm_bytes": _amount,
    "keeps_gathered": _one_of(True, False),
    "keeps_statistics": _one_of(True, False),
    "gathers_keys": _one_of(True, False),
    "masks_gathered": _one_of(True, False),
    "keeps_float8": _one_of(True, False),
    "logit_bytes": _amount,
    "logit_chunk": _chunk,
    "selective": _one_of("attention", "products", "every-other-product"),
    "routed_copies": _one_of(True, False),
    "routing_imbalance": _amount,
    "whole_gradients": _one_of(True, False),
    "communicator_bytes": _amount,
    "context_bytes": _amount,
}
"""What a user may set apart from the framework, and how it is read; readers raise ValueError with what they
expect. logit_chunk 0: no chunks."""


def kernels(name: str) -> Kernels:
    """The assumptions of a framework; raises InputError for a name that is not known."""
    if name not in KERNELS:
        raise InputError(f'there are no kernels "{name}"', hint=did_you_mean(name, tuple(KERNELS)))
    return KERNELS[name]
