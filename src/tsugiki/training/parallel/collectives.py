"""Collectives that gradients go back through."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed import _functional_collectives as functional

# torch 2.13 renamed it, and warns at the old name
_NEW, _OLD = "all_gather_single_autograd", "all_gather_tensor_autograd"
_GATHER: Any = getattr(functional, _NEW if hasattr(functional, _NEW) else _OLD)


def gather(part: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    """The parts of all processes in order along `dimension`; gradients are added up on the way back."""
    whole: Tensor = _GATHER(part.contiguous(), dimension, group)
    return whole
