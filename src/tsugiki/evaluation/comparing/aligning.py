"""Which answers of two or more models can be compared: the same task, dataset, item and prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tsugiki.errors import DataError
from tsugiki.evaluation.tasks.base import Row

Key = tuple[str, str]
_ITEMS_SHOWN = 5


@dataclass(frozen=True)
class Alignment:
    """What became of one task on one dataset.

    aligned: items that all models answered to the same prompt. only: of each model, items that another one
    lacks. prompts: items that were asked with different prompts. unscored: items without a score from some
    model. absent: models without any row of the task. examples: some of the items that were left out.
    """

    task: str
    dataset: str
    aligned: int
    only: dict[str, int]
    prompts: int
    unscored: int
    absent: tuple[str, ...]
    examples: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not (any(self.only.values()) or self.prompts or self.unscored or self.absent)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"absent": list(self.absent), "examples": list(self.examples)}


def align(
    rows: Sequence[Row], models: Sequence[str], *, same_prompt: bool = True
) -> tuple[list[Row], list[Alignment]]:
    """The rows of items that all models answered, and for each task and dataset what could not be aligned.

    same_prompt: leave out items whose prompt_hash differs between models; a missing hash fits any. Rows of a
    task that not every model has are left out. Raises DataError where nothing is left.
    """
    parts: dict[Key, dict[str, dict[str, list[Row]]]] = {}
    for row in rows:
        if row["model"] in models:
            by_model = parts.setdefault((row["task"], row["dataset"]), {})
            by_model.setdefault(row["model"], {}).setdefault(row["item"], []).append(row)
    kept: list[Row] = []
    found = []
    for (task, dataset), by_model in sorted(parts.items()):
        part, alignment = _align_task((task, dataset), by_model, models, same_prompt=same_prompt)
        kept += part
        found.append(alignment)
    if not kept:
        raise DataError(
            f"{', '.join(models)} have no item in common: " + ("; ".join(map(said, found)) or "no rows"),
            hint="compare tables of the same tasks; --any-prompt takes items that were asked differently too",
        )
    return kept, found


def _align_task(
    key: Key, by_model: dict[str, dict[str, list[Row]]], models: Sequence[str], *, same_prompt: bool
) -> tuple[list[Row], Alignment]:
    absent = tuple(model for model in models if model not in by_model)
    every = {item for answers in by_model.values() for item in answers}
    shared = set.intersection(*(set(answers) for answers in by_model.values())) if not absent else set()
    prompts = {item for item in shared if same_prompt and _prompts_differ(by_model, item)}
    scored = _is_scored(by_model)
    unscored = {
        item
        for item in shared - prompts
        if scored and any(not _has_score(row) for one in by_model.values() for row in one[item])
    }
    good = shared - prompts - unscored
    alignment = Alignment(
        task=key[0],
        dataset=key[1],
        aligned=len(good),
        only={model: len(answers.keys() - shared) for model, answers in by_model.items()},
        prompts=len(prompts),
        unscored=len(unscored),
        absent=absent,
        examples=tuple(sorted(every - good)[:_ITEMS_SHOWN]),
    )
    rows = [row for answers in by_model.values() for item in sorted(good) for row in answers[item]]
    return rows, alignment


def _prompts_differ(by_model: dict[str, dict[str, list[Row]]], item: str) -> bool:
    hashes = {row["prompt_hash"] for answers in by_model.values() for row in answers[item]} - {None, ""}
    return len(hashes) > 1


def _has_score(row: Row) -> bool:
    return row["score"] is not None or row["nll_nats"] is not None or row["sums"] is not None


def _is_scored(by_model: dict[str, dict[str, list[Row]]]) -> bool:
    """Whether the task is scored at all: generations are only shown."""
    return any(_has_score(row) for one in by_model.values() for rows in one.values() for row in rows)


def said(one: Alignment) -> str:
    """What was left out of a task, as a sentence; empty where nothing was."""
    return "" if one.complete else f"{one.task} on {one.dataset}: {'; '.join(reasons(one))}"


def reasons(one: Alignment) -> list[str]:
    """Why items of a task were left out, in words; empty where none was."""
    words = [f"no rows of {', '.join(one.absent)}"] if one.absent else []
    if not one.absent:
        words += [f"{_items(count)} only {model} has" for model, count in one.only.items() if count]
    if one.prompts:
        words.append(f"{_items(one.prompts)} {_were(one.prompts)} asked with different prompts")
    if one.unscored:
        words.append(
            f"{_items(one.unscored)} {'has' if one.unscored == 1 else 'have'} no score from some model"
        )
    return words


def _items(count: int) -> str:
    return f"{count:,} item" if count == 1 else f"{count:,} items"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
