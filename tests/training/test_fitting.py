"""Layouts that do not fit are refused with the number that is wrong, and with the nearest ones that fit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pydantic import ValidationError

from tsugiki.models.config import MixtureOfExperts, preset
from tsugiki.training.fitting import fit_problems, nearest
from tsugiki.training.planning import micro_batch_rows
from tsugiki.training.settings import Parallel
from tsugiki.training.stage import Config

SHAPE = replace(
    preset("llama-nano"),
    layers=4,
    heads=4,
    kv_heads=2,
    hidden_size=64,
    intermediate_size=128,
    head_dim=16,
    vocabulary_size=320,
)
EXPERTS = replace(SHAPE, family="mixtral", moe=MixtureOfExperts(6, 2, 128))
INTERLEAVED = {"schedule": "interleaved", "chunks": 2}


def config_of(parallel, **more):
    return Config.model_validate(
        {
            "model": {"preset": "llama-nano"},
            "tokenizer": {"train": "x", "size": 320},
            "data": {"x": 1},
            "tokens": 10_240,
            "sequence_length": 64,
            "batch_tokens": 1024,
            "micro_batch_tokens": 64,
            "device": "cpu",
            "parallel": parallel,
            **more,
        }
    )


def errors_of(config, shape=SHAPE):
    found = fit_problems(config, shape, micro_batch_rows(config))
    return [problem for problem in found if problem.severity == "error"]


@pytest.mark.parametrize(
    ("shape", "parallel", "message", "near"),
    [
        (SHAPE, {"tensor": 3}, "parallel.tensor: 3 does not divide query heads (4)", "tensor 4 | tensor 2"),
        (
            replace(SHAPE, vocabulary_size=321),
            {"tensor": 2, "data": 2},
            "parallel.tensor: 2 does not divide entries of the vocabulary (321)",
            "data 2",
        ),
        (
            SHAPE,
            {"pipeline": 3, "data": 2},
            "parallel.pipeline: 3 does not divide layers (4)",
            "data 2 x pipeline 4 | data 2 x pipeline 2",
        ),
        (
            SHAPE,
            {"data": 3},
            "parallel.data: 3 does not divide sequences of a batch (16)",
            "data 4 | data 2 | data 8",
        ),
        (
            SHAPE,
            {"data": 3, "tensor": 3},
            "parallel.tensor: 3 does not divide query heads (4)",
            "data 2 x tensor 4 | data 4 x tensor 2",
        ),
        (
            SHAPE,
            {"context": 5},
            "parallel.context: 5 needs 10 pieces of a sequence",
            "context 4 | context 8 | context 2",
        ),
        (
            EXPERTS,
            {"data": 4, "expert": 4},
            "parallel.expert: 4 does not divide 6 experts",
            "data 4 x expert 2",
        ),
        (
            SHAPE,
            {"pipeline": 4, **INTERLEAVED},
            "parallel.chunks: 4 processes of 2 chunks are 8 stages; there are 4 layers",
            "pipeline 2",
        ),
        (SHAPE, INTERLEAVED, "parallel.chunks: 2 need a pipeline to interleave", "data 2"),
        (
            SHAPE,
            {"data": 8, "pipeline": 4},
            "parallel.pipeline: 4 stages need a micro-batch each; a step has 2",
            "data 4 x pipeline 4 | data 8 x pipeline 2",
        ),
    ],
)
def test_a_layout_that_does_not_fit_is_told_the_number_and_the_nearest_that_do(
    shape, parallel, message, near
):
    first = errors_of(config_of(parallel), shape)[0]
    assert first.message.startswith(message)
    assert f"; nearest layouts that fit: {near}" in first.hint


def test_an_interleaved_pipeline_takes_micro_batches_in_rounds():
    """Where they don't, torch's schedule would raise after everything was prepared."""
    layout = {"pipeline": 2, **INTERLEAVED}
    (odd,) = errors_of(config_of(layout, batch_tokens=64 * 5))
    assert "2 does not divide the 5 micro-batches" in odd.message
    assert "batch_tokens a multiple of 128" in odd.hint
    (rows,) = errors_of(config_of(layout, batch_tokens=64 * 6, micro_batch_tokens=128))
    assert "2 does not divide the 3 micro-batches" in rows.message
    assert "micro_batch_tokens that do: 64, 192" in rows.hint
    assert not errors_of(config_of(layout, batch_tokens=64 * 6, micro_batch_tokens=64))


def test_gpipe_may_have_fewer_micro_batches_than_stages_and_is_warned():
    config = config_of({"data": 8, "pipeline": 4, "schedule": "gpipe"})
    (warning,) = fit_problems(config, SHAPE, micro_batch_rows(config))
    assert warning.severity == "warning"
    assert "2 micro-batches leave a pipeline of 4 idle" in warning.message


def test_degrees_that_can_not_go_together_are_told_those_that_can():
    with pytest.raises(ValidationError, match=r"shard is 3, which does not divide data \(4\).*do: 1, 2, 4"):
        Parallel(data=4, shard=3)
    with pytest.raises(ValidationError, match="expert is 3, .*degrees that do: 1, 2, 4"):
        Parallel(data=4, expert=3)


degrees = some.integers(1, 9)


@given(degrees, degrees, degrees, some.integers(1, 5), some.booleans())
def test_layouts_that_are_proposed_fit(data, tensor, pipeline, context, has_experts):
    shape = EXPERTS if has_experts else SHAPE
    config = config_of({"data": data, "tensor": tensor, "pipeline": pipeline, "context": context})
    near = nearest(config, shape)
    assert len(near) <= 3
    for one in near:
        assert not errors_of(config.model_copy(update={"parallel": one}), shape), one
