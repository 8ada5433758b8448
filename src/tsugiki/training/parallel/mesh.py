"""The processes of a run, and which of them share what.

Process groups are named as in the literature: pipeline (layers), replicate and shard (data parallelism whose
weights are copied, or spread as FSDP does), context (the sequence), tensor (each matrix). Expert parallelism
has no processes of its own: the replicate, shard and context ranks of a stage, taken together, are seen a
second time as those that hold copies of experts (replicate), those that spread them as FSDP does (shard), and
those that hold different experts (expert, the innermost, so that tokens are sent within a node).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tsugiki.artifacts.outside import STARTED_BY_LAUNCH
from tsugiki.errors import InputError

if TYPE_CHECKING:
    from tsugiki.training.settings import Parallel

DIMENSIONS = ("pipeline", "replicate", "shard", "context", "tensor")
"""From the outermost, whose processes are furthest apart, to the innermost, which belongs into one node:
tensor parallelism communicates most and pipelines least (parallelism-and-memory.md, section 9, rule 4)."""

EXPERT_DIMENSIONS = ("pipeline", "replicate", "shard", "expert", "tensor")
"""The same processes, as far as experts go."""

TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """This process among all of them.

    weights: the mesh over which FSDP spreads weights, one dimension ("shard", which holds the context ranks
    too), or two where they are also replicated. experts: all processes by EXPERT_DIMENSIONS, None without
    expert parallelism.
    """

    mesh: DeviceMesh
    weights: DeviceMesh
    parallel: Parallel
    device: torch.device
    experts: DeviceMesh | None = None

    def rank_in(self, dimension: str) -> int:
        """This process's place in its group along a dimension."""
        return self.mesh.get_local_rank(dimension)

    def group(self, dimension: str) -> dist.ProcessGroup:
        """The group of processes along a dimension that this one belongs to."""
        return self.mesh.get_group(dimension)

    @property
    def expert_weights(self) -> DeviceMesh:
        """The mesh over which FSDP spreads experts' weights; see `weights`."""
        if self.experts is None:
            return self.weights
        return _weights(self.experts, self.experts["shard"])

    @property
    def expert_cuts(self) -> DeviceMesh | None:
        """The mesh over which experts and their matrices are cut; None where each process has all."""
        cut = self.parallel.tensor > 1
        if self.experts is None:
            return self.mesh["tensor"] if cut else None
        return self.experts["expert", "tensor"] if cut else self.experts["expert"]

    @property
    def data_rank(self) -> int:
        """Which part of each batch this process reads: 0 to parallel.data - 1."""
        return self.rank_in("replicate") * self.parallel.shards + self.rank_in("shard")


def open_world(parallel: Parallel, device: torch.device, timeout: timedelta = TIMEOUT) -> World:
    """Join the other processes as torchrun's variables say (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

    Raises InputError where the number of processes is not what the layout asks for.
    """
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group(backend, timeout=timeout, **_meeting_place(timeout))
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
    return World(mesh, _weights(mesh, spread), parallel, device, _expert_mesh(parallel, device))


def _meeting_place(timeout: timedelta) -> dict[str, Any]:
    """The store of `launch`, for processes that it started; under torchrun the first process opens one."""
    if STARTED_BY_LAUNCH not in os.environ:
        return {}
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, ranks, is_master=False, timeout=timeout
    )
    return {"store": store, "rank": rank, "world_size": ranks}


def _weights(mesh: DeviceMesh, spread: DeviceMesh) -> DeviceMesh:
    names = spread.mesh_dim_names or ()
    return spread if mesh["replicate"].size() == 1 else mesh["replicate", *names]


def _expert_mesh(parallel: Parallel, device: torch.device) -> DeviceMesh | None:
    if parallel.expert == 1:
        return None
    spread = max(1, parallel.shards * parallel.context // parallel.expert)
    copies = parallel.data * parallel.context // (parallel.expert * spread)
    sizes = (parallel.pipeline, copies, spread, parallel.expert, parallel.tensor)
    return init_device_mesh(device.type, sizes, mesh_dim_names=EXPERT_DIMENSIONS)


def close_world() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
