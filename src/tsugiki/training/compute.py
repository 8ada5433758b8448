"""Where and how a model computes: device, precision, threads, and the same bits each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsugiki.artifacts import processes
from tsugiki.dataset.mixture import Batch
from tsugiki.dataset.packing import IGNORED
from tsugiki.errors import InputError
from tsugiki.models.decoder import Decoder
from tsugiki.models.moe import Routing
from tsugiki.training.loss import LossSums, head_loss
from tsugiki.training.routers import Routers


@dataclass(frozen=True)
class Compute:
    """Device, type of matrix products (weights stay in float32), document masking, weight of the z-loss.

    routers: of a mixture of experts.
    """

    device: torch.device
    bfloat16: bool = False
    document_masking: bool = True
    z_loss: float = 0.0
    routers: Routers | None = None

    def loss(self, decoder: Decoder, rows: Batch, scale: float = 1.0) -> LossSums:
        """Forward pass and loss of some rows; `scale` multiplies the objective (see `head_loss`)."""
        masked = self.document_masking and rows.several_documents
        targets_BT = self._tensor(rows.targets_BT)
        routings: list[Routing] = []
        with self.autocast():
            hidden_BTD = decoder.hidden(
                self._tensor(rows.ids_BT),
                document_ids_BT=_on_host(rows.document_ids_BT) if masked else None,
                routings=routings,
            )
            sums = head_loss(
                hidden_BTD.flatten(0, 1),
                decoder.head_weight_VD,
                targets_BT.flatten(),
                z_loss=self.z_loss,
                scale=scale,
            )
        if self.routers is None or not routings:
            return sums
        counted_BT = targets_BT != IGNORED
        if not torch.is_grad_enabled():
            self.routers.watch(routings, counted_BT)
            return sums
        objective = self.routers.objective(routings, counted_BT, counted_BT.sum(dim=1))
        return sums._replace(objective=sums.objective + objective * scale)

    def autocast(self) -> torch.autocast:
        """In which the decoder is called, to learn and to generate."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def _tensor(self, array: NDArray[np.integer]) -> Tensor:
        return _on_host(array).to(self.device, non_blocking=True)


def _on_host(array: NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device to compute on; raises InputError where a GPU is asked for and there is none."""
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise InputError(
            "device is cuda, but torch finds no CUDA device",
            hint="use device: auto or cpu, or install a torch built for this machine's driver",
        )
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


@contextmanager
def deterministic(threads: int | None, device: torch.device) -> Iterator[int]:
    """Fix the number of threads and take deterministic kernels; gives the number of threads.

    On a CPU the same threads give the same bits, and memory is kept from step to step (`memory_kept`). On
    CUDA, kernels without a deterministic form only warn (attention's backward pass with a mask is one): runs
    there agree to rounding, not to the bit.
    """
    memory: Any = torch.utils.deterministic  # its one attribute is set through the module's class
    before = (torch.get_num_threads(), torch.get_deterministic_debug_mode())
    fill_before = memory.fill_uninitialized_memory
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads or processes.usable_cores())
    # as use_deterministic_algorithms does, which imports torch._inductor for it: a second at every start
    torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else "error")
    # Filling new memory with NaN would find reads of unset memory, at the price of a pass over every tensor.
    memory.fill_uninitialized_memory = False
    try:
        with processes.memory_kept() if device.type == "cpu" else nullcontext():
            yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        memory.fill_uninitialized_memory = fill_before


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory held so far: of the device, or of this process where it computes on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return processes.peak_memory_bytes()
