"""A train stage as the planner sees it: its bytes and its seconds in the layout that it asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tsugiki.models.config import DecoderConfig
from tsugiki.planner.devices import ACCELERATORS
from tsugiki.planner.kernels import KERNELS, Kernels
from tsugiki.planner.layout import Layout, Precision, Workload, division_problems, layout_problems
from tsugiki.planner.memory import busiest
from tsugiki.planner.speed import step_time
from tsugiki.training.memory import LOGIT_ELEMENTS, PROCESS_BYTES

if TYPE_CHECKING:
    from tsugiki.training.stage import Config


def planned(shape: DecoderConfig, config: Config, rows: int) -> tuple[Workload, Layout]:
    """The workload and the layout of a stage; rows: sequences of a micro-batch.

    float8 recipes are taken as bfloat16: weights and activations stay in it (reference: no less memory), and
    what they gain in speed was measured as a whole (`training.precision`).
    """
    parallel = config.parallel
    precision: Precision = "float32" if config.precision == "float32" else "bfloat16"
    layout = Layout(
        parallel.data,
        parallel.tensor,
        parallel.pipeline,
        parallel.context,
        parallel.expert,
        micro_batch=rows,
        schedule=parallel.schedule,
        chunks=parallel.chunks,
        recompute=config.recompute,
        sharding="weights",
        shard=parallel.shards,
    )
    return Workload(shape, config.sequence_length, config.sequences_per_step, precision), layout


def busiest_bytes(shape: DecoderConfig, config: Config, rows: int) -> float | None:
    """The peak of the busiest device, all parts of `planner.memory`; None where degrees don't divide."""
    workload, layout = planned(shape, config, rows)
    if any(division_problems(workload, layout)):
        return None
    return busiest(workload, layout, kernels_of(config)).total


def kernels_of(config: Config) -> Kernels:
    """What the planner is to assume of our kernels.

    On a CPU chunks of logits are smaller, and the process itself is counted in place of a GPU's context.
    """
    ours = KERNELS["tsugiki"]
    if config.parallel.product > 1 or config.device == "cuda" or config.hardware not in {None, "cpu"}:
        return ours
    return replace(ours, logit_chunk=LOGIT_ELEMENTS["cpu"], context_bytes=PROCESS_BYTES)


def planned_step_seconds(shape: DecoderConfig, config: Config, rows: int, device: str) -> float | None:
    """Seconds of an optimizer step in bfloat16 or float32.

    None where `is_planned` is not, and for a device that the planner does not know.
    """
    if device not in ACCELERATORS or not is_planned(shape, config, rows):
        return None
    workload, layout = planned(shape, config, rows)
    return step_time(workload, layout, KERNELS["tsugiki"], ACCELERATORS[device]).seconds


def is_planned(shape: DecoderConfig, config: Config, rows: int) -> bool:
    """Whether the planner has a say: several processes, in a layout that it takes for possible."""
    return config.parallel.product > 1 and not any(layout_problems(*planned(shape, config, rows)))
