"""Training by processes that were started from outside (tsugiki.artifacts.outside).

Nothing heavy is imported at the top: planning asks this module too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from tsugiki.artifacts.contract import EndCallback, ProgressCallback, end_process
from tsugiki.artifacts.outside import Place, await_end, place_of, tell_job
from tsugiki.errors import InputError, StageError, TsugikiError, error_of
from tsugiki.training.launch import failure_of

_LINGER_SECONDS = 10.0
_KEEPING_SECONDS = 300.0
"""What process 0 gets to write the last checkpoint's index and to end its stage."""


def check_processes(processes: int) -> None:
    """Raise InputError where so many processes are asked for and another number was started from outside."""
    place = place_of()
    if place is not None and place.processes != processes:
        raise InputError(
            f"parallel asks for {processes} processes; {place.processes} were started",
            hint="start as many as `parallel` multiplies to, or change its degrees",
        )


def take_part(work: Path) -> Callable[[], None]:
    """For the other processes: train on the job in `work`; gives how to leave, with the exit status."""
    from tsugiki.training.heartbeat import living
    from tsugiki.training.ranks import leave, main

    place = place_of()
    assert place is not None  # noqa: S101 (only those that were started from outside follow)
    try:
        with living(place, work, end_process):
            status = main([str(work)])
    except SystemExit as asked:  # after a checkpoint, because of SIGTERM
        status = int(asked.code or 0)
        return partial(_leave_after_the_first, place, status)
    return partial(leave, status)


def _leave_after_the_first(place: Place, status: int) -> NoReturn:
    from tsugiki.training.ranks import leave

    await_end(place, _KEEPING_SECONDS)
    leave(status)


def train_as_first(place: Place, work: Path, end: EndCallback, tell: ProgressCallback) -> None:
    """For process 0: train on the job in `work` together with those that follow.

    end: see `Workspace.end`. tell: is told of every step.

    Raises the error of the process that failed first, as far as it could leave it in `work`.
    """
    from tsugiki.training.heartbeat import living
    from tsugiki.training.ranks import train_rank

    for rank in range(place.processes):
        failure_of(work, rank).unlink(missing_ok=True)
    tell_job(place, work, "train")
    try:
        with living(place, work, end):
            train_rank(work, 0, tell)
    except TsugikiError:
        raise
    except Exception as error:
        deadline = time.monotonic() + _LINGER_SECONDS
        while time.monotonic() < deadline:
            told = [path for rank in range(1, place.processes) if (path := failure_of(work, rank)).exists()]
            if told:
                said = json.loads(min(told, key=lambda path: path.stat().st_mtime_ns).read_text())
                raise error_of(said) from error
            time.sleep(0.2)
        raise StageError(
            f"training process 0 lost the others: {str(error).splitlines()[0]}",
            hint="one of them died (out of memory, a machine that failed); look at its output. The same "
            "command goes on from the last checkpoint",
        ) from error
