"""Layouts that are built with nothing in them: what each process would hold, against what it does hold."""

import json
import resource
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from tsugiki.errors import InputError, StageError
from tsugiki.models.config import MixtureOfExperts, preset
from tsugiki.training import dry_run
from tsugiki.training.checkpoint import part_name
from tsugiki.training.dry_run import Rehearsal, rehearse
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
    tied_embeddings=False,
)


def config_of(parallel, **more):
    return Config.model_validate(
        {
            "model": {"preset": "llama-nano"},
            "tokenizer": {"train": "x", "size": 320},
            "data": {"x": 1},
            "tokens": 10_240,
            "sequence_length": 64,
            "batch_tokens": 1024,
            "micro_batch_tokens": 128,
            "device": "cpu",
            "parallel": parallel,
            **more,
        }
    )


def go(parallel, shape=SHAPE, **more):
    told = []
    found = rehearse(config_of(parallel, **more), shape, told.append)
    assert len(told) == len(found)
    return found


@pytest.mark.slow
def test_a_pipeline_of_tensor_and_data_parallel_stages_holds_the_whole_model_between_its_processes():
    first, last = go({"pipeline": 2, "tensor": 2, "data": 2}, precision="bfloat16")
    assert (first.rank, last.rank) == (0, 4)
    assert (first.layers, last.layers) == ((0, 1), (2, 3))
    norms = 64 * (2 * 4 + 1)  # copied over the tensor group, and the only numbers that are
    assert 4 * (first.parameters + last.parameters) == SHAPE.parameters + norms
    for one in (first, last):
        assert one.weights == 4 * one.parameters
        assert one.moments == 2 * one.weights
        assert one.gradients == one.weights
        assert one.not_run == ""
        # until the step ends a stage's weights are gathered (2 bytes) and its gradients whole (4 bytes), of
        # which the process's own half is counted as gradients
        whole = (2 + 4) * 2 * one.parameters - one.gradients
        assert 0.9 * whole < one.working < 2 * whole  # beside what lives while a layer goes backward
    assert (first.in_flight, last.in_flight) == (2, 1)


@pytest.mark.slow
def test_activations_grow_with_the_micro_batch_and_shrink_with_recomputation():
    (plain,) = go({"data": 2})
    (wide,) = go({"data": 2}, micro_batch_tokens=512)
    (again,) = go({"data": 2}, recompute="full")
    assert wide.parameters == plain.parameters == again.parameters == SHAPE.parameters // 2
    assert wide.activations == pytest.approx(4 * plain.activations, rel=0.2)
    assert again.activations < plain.activations / 3


@pytest.mark.slow
def test_what_a_process_is_said_to_hold_is_what_it_writes_into_a_checkpoint(tmp_path, run_stage, scratch):
    """The parts that a run of four real processes leaves, byte for byte."""
    parallel = {"data": 2, "pipeline": 2}
    model = {**scratch["model"], "layers": 4, "heads": 4, "kv_heads": 4}
    settings = {**scratch, "model": model, "parallel": parallel, "micro_batch_tokens": 64, "tokens": 1024}
    run_stage(tmp_path, settings)
    (checkpoint, *_) = sorted((tmp_path / "work").glob("checkpoint-*"))
    shape = replace(
        preset("llama-nano"),
        **{name: value for name, value in model.items() if name != "preset"},
        vocabulary_size=320,
    )
    for one in rehearse(Config.model_validate(settings), shape, lambda _: None):
        with safe_open(checkpoint / part_name(one.rank), framework="pt") as part:
            sizes = {name: part.get_tensor(name).numel() for name in part.keys()}  # noqa: SIM118
        written = sum(size for name, size in sizes.items() if name.startswith("model."))
        assert one.parameters == written
        moments = sum(size for name, size in sizes.items() if not name.startswith("model."))
        assert one.moments == 4 * moments


def test_experts_run_with_an_even_load():
    moe = replace(SHAPE, family="mixtral", moe=MixtureOfExperts(4, 2, 128))
    (one,) = go({"data": 2, "expert": 2}, moe)
    assert one.not_run == ""
    assert one.parameters == moe.parameters // 2
    assert one.moments == 2 * one.weights
    # each of a token's two experts keeps its input, three or four columns of each product, and the output
    assert one.activations > 4 * 128 * moe.layers * 2 * (2 * 64 + 3 * 128)


def test_a_layout_that_can_not_be_built_is_told_in_one_sentence(monkeypatch):
    with pytest.raises(StageError, match="the layout can't be built for process 0: .*") as caught:
        go({"tensor": 8})
    assert "\n" not in caught.value.message
    monkeypatch.setattr(dry_run.sys, "executable", "/bin/false")
    with pytest.raises(StageError, match="exit status 1"):
        go({"data": 2})


def test_micro_batches_in_flight_follow_the_schedule():
    one_of = {"pipeline": 4, "data": 2}
    assert [dry_run._in_flight(config_of(one_of), SHAPE, rank) for rank in (0, 2, 4, 6)] == [4, 3, 2, 1]
    gpipe = config_of({**one_of, "schedule": "gpipe"})
    assert dry_run._in_flight(gpipe, SHAPE, 6) == 4
    assert dry_run._in_flight(config_of({"data": 16}), SHAPE, 3) == 1
    # a process of two chunks: 2 (p - i - 1) + p + 1 of them, as torch's ScheduleInterleaved1F1B has it
    chunks = config_of({"pipeline": 2, "schedule": "interleaved", "chunks": 2})
    assert [dry_run._in_flight(chunks, SHAPE, rank) for rank in (0, 1)] == [2.5, 1.5]


def test_the_peak_counts_every_micro_batch_in_flight():
    one = Rehearsal(0, (0,), 10, 40, 40, 80, 7, 3, 5, 0.1)
    assert one.peak_bytes == 40 + 40 + 80 + 21 + 5


@pytest.mark.slow
def test_swallow_70b_is_rehearsed_on_a_laptop(capsys):
    from tsugiki.cli import app

    command = ["train", "recipes/swallow-llama2-70b.yaml", "--stage", "adapted", "--dry-run", "--json"]
    app(command, result_action="return_value")
    said = json.loads(capsys.readouterr().out)
    assert [row["rank"] for row in said["processes"]] == [0, 32, 224]
    assert all(row["weights"] == 4 * row["parameters"] and not row["not_run"] for row in said["processes"])
    assert said["forecast_bytes"] > 0
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 3 * 2**20  # KiB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes/swallow-llama2-7b.yaml"], "is a recipe"),
        (["out", "--stage", "x"], "--stage names a stage"),
        (["recipes/swallow-llama2-7b.yaml", "--dry-run"], "several train stages"),
        (["recipes/swallow-llama2-7b.yaml", "--dry-run", "--stage", "vocabulary"], "no train stage"),
        (["recipes/swallow-llama2-7b.yaml", "--sbatch", "--tokens", "1M"], "--tokens stand in it"),
        (["out", "--dry-run", "--data", "{a: 1}", "--tokens", "1M"], "--model: Field required"),
    ],
)
def test_commands_that_can_not_be_meant_are_refused(arguments, message):
    from tsugiki.cli import app

    with pytest.raises(InputError, match=message):
        app(["train", *arguments], result_action="return_value")


def test_a_layout_that_does_not_divide_is_refused_before_anything_is_built(tmp_path):
    from tsugiki.cli import app

    command = ["train", str(tmp_path / "out"), "--model", "{preset: llama-nano}", "--tokens", "1M"]
    command += ["--tokenizer", "{train: x, size: 321}", "--data", "{x: 1}", "--parallel", "{tensor: 2}"]
    with pytest.raises(InputError, match=r"does not divide entries of the vocabulary \(321\)"):
        app([*command, "--dry-run"], result_action="return_value")
    assert not torch.distributed.is_initialized()
