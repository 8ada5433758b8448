"""What a reader has to know before believing the scores: a harness fault often looks like a bad model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tsugiki.evaluation.tasks.base import Row

RATE = 0.05
"""Share of empty, broken or cut items from which an alarm is raised."""
FEW_CLUSTERS = 20
"""Below this, intervals are rough whatever the method (tests/evaluation measures their coverage)."""


def alarms_of(rows: Sequence[Row], tasks: Sequence[Mapping[str, Any]], models: Sequence[str]) -> list[str]:
    """Sentences, in a fixed order; empty where nothing is odd."""
    return [*_row_alarms(rows, models), *_task_alarms(tasks)]


def _row_alarms(rows: Sequence[Row], models: Sequence[str]) -> list[str]:
    parts: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["task"], row["dataset"], row["model"]), []).append(row)
    alarms = []
    for (task, dataset, model), part in sorted(parts.items()):
        if model not in models:
            continue
        place = f"{task} on {dataset}: {model}"
        scored = any(row["score"] is not None for row in part)
        kinds = [
            (sum(bool(row["empty"]) for row in part), "gave an empty answer to"),
            (sum("\ufffd" in (row["output"] or "") for row in part), "wrote bytes that are not UTF-8 for"),
            (sum(bool(row["truncated"]) for row in part) if scored else 0, "saw a shortened context in"),
        ]
        alarms += [
            f"{place} {what} {count} of {len(part)} items"
            for count, what in kinds
            if count >= RATE * len(part) > 0
        ]
        if scored and part[0]["output"] is not None and not any(row["score"] for row in part):
            alarms.append(f"{place} has no item right: look at the outputs before believing it")
    return alarms


def _task_alarms(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    alarms = []
    for task in tasks:
        place = f"{task['task']} on {task['dataset']}"
        if task["clusters"] < FEW_CLUSTERS:
            alarms.append(
                f"{place}: only {task['clusters']} independent clusters of pages; intervals are rough"
            )
        if task["chance"] is None:
            continue
        for model, score in task["by_model"].items():
            low = score["low"]
            if low is None or low <= task["chance"]:
                alarms.append(
                    f"{place}: {model} can't be told from guessing ({score['value']:.1%} right, chance "
                    f"{task['chance']:.1%})"
                )
    return alarms
