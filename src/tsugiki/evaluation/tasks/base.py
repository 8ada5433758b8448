"""What every task has, and the row that it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tsugiki.evaluation.backend import Backend
from tsugiki.evaluation.items import Item, Page

Row = dict[str, Any]
"""One row of scores.parquet (artifacts.scores.SCHEMA) without `model`."""


@dataclass(frozen=True)
class Measure:
    """How a task's `score` column is read.

    chance: the score of guessing, where that is defined. by_byte: the task's value is
    sum(nll) / (ln 2 * sum(bytes)) and not the mean of the scores. corpus: the name of a metric that is
    computed from the rows' `sums`, added up ("bleu"; `tsugiki.evaluation.metrics.corpus.CORPUS_METRICS`), and
    not the mean of the scores either. cluster: what a cluster is, for the reader ("paragraph", "subject").
    """

    name: str
    lower_is_better: bool
    chance: float | None = None
    by_byte: bool = False
    corpus: str | None = None
    cluster: str = "document"


class Task(Protocol):
    """A task as the runner knows it: rows from a model's answers to items."""

    @property
    def name(self) -> str:
        """The word that a recipe writes."""
        ...

    @property
    def measure(self) -> Measure | None:
        """How to read the scores; None where answers are shown and not scored."""
        ...

    @property
    def written_bytes(self) -> int:
        """What the model writes for an item, in UTF-8 bytes, at most; 0 where nothing is written."""
        ...

    def rows(self, backend: Backend, items: Sequence[Item]) -> list[Row]:
        """Ask the model and write one row an item (or one a sample), in the items' order."""
        ...


class PageTask(Task, Protocol):
    """A task whose items are made of held-out pages."""

    def items(self, pages: Sequence[Page]) -> list[Item]:
        """The questions made from a dataset's pages; the same for every model."""
        ...


def base_row(item: Item) -> Row:
    """The columns that come from the item alone; the rest is None."""
    return {
        "task": item.task,
        "dataset": item.dataset,
        "language": item.language,
        "domain": item.domain,
        "item": item.id,
        "cluster": item.cluster,
        "prompt_hash": item.prompt_hash,
        "prompt": item.prompt,
        "output": None,
        "gold": None,
        "score": None,
        "nll_nats": None,
        "tokens": None,
        "bytes": None,
        "characters": None,
        "truncated": None,
        "cut_context": None,
        "empty": None,
        "other_scores": None,
        "sums": None,
        "sample": None,
    }
