"""Daft: one call a file over all cores, and the group-by of MinHash bands. The same code runs on Ray.

Daft's own `read_warc` aborts the whole query on a truncated file, so reading is ours (`read.py`), one file a
call; `batch_size=1` and `max_concurrency` are what makes it use all cores (docs/architecture.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tsugiki.corpus.pipeline import Settings, make_unit
from tsugiki.errors import BY_NAME, StageError, TsugikiError

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
