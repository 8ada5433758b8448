"""The processes of a run, and which of them share what.

Process groups are named as in the literature: pipeline (layers), replicate and shard (data parallelism whose
weights are copied, or spread as FSDP does), context (the sequence), tensor (each matrix).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tsugiki.errors import InputError

if TYPE_CHECKING:
    from tsugiki.training.settings import Parallel

DIMENSIONS = ("pipeline", "replicate", "shard", "context", "tensor")
"""From the outermost, whose processes are furthest apart, to the innermost, which belongs into one node:
tensor parallelism communicates most and pipelines least (parallelism-and-memory.md, section 9, rule 4)."""

TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """This process among all of them.

    weights: the mesh over which FSDP spreads weights, one dimension ("shard", which holds the context ranks
    too), or two where they are also replicated.
    """

    mesh: DeviceMesh
    weights: DeviceMesh
    parallel: Parallel
    device: torch.device

    def rank_in(self, dimension: str) -> int:
        """This process's place in its group along a dimension."""
        return self.mesh.get_local_rank(dimension)

    def group(self, dimension: str) -> dist.ProcessGroup:
        """The group of processes along a dimension that this one belongs to."""
        return self.mesh.get_group(dimension)

    @property
    def data_rank(self) -> int:
        """Which part of each batch this process reads: 0 to parallel.data - 1."""
        return self.rank_in("replicate") * self.parallel.shards + self.rank_in("shard")

    def sum_over_data(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all parts of the batch (data and context), in place."""
        for dimension in ("replicate", "shard", "context"):
            dist.all_reduce(values, group=self.group(dimension))
        return values


def open_world(parallel: Parallel, device: torch.device, timeout: timedelta = TIMEOUT) -> World:
    """Join the other processes as torchrun's variables say (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

    Raises InputError where the number of processes is not what the layout asks for.
    """
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group(backend, timeout=timeout)
    if dist.get_world_size() != parallel.product:
        raise InputError(
            f"parallel asks for {parallel.product} processes ({parallel.text}); "
            f"{dist.get_world_size()} were started",
            hint="start as many with torchrun, or change the degrees",
        )
    sizes = (
        parallel.pipeline,
        parallel.data // parallel.shards,
        parallel.shards,
        parallel.context,
        parallel.tensor,
    )
    mesh = init_device_mesh(device.type, sizes, mesh_dim_names=DIMENSIONS)
    spread = mesh["shard", "context"]._flatten("spread")  # noqa: SLF001 (torchtitan does the same; there is no other way)
    weights = spread if sizes[1] == 1 else mesh["replicate", "spread"]
    return World(mesh, weights, parallel, device)


def close_world() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
