"""Layouts that can't be: each problem names the number and what would work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tsugiki.errors import InputError
from tsugiki.models.config import preset
from tsugiki.planner.kernels import kernels
from tsugiki.planner.layout import Layout, Workload, layout_problems

LLAMA = Workload(preset("llama-3.1-8b"), 8192, 1024)
MIXTRAL = Workload(preset("mixtral-8x7b"), 4096, 256)


@pytest.mark.parametrize(
    ("workload", "layout", "message", "hint"),
    [
        (LLAMA, Layout(tensor=3), "tensor: 3 does not divide query heads (32)", "1, 2, 4, 8, 16, 32"),
        (LLAMA, Layout(pipeline=5), "pipeline: 5 does not divide layers (32)", "1, 2, 4, 8, 16, 32"),
        (
            LLAMA,
            Layout(context=3),
            "context: 3 needs 6 pieces of a sequence, two a process, which do not divide its 8192 tokens",
            "1, 2, 4",
        ),
        (LLAMA, Layout(data=3), "micro_batch: 3 does not divide sequences of a batch (1024)", "1, 2, 4"),
        (
            LLAMA,
            Layout(tensor=2, expert=2),
            "expert: the model has no experts",
            "use expert 1",
        ),
        (
            LLAMA,
            Layout(data=512, pipeline=4),
            "pipeline: 2 micro-batches leave 4 stages idle most of the time",
            "at most 2 stages",
        ),
        (
            LLAMA,
            Layout(pipeline=4, chunks=2),
            "chunks: 2 with the schedule 1f1b",
            "interleaved needs 2 chunks or more",
        ),
        (
            LLAMA,
            Layout(chunks=2, schedule="interleaved"),
            "chunks: there is no pipeline to interleave",
            "use chunks 1",
        ),
        (LLAMA, Layout(data=4, shard=3), "shard: 3 does not divide data (4)", "1, 2, 4"),
        (MIXTRAL, Layout(data=8, expert=3), "expert: 3 does not divide 8 experts", "1, 2, 4, 8"),
        (
            MIXTRAL,
            Layout(data=2, expert=4),
            (
                "expert: experts would be spread over 4 processes (expert x expert_tensor), which do not "
                "divide the 2 of a pipeline stage"
            ),
            "1, 2",
        ),
        (
            replace(LLAMA, model=replace(LLAMA.model, heads=24, kv_heads=6, hidden_size=3072)),
            Layout(tensor=4),
            "tensor: 4 and 6 key-value heads divide neither way",
            "1, 2, 3, 6, 12, 24 (from 6 on, heads are copied)",
        ),
    ],
)
def test_impossible_layout_names_the_number_and_what_would_work(workload, layout, message, hint) -> None:
    problems = list(layout_problems(workload, layout))
    found = {problem.message: problem.hint for problem in problems}
    assert message in found
    assert hint in found[message]


def test_layout_of_another_world_size_is_a_problem() -> None:
    (problem,) = layout_problems(LLAMA, Layout(data=4, tensor=2), gpus=16)
    assert problem.message == "the degrees multiply to 8 processes; there are 16 GPUs"


@pytest.mark.parametrize("name", ["data", "tensor", "pipeline", "context", "expert", "micro_batch", "chunks"])
def test_layout_degrees_below_one_are_refused(name) -> None:
    with pytest.raises(InputError, match=f"{name} is 0"):
        Layout(**{name: 0})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sequence_length": 0}, "sequence_length is 0"),
        ({"batch": -1}, "batch is -1"),
        ({"precision": "int8"}, 'precision "int8"'),
        ({"gradient_bytes": 3}, "3 bytes"),
    ],
)
def test_workload_that_makes_no_sense_is_refused(more, message) -> None:
    given = {"sequence_length": 8192, "batch": 1024, **more}
    with pytest.raises(InputError, match=message):
        Workload(preset("llama-3.1-8b"), **given)


def test_unknown_kernels_are_answered_with_the_nearest_name() -> None:
    with pytest.raises(InputError) as error:
        kernels("megatron")
    assert "megatron-lm" in error.value.hint


def test_layout_text_says_what_is_not_the_default() -> None:
    layout = Layout(data=8, tensor=4, pipeline=2, chunks=2, schedule="interleaved", recompute="full")
    assert layout.text == ("tensor 4 x pipeline 2 x data 8, micro-batch 1, 2 chunks, full recomputation")
    assert Layout().text == "one device, micro-batch 1"
