"""The processes of one evaluation on this machine: `processes` of the evaluate stage, without torchrun.

The stage's own process is process 0 and starts the others: `python -m tsugiki.evaluation.launching WORK`.
They answer their part of the units into WORK, as under torchrun (`sharing.py`), and go when process 0 goes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tsugiki.artifacts.processes import exit_with_parent, usable_cores
from tsugiki.artifacts.signals import terminating_with
from tsugiki.errors import StageError, TsugikiError
from tsugiki.evaluation.sharing import Share, follow, run_of, share_of

_GRACE_S = 10.0
"""What the others get to end by themselves after the last unit, before they are killed."""


def threads_of(threads: int | None, processes: int) -> int | None:
    """CPU threads of each of several processes: an even part of the cores, unless a number is given."""
    return threads if threads is not None or processes == 1 else max(1, usable_cores() // processes)


@contextmanager
def sharing(processes: int, work: Path, threads: int | None) -> Iterator[Share]:
    """This process's share: torchrun's, or of `processes` on this machine, which live as long as this lasts.

    Raises StageError (out of `Share.wait`) where one of them ends without having done its part.
    """
    given = share_of(work)
    if given.processes > 1 or processes == 1:
        yield given
        return
    environment = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "TORCHELASTIC_RUN_ID": f"launched-{os.getpid()}-{time.time_ns()}",
        "OMP_NUM_THREADS": str(threads_of(threads, processes)),
    }
    share = Share(0, processes, work, run_of(environment))
    started = [_start(work, environment, rank) for rank in range(1, processes)]
    try:
        with terminating_with(started):
            yield replace(share, check=lambda: _check(work, started))
    finally:
        _end(started)


def _start(work: Path, environment: dict[str, str], rank: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tsugiki.evaluation.launching", str(work)]
    own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    with _output_of(work, rank).open("wb") as output:
        return subprocess.Popen(command, env=own, stdin=subprocess.PIPE, stdout=output, stderr=output)


def _output_of(work: Path, rank: int) -> Path:
    return work / f"process-{rank}.txt"


def _check(work: Path, started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Raise StageError where a process has died; one that has failed has said so in its file."""
    for rank, process in enumerate(started, start=1):
        status = process.poll()
        if status is not None and status != 0:
            how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
            raise StageError(
                f"process {rank} of the evaluation {how}",
                hint=f"out of memory, if nobody killed it; see {_output_of(work, rank)}. The same command "
                "goes on where it stopped",
            )


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in started:
        if process.stdin is not None:
            process.stdin.close()  # whoever still works leaves now
    deadline = time.monotonic() + _GRACE_S
    for process in started:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(arguments: list[str]) -> int:
    """Answer this process's part of the job in a directory; the exit status is 0 if that went well."""
    from tsugiki.evaluation.models import answer_job

    exit_with_parent()
    try:
        follow(Path(arguments[0]), answer_job)
    except TsugikiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
