"""A train stage's forecast is the planner's, where several processes are asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tsugiki.models.config import preset
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.memory import memory
from tsugiki.training.layouts import planned, planned_bytes, planned_step_seconds
from tsugiki.training.stage import Config

LLAMA = preset("llama-3.1-8b")


def config(**more) -> Config:
    return Config.model_validate(
        {
            "model": "base",
            "data": {"text": 1.0},
            "tokens": 10**9,
            "sequence_length": 8192,
            "batch_tokens": 8192 * 64,
            "precision": "bfloat16",
            **more,
        }
    )


def test_planned_layout_has_the_stages_degrees_and_batch() -> None:
    parallel = {"data": 8, "shard": 4, "tensor": 2, "pipeline": 4, "schedule": "interleaved", "chunks": 2}
    workload, layout = planned(LLAMA, config(parallel=parallel, recompute="full"), 2)
    assert (workload.batch, workload.sequence_length, workload.precision) == (64, 8192, "bfloat16")
    assert (layout.world, layout.sharing, layout.chunks, layout.micro_batch) == (64, 4, 2, 2)
    assert (layout.recompute, layout.sharding) == ("full", "weights")


def test_planned_bytes_are_the_busiest_stages() -> None:
    stage = config(parallel={"data": 4, "pipeline": 4})
    found = memory(*planned(LLAMA, stage, 1), KERNELS["tsugiki"])
    assert planned_bytes(LLAMA, stage, 1) == max(one.total for one in found)


@pytest.mark.parametrize(
    "parallel",
    [{}, {"tensor": 3}, {"data": 64, "pipeline": 2}],
    ids=["one process", "illegal", "more stages than micro-batches"],
)
def test_planner_has_no_say_where_it_does_not_know_the_layout(parallel) -> None:
    stage = config(parallel=parallel)
    assert planned_bytes(LLAMA, stage, 1) is None
    assert planned_step_seconds(LLAMA, stage, 1, "h100-80gb") is None


def test_planned_seconds_fall_with_devices_and_are_unknown_for_unknown_ones() -> None:
    few, many = (
        planned_step_seconds(LLAMA, config(parallel={"data": data}), 1, "h100-80gb") for data in (8, 16)
    )
    assert many == pytest.approx(few / 2, rel=0.05)
    assert planned_step_seconds(LLAMA, config(parallel={"data": 8}), 1, "cpu") is None


def test_planned_float8_is_reckoned_as_bfloat16() -> None:
    layout = {"data": 8}
    plain, small = (config(parallel=layout, precision=name) for name in ("bfloat16", "float8-rowwise"))
    assert planned(LLAMA, plain, 1) == planned(LLAMA, small, 1)
    workload, _ = planned(LLAMA, config(parallel=layout, precision="float32"), 1)
    assert workload == replace(planned(LLAMA, plain, 1)[0], precision="float32")
