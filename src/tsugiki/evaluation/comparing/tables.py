"""Reading item scores from anywhere: our scores, tables of items, logs of lm-evaluation-harness."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.scores import COMPARISON, SCHEMA, SCORES
from tsugiki.errors import InputError
from tsugiki.evaluation.exchange.samples import read_lm_eval
from tsugiki.evaluation.tasks.base import Measure, Row

_NEEDED = ("task", "item", "score")
_BITS = "bits-per-byte"


@dataclass(frozen=True)
class Source:
    """The rows of one argument, its models in the order met, and how its tasks are read, where it says."""

    rows: list[Row]
    models: tuple[str, ...]
    measures: dict[str, Measure]


def read_source(word: str) -> Source:
    """Read `PATH` or `NAME=PATH`, where NAME renames the only model of the table.

    PATH: a directory with scores.parquet (an evaluate stage), a .parquet file, a .csv or .jsonl table with
    the columns task, item and score and perhaps model, dataset, cluster and others of scores.parquet, or what
    lm-evaluation-harness logs. Raises InputError where it is none of these.
    """
    name, mark, rest = word.partition("=")
    path = Path(rest if mark and not Path(word).exists() else word)
    name = name if mark and not Path(word).exists() else ""
    if not path.exists():
        raise InputError(f"there is no {path}", hint="name evaluate stages, runs' scores or tables of items")
    rows, measures = _read(path)
    if not rows:
        raise InputError(f"{path} holds no rows", hint="evaluate a model first")
    models = _in_order(path, tuple(dict.fromkeys(row["model"] for row in rows)))
    if name:
        if len(models) > 1:
            raise InputError(
                f"{path} holds several models ({', '.join(models)}), so that {name}= names none of them",
                hint=f"write {path} alone",
            )
        rows, models = [row | {"model": name} for row in rows], (name,)
    return Source(rows, models, measures)


def _in_order(path: Path, models: tuple[str, ...]) -> tuple[str, ...]:
    """The models in the order of the stage that scored them, its baseline first."""
    place = (path if path.is_dir() else path.parent) / COMPARISON
    if not place.exists():
        return models
    data = read_json(place)
    order = [data.get("baseline"), *data.get("models", [])]
    known = tuple(dict.fromkeys(name for name in order if name in models))
    return (*known, *(name for name in models if name not in known))


def _read(path: Path) -> tuple[list[Row], dict[str, Measure]]:
    if path.is_dir():
        if (path / SCORES).exists():
            return _parquet(path / SCORES), _measures(path / COMPARISON)
        return _lm_eval(path)
    if path.suffix == ".parquet":
        return _parquet(path), _measures(path.parent / COMPARISON)
    if path.suffix == ".csv":
        return _plain(path, _csv_rows(path)), {}
    if path.suffix in {".jsonl", ".json"}:
        found = _json_rows(path)
        if found and "doc_id" in found[0]:
            return _lm_eval(path)
        return _plain(path, found), {}
    raise InputError(f"{path} is no table of items", hint="give .parquet, .csv or .jsonl, or a directory")


def _parquet(path: Path) -> list[Row]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} can't be read as Parquet: {error}", hint="was it cut off?") from error
    return _plain(path, table.to_pylist())


def _plain(path: Path, found: Sequence[Row]) -> list[Row]:
    """Rows with all columns of scores.parquet; those that are missing are None."""
    missing = [name for name in _NEEDED if found and name not in found[0]]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}", hint=f"a table of items needs {', '.join(_NEEDED)}"
        )
    empty = dict.fromkeys(SCHEMA.names)
    rows = []
    for one in found:
        row = empty | {key: value for key, value in one.items() if key in empty}
        row["model"] = str(row["model"] or path.stem)
        row["task"], row["item"] = str(row["task"]), str(row["item"])
        row["dataset"] = str(row["dataset"] or row["task"])
        row["score"] = _score(path, row)
        rows.append(row)
    return rows


def _score(path: Path, row: Row) -> float | None:
    value = row["score"]
    if value is None or value == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: item {row['item']} of {row['task']} has the score {value!r}, which is no number",
            hint="leave the field empty where there is no score",
        ) from error


def _csv_rows(path: Path) -> list[Row]:
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return [dict(row) for row in csv.DictReader(lines)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as CSV: {error}", hint="save it as UTF-8") from error


def _json_rows(path: Path) -> list[Row]:
    rows: list[Any] = []
    try:
        text = path.read_text(encoding="utf-8")
        rows = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} can't be read as JSON lines: {error}", hint="was it cut off?") from error
    if any(not isinstance(row, dict) for row in rows):
        raise InputError(f"{path} holds something else than objects", hint="write one object a line")
    return rows


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _lm_eval(path: Path) -> tuple[list[Row], dict[str, Measure]]:
    if path.is_dir() and not any(path.rglob("samples_*.jsonl")):
        raise InputError(
            f"{path} holds no {SCORES} and no samples_*.jsonl",
            hint="name an evaluate stage that has finished, or a table of items",
        )
    return _plain(path, read_lm_eval(path)), {}


def _measures(path: Path) -> dict[str, Measure]:
    """How the stage read its tasks, from its comparison.json; empty where there is none."""
    if not path.exists():
        return {}
    tasks = read_json(path).get("tasks", [])
    return {
        task["task"]: Measure(
            name=task["metric"],
            lower_is_better=task["lower_is_better"],
            chance=task["chance"],
            by_byte=task.get("by_byte", task["task"] == _BITS),
            corpus=task.get("corpus"),
            cluster=task.get("cluster") or "document",
        )
        for task in tasks
    }


def measures_for(rows: Sequence[Row], known: dict[str, Measure]) -> dict[str, Measure]:
    """Measures of all scored tasks: as the tables say, else accuracy for 0 and 1, a score for all else."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row["score"] is not None:
            scores.setdefault(row["task"], []).append(row["score"])
    found = dict(known)
    for task, values in scores.items():
        if task not in found:
            binary = bool(np.isin(values, (0.0, 1.0)).all())
            bits = task == _BITS
            name = "bits per byte" if bits else "accuracy" if binary else "score"
            found[task] = Measure(name, lower_is_better=bits, by_byte=bits)
    return {task: measure for task, measure in found.items() if task in scores}
