"""Many independent tasks over all cores of this machine, or of a Ray cluster, by Daft: one piece of code.

A task is a module-level function of one JSON-able job; what it makes it writes to files, and what it returns
is JSON. Daft's own `read_warc` aborts the whole query on a truncated file, so reading is ours (`read.py`),
one file a task; `batch_size=1` and `max_concurrency` are what makes it use all cores (docs/architecture.md).
On Ray the nodes need Tsugiki installed and the run's directory on a file system that all of them share.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tsugiki.errors import BY_NAME, DependencyError, StageError, TsugikiError

EngineName = Literal["local", "ray"]
Job = Mapping[str, Any]
Task = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Engine:
    """Where tasks run. With `local` and one worker: in this process, without Daft."""

    name: EngineName = "local"
    workers: int = 1
    ray_address: str | None = None
    """Address of a Ray cluster, e.g. `auto` or `ray://head:10001`; None starts one on this machine."""


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
    yield from _with_daft(task, jobs, engine)


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
            hint="run the same command again (finished files are kept), with fewer workers if memory ran out",
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
        own = {"num_cpus": engine.workers, "include_dashboard": False} if engine.ray_address is None else {}
        try:
            ray.init(address=engine.ray_address, log_to_driver=False, configure_logging=False, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise StageError(
                f"no Ray cluster answers at {engine.ray_address or 'this machine'}: {error}",
                hint="start one with `ray start --head`, and name its address: ray_address: auto",
            ) from error
    daft.set_runner_ray(noop_if_initialized=True)


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


class Rate:
    """How fast something goes on and when it will be done, for a line that a person reads."""

    def __init__(self, total_bytes: float) -> None:
        self._total = total_bytes
        self._start = time.monotonic()
        self._bytes = 0.0
        self._pages = 0

    def note(self, size: float, pages: int) -> str:
        """Count a finished piece; gives e.g. `912 pages/s, 3 min left`."""
        self._bytes += size
        self._pages += pages
        seconds = max(time.monotonic() - self._start, 1e-9)
        left = seconds * (self._total - self._bytes) / self._bytes if self._bytes else 0.0
        return f"{self._pages / seconds:,.0f} pages/s, {_duration(left)} left"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"  # noqa: PLR2004



# --- the old way, until the stage has been switched over ---
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pyarrow as pa  # noqa: E402
from pathlib import Path  # noqa: E402
from tsugiki.corpus.pipeline import Settings, make_unit  # noqa: E402

Edges = npt.NDArray[np.int64]


def make_units(jobs: Sequence[tuple[Path, Path]], settings: Settings, workers: int) -> Iterator[str]:
    """Make every unit (input file, unit file); yields the name of each input when it is done.

    With one worker everything runs in this process, without Daft. Raises what `make_unit` raises, and
    StageError where a worker process dies.
    """
    if workers <= 1 or len(jobs) <= 1:
        for source, target in jobs:
            make_unit(source, target, settings)
            yield source.name
        return
    import daft
    from daft.exceptions import DaftCoreException

    @daft.cls(max_concurrency=workers, use_process=True)
    class UnitMaker:
        """Holds what a worker process loads once: compiled kernels and the language model."""

        def __init__(self, settings: Settings) -> None:
            self.settings = settings

        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)
        def make(self, sources: daft.Series, targets: daft.Series) -> list[str]:
            pairs = zip(sources.to_pylist(), targets.to_pylist(), strict=True)
            return [_make_reporting(Path(source), Path(target), self.settings) for source, target in pairs]

    paths = {"source": [str(source) for source, _ in jobs], "target": [str(target) for _, target in jobs]}
    frame = daft.from_pydict(paths)
    made = frame.select(UnitMaker(settings).make(frame["source"], frame["target"]).alias("report"))
    try:
        for row in made.iter_rows():
            yield _name_or_raise(json.loads(row["report"]))
    except (DaftCoreException, RuntimeError) as error:
        raise StageError(
            f"a worker process failed: {error}",
            hint="run the same command again (finished files are kept), with fewer workers if memory ran out",
        ) from error


def _make_reporting(source: Path, target: Path, settings: Settings) -> str:
    """Make one unit in a worker process; errors of ours cross to the driver as data, not as Daft's text."""
    try:
        make_unit(source, target, settings)
    except TsugikiError as error:
        return json.dumps({"error": error.as_dict()})
    return json.dumps({"name": source.name})


def _name_or_raise(report: dict[str, Any]) -> str:
    if "error" not in report:
        return str(report["name"])
    error = report["error"]
    raise BY_NAME.get(error["type"], StageError)(error["message"], hint=error["hint"])


def shared_bands(keys: npt.NDArray[np.uint64]) -> Edges:
    """Pairs (smallest document, other document) of every group of documents with an equal band key.

    keys: shape (documents, bands); keys of different bands differ (`kernels.band_keys`). The pairs connect
    the same documents as all pairs of each group would. Sorted, distinct; shape (pairs, 2).
    """
    import daft

    documents, bands = keys.shape
    if documents < 2:  # noqa: PLR2004
        return np.empty((0, 2), np.int64)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(keys.reshape(-1)), bands)
    frame = daft.from_arrow(
        pa.table({"document": pa.array(np.arange(documents)), "key": flat.cast(pa.list_(pa.uint64()))})
    ).explode("key")
    groups = (
        frame.groupby("key")
        .agg(daft.col("document").min().alias("first"), daft.col("document").count().alias("size"))
        .where(daft.col("size") > 1)
    )
    pairs = (
        frame.join(groups, on="key")
        .where(daft.col("document") != daft.col("first"))
        .select("first", "document")
        .distinct()
        .sort(["first", "document"])
        .to_arrow()
    )
    return np.stack([pairs["first"].to_numpy(), pairs["document"].to_numpy()], axis=1).astype(np.int64)
