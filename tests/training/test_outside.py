"""Processes started from outside (Slurm, torchrun), as two machines on loopback; hangs and deaths."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.artifacts.outside import STARTED_BY_LAUNCH, Place, await_end, leading, place_of
from tsugiki.errors import InputError, StageError
from tsugiki.training import launch
from tsugiki.training.outside import check_processes
from tsugiki.training.ranks import _workspace, failure

VARIABLES = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}


def test_a_place_is_what_the_environment_says():
    assert place_of(VARIABLES) == Place(1, 4, "node1", 29500)
    assert place_of({}) is None
    assert place_of({**VARIABLES, "WORLD_SIZE": "1", "RANK": "0"}) is None
    assert place_of({**VARIABLES, STARTED_BY_LAUNCH: "1"}) is None
    restarted = place_of({**VARIABLES, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert restarted.key != place_of(VARIABLES).key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_PORT": "x"}, "does not say where to meet: invalid literal"),
        ({"MASTER_ADDR": None}, "does not say where to meet: 'MASTER_ADDR'"),
        ({"RANK": "4"}, "RANK is 4 of WORLD_SIZE 4"),
    ],
)
def test_an_environment_that_does_not_hold_together_is_refused(change, message):
    environment = {name: value for name, value in {**VARIABLES, **change}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        place_of(environment)


def test_another_number_of_processes_than_the_layout_has_is_refused(monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    check_processes(4)
    with pytest.raises(InputError, match="parallel asks for 2 processes; 4 were started"):
        check_processes(2)


def test_the_others_leave_after_process_0(monkeypatch):
    """--kill-on-bad-exit of srun, and torchrun, end those that are still there: process 0 may be writing."""
    port = free_port()
    left = []
    follower = threading.Thread(
        target=lambda: (await_end(Place(1, 2, "127.0.0.1", port), 60), left.append(time.monotonic()))
    )
    monkeypatch.setattr("tsugiki.artifacts.outside._LINGER_SECONDS", 0.0)
    with leading(Place(0, 2, "127.0.0.1", port)):
        follower.start()
        follower.join(1.5)
        assert not left
        over = time.monotonic()
    follower.join(10)
    assert left
    assert left[0] >= over


def test_the_others_do_not_wait_for_a_process_0_that_is_gone_or_does_not_end(tmp_path):
    place = Place(1, 2, "127.0.0.1", free_port())
    script = (
        "import sys, time; from tsugiki.artifacts.outside import Place, leading\n"
        "with leading(Place(0, 2, '127.0.0.1', int(sys.argv[1]))): print('here', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(place.port)], stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "here\n"
        begun = time.monotonic()
        await_end(place, 1.0)
        assert time.monotonic() - begun < 20
        follower = threading.Thread(target=await_end, args=(place, 600.0))
        follower.start()
        follower.join(1.0)
        assert follower.is_alive()
        first.kill()
        follower.join(20)
        assert not follower.is_alive()


def test_one_process_tells_a_person_and_the_others_write_into_files(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(STARTED_BY_LAUNCH, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    told = []
    first = _workspace(work, 0, lambda *what: told.append(what))
    first.progress(1, 2, "steps", "loss 1.0")
    assert told == [(1, 2, "steps", "loss 1.0")]
    assert not (work / launch.PROGRESS).exists()
    other = _workspace(work, 1, None)
    other.log.info("step 3: english 1.0 bits per byte")
    first.log.info("from the first")
    first.metrics.close()
    for workspace in (first, other):
        for handler in list(workspace.log.handlers):
            workspace.log.removeHandler(handler)
            handler.close()
    assert "english" in (work / "rank-00001.txt").read_text()
    said = capsys.readouterr().out
    assert "from the first" in said
    assert "english" not in said


def command_of(out, settings, corpora):
    """`tsugiki train` with these settings, on the documents by their paths."""
    paths = {name: str(path) for name, path in corpora.items()}
    given = {**settings, "data": {paths[name]: weight for name, weight in settings["data"].items()}}
    given["tokenizer"] = {**settings["tokenizer"], "train": paths["english"]}
    options = []
    for name, value in given.items():
        text = json.dumps(value) if not isinstance(value, str) else value
        options += [f"--{name.replace('_', '-')}", text]
    return ["train", str(out), *options]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_machine(command, *, first, count, processes, port, where):
    """The processes of one machine, as srun starts them."""
    started = []
    for local in range(count):
        environment = {
            **os.environ,
            "RANK": str(first + local),
            "LOCAL_RANK": str(local),
            "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        output = (where / f"process-{first + local}.txt").open("w")
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tsugiki", *command], env=environment, stdout=output, stderr=output
            )
        )
        output.close()
    return started


def codes(processes, seconds=180):
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            process.kill()


def said(where):
    return "\n".join(path.read_text() for path in sorted(where.glob("process-*.txt")))


@pytest.fixture(scope="module")
def settings(scratch):
    model = {**scratch["model"], "layers": 2, "heads": 4, "kv_heads": 4}
    return {**scratch, "model": model, "micro_batch_tokens": 64, "checkpoint_every_steps": 4}


def losses(directory):
    return [row["loss"] for row in read_metrics(directory / "metrics.jsonl", last_by="step")]


@pytest.mark.slow
def test_two_machines_train_as_one_process_does_and_are_asked_to_end_and_go_on(
    tmp_path, settings, corpora, run_stage
):
    run_stage(tmp_path / "alone", settings)
    out = tmp_path / "shared" / "out"
    command = command_of(out, {**settings, "parallel": {"data": 2, "tensor": 2}}, corpora)

    def start():
        port = free_port()
        return [
            *start_machine(command, first=0, count=2, processes=4, port=port, where=tmp_path),
            *start_machine(command, first=2, count=2, processes=4, port=port, where=tmp_path),
        ]

    processes = start()
    while not read_metrics(out / "metrics.jsonl", step=5):
        assert all(process.poll() is None for process in processes), said(tmp_path)
        time.sleep(0.02)
    for process in processes:
        process.terminate()  # what Slurm does before the time is up
    assert codes(processes) == [128 + signal.SIGTERM] * 4, said(tmp_path)
    assert not (out / "manifest.json").exists()
    assert not any("INFO" in path.read_text() for path in tmp_path.glob("process-*.txt"))  # one log for all
    assert codes(start()) == [0] * 4, said(tmp_path)
    assert (out / "manifest.json").exists()
    assert len(losses(out)) == 24
    assert losses(out) == pytest.approx(losses(tmp_path / "alone"), rel=2e-5)
    rows = [row for row in read_metrics(out / "metrics.jsonl") if "step" in row]
    assert len(rows) == 24  # no step was made twice
    assert codes(start(), 60) == [0] * 4, said(tmp_path)  # it is done: nobody waits for a job


@pytest.mark.slow
def test_torchrun_starts_what_slurm_starts(tmp_path, settings, corpora):
    out = tmp_path / "out"
    command = command_of(out, {**settings, "parallel": {"pipeline": 2}, "tokens": 2048}, corpora)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "tsugiki"]
    done = subprocess.run([*torchrun, *meeting, *command], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert len(losses(out)) == 8
    assert (out / "manifest.json").exists()


def test_the_command_passes_sigterm_on_and_loses_no_step(tmp_path, settings, corpora):
    out = tmp_path / "out"
    command = command_of(out, {**settings, "checkpoint_every_steps": 1000}, corpora)
    with (tmp_path / "process-0.txt").open("w") as output:
        process = subprocess.Popen([sys.executable, "-m", "tsugiki", *command], stdout=output, stderr=output)
    while not read_metrics(out / "metrics.jsonl", step=3):
        assert process.poll() is None, said(tmp_path)
        time.sleep(0.005)
    process.terminate()
    assert codes([process], 60) == [128 + signal.SIGTERM], said(tmp_path)
    assert "asked to end" in said(tmp_path)
    assert "Error" not in said(tmp_path)
    (checkpoint,) = (out / "work").glob("checkpoint-*")
    assert int(checkpoint.name[-8:]) == max(
        row["step"] for row in read_metrics(out / "metrics.jsonl", last_by="step")
    )


@pytest.mark.slow
def test_a_machine_that_dies_ends_the_others_within_a_minute_with_one_error(tmp_path, settings, corpora):
    out = tmp_path / "out"
    command = command_of(
        out, {**settings, "parallel": {"data": 2}, "tokens": 40960, "max_epochs": 90}, corpora
    )
    port = free_port()
    processes = [
        process
        for rank in range(2)
        for process in start_machine(command, first=rank, count=1, processes=2, port=port, where=tmp_path)
    ]
    while not read_metrics(out / "metrics.jsonl", step=2):
        assert all(process.poll() is None for process in processes), said(tmp_path)
        time.sleep(0.02)
    processes[1].kill()
    killed = time.monotonic()
    assert codes(processes, 60) == [1, -signal.SIGKILL]
    assert time.monotonic() - killed < 60
    errors = [line for line in (tmp_path / "process-0.txt").read_text().splitlines() if "Error:" in line]
    assert len(errors) == 1
    assert "training process 0 lost the others" in errors[0]


@pytest.mark.slow
def test_an_error_before_training_reaches_those_that_wait(tmp_path, settings, corpora):
    command = command_of(tmp_path / "out", {**settings, "parallel": {"data": 3}}, corpora)
    port = free_port()
    processes = start_machine(command, first=0, count=3, processes=3, port=port, where=tmp_path)
    assert codes(processes, 60) == [2, 1, 1], said(tmp_path)
    assert "process 0 failed" in (tmp_path / "process-2.txt").read_text()
    assert "does not divide" in (tmp_path / "process-2.txt").read_text()


def ranks_here():
    """Ranks that this process started."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    ).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "tsugiki.training.ranks" in line]


@pytest.mark.slow
def test_a_rank_that_is_stopped_is_found_by_its_silence_and_named(tmp_path, settings, run_stage, monkeypatch):
    monkeypatch.setattr(launch, "SILENCE_SECONDS", 6.0)
    stopped = []

    def stop():
        while not read_metrics(tmp_path / "metrics.jsonl", step=2):
            time.sleep(0.01)
        stopped.extend([*ranks_here(), time.monotonic()])
        os.kill(stopped[1], signal.SIGSTOP)

    watcher = threading.Thread(target=stop, daemon=True)
    watcher.start()
    many = {**settings, "parallel": {"data": 2}, "tokens": 409600, "max_epochs": 900}
    with pytest.raises(
        StageError, match="training process 1 of 2 gave no sign of life for 6 seconds"
    ) as caught:
        run_stage(tmp_path, many)
    assert time.monotonic() - stopped[-1] < 60
    assert "goes on from the last checkpoint" in caught.value.hint
    assert not ranks_here()
    for pid in stopped[:2]:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_pulse_forgives_a_machine_that_slept_as_a_whole(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(launch.time, "monotonic", lambda: now[0])
    pulse = launch._Pulse(tmp_path, 2)
    assert pulse.silent() == []  # they still start, however long it takes
    now[0] += 5
    for rank in range(2):
        launch.beat_of(tmp_path, rank).touch()
    assert pulse.silent() == []
    now[0] += 3600  # the machine slept
    assert pulse.silent() == []
    for _ in range(20):
        now[0] += 3
        launch.beat_of(tmp_path, 0).touch()
        os.utime(launch.beat_of(tmp_path, 0), (now[0], now[0]))
        silent = pulse.silent()
    assert silent == [1]


def test_a_wait_that_took_too_long_is_told_as_such(tmp_path):
    said = failure(RuntimeError("[gloo] Timed out waiting 5000ms for recv operation"), tmp_path, 3)
    assert "training process 3 waited for the others in vain" in said.message
    assert "timeout_minutes" in said.hint
    assert "ValueError: x" in failure(ValueError("x"), tmp_path, 0).message
