"""Several processes on loopback (gloo): each layout's losses are those of one process, and faults end all."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.errors import InputError, StageError

LAYOUTS = {
    "data": {"data": 2},
    "copies": {"data": 2, "shard": 1},
    "tensor": {"tensor": 2},
    "context": {"context": 2},
    "pipeline": {"pipeline": 2},
}
MANY = {
    "interleaved": {"pipeline": 2, "schedule": "interleaved", "chunks": 2},
    "data-tensor": {"data": 2, "tensor": 2},
    "all": {"data": 2, "tensor": 2, "context": 2, "pipeline": 2},
}


def losses(directory):
    return [row["loss"] for row in read_metrics(directory / "metrics.jsonl", last_by="step")]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, run_stage, scratch):
    """A run in one process with four layers and 24 steps, to hold the others against."""
    directory = tmp_path_factory.mktemp("alone")
    settings = deeper(scratch)
    return directory, run_stage(directory, settings)


def deeper(scratch, **more):
    model = {**scratch["model"], "layers": 4, "heads": 4, "kv_heads": 2}
    measured = {"validation": ["english"], "validation_bytes": 2000, "validation_points": 2}
    return {**scratch, "model": model, **measured, "threads": 1, **more}


def check(directory, outcome, alone, rtol=2e-5):
    undisturbed, expected = alone
    assert len(losses(directory)) >= 20
    assert losses(directory) == pytest.approx(losses(undisturbed), rel=rtol)
    measured = [row["bits_per_byte"] for row in outcome.facts["validation"]]
    assert measured == pytest.approx([row["bits_per_byte"] for row in expected.facts["validation"]], rel=rtol)
    assert outcome.counts["tokens"] == expected.counts["tokens"]
    ours, theirs = (load_file(path / "model.safetensors") for path in (directory, undisturbed))
    for name, weight in theirs.items():
        assert torch.allclose(ours[name], weight, atol=2e-3), name


@pytest.mark.parametrize(
    "layout", ["data", *(pytest.param(name, marks=pytest.mark.slow) for name in LAYOUTS if name != "data")]
)  # test_layouts has all of them on the engine itself
def test_training_in_two_processes_has_the_losses_of_one(layout, tmp_path, run_stage, scratch, alone):
    settings = deeper(scratch, parallel=LAYOUTS[layout], micro_batch_tokens=64)
    check(tmp_path, run_stage(tmp_path, settings), alone)


@pytest.mark.slow
@pytest.mark.parametrize("layout", MANY)
def test_training_in_mixed_layouts_has_the_losses_of_one(layout, tmp_path, run_stage, scratch, alone):
    settings = deeper(scratch, parallel=MANY[layout], micro_batch_tokens=64)
    check(tmp_path, run_stage(tmp_path, settings), alone)


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_changes_no_loss(recompute, tmp_path, run_stage, scratch, alone):
    settings = deeper(scratch, parallel={"tensor": 2}, recompute=recompute, micro_batch_tokens=64)
    check(tmp_path, run_stage(tmp_path, settings), alone)


STARTED = """
import json, sys
from pathlib import Path
from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.training.stage import Config, run

directory, settings, inputs = Path(sys.argv[1]), *map(json.loads, sys.argv[2:4])
given = Inputs({name: (Path(path),) for name, path in inputs.items()})
try:
    run(Config.model_validate(settings), given, open_workspace(directory))
except Exception as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(1)
"""


def start(directory, settings, corpora):
    paths = json.dumps({name: str(path) for name, path in corpora.items()})
    command = [sys.executable, "-c", STARTED, str(directory), json.dumps(settings), paths]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(condition, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ranks_of(process):
    """The processes of the ranks: children of `process` that run tsugiki.training.ranks, in order of rank."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "tsugiki.training.ranks" in line]


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_others_with_one_error_and_the_run_goes_on_in_another_layout(
    tmp_path, scratch, corpora, run_stage, alone
):
    settings = deeper(scratch, checkpoint_every_steps=2, micro_batch_tokens=64)
    process = start(tmp_path, {**settings, "parallel": {"data": 2}}, corpora)
    with process:
        wait_for(lambda: list((tmp_path / "work").glob("checkpoint-*[0-9]")), process)
        victims = ranks_of(process)
        assert len(victims) == 2
        os.kill(victims[1], signal.SIGKILL)
        killed = time.monotonic()
        said, _ = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert process.returncode == 1
    assert "training process 1 of 2 was ended by signal 9; the others were stopped" in said
    for pid in victims:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    before = len(read_metrics(tmp_path / "metrics.jsonl"))
    check(tmp_path, run_stage(tmp_path, {**settings, "parallel": {"tensor": 2}}), alone)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) < before + 24 + 10  # it did not start anew
    assert "going on after step" in (tmp_path / "log.txt").read_text() + ranks_log(tmp_path)


def ranks_log(directory):
    return "".join(path.read_text() for path in (directory / "work").glob("rank-*.txt"))


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_keeps_its_step_and_goes_on_in_one_process(
    tmp_path, scratch, corpora, run_stage, alone
):
    settings = deeper(scratch, checkpoint_every_steps=1000, micro_batch_tokens=64)
    process = start(tmp_path, {**settings, "parallel": {"pipeline": 2}}, corpora)
    with process:
        wait_for(lambda: read_metrics(tmp_path / "metrics.jsonl", step=3), process)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    (checkpoint,) = (tmp_path / "work").glob("checkpoint-*")
    assert int(checkpoint.name[-8:]) >= 3
    check(tmp_path, run_stage(tmp_path, settings), alone)


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"tensor": 3}, r"query heads \(4\)"),
        ({"pipeline": 5}, r"layers \(4\)"),
        ({"data": 3}, "sequences of a batch"),
        ({"context": 5}, "pieces of a sequence"),
    ],
)
def test_a_layout_that_does_not_divide_is_refused_with_those_that_do(
    parallel, message, tmp_path, run_stage, scratch
):
    with pytest.raises(InputError, match=message) as caught:
        run_stage(tmp_path, deeper(scratch, parallel=parallel))
    assert "degrees that do: 1, 2, 4" in caught.value.hint


@pytest.mark.slow
def test_a_rank_that_fails_is_quoted(tmp_path, run_stage, scratch):
    settings = deeper(scratch, parallel={"data": 2}, learning_rate=1e30, warmup=0, micro_batch_tokens=64)
    with pytest.raises(StageError, match=r"step [0-9]+: not finite"):
        run_stage(tmp_path, settings)
