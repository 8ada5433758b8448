"""Scores of evaluate stages as a table of models x benchmarks: means over items, samples averaged first.

A metric of a whole corpus (BLEU, chrF) is no mean of items: its value is the one that the stage computed from
the added counts of all items and keeps in comparison.json.
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Final

from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.scores import COMPARISON, read_scores
from tsugiki.study.findings import Finding
from tsugiki.study.reading import Cell, RawTable

BITS: Final = "bits-per-byte"
_COLUMNS: Final = ("model", "task", "dataset", "item", "score", "nll_nats", "bytes", "sums")


def read_artifact(directory: Path) -> tuple[RawTable, list[Finding]]:
    """The table of one scores artifact, and what was left out of it or averaged otherwise than published.

    Columns are called by the task, with the dataset after a slash where it has another name. Bits per byte is
    the sum of bits by the sum of bytes; it has no upper bound and less is better. Raises InputError where the
    directory holds no scores.
    """
    table = read_scores(directory)
    rows = table.select([name for name in _COLUMNS if name in table.column_names]).to_pylist()
    items: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    bits: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    unscored: dict[tuple[str, str], int] = defaultdict(int)
    corpus: set[str] = set()
    for row in rows:
        key = (row["model"], column_name(row["task"], row["dataset"]))
        if row["task"] == BITS:
            if row["nll_nats"] is not None and row["bytes"]:
                bits[key][0] += row["nll_nats"] / math.log(2)
                bits[key][1] += row["bytes"]
        elif row["score"] is None or not math.isfinite(row["score"]):
            unscored[key] += 1
        else:
            items[key][row["item"]].append(row["score"])
            corpus |= {key[1]} if row.get("sums") else set()
    means: dict[tuple[str, str], float] = {key: total / size for key, (total, size) in bits.items() if size}
    for key, scores in items.items():
        within = [math.fsum(samples) / len(samples) for samples in scores.values()]
        means[key] = math.fsum(within) / len(within)
    known = _corpus_values(directory)
    means |= {key: value for key, value in known.items() if key in means}
    without = {key for key in means if key[1] in corpus and key not in known}
    return _table(directory, means), _findings(directory, means, unscored, without)


def _corpus_values(directory: Path) -> dict[tuple[str, str], float]:
    """The corpus metrics of each model that comparison.json has; empty without the file."""
    path = directory / COMPARISON
    if not path.exists():
        return {}
    found = {}
    for task in read_json(path).get("tasks", []):
        for model, entry in task["by_model"].items():
            if task.get("corpus") and entry["value"] is not None:
                found[model, column_name(task["task"], task["dataset"])] = float(entry["value"])
    return found


def column_name(task: str, dataset: str) -> str:
    """What a task on a dataset is called among the columns."""
    return task if task == dataset else f"{task}/{dataset}"


def _table(directory: Path, means: dict[tuple[str, str], float]) -> RawTable:
    models = sorted({model for model, _ in means})
    benchmarks = sorted({benchmark for _, benchmark in means})
    rows: list[tuple[Cell, ...]] = [
        (model, *(means.get((model, benchmark)) for benchmark in benchmarks)) for model in models
    ]
    return RawTable(str(directory), ("model", *benchmarks), tuple(rows))


def _findings(
    directory: Path,
    means: dict[tuple[str, str], float],
    unscored: dict[tuple[str, str], int],
    without: set[tuple[str, str]],
) -> list[Finding]:
    found = [
        Finding("missing", f"{directory}: {count} items without a score", model, benchmark)
        for (model, benchmark), count in sorted(unscored.items())
        if (model, benchmark) in means  # a task that nobody scores is shown, not scored
    ]
    said = f"{directory}: the mean of item scores; no {COMPARISON} tells the score of the whole corpus"
    found += [Finding("mean", said, "", name) for name in sorted({benchmark for _, benchmark in without})]
    return found
