"""One process of a parallel run: `python -m tsugiki.training.ranks WORK`, started by `launch`.

Processes that were started from outside (`outside.py`) call `train_rank` or `main` themselves.

The first process writes metrics and progress; what one process does alone (tokenising, the tokenizer) was
done before.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from tsugiki.artifacts.contract import Inputs, ProgressCallback, Workspace
from tsugiki.artifacts.files import read_json, write_json
from tsugiki.artifacts.metrics import MetricsLog
from tsugiki.artifacts.outside import STARTED_BY_LAUNCH
from tsugiki.artifacts.processes import exit_with_parent
from tsugiki.errors import StageError, TsugikiError
from tsugiki.training.launch import (
    BEAT_SECONDS,
    PROGRESS,
    RESULT,
    beat_of,
    failure_of,
)

JOB = "ranks.json"


class _Silent(MetricsLog):
    """For the processes whose figures are those of the first one."""

    def __init__(self) -> None:
        pass

    def append(self, **row: Any) -> None:
        pass

    def close(self) -> None:
        pass


def main(arguments: list[str]) -> int:
    """Train as one of the processes of the job in a directory; the exit status is 0 if it went well."""
    work, rank = Path(arguments[0]), int(os.environ.get("RANK", "0"))
    if STARTED_BY_LAUNCH in os.environ:  # from outside there are neither a pipe nor one who listens
        exit_with_parent()
        _give_signs_of_life(work, rank)
    try:
        train_rank(work, rank)
    except TsugikiError as error:
        write_json(failure_of(work, rank), error.as_dict())
        return 1
    except Exception as error:  # noqa: BLE001 (told in one sentence; the traceback goes into the rank's own file)
        import traceback

        traceback.print_exc()
        write_json(failure_of(work, rank), failure(error, work, rank).as_dict())
        return 1
    return 0


def failure(error: Exception, work: Path, rank: int) -> StageError:
    """What a person is told of an error that nobody foresaw."""
    said = str(error).splitlines()[0] if str(error) else ""
    if "timed out" in said.lower() or "timeout" in said.lower():
        return StageError(
            f"training process {rank} waited for the others in vain: {said}",
            hint="one of them hangs or is far behind: compare the ends of rank-*.txt; where waiting is right "
            "raise timeout_minutes. The same command goes on from the last checkpoint",
        )
    return StageError(
        f"training process {rank} failed: {type(error).__name__}: {said}",
        hint=f"see {work / f'rank-{rank:05d}.txt'}",
    )


def _give_signs_of_life(work: Path, rank: int) -> None:
    """Renew a file's time every second from a thread: it stops with the process, or where the GIL is held."""
    file = beat_of(work, rank)

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):
                file.touch()
            time.sleep(BEAT_SECONDS)

    threading.Thread(target=beat, name="signs-of-life", daemon=True).start()


def train_rank(work: Path, rank: int, tell: ProgressCallback | None = None) -> None:
    """Train as process `rank` of the job in `work`, in this process.

    tell: is told by process 0 of every step; by default a file is, which `launch` reads.
    """
    from tsugiki.training.compute import choose_device, deterministic
    from tsugiki.training.job import run_of_rank
    from tsugiki.training.loop import run_steps
    from tsugiki.training.parallel.mesh import close_world, open_world
    from tsugiki.training.stage import Config

    job = read_json(work / JOB)
    config = Config.model_validate(job["config"])
    inputs = Inputs({name: tuple(map(Path, paths)) for name, paths in job["inputs"].items()})
    out = _workspace(work, rank, tell)
    device = choose_device(config.device)
    with deterministic(int(os.environ.get("OMP_NUM_THREADS", "1")), device):
        world = open_world(config.parallel, device, timedelta(minutes=config.timeout_minutes))
        try:
            run = run_of_rank(config, inputs, out, world)
            for handler in out.log.handlers:
                handler.setLevel(logging.INFO)
            counters = run_steps(run, out)
        finally:
            with contextlib.suppress(Exception):
                close_world()
    if rank == 0:
        write_json(work / RESULT, asdict(counters))


def _workspace(work: Path, rank: int, tell: ProgressCallback | None) -> Workspace:
    log = logging.getLogger(f"tsugiki.rank.{rank}")
    log.setLevel(logging.INFO)
    log.propagate = False
    # one log for a person: that of process 0. What the others say (the same) is in files of their own
    apart = rank > 0 and STARTED_BY_LAUNCH not in os.environ
    handler: logging.Handler = (
        logging.FileHandler(work / f"rank-{rank:05d}.txt", encoding="utf-8")
        if apart
        else logging.StreamHandler(sys.stdout)
    )
    handlers, root = [handler], work.parent
    if rank == 0:  # the stage's log, which has the beginning from the stage itself: first warnings, then all
        handlers.append(logging.FileHandler(root / "log.txt", encoding="utf-8"))
        handlers[-1].setLevel(logging.WARNING)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
    if rank:
        return Workspace(root, _Silent(), log)

    def write(done: float, total: float, unit: str, note: str) -> None:
        partial = work / f"{PROGRESS}.partial"
        partial.write_text(json.dumps([done, total, unit, note]))
        partial.replace(work / PROGRESS)  # for show only: no fsync

    return Workspace(root, MetricsLog(root / "metrics.jsonl"), log, tell or write)


def leave(status: int) -> NoReturn:
    """End this process without running torch's destructors.

    Now and then one of its threads is not joined, and a process that did well would end with SIGABRT
    ("terminate called without an active exception").
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    try:
        leave(main(sys.argv[1:]))
    except SystemExit as asked:  # after a checkpoint, because of SIGTERM
        leave(int(asked.code or 0))
