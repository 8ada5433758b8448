"""A train stage as the planner sees it: its bytes and its seconds in the layout that it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsugiki.models.config import DecoderConfig
from tsugiki.planner.devices import ACCELERATORS
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.layout import Layout, Precision, Workload, layout_problems
from tsugiki.planner.memory import busiest
from tsugiki.planner.speed import step_time
from tsugiki.training.memory import training_bytes

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


def busiest_bytes(shape: DecoderConfig, config: Config, rows: int) -> float:
    """The peak of the busiest device: by the planner, or by `memory` where the planner has no say."""
    return planned_bytes(shape, config, rows) or training_bytes(shape, config, rows)


def planned_bytes(shape: DecoderConfig, config: Config, rows: int) -> float | None:
    """The peak of the busiest accelerator, all parts of `planner.memory`; None where `is_planned` is not."""
    if not is_planned(shape, config, rows):
        return None
    workload, layout = planned(shape, config, rows)
    return busiest(workload, layout, KERNELS["tsugiki"]).total


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
