"""A train stage's forecast is the planner's, where several processes are asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tsugiki.models.config import preset
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.memory import memory
from tsugiki.training.layouts import busiest_bytes, kernels_of, planned, planned_step_seconds
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


def test_memory_is_the_busiest_stages() -> None:
    stage = config(parallel={"data": 4, "pipeline": 4})
    found = memory(*planned(LLAMA, stage, 1), KERNELS["tsugiki"])
    assert busiest_bytes(LLAMA, stage, 1) == max(one.total for one in found)


@pytest.mark.parametrize(("precision", "per_parameter"), [("bfloat16", 18), ("float32", 16)])
@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b"])
def test_memory_of_one_process_is_weights_gradients_moments_and_autocasts_copy(
    name, precision, per_parameter
) -> None:
    """float32 4 + 4 + 8, and 2 for the bfloat16 copy that autocast keeps; all experts count."""
    shape, stage = preset(name), config(precision=precision, hardware="h100-80gb")
    (found,) = memory(*planned(shape, stage, 1), kernels_of(stage))
    states = found.weights + found.gradients + found.optimizer + found.gathered
    assert states == per_parameter * shape.parameters
    assert busiest_bytes(shape, stage, 1) == found.total


def test_memory_on_a_cpu_has_smaller_chunks_of_logits_and_the_process() -> None:
    on_cpu, on_gpu = config(device="cpu"), config(hardware="h100-80gb")
    here, there = (memory(*planned(LLAMA, one, 1), kernels_of(one))[0] for one in (on_cpu, on_gpu))
    assert here.context == 700 * 2**20
    assert there.logits - here.logits == 12 * (2**26 - 2**21)
    assert kernels_of(config(device="cpu", parallel={"data": 2})) == kernels_of(on_gpu)


def test_memory_of_experts_is_divided_by_their_own_degree() -> None:
    shape = preset("mixtral-8x7b")
    copied, spread = (config(parallel={"data": 4, "shard": 1, "expert": degree}) for degree in (1, 4))
    assert busiest_bytes(shape, spread, 1) < busiest_bytes(shape, copied, 1) / 2


def test_memory_of_degrees_that_do_not_divide_is_not_known() -> None:
    assert busiest_bytes(LLAMA, config(parallel={"tensor": 3}), 1) is None


@pytest.mark.parametrize(
    "parallel",
    [{}, {"tensor": 3}, {"data": 64, "pipeline": 2}],
    ids=["one process", "illegal", "more stages than micro-batches"],
)
def test_planner_tells_no_speed_where_it_does_not_know_the_layout(parallel) -> None:
    assert planned_step_seconds(LLAMA, config(parallel=parallel), 1, "h100-80gb") is None


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
