"""Collectives that gradients go back through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed import _functional_collectives as functional

# torch 2.13 renamed it, and warns at the old name
_IS_NEW = hasattr(functional, "all_gather_single_autograd")
_GATHER: Any = getattr(functional, f"all_gather_{'single' if _IS_NEW else 'tensor'}_autograd")
_SCATTER: Any = getattr(functional, f"reduce_scatter_{'single' if _IS_NEW else 'tensor'}_autograd")


def gather(part: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    """The parts of all processes in order along `dimension`; gradients are added up on the way back."""
    whole: Tensor = _GATHER(part.contiguous(), dimension, group)
    return whole


def add_and_scatter(partial: Tensor, dimension: int, group: dist.ProcessGroup) -> Tensor:
    """The sum over all processes, of which each keeps its part along `dimension`."""
    part: Tensor = _SCATTER(partial.contiguous(), "sum", dimension, group)
    return part


def exchange(
    rows_RD: Tensor, sent: Sequence[int], received: Sequence[int], group: dist.ProcessGroup
) -> Tensor:
    """Rows to every process of a group, and from every one of them, in order of the group.

    sent, received: how many to and from each; zeros are allowed. Gradients go the way back.
    """
    arrived: Tensor = functional.all_to_all_single_autograd(
        rows_RD.contiguous(), list(received), list(sent), group
    )
    return arrived
