"""Which part of a tensor a process holds: the same questions for plain tensors and for DTensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tsugiki.models.sharding import held_part


@dataclass(frozen=True)
class Box:
    """A part of a tensor: where it begins and how long it is along each dimension."""

    offset: tuple[int, ...]
    size: tuple[int, ...]

    def meet(self, other: Box) -> Box | None:
        """What two parts of the same tensor share, or None."""
        pairs = list(zip(self.offset, self.size, other.offset, other.size, strict=True))
        start = tuple(max(a, b) for a, _, b, _ in pairs)
        size = tuple(min(a + m, b + n) - max(a, b) for a, m, b, n in pairs)
        return Box(start, size) if all(length > 0 for length in size) else None

    def within(self, outer: Box) -> tuple[slice, ...]:
        """This part as an index into `outer`, which holds it."""
        return tuple(
            slice(start - base, start - base + length)
            for start, length, base in zip(self.offset, self.size, outer.offset, strict=True)
        )


def box_of(tensor: Tensor) -> Box:
    """The part of a tensor that this process holds."""
    held, offset = held_part(tensor)
    return Box(offset, tuple(held.shape))


def local_part(tensor: Tensor) -> Tensor:
    """The numbers that this process holds; the tensor itself where it is whole."""
    return tensor.to_local() if _is_spread(tensor) else tensor  # type: ignore[attr-defined]


def is_first_copy(tensor: Tensor) -> bool:
    """Whether this process is the first of those that hold the same part."""
    if not _is_spread(tensor):
        return True
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    place = mesh.get_coordinate()
    return all(
        placement.is_shard() or _is_strided(placement) or place[dimension] == 0
        for dimension, placement in enumerate(placements)
    )


def shards_of(tensor: Tensor) -> int:
    """Into how many different parts a tensor is cut."""
    if not _is_spread(tensor):
        return 1
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    shards = 1
    for dimension, placement in enumerate(placements):
        if placement.is_shard() or _is_strided(placement):
            shards *= mesh.size(dimension)
    return shards


def own_square(tensor: Tensor, processes: int) -> Tensor:
    """This process's share of the squared norm of a tensor that `processes` hold, whole or in parts; float32.

    The squares of its part, divided by how many hold the same part: the sum over all counts each number once.
    """
    return local_part(tensor).square().sum(dtype=torch.float32) * (shards_of(tensor) / processes)


def _is_spread(tensor: Tensor) -> bool:
    # without importing torch.distributed.tensor, which takes a second
    return hasattr(tensor, "placements") and hasattr(tensor, "to_local")


def _is_strided(placement: object) -> bool:
    return type(placement).__name__ == "_StridedShard"
