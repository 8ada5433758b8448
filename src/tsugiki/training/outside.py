"""Runs whose processes are started from outside: by Slurm's `srun`, or by torchrun on each machine.

Every process runs the same command (`tsugiki train OUT ...` or `evaluate`, or `tsugiki run RECIPE --only
STAGE`) with torch's variables in its environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
Process 0 does what one process does alone (locks, tokenising, the model directory, the manifest); the others
wait at a store of keys that process 0 (or torchrun's agent) serves, until it tells them where the job lies.
The result's directory has to be on a disk that all machines share.

Nothing heavy is imported at the top: planning asks this module too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tsugiki.errors import InputError, StageError, TsugikiError, error_of
from tsugiki.training.launch import STARTED_BY_LAUNCH, failure_of

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
"""torch's name for: the store is served already, connect to it."""

CONNECT = timedelta(minutes=10)
"""What machines may differ in when they start."""
_LOOK_SECONDS = 0.5
_LINGER_SECONDS = 10.0


@dataclass(frozen=True)
class Place:
    """Which of the processes this one is, and where the first one's store listens."""

    rank: int
    processes: int
    address: str
    port: int
    attempt: str = "0"

    @property
    def key(self) -> str:
        """Under which process 0 says where the job is; torchrun's store outlives its attempts."""
        return f"tsugiki/job/{self.attempt}"


def place_of(environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place, or None where nobody started several from outside.

    Raises InputError where the variables are there in part, or are no numbers.
    """
    if STARTED_BY_LAUNCH in environment or "WORLD_SIZE" not in environment or "RANK" not in environment:
        return None
    try:
        rank, processes = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        port = int(environment["MASTER_PORT"])
        place = Place(
            rank,
            processes,
            environment["MASTER_ADDR"],
            port,
            environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
        )
    except (KeyError, ValueError) as error:
        raise InputError(
            f"RANK and WORLD_SIZE are set, but the environment does not say where to meet: {error}",
            hint="set MASTER_ADDR and MASTER_PORT too (torchrun does), or unset RANK and WORLD_SIZE",
        ) from error
    if not 0 <= rank < processes:
        raise InputError(
            f"RANK is {rank} of WORLD_SIZE {processes}", hint="ranks go from 0 to WORLD_SIZE - 1"
        )
    return place if processes > 1 else None


def check_processes(processes: int) -> None:
    """Raise InputError where so many processes are asked for and another number was started from outside."""
    place = place_of()
    if place is not None and place.processes != processes:
        raise InputError(
            f"parallel asks for {processes} processes; {place.processes} were started",
            hint="start as many as `parallel` multiplies to, or change its degrees",
        )


@contextmanager
def leading(place: Place) -> Iterator[None]:
    """For process 0: serve the store while this lasts; afterwards the others are told that it is over."""
    store = _store(place)
    told_before = os.environ.get(_AGENT_STORE)
    os.environ[_AGENT_STORE] = "True"  # for the stage's own process: the store is here
    failure: dict[str, Any] = {}
    try:
        yield
    except TsugikiError as error:
        failure = error.as_dict()
        raise
    finally:
        if told_before is None:
            del os.environ[_AGENT_STORE]
        _tell(store, place, {"end": True, "failure": failure})
        _wait_for_goodbyes(store, place)


def tell_job(place: Place, work: Path, kind: Literal["train", "evaluate"] = "train") -> None:
    """For process 0: what had to be prepared is; the others may take part in the job in `work`."""
    _tell(_store(place, serve=False), place, {"work": str(work.resolve()), "kind": kind})


def follow(place: Place) -> None:
    """For the other processes: wait for the job, take part in it, and leave with the exit status.

    Raises StageError where process 0 failed or ended before there was a job.
    """
    store = _store(place)
    job = _awaited(store, place)
    try:
        if "work" not in job:
            failure = job.get("failure")
            if failure:
                raise StageError(f"process 0 failed: {failure['message']}", hint=failure["hint"])
            return  # the stage was done before
        if job["kind"] == "evaluate":
            from tsugiki.evaluation import models, sharing

            sharing.follow(Path(job["work"]), models.answer_job)
            return
        from tsugiki.training.ranks import leave, main

        try:
            status = main([job["work"]])
        except SystemExit as asked:
            status = int(asked.code or 0)
    finally:
        _say_goodbye(store, place)
    leave(status)


def train_as_first(place: Place, work: Path) -> None:
    """For process 0: train on the job in `work` together with those that follow.

    Raises the error of the process that failed first, as far as it could leave it in `work`.
    """
    from tsugiki.training.ranks import train_rank

    for rank in range(place.processes):
        failure_of(work, rank).unlink(missing_ok=True)
    tell_job(place, work)
    try:
        train_rank(work, 0)
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


def _store(place: Place, *, serve: bool = True) -> TCPStore:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    is_master = serve and place.rank == 0 and os.environ.get(_AGENT_STORE) != "True"
    try:
        return TCPStore(
            place.address, place.port, is_master=is_master, timeout=CONNECT, wait_for_workers=False
        )
    except RuntimeError as error:
        raise StageError(
            f"process {place.rank} of {place.processes} can't reach {place.address}:{place.port}: "
            f"{str(error).splitlines()[0]}",
            hint="MASTER_ADDR has to be the machine of process 0, and MASTER_PORT free there and open",
        ) from error


def _tell(store: TCPStore, place: Place, job: dict[str, Any]) -> None:
    # the first word counts: "end" comes after the job, to those that have had it
    store.compare_set(place.key, "", json.dumps(job))


def _awaited(store: TCPStore, place: Place) -> dict[str, Any]:
    """The job, once process 0 has prepared it, which may take hours."""
    try:
        while not store.check([place.key]):
            time.sleep(_LOOK_SECONDS)
        job: dict[str, Any] = json.loads(store.get(place.key))
    except RuntimeError as error:  # what torch raises where the connection breaks
        raise StageError(
            f"process {place.rank} of {place.processes} lost process 0: {str(error).splitlines()[0]}",
            hint="see what process 0 said",
        ) from error
    return job


def _say_goodbye(store: TCPStore, place: Place) -> None:
    try:
        store.add(f"{place.key}/left", 1)
    except RuntimeError:
        return  # the store is gone already


def _wait_for_goodbyes(store: TCPStore, place: Place) -> None:
    """The store lives as long as this process: let the others hear the last word before it goes."""
    deadline = time.monotonic() + _LINGER_SECONDS
    while time.monotonic() < deadline:
        try:
            if store.add(f"{place.key}/left", 0) >= place.processes - 1:
                return
        except RuntimeError:
            return
        time.sleep(0.05)
