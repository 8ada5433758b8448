"""Every model answers every item, in units that survive a kill.

A unit is a model, a task, a dataset and a run of items: `UNIT_ITEMS`, or fewer where much is written. Its
rows are written atomically under a name that holds a hash of its questions; a unit whose file exists is not
asked again. Units, and the batches inside them, follow from the items alone, so a run that was killed sees
the same batches as one that was not.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.files import atomic_path
from tsugiki.artifacts.scores import SCHEMA
from tsugiki.errors import StageError
from tsugiki.evaluation.backend import Backend
from tsugiki.evaluation.checking import AnswerError, checked
from tsugiki.evaluation.items import Item, byte_length, stable_hash
from tsugiki.evaluation.sharing import ALONE, Share
from tsugiki.evaluation.tasks.base import Row, Task, base_row

UNIT_ITEMS = 64
UNIT_WRITTEN_BYTES = 1 << 18
"""What a unit may have written at most: eight items of HumanEval with their ten samples each. A kill loses a
unit, and several processes share out units."""
MAXIMUM_ERROR_SHARE = 0.01
"""Items of a task that may stay without an answer: a fault of a server says nothing about the model. One in a
hundred is about the half-width of the tightest of the nineteen benchmarks (0.7 to 9 points)."""

FEWEST_EMPTY = 20
"""A model that writes nothing for all of so many items is not scored 0 but refused."""


@dataclass(frozen=True)
class Questions:
    """The items of one task on one dataset."""

    task: Task
    dataset: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Unit:
    """What one model is asked at a time; `name` is the stem of its file."""

    model: str
    task: Task
    items: tuple[Item, ...]
    name: str


WRITTEN_COST = 4.0
"""A byte that is written costs about as much as so many that are read: it has a pass of its own."""


def cost_of(unit: Unit) -> float:
    """About how much work a unit is, in bytes that are read; only to deal units out evenly."""
    texts = [
        text for item in unit.items for text in (item.prompt, *item.choices, *getattr(item, "contexts", ()))
    ]
    written = unit.task.written_bytes * len(unit.items)
    return sum(byte_length(text) for text in texts) + WRITTEN_COST * written


Notify = Callable[[int, int, Unit, float | None], None]
"""Called with the items done, the items in all, the unit at work, and its seconds once it is done."""


def plan_units(models: Sequence[str], questions: Sequence[Questions]) -> list[Unit]:
    """All units, model after model, so that each model is loaded once."""
    units = []
    for number, model in enumerate(models):
        for asked in questions:
            size = _items_of_unit(asked.task)
            for start in range(0, len(asked.items), size):
                items = asked.items[start : start + size]
                key = stable_hash(
                    model, asked.task.name, asked.dataset, *(f"{item.id}{item.prompt_hash}" for item in items)
                )
                units.append(
                    Unit(model, asked.task, items, f"{number:02d}-{asked.task.name}-{start:06d}-{key}")
                )
    return units


def _items_of_unit(task: Task) -> int:
    most = UNIT_WRITTEN_BYTES // task.written_bytes if task.written_bytes else UNIT_ITEMS
    return max(1, min(UNIT_ITEMS, most))


def answer_all(
    units: Sequence[Unit],
    load: Mapping[str, Callable[[], Backend]],
    directory: Path,
    notify: Notify,
    *,
    maximum_error_share: float = MAXIMUM_ERROR_SHARE,
    share: Share = ALONE,
) -> list[Row]:
    """The rows of all units, those that were finished earlier read from `directory`.

    load: how to get each model's backend; called only where something is left to ask it. maximum_error_share:
    items of a task that may stay without an answer of a model; their rows say why in `error` and have no
    score. Units with such rows are asked again when the run is. share: the part of the units that this
    process asks; the rest is waited for.

    Raises StageError where a model does not give one answer an item, or answers too few of a task's items.
    """
    answer_share(units, load, directory, notify, maximum_error_share=maximum_error_share, share=share)
    share.wait([_file(directory, unit) for unit in units])
    rows = [row for unit in units for row in pq.read_table(_file(directory, unit)).to_pylist()]
    _check_errors(rows, units, maximum_error_share)
    return rows


def answer_share(
    units: Sequence[Unit],
    load: Mapping[str, Callable[[], Backend]],
    directory: Path,
    notify: Notify,
    *,
    maximum_error_share: float = MAXIMUM_ERROR_SHARE,
    share: Share = ALONE,
) -> None:
    """Ask this process's part of the units; see `answer_all`."""
    mine = [units[number] for number in share.mine([cost_of(unit) for unit in units])]
    finished = {unit.name for unit in mine if _is_finished(_file(directory, unit))}
    total, done = (
        sum(len(unit.items) for unit in some)
        for some in (mine, [unit for unit in mine if unit.name in finished])
    )
    asked = _items_asked(units)
    backend: Backend | None = None
    loaded = ""
    answered: list[Row] = []
    for unit in mine:
        if unit.name in finished:
            continue
        notify(done, total, unit, None)
        if backend is None or loaded != unit.model:
            backend = None  # free the memory of the last model before the next one is loaded
            backend, loaded = checked(load[unit.model](), unit.model), unit.model
        begun = time.monotonic()
        most = maximum_error_share * asked[unit.model, unit.task.name, unit.items[0].dataset]
        rows = [{"model": unit.model, **row} for row in _ask(unit.task, backend, unit.items, most)]
        with atomic_path(_file(directory, unit)) as partial:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)
        done += len(unit.items)
        notify(done, total, unit, time.monotonic() - begun)
        answered += rows
        if any(row.get("error") for row in rows):
            _check_errors(answered, units, maximum_error_share)


def _ask(task: Task, backend: Backend, items: Sequence[Item], most_errors: float) -> list[Row]:
    """The items' rows. Where an answer is missing they are asked one by one, to find whose it is.

    Where more than `most_errors` have none, the rest is not asked: a server that is down takes its time.
    """
    try:
        return task.rows(backend, items)
    except AnswerError as error:
        if len(items) == 1:
            return [base_row(items[0]) | {"error": error.message}]
    rows: list[Row] = []
    errors = 0
    for item in items:
        found = _ask(task, backend, [item], most_errors)
        rows += found
        errors += any(row.get("error") for row in found)
        if errors > most_errors:
            break
    return rows


def _items_asked(units: Sequence[Unit]) -> Counter[tuple[str, str, str]]:
    """Items by model, task and dataset."""
    asked: Counter[tuple[str, str, str]] = Counter()
    for unit in units:
        asked[unit.model, unit.task.name, unit.items[0].dataset] += len(unit.items)
    return asked


def _check_errors(rows: Sequence[Row], units: Sequence[Unit], maximum_share: float) -> None:
    """Raise StageError where a model left more of a task's items without an answer than may be."""
    asked = _items_asked(units)
    failed: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.get("error"):
            failed.setdefault((row["model"], row["task"], row["dataset"]), []).append(row["error"])
    for (model, task, dataset), errors in failed.items():
        items = asked[model, task, dataset]
        if len(errors) > maximum_share * items:
            raise StageError(
                f'{errors[0]} ({len(errors)} of {items} items of {task} on "{dataset}" have no answer of '
                f'model "{model}"; at most {maximum_share:.1%} may)',
                hint="no answer is not a wrong answer, so nothing is scored; mend the model or its server, "
                "and run the same command: it asks again",
            )


def _file(directory: Path, unit: Unit) -> Path:
    return directory / f"{unit.name}.parquet"


def _is_finished(file: Path) -> bool:
    """Whether the unit was asked, and every item answered."""
    if not file.exists():
        return False
    errors = pq.read_table(file, columns=["error"])["error"]
    return errors.null_count == len(errors)


def check_rows(rows: Sequence[Row], models: Sequence[str], questions: Sequence[Questions]) -> None:
    """The stage's post-condition: every item answered once by every model, every score finite.

    Raises StageError that names the first task at fault.
    """
    answered: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if not row["sample"]:  # of several samples of an item the first one stands for all
            answered.setdefault((row["model"], row["task"], row["dataset"]), []).append(row["item"])
    for model in models:
        for asked in questions:
            seen = answered.get((model, asked.task.name, asked.dataset), [])
            if sorted(seen) != sorted(item.id for item in asked.items):
                raise StageError(
                    f'{asked.task.name} on "{asked.dataset}": model "{model}" has '
                    f"{len(set(seen))} scored items, {len(asked.items)} were asked",
                    hint="run the stage again with --rebuild; if that does not help, please report it",
                )
    scored = {asked.task.name for asked in questions if asked.task.measure is not None}
    for row in rows:
        if row["task"] in scored and (
            (row["score"] is None and not row.get("error"))
            or (row["score"] is not None and not math.isfinite(row["score"]))
            or (row["empty"] and row["nll_nats"] is not None)  # a text that was written may be empty
        ):
            raise StageError(
                f'{row["task"]} on "{row["dataset"]}": model "{row["model"]}" left item {row["item"]} '
                "without a score",
                hint="look at the row in scores.parquet; a text that gives no tokens can't be scored",
            )
    _check_written(rows, scored)


def _check_written(rows: Sequence[Row], scored: Collection[str]) -> None:
    """Raise StageError where a model wrote nothing at all: the harness or the model is at fault then."""
    written: dict[tuple[str, str, str], list[bool]] = {}
    for row in rows:
        if row["task"] in scored and row["nll_nats"] is None and not row.get("error"):
            written.setdefault((row["model"], row["task"], row["dataset"]), []).append(bool(row["empty"]))
    for (model, task, dataset), empty in written.items():
        if all(empty) and len(empty) >= FEWEST_EMPTY:
            raise StageError(
                f'{task} on "{dataset}": model "{model}" wrote nothing for any of {len(empty)} items',
                hint="see whether it ends every text at once, or whether a stop is the first thing it writes",
            )
