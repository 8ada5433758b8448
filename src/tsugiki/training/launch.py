"""The processes of a parallel run on this machine: started together, and ended together.

A rank that dies takes the others with it: they would wait for it until a timeout. One that is stopped, or
hangs so that not even a thread of its own runs, is found by its silence. One error is raised, the first one's
own. Across machines, Slurm or torchrun start all processes themselves: see `outside.py`.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.outside import STARTED_BY_LAUNCH
from tsugiki.artifacts.processes import usable_cores
from tsugiki.artifacts.signals import terminating_with
from tsugiki.errors import StageError, error_of

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

POLL_SECONDS = 0.1
GRACE_SECONDS = 20.0
"""What the others get to notice that a connection broke and to say so, before they are killed."""

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 40.0
"""A rank that gives no sign of life for so long is taken for stopped: less than a minute, and more than a
loaded machine lets a thread wait."""

RESULT = "result.json"
PROGRESS = "progress.json"


def failure_of(work: Path, rank: int) -> Path:
    """Where a rank writes the error that ended it."""
    return work / f"rank-{rank:05d}.error.json"


def beat_of(work: Path, rank: int) -> Path:
    """The file whose time a rank renews every second while it lives."""
    return work / f"rank-{rank:05d}.alive"


class _Pulse:
    """Which ranks have stopped to give signs of life. Only this process's own clock is used."""

    def __init__(self, work: Path, ranks: int) -> None:
        self._files = [beat_of(work, rank) for rank in range(ranks)]
        for file in self._files:
            file.unlink(missing_ok=True)
        self._seen = [0] * ranks
        self._changed = [math.inf] * ranks
        """When the last sign of each came; infinite before the first, while a rank still starts."""
        self._looked = time.monotonic()

    def silent(self) -> list[int]:
        """The ranks that have been silent for too long."""
        now = time.monotonic()
        if now - self._looked > SILENCE_SECONDS / 4:  # it was this process that stood still, and all may have
            self._changed = [changed if changed == math.inf else now for changed in self._changed]
        self._looked = now
        for rank, file in enumerate(self._files):
            try:
                sign = file.stat().st_mtime_ns
            except OSError:
                continue
            if sign != self._seen[rank]:
                self._seen[rank], self._changed[rank] = sign, now
        return [rank for rank, changed in enumerate(self._changed) if now - changed > SILENCE_SECONDS]


def run_ranks(work: Path, ranks: int, threads: int | None, on_poll: Callable[[], None]) -> None:
    """Run `ranks` processes on the job in `work` until all have ended well.

    SIGTERM is passed on to them, so that they keep a checkpoint. Raises the error of the first rank that
    failed, StageError where one died without a word or gives no sign of life any more, SystemExit(143) where
    they were asked to end.
    """
    for rank in range(ranks):
        failure_of(work, rank).unlink(missing_ok=True)
    store = _meeting_place()
    pulse = _Pulse(work, ranks)
    processes = _start(work, ranks, threads, store.port)
    try:
        with terminating_with(processes):
            while any(process.poll() is None for process in processes):
                if any(process.poll() not in {None, 0} for process in processes):
                    break
                silent = pulse.silent()
                if silent:
                    raise silence(work, silent, ranks)
                on_poll()
                time.sleep(POLL_SECONDS)
        codes = _end(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
    on_poll()
    _raise_first(work, codes)


def _meeting_place() -> TCPStore:
    """Where the processes find each other: a store that this process serves, at a port of its own.

    A port that is only looked up here, for the first process to open seconds later, may be taken by then: by
    any connection on the machine.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def _start(work: Path, ranks: int, threads: int | None, port: int) -> list[subprocess.Popen[bytes]]:
    shared = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        STARTED_BY_LAUNCH: "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(threads or max(1, usable_cores() // ranks)),
    }
    command = [sys.executable, "-m", "tsugiki.training.ranks", str(work)]
    processes = []
    for rank in range(ranks):
        with (work / f"rank-{rank:05d}.txt").open("ab") as output:
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output
                )
            )
    return processes


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for the others of a rank that failed, then kill them; the exit statuses in order."""
    deadline = time.monotonic() + GRACE_SECONDS
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(POLL_SECONDS)
    return [process.wait() for process in processes]


def silence(work: Path, silent: Sequence[int], ranks: int) -> StageError:
    """The error of ranks that give no signs of life any more."""
    names = ", ".join(map(str, silent))
    return StageError(
        f"training process {names} of {ranks} gave no sign of life for {SILENCE_SECONDS:.0f} seconds; "
        "all were ended",
        hint="it was stopped, or its machine is gone, hangs or swaps; see the end of what it printed "
        f"({work / f'rank-{silent[0]:05d}.txt'}, or where Slurm or torchrun put it). The same command goes "
        "on from the last checkpoint",
    )


def _raise_first(work: Path, codes: Sequence[int]) -> None:
    if not any(codes):
        return
    if set(codes) <= {0, 128 + signal.SIGTERM}:
        raise SystemExit(128 + signal.SIGTERM)
    failures = [(failure_of(work, rank), rank) for rank, code in enumerate(codes) if code]
    # those that only lost the connection wrote theirs after the one that broke it
    told = sorted((path.stat().st_mtime_ns, rank, path) for path, rank in failures if path.exists())
    silent = [rank for path, rank in failures if not path.exists() and codes[rank] < 0]
    if silent:
        rank = silent[0]
        raise StageError(
            f"training process {rank} of {len(codes)} was ended by signal {-codes[rank]}; "
            "the others were stopped",
            hint=f"out of memory, if nobody killed it; see {work / f'rank-{rank:05d}.txt'}. The same command "
            "goes on from the last checkpoint",
        )
    if told:
        raise error_of(read_json(told[0][2]))
    raise StageError(
        f"training processes ended with {list(codes)} and said nothing", hint=f"see rank-*.txt in {work}"
    )
