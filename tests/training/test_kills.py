"""Runs that are killed or stopped again and again, in one layout or from one to the next.

Processes are forked from one that has imported everything, so that twenty attempts take seconds.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from tsugiki.artifacts.files import sha256_of
from tsugiki.artifacts.metrics import read_metrics

NURSERY = """
import json, os, sys
from pathlib import Path
import tsugiki.training.job
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.training.stage import Config, run

def child(directory, settings, inputs):
    given = Inputs({name: (Path(path),) for name, path in inputs.items()})
    outcome = run(Config.model_validate(settings), given, open_workspace(Path(directory)))
    (Path(directory) / "outcome.json").write_text(json.dumps([dict(outcome.counts), dict(outcome.facts)]))

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        try:
            os.setpgid(0, 0)
            child(*json.loads(line))
        except SystemExit as left:
            os._exit(left.code)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.setpgid(pid, pid)  # before anybody can want to kill it
    print("started", pid, flush=True)
    print("ended", pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Attempt:
    """A run of the stage in a process group of its own."""

    def __init__(self, nursery, directory, settings, corpora):
        self.nursery, self.directory = nursery, directory
        inputs = {name: str(path) for name, path in corpora.items()}
        nursery.stdin.write(json.dumps([str(directory), settings, inputs]) + "\n")
        nursery.stdin.flush()
        self.pid = int(self._told("started")[0])

    def wait(self):
        """The exit status, negative for a signal."""
        return int(self._told("ended", str(self.pid))[1])

    def _told(self, *words):
        """What follows these words; what is left of a test that failed is passed over."""
        while True:
            said = self.nursery.stdout.readline().split()
            assert said, "the nursery is gone"
            if tuple(said[: len(words)]) == words:
                return said[1:]

    def wait_for_step(self, step, seconds=240):
        """Until metrics.jsonl has a row of `step` or a later one; gives False where the run ended before."""
        deadline = time.monotonic() + seconds
        while last_step(self.directory) < step:
            if not is_alive(self.pid):
                return False
            assert time.monotonic() < deadline, "the run is stuck"
            time.sleep(0.002)
        return True

    def ranks(self):
        command = ["ps", "-o", "pid=,args=", "--ppid", str(self.pid)]
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        return [int(line.split()[0]) for line in lines if "tsugiki.training.ranks" in line]

    def kill_all(self):
        os.killpg(self.pid, signal.SIGKILL)


def is_alive(pid):
    status = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return status.stdout.strip()[:1] not in {"", "Z"}


def is_gone(pid, seconds=20):
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def last_step(directory):
    try:
        tail = (directory / "metrics.jsonl").read_bytes()[-2000:].splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(tail):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "step" in row:
            return row["step"]
    return 0


@pytest.fixture(scope="module")
def nursery():
    """The process that attempts are forked from."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def attempt(nursery, corpora):
    def go(directory, settings):
        return Attempt(nursery, directory, settings, corpora)

    return go


def settings_of(scratch, **more):
    model = {**scratch["model"], "layers": 4, "heads": 4, "kv_heads": 4}
    measured = {"validation": ["english"], "validation_bytes": 2000, "validation_points": 2}
    return {**scratch, "model": model, **measured, "micro_batch_tokens": 64, **more}


def finish(attempt, directory, settings):
    assert attempt(directory, settings).wait() == 0, (directory / "log.txt").read_text()
    return json.loads((directory / "outcome.json").read_text())


def losses(directory):
    rows = read_metrics(directory / "metrics.jsonl", last_by="step")
    return {row["step"]: (row["loss"], row["tokens"], row["gradient_norm"]) for row in rows}


COUNTERS = ("first_loss", "final_loss", "validation", "sources")


def check_same_to_the_bit(directory, outcome, undisturbed, expected):
    assert losses(directory) == losses(undisturbed)
    assert [outcome[1][name] for name in COUNTERS] == [expected[1][name] for name in COUNTERS]
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert sha256_of(directory / name) == sha256_of(undisturbed / name)


@pytest.mark.slow
def test_training_killed_at_twenty_random_moments_is_the_undisturbed_run_to_the_bit(
    tmp_path, attempt, scratch
):
    settings = settings_of(scratch, tokens=40 * 256, checkpoint_every_steps=2, max_epochs=40)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    expected = finish(attempt, undisturbed, settings)
    draw = random.Random(20)
    moments = sorted(draw.choices(range(39), k=20))
    for step in moments:
        running = attempt(killed, settings)
        running.wait_for_step(step)
        time.sleep(draw.uniform(0, 0.02))  # before, in, or after the step, or a checkpoint
        running.kill_all()
        assert running.wait() == -signal.SIGKILL, step
    outcome = finish(attempt, killed, settings)
    check_same_to_the_bit(killed, outcome, undisturbed, expected)
    rows = read_metrics(killed / "metrics.jsonl")
    assert len([row for row in rows if "step" in row]) > 40  # steps were lost and made again


@pytest.mark.slow
def test_training_in_two_processes_killed_four_times_is_the_undisturbed_run_to_the_bit(
    tmp_path, attempt, scratch
):
    settings = settings_of(scratch, tokens=40 * 256, checkpoint_every_steps=2, parallel={"data": 2})
    settings["max_epochs"] = 40
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    expected = finish(attempt, undisturbed, settings)
    draw = random.Random(21)
    for number, step in enumerate(sorted(draw.choices(range(1, 39), k=4))):
        running = attempt(killed, settings)
        running.wait_for_step(step)
        time.sleep(draw.uniform(0, 0.05))
        victims = running.ranks()
        assert len(victims) == 2
        if number % 2:
            os.kill(victims[number % 4 // 2], signal.SIGKILL)
            assert running.wait() == 1
        else:
            running.kill_all()
            assert running.wait() == -signal.SIGKILL
        assert all(map(is_gone, victims))
    outcome = finish(attempt, killed, settings)
    check_same_to_the_bit(killed, outcome, undisturbed, expected)


CHAINS = {
    "data": [{"data": 1}, {"data": 2}, {"data": 4}, {"data": 1}],
    "tensor": [{"tensor": 1}, {"tensor": 2}, {"tensor": 1}],
    "pipeline": [{"pipeline": 1}, {"pipeline": 2}, {"pipeline": 1}],
    "mixed": [{"tensor": 2}, {"data": 2, "shard": 1}, {"pipeline": 2, "data": 2}],
}


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS)
def test_training_that_goes_on_in_other_layouts_has_the_losses_of_one_process(
    chain, tmp_path, attempt, scratch
):
    settings = settings_of(scratch)  # 24 steps
    undisturbed, moved = tmp_path / "undisturbed", tmp_path / "moved"
    expected = finish(attempt, undisturbed, settings)
    layouts = CHAINS[chain]
    stops = [24 * (number + 1) // len(layouts) for number in range(len(layouts) - 1)]
    for layout, stop in zip(layouts, stops, strict=False):
        running = attempt(moved, {**settings, "parallel": layout})
        assert running.wait_for_step(stop)
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait() == 128 + signal.SIGTERM
    outcome = finish(attempt, moved, {**settings, "parallel": layouts[-1]})
    ours, theirs = losses(moved), losses(undisturbed)
    assert list(ours) == list(range(1, 25))
    for step, (loss, tokens, norm) in theirs.items():
        assert ours[step] == (pytest.approx(loss, rel=2e-5), tokens, pytest.approx(norm, rel=1e-3)), step
    assert outcome[1]["sources"] == expected[1]["sources"]
    rows = [row for row in read_metrics(moved / "metrics.jsonl") if "step" in row]
    assert len(rows) == 24  # each layout went on at the very step where the one before had stopped
    told = (moved / "log.txt").read_text()  # with several processes too: it holds what process 0 says
    assert told.count("going on after step") == len(layouts) - 1
    weights, wanted = (load_file(path / "model.safetensors") for path in (moved, undisturbed))
    assert all(torch.allclose(weights[name], wanted[name], atol=2e-3) for name in wanted)
