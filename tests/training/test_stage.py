import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from tsugiki.artifacts.files import sha256_of
from tsugiki.artifacts.metrics import read_metrics
from tsugiki.errors import DataError, DriftError, InputError, StageError
from tsugiki.models.directory import load_decoder, vocabulary_size
from tsugiki.models.tokenizer import load_tokenizer
from tsugiki.training import loop, results

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)

GOLDEN_FIRST, GOLDEN_FINAL = 5.776829, 3.576347
"""Losses of the nano run of conftest.py (float32, one thread); the final one is a mean over ten steps."""


@pytest.fixture(scope="module")
def base(tmp_path_factory, trained, finish):
    """A finished base model with its manifest."""
    directory = tmp_path_factory.mktemp("base") / "base"
    shutil.copytree(trained[0], directory)
    return finish(directory, trained[1])


def onwards(scratch, **more):
    settings = {key: value for key, value in scratch.items() if key not in {"tokenizer", "model"}}
    return {**settings, "model": "base", "data": {"japanese": 3, "english": 1}, "max_epochs": 40, **more}


def test_training_from_scratch_leaves_a_model_that_transformers_loads(trained):
    directory, outcome = trained
    assert {path.name for path in directory.iterdir()} == {*MODEL_FILES, "metrics.jsonl", "log.txt", "work"}
    assert outcome.facts["parity"]["max_abs_difference"] <= 1e-4
    assert vocabulary_size(directory) == load_tokenizer(directory).size == 320
    assert outcome.counts["parameters"] == sum(p.numel() for p in load_decoder(directory).parameters())


def test_training_from_scratch_golden_losses(trained):
    facts = trained[1].facts
    assert facts["first_loss"] == pytest.approx(GOLDEN_FIRST, abs=1e-4)
    assert facts["final_loss"] == pytest.approx(GOLDEN_FINAL, abs=1e-4)


def test_training_counts_are_exact(trained, corpora):
    _, outcome = trained
    assert outcome.counts["tokens"] == 24 * 256
    assert outcome.counts["steps"] == 24
    (source,) = outcome.facts["sources"]
    assert source["tokens"] == 6144
    assert source["epochs"] == pytest.approx(192 / ((source["available_tokens"] - 1) // 32))
    assert 6144 < source["bytes"] < 5 * 6144
    flops_per_token = outcome.counts["training_flops"] / 6144
    layers, width, heads_width = 2, 32, 4 * 8
    matrices = layers * (2 * width * 8 * (4 + 2) + 3 * width * 64) + 320 * width
    assert flops_per_token == 6 * matrices + 6 * layers * 32 * heads_width


def test_training_measures_every_step_and_the_held_out_sets(trained):
    directory, outcome = trained
    rows = read_metrics(directory / "metrics.jsonl", last_by="step")
    assert [row["step"] for row in rows] == list(range(1, 25))
    assert rows[-1]["tokens"] == 6144
    assert {"loss", "bits_per_byte", "learning_rate", "gradient_norm", "tokens_per_second"} <= set(rows[0])
    assert rows[0]["learning_rate"] == pytest.approx(2.5e-3)
    assert rows[-1]["learning_rate"] == pytest.approx(5e-3 / 30)
    validation = outcome.facts["validation"]
    assert [(row["dataset"], row["step"]) for row in validation] == [
        (name, step) for step in (0, 12, 24) for name in ("english", "japanese")
    ]
    english = [row["bits_per_byte"] for row in validation if row["dataset"] == "english"]
    assert english[0] > english[1] > english[2]
    logged = read_metrics(directory / "metrics.jsonl", event="validation")
    assert [row["bits_per_byte"] for row in logged] == [row["bits_per_byte"] for row in validation]


def test_training_twice_gives_the_same_bytes(tmp_path, trained, run_stage, scratch):
    run_stage(tmp_path, scratch)  # validation is measured only, so without it the model is the same
    assert sha256_of(tmp_path / "model.safetensors") == sha256_of(trained[0] / "model.safetensors")


def test_training_on_goes_from_the_given_weights_and_mixes_exactly(tmp_path, run_stage, scratch, base):
    outcome = run_stage(tmp_path, onwards(scratch, validation=["english"], validation_points=1), base=base)
    assert [source["tokens"] for source in outcome.facts["sources"]] == [4608, 1536]
    assert [source["weight"] for source in outcome.facts["sources"]] == [0.75, 0.25]
    assert (tmp_path / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert outcome.facts["tokenizer"] == "byte-level BPE of 320 entries from english"
    weights, before = load_decoder(tmp_path).state_dict(), load_decoder(base).state_dict()
    assert not any(torch.equal(weights[name], before[name]) for name in weights)


def test_equal_compute_spends_the_operations_of_the_other_stage(tmp_path, run_stage, scratch, base):
    # Twice the sequence: attention costs more for each token, so there are fewer tokens.
    settings = onwards(scratch, equal_compute="base", sequence_length=64)
    del settings["tokens"]
    outcome = run_stage(tmp_path, settings, base=base)
    matrices = 2 * (2 * 32 * 8 * 6 + 3 * 32 * 64) + 320 * 32
    per_token, per_token_before = (6 * matrices + 6 * 2 * length * 32 for length in (64, 32))
    tokens = per_token_before * 6144 / per_token
    assert outcome.counts["tokens"] == tokens // 256 * 256
    assert (
        outcome.counts["training_flops"] <= per_token_before * 6144 < outcome.counts["training_flops"] * 1.05
    )


def test_equal_compute_of_a_model_without_a_count_raises(tmp_path, run_stage, scratch, base, trained, finish):
    other = tmp_path / "other"
    shutil.copytree(base, other)
    from tsugiki.artifacts.contract import Outcome

    finish(other, Outcome({"parameters": 1}))
    settings = onwards(scratch, equal_compute="other")
    del settings["tokens"]
    with pytest.raises(InputError, match="no training_flops"):
        run_stage(tmp_path / "run", settings, base=base, other=other)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.training import checkpoint, engine, preparation, results
from tsugiki.training.stage import Config, run

directory, moment, settings, inputs = Path(sys.argv[1]), sys.argv[2], *map(json.loads, sys.argv[3:5])

def die_after(module, name, calls):
    real = getattr(module, name)
    left = [calls]
    def wrapped(*arguments, **keywords):
        result = real(*arguments, **keywords)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(module, name, wrapped)

die_after(*{
    "tokenizer": (preparation, "write_tokenizer", 1),
    "first step": (engine, "optimizer_step", 1),
    "step": (engine, "optimizer_step", 7),
    "checkpoint": (checkpoint, "save_file", 2),
    "model": (results, "save_model", 1),
    "nothing": (engine, "optimizer_step", 10**9),
}[moment])
given = Inputs({name: (Path(path),) for name, path in inputs.items()})
run(Config.model_validate(settings), given, open_workspace(directory))
"""


def arguments_of(directory, moment, settings, corpora):
    inputs = {name: str(path) for name, path in corpora.items()}
    return [str(directory), moment, json.dumps(settings), json.dumps(inputs)]


def test_training_killed_at_many_moments_ends_with_the_bytes_of_an_undisturbed_run(
    tmp_path, trained, run_stage, scratch, corpora, run_script
):
    settings = {
        **scratch,
        "validation": ["english", "japanese"],
        "validation_bytes": 2000,
        "validation_points": 2,
    }
    for moment in ("tokenizer", "first step", "step", "checkpoint", "model"):
        arguments = arguments_of(tmp_path, moment, settings, corpora)
        status = run_script(KILLED, arguments, tmp_path.with_suffix(".txt"))
        assert status == -signal.SIGKILL, moment
    outcome = run_stage(tmp_path, settings)
    undisturbed, expected = trained
    for name in MODEL_FILES:
        assert sha256_of(tmp_path / name) == sha256_of(undisturbed / name), name
    for name in ("first_loss", "final_loss", "validation", "sources"):
        assert outcome.facts[name] == expected.facts[name]
    ours, theirs = (read_metrics(path / "metrics.jsonl", last_by="step") for path in (tmp_path, undisturbed))
    assert [row["loss"] for row in ours] == [row["loss"] for row in theirs]


def test_training_asked_to_terminate_keeps_its_last_step(tmp_path, scratch, corpora, trained, run_stage):
    settings = {**scratch, "checkpoint_every_steps": 1000}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *arguments_of(tmp_path, "nothing", settings, corpora)]
    )
    while not read_metrics(tmp_path / "metrics.jsonl", step=3):
        assert process.poll() is None
        time.sleep(0.002)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    (checkpoint,) = (tmp_path / "work").glob("checkpoint-*")
    assert int(checkpoint.name[-8:]) >= 3
    run_stage(tmp_path, settings)
    assert sha256_of(tmp_path / "model.safetensors") == sha256_of(trained[0] / "model.safetensors")


def test_training_stopped_after_its_last_step_still_knows_its_speed(tmp_path, scratch, run_stage):
    settings = {**scratch, "tokens": 512}
    patch = pytest.MonkeyPatch()
    record = loop._record

    def terminate(*args, **more):
        record(*args, **more)
        if more["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(loop, "_record", terminate)
    with pytest.raises(SystemExit):
        run_stage(tmp_path, settings)
    patch.undo()
    assert run_stage(tmp_path, settings).counts["tokens_per_second"] > 0


def test_training_whose_saved_weights_are_not_the_trained_ones_fails(
    tmp_path, run_stage, scratch, monkeypatch
):
    save = results.save_model

    def spoilt(decoder, tokenizer, directory):
        with torch.no_grad():
            decoder.model.norm.weight[0] += 1e-3
        save(decoder, tokenizer, directory)
        with torch.no_grad():
            decoder.model.norm.weight[0] -= 1e-3

    monkeypatch.setattr(results, "save_model", spoilt)
    with pytest.raises(StageError, match=r"model\.norm\.weight"):
        run_stage(tmp_path, {**scratch, "tokens": 512})


def test_training_on_an_outside_model_proves_how_it_is_read(
    tmp_path, run_stage, scratch, trained, monkeypatch
):
    seen = []
    check = results.check_parity
    monkeypatch.setattr(
        results, "check_parity", lambda directory, *rest: seen.append(directory) or check(directory, *rest)
    )
    run_stage(tmp_path, onwards(scratch, tokens=512), base=trained[0])  # no manifest: nobody has proved it
    assert seen == [trained[0], tmp_path]


def test_training_in_a_thread_works_without_signal_handlers(tmp_path, run_stage, scratch):
    errors = []

    def go():
        try:
            run_stage(tmp_path, {**scratch, "tokens": 512})
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert errors == []


def test_training_over_a_checkpoint_of_another_configuration_is_refused(tmp_path, run_stage, scratch):
    run_stage(tmp_path, scratch)
    with pytest.raises(DriftError, match="belongs to another run"):
        run_stage(tmp_path, {**scratch, "learning_rate": 1e-3})


def test_training_with_another_micro_batch_goes_on_from_the_checkpoint(tmp_path, run_stage, scratch):
    run_stage(tmp_path, scratch)
    outcome = run_stage(tmp_path, {**scratch, "micro_batch_tokens": 64})
    assert outcome.facts["final_loss"] == pytest.approx(GOLDEN_FINAL, abs=1e-3)


def test_training_on_too_small_a_corpus_raises(tmp_path, run_stage, scratch):
    with pytest.raises(DataError, match="corpus too small for the tokens asked"):
        run_stage(tmp_path, {**scratch, "tokens": "1M"})
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"learning_rate": 1e30, "warmup": 0}, StageError, "step [0-9]+: not finite"),
        ({"learning_rate": 3.0, "warmup": 0}, StageError, "the loss did not fall"),
        ({"parallel": {"tensor": 3}}, InputError, "tensor: 3 does not divide query heads"),
        ({"sequence_length": 1024, "batch_tokens": 2048}, InputError, "the model was made for 512"),
        ({"tokens": 100}, DataError, "fewer than one batch"),
        ({"tokenizer": {"train": "english", "size": 100}}, InputError, "256 bytes"),
        ({"model": {"preset": "llama-nana"}}, InputError, 'no model preset "llama-nana"'),
    ],
)
def test_training_that_can_not_go_well_raises(tmp_path, run_stage, scratch, change, error, message):
    with pytest.raises(error, match=message):
        run_stage(tmp_path, {**scratch, **change})
    assert not (tmp_path / "model.safetensors").exists()


def test_a_loss_that_is_not_finite_is_in_the_metrics(tmp_path, run_stage, scratch):
    with pytest.raises(StageError):
        run_stage(tmp_path, {**scratch, "learning_rate": 1e30, "warmup": 0})
    assert read_metrics(tmp_path / "metrics.jsonl", last_by="step")[-1]["loss"] is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_training_on_a_missing_gpu_raises(tmp_path, run_stage, scratch):
    with pytest.raises(InputError, match="torch finds no CUDA device"):
        run_stage(tmp_path, {**scratch, "device": "cuda"})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:.*deterministic")
def test_training_on_a_gpu_agrees_with_the_cpu(tmp_path, run_stage, scratch):
    outcome = run_stage(tmp_path, {**scratch, "device": "cuda"})
    assert outcome.facts["final_loss"] == pytest.approx(GOLDEN_FINAL, abs=1e-2)
