"""Every model answers every item, in units that survive a kill.

A unit is a model, a task, a dataset and a run of at most `UNIT_ITEMS` items. Its rows are written atomically
under a name that holds a hash of its questions; a unit whose file exists is not asked again. Units, and the
batches inside them, follow from the items alone, so a run that was killed sees the same batches as one that
was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.files import atomic_path
from tsugiki.artifacts.scores import SCHEMA
from tsugiki.errors import StageError
from tsugiki.evaluation.backend import Backend, Choices, Continuation, Likelihood, Prompt
from tsugiki.evaluation.items import Item, stable_hash
from tsugiki.evaluation.tasks.base import Row, Task

UNIT_ITEMS = 64


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


Notify = Callable[[int, int, Unit, float | None], None]
"""Called with the items done, the items in all, the unit at work, and its seconds once it is done."""


def plan_units(models: Sequence[str], questions: Sequence[Questions]) -> list[Unit]:
    """All units, model after model, so that each model is loaded once."""
    units = []
    for number, model in enumerate(models):
        for asked in questions:
            for start in range(0, len(asked.items), UNIT_ITEMS):
                items = asked.items[start : start + UNIT_ITEMS]
                key = stable_hash(
                    model, asked.task.name, asked.dataset, *(f"{item.id}{item.prompt_hash}" for item in items)
                )
                units.append(
                    Unit(model, asked.task, items, f"{number:02d}-{asked.task.name}-{start:06d}-{key}")
                )
    return units


def answer_all(
    units: Sequence[Unit], load: Mapping[str, Callable[[], Backend]], directory: Path, notify: Notify
) -> list[Row]:
    """The rows of all units, those that were finished earlier read from `directory`.

    load: how to get each model's backend; called only where something is left to ask it.
    Raises StageError where a model gives a likelihood that is not finite, or not one answer an item.
    """
    total = sum(len(unit.items) for unit in units)
    done = sum(len(unit.items) for unit in units if _file(directory, unit).exists())
    backend: Backend | None = None
    loaded = ""
    for unit in units:
        if _file(directory, unit).exists():
            continue
        notify(done, total, unit, None)
        if backend is None or loaded != unit.model:
            backend = None  # free the memory of the last model before the next one is loaded
            backend, loaded = _Checked(load[unit.model](), unit.model), unit.model
        begun = time.monotonic()
        rows = [{"model": unit.model, **row} for row in unit.task.rows(backend, unit.items)]
        with atomic_path(_file(directory, unit)) as partial:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)
        done += len(unit.items)
        notify(done, total, unit, time.monotonic() - begun)
    return [row for unit in units for row in pq.read_table(_file(directory, unit)).to_pylist()]


def _file(directory: Path, unit: Unit) -> Path:
    return directory / f"{unit.name}.parquet"


class _Checked:
    """A backend whose answers are looked at: one for each question, and every likelihood a finite number."""

    def __init__(self, backend: Backend, model: str) -> None:
        self._backend = backend
        self._model = model

    def text_likelihoods(self, texts: Sequence[str]) -> list[Likelihood]:
        answers = self._backend.text_likelihoods(texts)
        self._check(len(texts), answers, ((answer,) for answer in answers))
        return answers

    def choice_likelihoods(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        answers = self._backend.choice_likelihoods(questions)
        self._check(len(questions), answers, answers)
        return answers

    def continuations(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        answers = self._backend.continuations(prompts)
        self._check(len(prompts), answers, ())
        return answers

    def _check(
        self, asked: int, answers: Sequence[object], likelihoods: Sequence[tuple[Likelihood, ...]] | Iterator
    ) -> None:
        if len(answers) != asked:
            raise StageError(
                f'model "{self._model}" gave {len(answers)} answers to {asked} questions',
                hint="this is a fault of the engine that runs the model; please report it",
            )
        for options in likelihoods:
            for answer in options:
                if not math.isfinite(answer.nll_nats):
                    raise StageError(
                        f'model "{self._model}" gives a log-likelihood of {answer.nll_nats}; '
                        "a finite number is needed",
                        hint="its weights are broken: look at the training loss for a divergence",
                    )


def check_rows(rows: Sequence[Row], models: Sequence[str], questions: Sequence[Questions]) -> None:
    """The stage's post-condition: every item answered once by every model, every score finite.

    Raises StageError that names the first task at fault.
    """
    answered: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
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
            row["score"] is None or not math.isfinite(row["score"]) or row["empty"]
        ):
            raise StageError(
                f'{row["task"]} on "{row["dataset"]}": model "{row["model"]}" left item {row["item"]} '
                "without a score",
                hint="look at the row in scores.parquet; a text that gives no tokens can't be scored",
            )
