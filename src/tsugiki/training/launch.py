"""The processes of a parallel run on this machine: started together, and ended together.

A rank that dies takes the others with it: they would wait for it until a timeout. One error is raised, the
first one's own. Across machines, torchrun or Slurm start `python -m tsugiki.training.ranks` themselves
(`tsugiki train --sbatch` prints how).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tsugiki.artifacts.files import read_json
from tsugiki.errors import BY_NAME, StageError

POLL_SECONDS = 0.1
GRACE_SECONDS = 20.0
"""What the others get to notice that a connection broke and to say so, before they are killed."""

STARTED_BY_LAUNCH = "TSUGIKI_LAUNCHED"
"""Set for ranks that have a pipe to this process, and leave when it closes."""

RESULT = "result.json"
PROGRESS = "progress.json"


def failure_of(work: Path, rank: int) -> Path:
    """Where a rank writes the error that ended it."""
    return work / f"rank-{rank:05d}.error.json"


def run_ranks(work: Path, ranks: int, threads: int | None, on_poll: Callable[[], None]) -> None:
    """Run `ranks` processes on the job in `work` until all have ended well.

    SIGTERM is passed on to them, so that they keep a checkpoint. Raises the error of the first rank that
    failed, StageError where one died without a word, SystemExit(143) where they were asked to end.
    """
    for rank in range(ranks):
        failure_of(work, rank).unlink(missing_ok=True)
    processes = _start(work, ranks, threads)
    try:
        with _passed_on(processes):
            while any(process.poll() is None for process in processes):
                if any(process.poll() not in {None, 0} for process in processes):
                    break
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


def _start(work: Path, ranks: int, threads: int | None) -> list[subprocess.Popen[bytes]]:
    shared = {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        STARTED_BY_LAUNCH: "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": str(threads or max(1, (os.cpu_count() or 1) // ranks)),
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass SIGTERM on to the ranks while this lasts."""

    def tell(number: int, _frame: object) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    try:
        before = signal.signal(signal.SIGTERM, tell)
    except ValueError:  # only the main thread may set handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Wait for the others of a rank that failed, then kill them; the exit statuses in order."""
    deadline = time.monotonic() + GRACE_SECONDS
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(POLL_SECONDS)
    return [process.wait() for process in processes]


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
        error = read_json(told[0][2])
        raise BY_NAME.get(error["type"], StageError)(error["message"], hint=error["hint"])
    raise StageError(
        f"training processes ended with {list(codes)} and said nothing", hint=f"see rank-*.txt in {work}"
    )
