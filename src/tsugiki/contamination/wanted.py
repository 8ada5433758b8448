"""What is looked for: a benchmark's questions and golds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.prompts import render
from tsugiki.evaluation.benchmarks.questions import read_test
from tsugiki.evaluation.benchmarks.reading import load_task, split_name
from tsugiki.evaluation.benchmarks.store import Store, sample_store


@dataclass(frozen=True)
class Wanted:
    """An item. answer: its gold, "" where the question holds all."""

    task: str
    language: str
    id: str
    question: str
    answer: str

    @property
    def key(self) -> str:
        """Task and item in one word."""
        return f"{self.task}#{self.id}"


def wanted_items(names: Sequence[str], data: str, accept_hashes: Sequence[str] = ()) -> list[Wanted]:
    """All items of the tasks' test splits, from a folder or from the sample.

    Raises InputError where files are missing or not the pinned ones, and for a task without `content`.
    """
    items = []
    for word in names:
        name, _ = split_name(word, "corrected")
        task = load_task(name)
        if task.content is None:
            raise InputError(
                f'the task "{task.name}" does not say what its questions are made of',
                hint="add `content: {question: ..., answer: ...}` to its file",
            )
        store = Store(Path(data).expanduser(), accept=frozenset(accept_hashes))
        for record in read_test(task, sample_store() if data == "sample" else store):
            question, answer = (
                render(template, record) for template in (task.content.question, task.content.answer)
            )
            items.append(Wanted(task.name, task.language, str(record["id"]), question, answer))
    return items
