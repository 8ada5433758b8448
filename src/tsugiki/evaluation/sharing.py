"""One evaluation by several processes: of this machine (`launching.py`), or of torchrun; through files alone.

Which process asks a unit changes nothing in it, so the rows are those of one process, byte for byte (with as
many CPU threads each). Units are dealt out by what they cost (`dealt`), the same way in every process.
Process 0 runs the stage as ever. The others wait for the job that it leaves in OUT/work, answer their part,
and go. The folder has to be one that all machines see. torchrun's processes run the same command,
`tsugiki evaluate OUT ...` or `tsugiki run RECIPE --only STAGE`, and learn from process 0 where OUT is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tsugiki.artifacts.files import read_json, write_json
from tsugiki.artifacts.outside import place_of, tell_job
from tsugiki.errors import InputError, StageError, TsugikiError

JOB = "shared-job.json"
_POLL_S = 0.05
_PATIENCE_S = 6 * 3600.0
"""How long process 0 waits for a unit of another process, and the others for the job."""


@dataclass(frozen=True)
class Share:
    """The part of the units that this process asks. directory: where all of them say what went wrong.

    check: raises where another process can't be waited for any more.
    """

    rank: int = 0
    processes: int = 1
    directory: Path | None = None
    run: str = ""
    patience_s: float = field(default=_PATIENCE_S, repr=False)
    check: Callable[[], None] = field(default=lambda: None, repr=False)

    def mine(self, costs: Sequence[float]) -> list[int]:
        """The numbers of the units that are this process's, of units with these costs."""
        owners = dealt(costs, self.processes)
        return [number for number, owner in enumerate(owners) if owner == self.rank]

    def wait(self, files: Sequence[Path]) -> None:
        """Until all the files are there.

        Raises StageError where another process has failed, or leaves its units undone for too long.
        """
        end = time.monotonic() + self.patience_s
        missing = [file for file in files if not file.exists()]
        while missing and self.processes > 1:
            for rank in range(self.processes):
                failure = self._failure(rank)
                if failure is not None and rank != self.rank:
                    raise StageError(f"process {rank} failed: {failure['message']}", hint=failure["hint"])
            self.check()
            if time.monotonic() > end:
                break
            time.sleep(_POLL_S)
            missing = [file for file in missing if not file.exists()]
        if missing:
            raise StageError(
                f"{len(missing)} units of other processes were not answered, {missing[0].name} first",
                hint="see what the other processes say; the same command goes on where they stopped",
            )

    def fail(self, error: TsugikiError) -> None:
        """Tell the others."""
        if self.directory is not None:
            write_json(self._failure_file(self.rank), {"run": self.run, **error.as_dict()})

    def _failure(self, rank: int) -> dict[str, Any] | None:
        if self.directory is None or not self._failure_file(rank).exists():
            return None
        found: dict[str, Any] = read_json(self._failure_file(rank))
        return found if found.get("run") == self.run else None

    def _failure_file(self, rank: int) -> Path:
        assert self.directory is not None  # noqa: S101 (asked before)
        return self.directory / f"failed-{rank}.json"


ALONE = Share()


def dealt(costs: Sequence[float], processes: int) -> list[int]:
    """The process of each unit: the dearest first, each to the one that has least to do yet.

    (Graham 1969, "Bounds on multiprocessing timing anomalies": no process gets more than 4/3 of the best.)
    """
    loads = [0.0] * processes
    owners = [0] * len(costs)
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        owners[number] = min(range(processes), key=lambda rank: (loads[rank], rank))
        loads[owners[number]] += costs[number]
    return owners


def share_of(directory: Path, environment: Mapping[str, str] = os.environ) -> Share:
    """This process's share, from torchrun's variables; the whole where nobody started several."""
    if "WORLD_SIZE" not in environment or "RANK" not in environment:
        return ALONE
    try:
        rank, processes = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    except ValueError as error:
        raise InputError(
            f"RANK is {environment['RANK']!r} and WORLD_SIZE {environment['WORLD_SIZE']!r}: no numbers",
            hint="start with torchrun, which sets them",
        ) from error
    if not 0 <= rank < processes:
        raise InputError(f"RANK {rank} does not lie below WORLD_SIZE {processes}", hint="start with torchrun")
    return Share(rank, processes, directory, run_of(environment))


def run_of(environment: Mapping[str, str]) -> str:
    """What tells this start of the processes from an earlier one in the same directory."""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    return "/".join(environment.get(name, "") for name in names)


def lead(share: Share, job: Mapping[str, Any]) -> None:
    """For process 0: leave the job for the others, and tell those that were started from outside where."""
    if share.processes == 1 or share.directory is None:
        return
    write_json(share.directory / JOB, {"run": share.run, **job})
    place = place_of()
    if place is not None:
        tell_job(place, share.directory, "evaluate")


def follow(directory: Path, answer: Callable[[dict[str, Any], Share], None]) -> None:
    """For the other processes: wait for process 0's job, and `answer` it. Raises what `answer` does.

    directory: the stage's `work`. Where the stage was done before there is no job, and its manifest shows it.
    """
    share = share_of(directory)
    end = time.monotonic() + share.patience_s
    path = directory / JOB
    while not (path.exists() and read_json(path).get("run") == share.run):
        if (directory.parent / "manifest.json").exists() and not directory.exists():
            return
        if time.monotonic() > end:
            raise StageError(f"process 0 left no job in {path}", hint="see what process 0 says")
        time.sleep(_POLL_S)
    try:
        answer(read_json(path), share)
    except TsugikiError as error:
        share.fail(error)
        raise
