"""Many independent tasks over all cores of this machine, or of a Ray cluster, by Daft: one piece of code.

A task is a module-level function of one JSON-able job; what it makes it writes to files, and what it returns
is JSON. Daft's own `read_warc` aborts the whole query on a truncated file, so reading is ours (`read.py`),
one unit a task; `batch_size=1` and `max_concurrency` are what makes it use all cores (docs/architecture.md).
On Ray the nodes need Tsugiki installed and the run's directory on a file system that all of them share.
"""

from __future__ import annotations

import importlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal

from tsugiki.errors import BY_NAME, DependencyError, StageError, TsugikiError

EngineName = Literal["local", "ray"]
Job = Mapping[str, Any]

SMALL_DOCUMENTS = 200_000
"""Up to so many documents, what comes after the units takes less time than starting processes."""
Task = Callable[[Any], dict[str, Any]]


_REACH_SECONDS = 10.0


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
    yield from _with_daft(task, jobs, engine)


def _with_threads(task: Task, jobs: Sequence[Job], workers: int) -> Iterator[dict[str, Any]]:
    pool = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([pool.submit(task, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _with_daft(task: Task, jobs: Sequence[Job], engine: Engine) -> Iterator[dict[str, Any]]:
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
    frame = daft.from_pydict({"job": [json.dumps(job) for job in jobs]})
    if engine.name == "ray":
        frame = frame.into_partitions(min(len(jobs), 4 * workers))
    done = frame.select(worker.run(frame["job"]).alias("report"))
    try:
        for row in done.iter_rows():
            yield _result_or_raise(json.loads(row["report"]))
    except (DaftCoreException, RuntimeError) as error:
        raise StageError(
            f"a worker process failed: {error}",
            hint="run the same command again (finished units are kept), with fewer workers if memory ran out",
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
    try:
        return json.dumps({"result": task(json.loads(given))})
    except TsugikiError as error:
        return json.dumps({"error": error.as_dict()})


def _result_or_raise(report: dict[str, Any]) -> dict[str, Any]:
    if "error" not in report:
        result: dict[str, Any] = report["result"]
        return result
    error = report["error"]
    raise BY_NAME.get(error["type"], StageError)(error["message"], hint=error["hint"])
