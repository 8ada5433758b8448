"""Measured runs that come with the package, and how well the planner does on them.

data/megatron_llama31_8b_4d.csv: which layouts of Llama-3.1-8B ran on A100-40GB and H100-94GB, and how fast,
in Megatron-LM; data/README.md says where they come from. A user's own runs have the same columns.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from tsugiki.errors import InputError
from tsugiki.models.config import DecoderConfig, preset
from tsugiki.planner.devices import ACCELERATORS, Accelerator, accelerator
from tsugiki.planner.kernels import KERNELS, Kernels
from tsugiki.planner.layout import Layout, Workload
from tsugiki.planner.memory import busiest
from tsugiki.planner.speed import Tuning, model_flops, step_time
from tsugiki.planner.verdict import verdict

COLUMNS = ("gpu", "seq_len", "tp", "cp", "pp", "micro_batch", "n_gpus", "tflops_per_gpu", "status")

GLOBAL_BATCH = 1024
"""Sequences of a step in the shipped runs."""

# ABCI: 8 A100-40GB and four 200 Gbit/s links a node; TSUBAME4: 4 H100-94GB and four of them.
MACHINES: Mapping[str, Accelerator] = {
    "A100 (40GB)": replace(ACCELERATORS["a100-40gb"], node=8, network_bandwidth=12.5e9),
    "H100 (94GB)": replace(ACCELERATORS["h100-94gb"], node=4, network_bandwidth=25e9),
}


@dataclass(frozen=True)
class Cell:
    """One measured run: a layout on so many GPUs. tflops: of one GPU, legacy count; None where it failed."""

    gpu: str
    gpus: int
    workload: Workload
    layout: Layout
    tflops: float | None

    @property
    def ran(self) -> bool:
        """Whether it gave a number."""
        return self.tflops is not None


@dataclass(frozen=True)
class Judged:
    """A cell and what the planner says of it.

    share: all parts by the device's memory. counted_share: the counted tensors by it, which the bands are
    about. predicted: TFLOP/s of a GPU, legacy count.
    """

    cell: Cell
    share: float
    counted_share: float
    verdict: str
    predicted: float


@dataclass(frozen=True)
class Choice:
    """The planner's choice among the measured layouts of one GPU type, GPU count and sequence length.

    chosen: the fastest by prediction of those it calls safe; among: of those that ran. best: the fastest
    measured. None where no layout qualifies.
    """

    gpu: str
    gpus: int
    sequence_length: int
    best: Judged
    chosen: Judged | None
    among: Judged

    def cost(self, picked: Judged | None) -> float:
        """The share of the best throughput that a pick gives away; all of it where it did not run."""
        if picked is None or picked.cell.tflops is None or self.best.cell.tflops is None:
            return 1.0
        return 1 - picked.cell.tflops / self.best.cell.tflops


def shipped_cells() -> list[Cell]:
    """The measured runs that come with the package: Llama-3.1-8B, 1,024 sequences a step."""
    file = files("tsugiki.planner").joinpath("data", "megatron_llama31_8b_4d.csv")
    lines = file.read_text(encoding="utf-8").splitlines()
    return _cells(lines, "the shipped runs", preset("llama-3.1-8b"), GLOBAL_BATCH)


def read_cells(path: Path, model: DecoderConfig, batch: int) -> list[Cell]:
    """A user's own runs of a model, `batch` sequences a step: a CSV file with at least `COLUMNS`.

    Raises InputError for a file that can't be read, and for a row that makes no sense, with its line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}", hint="give a CSV file in UTF-8") from error
    return _cells(lines, str(path), model, batch)


def _cells(lines: Sequence[str], name: str, model: DecoderConfig, batch: int) -> list[Cell]:
    reader = csv.DictReader(lines)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(
            f"{name} has no column {', '.join(missing)}", hint=f"its first line has to be {','.join(COLUMNS)}"
        )
    cells = []
    for row in reader:
        try:
            cells.append(_cell(row, model, batch))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{name}, line {reader.line_num}: {error}",
                hint="whole numbers for sizes; status is ran or oom_or_failed",
            ) from error
    if not cells:
        raise InputError(f"{name} has no rows", hint="give a line for each run")
    return cells


def _cell(row: Mapping[str, str], model: DecoderConfig, batch: int) -> Cell:
    """Raises ValueError for what is no number or no status."""
    names = ("seq_len", "tp", "cp", "pp", "micro_batch", "n_gpus")
    length, tensor, context, pipeline, micro_batch, gpus = (int(row[name]) for name in names)
    if min(length, tensor, context, pipeline, micro_batch, gpus) < 1:
        raise ValueError("sizes have to be 1 or more")
    data, rest = divmod(gpus, tensor * context * pipeline)
    if rest or not data:
        raise ValueError(f"{tensor} x {context} x {pipeline} does not divide {gpus} GPUs")
    ran = row["status"] == "ran"
    if not ran and row["status"] != "oom_or_failed":
        raise ValueError(f'status is "{row["status"]}"')
    tflops = float(row["tflops_per_gpu"]) if ran else None
    if tflops is not None and not 0 < tflops < math.inf:
        raise ValueError(f"tflops_per_gpu is {tflops}")
    layout = Layout(data, tensor, pipeline, context, micro_batch=micro_batch)
    return Cell(row["gpu"], gpus, Workload(model, length, batch), layout, tflops)


def judge(
    cells: Iterable[Cell],
    machines: Mapping[str, Accelerator] = MACHINES,
    kernels: Kernels = KERNELS["megatron-lm"],
    tuning: Tuning | None = None,
) -> list[Judged]:
    """What the planner says of each cell; raises InputError for a type of GPU that is not known."""
    judged = []
    for cell in cells:
        device = machines[cell.gpu] if cell.gpu in machines else accelerator(cell.gpu)
        stage = busiest(cell.workload, cell.layout, kernels)
        seconds = step_time(cell.workload, cell.layout, kernels, device, tuning).seconds
        judged.append(
            Judged(
                cell,
                stage.total / device.memory_bytes,
                stage.counted / device.memory_bytes,
                verdict(stage, device.memory_bytes),
                model_flops(cell.workload, legacy=True) / seconds / cell.gpus / 1e12,
            )
        )
    return judged


@dataclass(frozen=True)
class Classification:
    """How well one threshold on `Judged.share` tells layouts that ran from those that did not.

    threshold: the best one. correct: the share of all cells on the right side of it. safe_failed: cells that
    the verdict calls safe and that failed, refused_ran: those that it refuses and that ran.
    """

    cells: int
    threshold: float
    correct: float
    safe_failed: tuple[Judged, ...]
    refused_ran: tuple[Judged, ...]


def classification(judged: Sequence[Judged]) -> Classification:
    """The best single threshold, and where the verdict was wrong."""
    ordered = sorted(judged, key=lambda one: one.share)
    right = sum(not one.cell.ran for one in ordered)  # a threshold below all of them
    best, threshold = right, 0.0
    for index, one in enumerate(ordered):
        right += 1 if one.cell.ran else -1
        is_last_of_ties = index + 1 == len(ordered) or ordered[index + 1].share > one.share
        if is_last_of_ties and right > best:
            best, threshold = right, one.share
    failed = tuple(one for one in ordered if one.verdict == "safe" and not one.cell.ran)
    ran = tuple(one for one in ordered if one.verdict == "refuse" and one.cell.ran)
    return Classification(len(ordered), threshold, best / max(len(ordered), 1), failed, ran)


def choices(judged: Iterable[Judged], least: int = 3) -> list[Choice]:
    """The planner's choice in each group of equal GPU type, GPU count and sequence length.

    least: groups with fewer cells that ran are left out (as in the reference's figures).
    """
    groups: defaultdict[tuple[str, int, int], list[Judged]] = defaultdict(list)
    for one in judged:
        groups[one.cell.gpu, one.cell.gpus, one.cell.workload.sequence_length].append(one)
    found = []
    for (gpu, gpus, length), members in sorted(groups.items()):
        ran = [one for one in members if one.cell.tflops is not None]
        if len(ran) < least:
            continue
        best = max(ran, key=lambda one: one.cell.tflops or 0.0)
        safe = [one for one in members if one.verdict == "safe"]
        chosen = max(safe, key=lambda one: one.predicted, default=None)
        among = max(ran, key=lambda one: one.predicted)
        found.append(Choice(gpu, gpus, length, best, chosen, among))
    return found
