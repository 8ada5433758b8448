"""The search: what is found, in which order, why the rest is refused, and how long it takes."""

from __future__ import annotations

import time

import pytest

from tsugiki.errors import InputError
from tsugiki.models.config import preset
from tsugiki.planner.devices import ACCELERATORS
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.layout import Layout, Workload, layout_problems
from tsugiki.planner.memory import busiest
from tsugiki.planner.search import Space, search
from tsugiki.planner.verdict import verdict

MEGATRON, H100 = KERNELS["megatron-lm"], ACCELERATORS["h100-80gb"]


@pytest.fixture(scope="module")
def found():
    return search(Workload(preset("llama-3.1-8b"), 8192, 1024), 64, H100, MEGATRON)


def test_search_candidates_are_legal_fit_and_come_fastest_first(found) -> None:
    assert len(found.candidates) > 100
    seconds = [one.time.seconds for one in found.candidates]
    assert seconds == sorted(seconds)
    for one in found.candidates:
        assert one.layout.world == 64
        assert not list(layout_problems(found.workload, one.layout, 64))
        assert one.verdict == verdict(one.stage, H100.memory_bytes) != "refuse"


def test_search_chooses_the_fastest_safe_layout(found) -> None:
    safe = [one for one in found.candidates if one.verdict == "safe"]
    assert found.chosen is safe[0]
    assert found.chosen.layout.tensor * found.chosen.layout.context <= H100.node


def test_search_front_holds_what_nothing_beats_in_memory_and_speed(found) -> None:
    front = set(found.front)
    for one in found.candidates:
        beaten = any(
            other.time.seconds <= one.time.seconds and other.stage.total < one.stage.total
            for other in found.candidates
        )
        assert one not in front or not beaten
    assert found.front[0].time.seconds == found.candidates[0].time.seconds
    assert found.front[-1].stage.total == min(one.stage.total for one in found.candidates)


def test_search_refuses_too_large_layouts_with_a_change_that_fits(found) -> None:
    large = [one for one in found.refusals if one.stage is not None]
    assert large
    for one in large:
        assert "GiB" in one.reason
        stage = busiest(found.workload, one.nearest, MEGATRON)
        assert verdict(stage, H100.memory_bytes) != "refuse"
        assert "->" in one.change
    plain = next(one for one in large if one.layout == Layout(data=64, micro_batch=2))
    assert plain.change == "tensor 1 -> 2"


def test_search_refuses_illegal_degrees_with_those_that_work(found) -> None:
    illegal = {one.layout: one for one in found.refusals if one.stage is None}
    one = illegal[Layout(tensor=64)]
    assert one.reason == "tensor: 64 does not divide query heads (32)"
    assert one.change == "degrees that do: 1, 2, 4, 8, 16, 32"


def test_search_of_70b_on_512_gpus_takes_at_most_two_seconds() -> None:
    workload = Workload(preset("llama-3-70b"), 8192, 1024)
    took = []
    for _ in range(3):
        start = time.process_time()
        found = search(workload, 512, H100, MEGATRON)
        took.append(time.process_time() - start)
    assert min(took) < 2
    assert len(found.candidates) > 1000
    assert found.chosen.layout.tensor * found.chosen.layout.pipeline > 4


def test_search_that_nothing_fits_says_so_of_every_layout() -> None:
    found = search(Workload(preset("llama-3-70b"), 8192, 16), 2, ACCELERATORS["a100-40gb"], MEGATRON)
    assert found.chosen is None
    assert not found.candidates
    large = [one for one in found.refusals if one.stage is not None]
    assert large
    assert all("more or larger devices" in one.change for one in large)


def test_search_of_a_mixture_tries_expert_degrees() -> None:
    workload = Workload(preset("mixtral-8x7b"), 4096, 256)
    found = search(workload, 16, ACCELERATORS["h200-141gb"], MEGATRON)
    assert {one.layout.expert for one in found.candidates} >= {2, 4, 8}
    assert found.chosen.layout.expert > 1


def test_search_keeps_to_the_space_that_is_given() -> None:
    space = Space(tensor=(2,), pipeline=(1,), context=(1,), micro_batch=(1, 2), recompute=("none",))
    found = search(Workload(preset("llama-3.1-8b"), 8192, 1024), 8, H100, MEGATRON, space=space)
    tried = [*(one.layout for one in found.candidates), *(one.layout for one in found.refusals)]
    assert {(one.tensor, one.micro_batch, one.recompute) for one in tried} == {(2, 1, "none"), (2, 2, "none")}


@pytest.mark.parametrize("gpus", [0, -8, 10**12])
def test_search_with_an_impossible_number_of_gpus_is_refused(gpus) -> None:
    with pytest.raises(InputError, match=f"{gpus} GPUs"):
        search(Workload(preset("llama-3.1-8b"), 8192, 1024), gpus, H100, MEGATRON)


def test_bill_is_tokens_by_speed_times_the_prices(found) -> None:
    chosen = found.chosen
    bill = found.bill(chosen, 1e11)
    assert bill.hours == pytest.approx(1e11 / (1024 * 8192) * chosen.time.seconds / 3600)
    assert bill.device_hours == pytest.approx(64 * bill.hours)
    assert bill.dollars == pytest.approx(2.99 * bill.device_hours)
    assert bill.kilowatt_hours == pytest.approx(1.275 * bill.device_hours)
