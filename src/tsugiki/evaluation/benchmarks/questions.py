"""From a task, a variant and its files to items: the same for every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.prompts import prompt_of, render, sections_of
from tsugiki.evaluation.benchmarks.schema import Settings, TaskSpec
from tsugiki.evaluation.benchmarks.shots import Record, jmmlu_parts, shots_for
from tsugiki.evaluation.benchmarks.sources import load_records
from tsugiki.evaluation.benchmarks.store import Found, Store
from tsugiki.evaluation.items import Item, stable_hash, stable_integer


@dataclass(frozen=True)
class Question(Item):
    """An item of a benchmark.

    references: all golds, none where the right answer is that there is none. contexts: one for each option,
    where all options have one text behind them (`choices` holds that text once). program: the tests behind
    the answer and the function that they call. sections: the prompt in parts, where it may be shortened for a
    model (prompts.sections_of).
    """

    references: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    program: tuple[str, str] = ("", "")
    sections: tuple[tuple[str, str], ...] = ()

    @property
    def prompt_hash(self) -> str:
        """A hash of everything that the model sees, and of what its answer is held against."""
        return stable_hash(self.prompt, *self.choices, *self.contexts, "", *self.references, *self.program)


@dataclass(frozen=True)
class Material:
    """The records of a task: those that are asked, and every split. sources: files with their hashes."""

    test: tuple[Record, ...]
    splits: Mapping[str, Sequence[Record]]
    sources: tuple[Mapping[str, Any], ...]


def read_material(task: TaskSpec, settings: Settings, store: Store) -> Material:
    """Load the test split, and the one that examples come from."""
    found = store.find(task, task.test)
    splits: dict[str, Sequence[Record]] = {task.test: load_records(found.files, found.origin)}
    sources = list(_facts(task.test, found))
    if task.parts == "jmmlu":
        splits.update(jmmlu_parts(splits[task.test]))
    elif settings.shots.count and settings.shots.choice != "written" and settings.shots.split not in splits:
        other = store.find(task, settings.shots.split)
        splits[settings.shots.split] = load_records(other.files, other.origin)
        sources += _facts(settings.shots.split, other)
    return Material(tuple(splits["test" if task.parts else task.test]), splits, tuple(sources))


def read_test(task: TaskSpec, store: Store) -> list[Record]:
    """The records that are asked, without those of other splits."""
    found = store.find(task, task.test)
    records = load_records(found.files, found.origin)
    return jmmlu_parts(records)["test"] if task.parts else list(records)


def _facts(split: str, found: Found) -> list[Mapping[str, Any]]:
    origin = found.origin
    where = origin.repository or origin.hub or "local"
    return [
        {"split": split, "source": where, "file": file.name, "sha256": file.sha256, "pinned": file.pinned}
        for file in found.files
    ]


def questions_of(
    task: TaskSpec,
    settings: Settings,
    material: Material,
    *,
    name: str,
    dataset: str,
    most: int | None,
    seed: int,
) -> list[Question]:
    """The items, at most `most`: those that come first by hash, in the order of the test split.

    Examples are drawn for all items before any is left out, so a part has the prompts of the whole.
    """
    shots = shots_for(settings.shots, material.test, material.splits.get(settings.shots.split, ()))
    chosen = range(len(material.test))
    if most is not None and most < len(material.test):
        ranked = sorted(chosen, key=lambda place: stable_integer(seed, task.name, material.test[place]["id"]))
        kept = set(ranked[:most])
        chosen = [place for place in chosen if place in kept]  # type: ignore[assignment]
    return [
        _question(task, settings, material.test[place], shots[place], (name, dataset)) for place in chosen
    ]


def _question(
    task: TaskSpec,
    settings: Settings,
    record: Mapping[str, Any],
    shots: Sequence[Mapping[str, Any]],
    row: tuple[str, str],
) -> Question:
    """One item; `row` is the name and the dataset that its rows have."""
    cluster = str(record[task.cluster.field]) if task.cluster else record["id"]
    origin = (*row, task.language, str(record.get("subject", "")), cluster, record["id"])
    prompt = prompt_of(settings, record, shots)
    golds = _golds(settings, record)
    program = (record["test"], record["entry_point"]) if settings.answer == "code" else ("", "")
    label = None if settings.label is None else int(record[settings.label])
    options = _options(settings, record)
    if settings.answer == "contexts":
        contexts = tuple(prompt + option for option in options)
        follows = settings.delimiter + render(settings.target, record)
        shown = contexts[label or 0]
        return Question(*origin, shown, (follows,), answer=label, references=golds, contexts=contexts)
    sections = () if settings.fit is None else sections_of(settings, record, shots)
    return Question(
        *origin, prompt, options, answer=label, references=golds, program=program, sections=sections
    )


def _golds(settings: Settings, record: Mapping[str, Any]) -> tuple[str, ...]:
    if settings.references is None:
        return ()
    if settings.references not in record:
        raise InputError(
            f'the record "{record["id"]}" has no field "{settings.references}" (it has: {", ".join(record)})',
            hint="`references` names the field with the gold answers",
        )
    found = record[settings.references]
    return tuple(str(one) for one in found) if isinstance(found, list | tuple) else (str(found),)


def _options(settings: Settings, record: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts that are compared, each with the delimiter before it."""
    if settings.options is None:
        return ()
    if isinstance(settings.options, tuple):
        return tuple(settings.delimiter + render(option, record) for option in settings.options)
    template = settings.options
    before = "" if settings.answer == "contexts" else settings.delimiter
    return tuple(before + render(template, {**record, "choice": choice}) for choice in record["choices"])
