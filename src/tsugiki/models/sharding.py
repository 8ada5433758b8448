"""Parameters of which a process may hold a part only: from whole tensors, and back to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")
"""What torch's `checkpoint_wrapper` and `compile` put into names; they don't into those of a state dict."""


def named_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's parameters under the names that they have without wrappers around parts of it."""
    parameters = {}
    for name, parameter in module.named_parameters():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")  # noqa: PLW2901 (as many as there are)
        parameters[name] = parameter
    return parameters


def held_part(parameter: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """What this process holds of a parameter, and where in the whole it begins (an offset a dimension).

    A DTensor's local shard (FSDP2, tensor and expert parallelism, in any combination); of a plain tensor all.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        if isinstance(parameter, DTensor):
            _, offsets = compute_local_shape_and_global_offset(
                parameter.shape, parameter.device_mesh, parameter.placements
            )
            return parameter.to_local(), tuple(offsets)
    return parameter, (0,) * parameter.dim()


def computing_part(parameter: Tensor) -> Tensor:
    """What this process computes with: its part of a parameter that is cut, or its copy; of a plain one all.

    Processes that hold copies use them for different tokens, or for different parts of the sum that leads to
    the loss, so the gradients of copies are added up.
    """
    if not hasattr(parameter, "placements"):
        return parameter
    from torch.distributed.tensor import DTensor, Partial

    assert isinstance(parameter, DTensor)  # noqa: S101 (for the type checker)
    kinds = [placement if placement.is_shard() else Partial() for placement in parameter.placements]
    return parameter.to_local(grad_placements=kinds)


@torch.no_grad()
def copy_whole(parameter: Tensor, whole: Tensor, expert: int | None = None) -> None:
    """Copy from a whole tensor what this process holds of a parameter; cast to its type.

    expert: `whole` is this expert's matrix of a stacked parameter (E, ...) only. No process waits for
    another, and of a memory-mapped tensor only what is copied is read.
    """
    held, offsets = held_part(parameter)
    if expert is not None:
        place = expert - offsets[0]
        if not 0 <= place < len(held):
            return
        held, offsets = held[place], offsets[1:]
    if held.numel():
        region = tuple(slice(start, start + size) for start, size in zip(offsets, held.shape, strict=True))
        held.copy_(whole[region])


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a parameter, detached.

    Of a DTensor all its processes have to ask for the same one at the same time; a plain tensor is whole.
    """
    whole = tensor.detach()
    gather = getattr(whole, "full_tensor", None)
    return whole if gather is None else gather()
