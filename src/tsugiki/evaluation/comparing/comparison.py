"""From rows to comparison.json: every figure of it can be computed again from scores.parquet alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from tsugiki.errors import InputError
from tsugiki.evaluation.comparing.alarms import alarms_of, without_errors
from tsugiki.evaluation.comparing.groups import group_rows
from tsugiki.evaluation.comparing.judging import Judged, Settings, entry, judge, rounded
from tsugiki.evaluation.comparing.linking import drawn_together
from tsugiki.evaluation.comparing.notes import notes_of
from tsugiki.evaluation.comparing.regression import regressions
from tsugiki.evaluation.comparing.wording import Plan, Sides, pair_sentence
from tsugiki.evaluation.statistics.averages import average_estimates
from tsugiki.evaluation.statistics.estimates import benjamini_hochberg, holm
from tsugiki.evaluation.tasks.base import Measure, Row

__all__ = ["Settings", "compare"]

SCHEMA_VERSION = 1
ADJUST: Mapping[str, Callable[[Sequence[float]], list[float]]] = {
    "holm": holm,
    "benjamini-hochberg": benjamini_hochberg,
}


def compare(table: pa.Table, measures: Mapping[str, Measure], settings: Settings) -> dict[str, Any]:
    """The contents of comparison.json.

    table: rows of scores.parquet. measures: how to read each scored task, in the order of display; answers
    to other tasks are shown. Raises InputError for a model without rows, DataError where models answered
    different items.
    """
    every: list[Row] = table.to_pylist()
    _check_models(every, settings)
    rows, gaps = without_errors(every, settings.models)
    parts = _parts(rows, measures, settings)
    groups = [group_rows(part, measure, settings.models, settings.baseline) for part, measure in parts]
    judged = [judge(group, settings) for group in groups]
    tasks = [one.summary for one in judged]
    _adjust(tasks, settings)
    averaged = _averages(judged, settings)
    return {
        "schema": SCHEMA_VERSION,
        "confidence": settings.confidence,
        "method": _method(settings),
        "baseline": settings.baseline,
        "models": list(settings.models),
        "level": rounded(settings.alpha),
        "correction": settings.correction,
        "power": settings.power,
        "tasks": tasks,
        "averages": averaged,
        "regressions": regressions(tasks, averaged, settings),
        "generations": _generations([row for row in rows if row["task"] not in measures], settings),
        "notes": notes_of(judged),
        "alarms": [*gaps, *alarms_of(rows, tasks, settings.models)],
    }


def _method(settings: Settings) -> str:
    share = f"{settings.confidence:.0%}"
    adjusted = {"holm": "Holm", "benjamini-hochberg": "Benjamini and Hochberg"}[settings.correction]
    return (
        f"Bits per byte are ratios of sums over items, with {share} intervals by the symmetric bootstrap-t "
        f"over clusters of items that are not independent ({settings.draws} draws, seed {settings.seed}). "
        "Right or wrong: Wilson's interval; other scores from 0 to 1, and answers in clusters: the same with "
        "the effective number of items from Bell and McCaffrey's clustered error, and Student's t; "
        "corpus metrics: the bootstrap of their sums. Models are compared on the same items (paired): mid-p "
        "McNemar with Tango's interval, the exact test of signs of clusters, paired t, or paired bootstrap. "
        "Several samples of an item "
        f"are averaged first. p-values are adjusted by {adjusted} over all pairs in all tasks. Averages: the "
        "tasks fixed, clusters resampled whole, those that several tasks share in all "
        "of them. Detectable: the difference found with power "
        f"{settings.power:g}."
    )


def _check_models(rows: Sequence[Row], settings: Settings) -> None:
    present = {row["model"] for row in rows}
    missing = [model for model in (*settings.models, settings.baseline) if model not in present]
    if missing or settings.baseline not in settings.models:
        raise InputError(
            f"there are no scores of {', '.join(missing) or settings.baseline}; the rows hold "
            f"{', '.join(sorted(present)) or 'nothing'}",
            hint="name models that were scored, the baseline among them",
        )


def _parts(
    rows: Sequence[Row], measures: Mapping[str, Measure], settings: Settings
) -> list[tuple[list[Row], Measure]]:
    """Rows by task and dataset, in the order of display."""
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["task"], row["dataset"]), []).append(row)
    tasks = {task: number for number, task in enumerate(measures)}
    datasets = {dataset: number for number, dataset in enumerate(settings.datasets)}
    known = sorted(
        (key for key in parts if key[0] in tasks),
        key=lambda key: (tasks[key[0]], datasets.get(key[1], len(datasets)), key[1]),
    )
    return [(parts[key], measures[key[0]]) for key in known]


def _averages(judged: Sequence[Judged], settings: Settings) -> list[dict[str, Any]]:
    """The mean over tasks of scores from 0 to 1, for each language with several such tasks, then for all."""
    usable, linked = drawn_together([one for one in judged if one.draws is not None], settings)
    languages = list(dict.fromkeys(one.group.language for one in usable))
    parts = [(language, [one for one in usable if one.group.language == language]) for language in languages]
    if len(languages) > 1:
        parts.append(("", usable))
    found: list[dict[str, Any]] = []
    for language, members in parts:
        if len(members) < 2:  # noqa: PLR2004 (one task is no average)
            continue
        draws = [one.draws for one in members if one.draws is not None]
        estimates = average_estimates(draws, confidence=settings.confidence)
        count = len(settings.models)
        found.append(
            {
                "language": language,
                "tasks": [[one.group.task, one.group.dataset] for one in members],
                "items": sum(len(one.group.clusters) for one in members),
                "clusters": sum(one.clusters for one in draws),
                "linked": [names for names in linked if sum(one.group.task in names for one in members) > 1],
                "by_model": {
                    name: entry(one) for name, one in zip(settings.models, estimates[:count], strict=True)
                },
                "pairs": [
                    {
                        "baseline": first,
                        "model": second,
                        "difference": rounded(one.value),
                        "low": rounded(one.low),
                        "high": rounded(one.high),
                        "p": rounded(one.p),
                        "standard_error": rounded(one.standard_error),
                        "test": one.method,
                    }
                    for (first, second), one in zip(settings.pairs, estimates[count:], strict=True)
                ],
            }
        )
    pairs: list[dict[str, Any]] = [pair for one in found for pair in one["pairs"]]
    adjusted = ADJUST[settings.correction]([pair["p"] for pair in pairs])
    for pair, p in zip(pairs, adjusted, strict=True):
        pair["p_adjusted"] = rounded(p)
        pair["verdict"] = _verdict(pair, lower_is_better=False, level=settings.alpha)
    return found


def _adjust(tasks: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Holm (or another) over every pair of every task, then the verdicts, which depend on it."""
    pairs = [(task, pair) for task in tasks for pair in task["pairs"]]
    adjusted = ADJUST[settings.correction]([pair["p"] for _, pair in pairs])
    for (task, pair), p in zip(pairs, adjusted, strict=True):
        pair["p_adjusted"] = rounded(p)
        pair["verdict"] = _verdict(pair, lower_is_better=task["lower_is_better"], level=settings.alpha)
        sides = Sides(task["by_model"][pair["baseline"]]["value"], task["by_model"][pair["model"]]["value"])
        pair["sentence"] = pair_sentence(
            task, pair, sides, Plan(settings.confidence, settings.correction, settings.power)
        )


def _verdict(pair: Mapping[str, Any], *, lower_is_better: bool, level: float) -> str:
    if pair["p_adjusted"] >= level or pair["difference"] == 0:
        return "no difference seen"
    return "better" if (pair["difference"] < 0) == lower_is_better else "worse"


def _generations(rows: Sequence[Row], settings: Settings) -> list[dict[str, Any]]:
    """What the models wrote, prompt by prompt; `gold` is how the page itself goes on."""
    by_item: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["dataset"], row["item"])):
        entry = by_item.setdefault(
            (row["dataset"], row["item"]),
            {
                "dataset": row["dataset"],
                "language": row["language"],
                "item": row["item"],
                "prompt": row["prompt"],
                "gold": row["gold"],
                "outputs": {},
            },
        )
        entry["outputs"][row["model"]] = row["output"]
    for entry in by_item.values():
        entry["outputs"] = {model: entry["outputs"].get(model, "") for model in settings.models}
    return list(by_item.values())
