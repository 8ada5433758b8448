"""Which way a run attends to packed documents and windows on a GPU: found out at its start, and said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from logging import Logger
from typing import TYPE_CHECKING

import torch

from tsugiki.models.decoder import Decoder
from tsugiki.models.varlen_attention import Kernel, attend_by_kernel, fault_of, torchs_kernel

if TYPE_CHECKING:
    from tsugiki.training.engine import Engine
    from tsugiki.training.stage import Config

KERNEL = "kernel (torch.nn.attention.varlen)"
"""What the manifest says where the kernel is used."""


def attention_of(
    config: Config, decoders: Sequence[Decoder], engine: Engine, device: torch.device, log: Logger
) -> str:
    """Take the kernel for this process's decoders on a GPU if it is right in all processes.

    Gives what the manifest is to say; nothing on a CPU and for whole rows, where there is no choice. Every
    process of a run calls it.
    """
    shape = decoders[0].config
    packed = config.document_masking or shape.sliding_window is not None or config.parallel.context > 1
    if device.type != "cuda" or not packed:
        return ""
    dtype = torch.float32 if config.precision == "float32" else torch.bfloat16
    return choose_attention(decoders, torchs_kernel(), device, dtype, in_any=engine.in_any, log=log)


def choose_attention(
    decoders: Sequence[Decoder],
    kernel: Kernel | None,
    device: torch.device,
    dtype: torch.dtype,
    *,
    in_any: Callable[[bool], bool],
    log: Logger,
) -> str:
    """Take a kernel where nothing is wrong with it in any process, else leave attention to masks, and say so.

    dtype: of the products. in_any: whether the flag is set in any process (`Engine.in_any`).
    """
    fault = fault_of(kernel, decoders[0].config, device, dtype)
    if in_any(bool(fault)) or kernel is None:
        fault = fault or "another process found a fault in the kernel"
        log.warning("attention over packed documents computes all scores, under a mask: %s", fault)
        return f"mask ({fault})"
    attend_by_kernel(decoders, kernel)
    log.info("attention over packed documents by the kernel of torch.nn.attention.varlen")
    return KERNEL
