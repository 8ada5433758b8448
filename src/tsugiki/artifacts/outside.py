"""Runs whose processes are started from outside: by Slurm's `srun`, or by torchrun on each machine.

Every process runs the same command (`tsugiki train OUT ...` or `evaluate`, or `tsugiki run RECIPE --only
STAGE`) with torch's variables in its environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
Process 0 does what one process does alone (locks, tokenising, the model directory, the manifest); the others
wait at a store of keys that process 0 (or torchrun's agent) serves, until it tells them where the job lies.
The result's directory has to be on a disk that all machines share.

Nothing heavy is imported at the top: planning asks this module too.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tsugiki.errors import InputError, StageError, TsugikiError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

STARTED_BY_LAUNCH = "TSUGIKI_LAUNCHED"
"""Set for ranks that a train stage starts itself: they have a pipe to it, leave when it closes, and
meet in its store. They are no run from outside."""

_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
"""torch's name for: the store is served already, connect to it."""

Kind = Literal["train", "evaluate"]
"""Which stage the job is of."""

TakePart = Callable[[Path], Callable[[], None] | None]
"""Takes part in the job in a directory; gives what has to be called last, or None."""

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
        with contextlib.suppress(RuntimeError):
            store.set(f"{place.key}/over", "1")


def tell_job(place: Place, work: Path, kind: Kind) -> None:
    """For process 0: what had to be prepared is; the others may take part in the job in `work`."""
    _tell(store_of(place), place, {"work": str(work.resolve()), "kind": kind})


def follow(place: Place, parts: Mapping[Kind, TakePart]) -> None:
    """For the other processes: wait for the job, take part in it, and say goodbye.

    parts: how to take part in the job of each kind.
    Raises StageError where process 0 failed or ended before there was a job.
    """
    store = _store(place)
    job = _awaited(store, place)
    last = None
    try:
        if "work" in job:
            last = parts[job["kind"]](Path(job["work"]))
        elif job.get("failure"):
            failure = job["failure"]
            raise StageError(f"process 0 failed: {failure['message']}", hint=failure["hint"])
    finally:  # without a job the stage was done before
        _say_goodbye(store, place)
    if last is not None:
        last()


def await_end(place: Place, seconds: float) -> None:
    """For the other processes: wait until process 0 has done all that it does, at most `seconds`.

    srun and torchrun end all processes as soon as one leaves with another exit status than 0: process 0,
    which writes what is kept, has to be the first.
    """
    with contextlib.suppress(RuntimeError, StageError):  # the time is up, or the store went with process 0
        store_of(place).wait([f"{place.key}/over"], timedelta(seconds=seconds))


def store_of(place: Place) -> TCPStore:
    """A connection to the store where the processes meet, which is served already.

    Raises StageError where it can't be reached.
    """
    return _store(place, serve=False)


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
