"""Activations that are computed again in the backward pass, and which of them are kept.

After Chen et al. 2016 (arXiv 1604.06174) and Korthikanti et al. 2022 (arXiv 2205.05198, section 5).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import (
    CheckpointPolicy,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

Recompute = Literal["none", "selective", "full"]


def _keep_products(_context: object, operation: Callable[..., object], *_: object, **__: object) -> object:
    """Keep what is dear to compute, matrix products and attention, and compute the rest again."""
    return CheckpointPolicy.MUST_SAVE if _is_dear(operation) else CheckpointPolicy.PREFER_RECOMPUTE


_DEAR = {torch.ops._c10d_functional.all_to_all_single.default} | {  # noqa: SLF001 (its public name)
    getattr(torch.ops.aten, name).default
    for name in (
        "mm",
        "addmm",
        "_grouped_mm",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
    )
}

_VARLEN = "torch_attn._varlen_attn.default"
"""Attention over packed documents on a GPU; by its name, since it exists once its slow module is imported."""


def _is_dear(operation: Callable[..., object]) -> bool:
    return operation in _DEAR or str(operation) == _VARLEN


class _Recall(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """In the backward pass: takes what was kept, and computes everything else.

    torch's own mode wants every operation to come again, which those of FSDP around experts do not.
    """

    def __init__(self, kept: TorchDispatchMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept = kept

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if _is_dear(func):
            return self._kept.__torch_dispatch__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _selective() -> tuple[object, object]:
    keep, kept = create_selective_checkpoint_contexts(_keep_products)  # type: ignore[no-untyped-call]
    return keep, _Recall(kept)


CONTEXTS: dict[str, Callable[[], object]] = {"selective": _selective, "full": noop_context_fn}
"""For torch's `checkpoint_wrapper`."""
