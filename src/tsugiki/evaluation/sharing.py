"""One evaluation by several processes (`torchrun ... -m tsugiki evaluate OUT ...`), through files alone.

Process r of n asks units r, r + n, ...: which process asks a unit changes nothing in it, so the rows are
those of one process, byte for byte. Process 0 runs the stage as ever. The others wait for the job that it
leaves in OUT/work, answer their part, and go. The folder has to be one that all machines see.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tsugiki.artifacts.files import read_json, write_json
from tsugiki.errors import InputError, StageError, TsugikiError

JOB = "shared-job.json"
_POLL_S = 0.05
_PATIENCE_S = 6 * 3600.0
"""How long process 0 waits for a unit of another process, and the others for the job."""


@dataclass(frozen=True)
class Share:
    """The part of the units that this process asks. directory: where all of them say what went wrong."""

    rank: int = 0
    processes: int = 1
    directory: Path | None = None
    run: str = ""
    patience_s: float = field(default=_PATIENCE_S, repr=False)

    def takes(self, number: int) -> bool:
        """Whether the unit of this number is this process's."""
        return number % self.processes == self.rank

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
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    return Share(rank, processes, directory, "/".join(environment.get(name, "") for name in names))


def lead(share: Share, job: Mapping[str, Any]) -> None:
    """For process 0: leave the job for the others."""
    if share.processes > 1 and share.directory is not None:
        write_json(share.directory / JOB, {"run": share.run, **job})


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
