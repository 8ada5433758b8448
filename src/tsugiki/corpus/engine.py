"""Many independent tasks over all cores of this machine, or of a Ray cluster, by Daft: one piece of code.

A task is a module-level function of one JSON-able job; what it makes it writes to files, and what it returns
is JSON. Daft's own `read_warc` aborts the whole query on a truncated file, so reading is ours (`read.py`),
one unit a task; `batch_size=1` and `max_concurrency` are what makes it use all cores (docs/architecture.md).
On this machine the process that asks is one of the workers: it has begun long before Daft's first process has
started and loaded its modules, and there is one fewer to start.
On Ray the nodes need Tsugiki installed and the run's directory on a file system that all of them share.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Literal

from tsugiki.corpus.claims import claims_for, close, take
from tsugiki.errors import DependencyError, StageError, TsugikiError, error_of

EngineName = Literal["local", "ray"]
Job = Mapping[str, Any]

SMALL_DOCUMENTS = 200_000
"""Up to so many documents, what comes after the units takes less time than starting processes."""
Task = Callable[[Any], dict[str, Any]]

_TAKEN = {"taken": True}
"""What a worker reports of a job that another one has taken."""

_REACH_SECONDS = 10.0
_AGAIN = "run the same command again (finished units are kept), with fewer workers if memory ran out"
_END_SECONDS = 20.0
_BEGIN_SECONDS = 20.0
"""For Daft to be loaded, at most."""

_SWITCH_SECONDS = 5e-4
"""How long a thread that has work for another core waits for Python's lock; Python's own 5 ms leave cores
idle between short tasks."""

_Arrived = SimpleQueue[dict[str, Any] | BaseException]
_ending: list[Thread] = []


@dataclass(frozen=True)
class Engine:
    """Where tasks run. With `local` and one worker: in this process, without Daft.

    threads: in threads of this process, which need no time to start.
    """

    name: EngineName = "local"
    workers: int = 1
    ray_address: str | None = None
    """Address of a Ray cluster, e.g. `auto` or `ray://head:10001`; None starts one on this machine."""
    threads: bool = False

    def for_documents(self, count: int) -> Engine:
        """The engine for short tasks over `count` documents: this process where they are few."""
        return Engine(workers=self.workers, threads=True) if count <= SMALL_DOCUMENTS else self


def give_memory_back() -> None:
    """Let Arrow allocate as everything else does: its own pool keeps what it has once held.

    On sixteen copies of the sample crawl that was a quarter of a process's memory; the time is the same.
    """
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())


def run_tasks(task: Task, jobs: Sequence[Job], engine: Engine) -> Iterator[dict[str, Any]]:
    """Run `task` on every job; yields what each returned, in the order in which they end.

    Raises what the task raises, StageError where a worker process dies, DependencyError without Ray.
    """
    if not jobs:
        return
    if engine.name == "local" and (engine.workers <= 1 or len(jobs) == 1):
        for job in jobs:
            yield task(job)
        return
    if engine.threads:
        yield from _with_threads(task, jobs, engine.workers)
        return
    if engine.name == "ray":
        yield from _with_daft(task, jobs, engine)
        return
    with claims_for(len(jobs)) as claims:
        yield from _with_others(task, jobs, engine, claims)


def _with_threads(task: Task, jobs: Sequence[Job], workers: int) -> Iterator[dict[str, Any]]:
    pool = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(task, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _with_others(task: Task, jobs: Sequence[Job], engine: Engine, claims: Path) -> Iterator[dict[str, Any]]:
    """Do the jobs in this process and in those of Daft: whoever is free takes the next one."""
    wait_for_others()
    marked = [{"job": job, "number": number, "claims": str(claims)} for number, job in enumerate(jobs)]
    others = replace(engine, workers=min(engine.workers, len(jobs)) - 1)
    arrived: _Arrived = SimpleQueue()
    begun = Event()

    def follow() -> None:
        try:
            for result in _with_daft(task, marked, others, begun):
                arrived.put(result)
            arrived.put(
                StageError("Daft ended before its last job", hint=_AGAIN)
            )  # only read if one is missing
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that asked)
            arrived.put(error)
        finally:
            begun.set()

    following = Thread(target=follow, name="daft", daemon=True)
    _ending.append(following)
    following.start()
    begun.wait(_BEGIN_SECONDS)  # loading modules at the same time would take both of them longer
    left = len(jobs)
    try:
        for number, job in enumerate(jobs):
            if take(claims, number):
                yield task(job)
                left -= 1
            for result in _come(arrived):
                yield result
                left -= 1
        while left:
            yield _result_of(arrived.get())
            left -= 1
    except BaseException:
        _stop(close(claims))
        wait_for_others()
        raise


def wait_for_others() -> None:
    """Wait for Daft's processes to end, which takes them a moment after their last job.

    Not for ever: where a process was killed before it had begun, Daft goes on waiting for it, and the jobs
    were done without it.
    """
    while _ending:
        _ending.pop().join(_END_SECONDS)


def _come(arrived: _Arrived) -> Iterator[dict[str, Any]]:
    """What has come of the others since this was asked last."""
    with suppress(Empty):
        while True:
            yield _result_of(arrived.get_nowait())


def _result_of(one: dict[str, Any] | BaseException) -> dict[str, Any]:
    if isinstance(one, BaseException):
        raise one
    return one


@contextmanager
def quick_switches() -> Iterator[None]:
    """Let threads that wait for Python's lock have it soon; for as long as this context lasts."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _stop(processes: set[int]) -> None:
    """End the workers of a run that has failed: their units may take minutes yet."""
    for process in processes - {os.getpid()}:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def _with_daft(
    task: Task, jobs: Sequence[Job], engine: Engine, begun: Event | None = None
) -> Iterator[dict[str, Any]]:
    import daft
    from daft.exceptions import DaftCoreException

    if engine.name == "ray":
        _connect(engine)
    workers = min(engine.workers, len(jobs))

    @daft.cls(max_concurrency=workers, use_process=True)
    class Worker:
        """Holds what a worker process loads once: the task's module, compiled kernels, language models."""

        def __init__(self, module: str, name: str) -> None:
            give_memory_back()
            self.task: Task = getattr(importlib.import_module(module), name)

        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)
        def run(self, given: daft.Series) -> list[str]:
            return [_reported(self.task, job) for job in given.to_pylist()]

    worker = Worker(task.__module__, task.__name__)
    partitions = min(len(jobs), 4 * workers) if engine.name == "ray" else 1
    dealt = [
        job for first in range(partitions) for job in jobs[first::partitions]
    ]  # large and small ones mixed
    frame = daft.from_pydict({"job": [json.dumps(job) for job in dealt]})
    if engine.name == "ray":
        frame = frame.into_partitions(partitions)
    done = frame.select(worker.run(frame["job"]).alias("report"))
    try:
        if begun is not None:
            begun.set()
        for row in done.iter_rows():
            report = json.loads(row["report"])
            if report != _TAKEN:
                yield _result_or_raise(report)
    except (DaftCoreException, RuntimeError) as error:
        raise StageError(
            f"a worker process failed: {error}",
            hint=_AGAIN,
        ) from error


def _connect(engine: Engine) -> None:
    """Make Daft use Ray, once a process."""
    try:
        import ray
    except ImportError as error:
        raise DependencyError(
            "engine: ray needs the package ray, which is not installed",
            hint="pip install 'tsugiki[ray]', or use engine: local",
        ) from error
    import daft

    if not ray.is_initialized():
        own: dict[str, Any] = {}
        if engine.ray_address is None:
            own = {"num_cpus": engine.workers, "include_dashboard": False}
        try:
            _reach(engine.ray_address)
            ray.init(address=engine.ray_address, log_to_driver=False, configure_logging=False, **own)
        except (OSError, RuntimeError, ValueError) as error:
            raise StageError(
                f"no Ray cluster answers at {engine.ray_address or 'this machine'}: {error}",
                hint="start one with `ray start --head`, and name its address: ray_address: auto",
            ) from error
    daft.set_runner_ray(noop_if_initialized=True)


def _reach(address: str | None) -> None:
    """Raise OSError where nobody listens at `host:port`: Ray itself would go on asking for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()


def _reported(task: Task, given: str) -> str:
    """Run in a worker process; errors of ours cross to the driver as data, not as Daft's text."""
    job = json.loads(given)
    if "claims" in job:
        if not take(Path(job["claims"]), job["number"]):
            return json.dumps(_TAKEN)
        job = job["job"]
    try:
        return json.dumps({"result": task(job)})
    except TsugikiError as error:
        return json.dumps({"error": error.as_dict()})


def _result_or_raise(report: dict[str, Any]) -> dict[str, Any]:
    if "error" not in report:
        result: dict[str, Any] = report["result"]
        return result
    raise error_of(report["error"])
