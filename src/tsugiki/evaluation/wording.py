"""Verdicts in words, with their figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sides:
    """The two models' values of one pair."""

    baseline: float
    model: float


FEW_CLUSTERS = 10
"""With fewer, a test over clusters can't reach small p-values: 2 * 2**-n is the least of a sign-flip test."""


def pair_sentence(
    task: Mapping[str, Any], pair: Mapping[str, Any], sides: Sides, *, confidence: float
) -> str:
    """One English sentence: who is better on what, by how much, how sure, and from how many items."""
    if pair["verdict"] == "no difference seen":
        return _no_difference(task, pair, sides, confidence)
    figures = f"{_figures(task, pair, confidence)}; {_sample(task)}"
    name, base = pair["model"], pair["baseline"]
    if task["metric"] == "accuracy":
        direction = "more" if pair["difference"] > 0 else "fewer"
        return (
            f"{name} answers {_points(abs(pair['difference']))} points {direction} {_of(task)} right "
            f"than {base}: {sides.model:.1%} against {sides.baseline:.1%} ({figures})."
        )
    direction = "fewer" if pair["difference"] < 0 else "more"
    share = f"{abs(pair['relative']):.1%}" if pair["relative"] is not None else "clearly"
    return (
        f"{name} needs {share} {direction} {task['metric']} than {base} {_of(task)}: "
        f"{sides.model:.3f} against {sides.baseline:.3f} ({figures})."
    )


def _no_difference(task: Mapping[str, Any], pair: Mapping[str, Any], sides: Sides, confidence: float) -> str:
    if pair["difference"] == 0 and pair["detectable"] == 0:
        return (
            f"{pair['model']} and {pair['baseline']} have the same score on every item of {task['dataset']}."
        )
    accuracy = task["metric"] == "accuracy"
    shown = [f"{value:.1%}" if accuracy else f"{value:.3f}" for value in (sides.model, sides.baseline)]
    text = (
        f"No difference between {pair['model']} and {pair['baseline']} can be seen {_of(task, 'in')}: "
        f"{shown[0]} against {shown[1]} ({_figures(task, pair, confidence)}); "
    )
    beyond_zero = pair["low"] is not None and not pair["low"] <= 0 <= pair["high"]
    if pair["detectable"] is None or (beyond_zero and task["clusters"] < FEW_CLUSTERS):
        return text + f"{_sample(task)} are too few to tell."
    size = f"{_points(pair['detectable'])} points" if accuracy else f"{pair['detectable']:.3f}"
    return text + f"with {_sample(task)} a difference of {size} would be found four times in five."


def _of(task: Mapping[str, Any], preposition: str = "on") -> str:
    if task["metric"] != "accuracy":
        return f"{preposition} held-out pages of {task['dataset']}"
    questions = f"{task['task']} questions on {task['dataset']}"
    return f"{preposition} {questions}" if preposition == "in" else questions


def _figures(task: Mapping[str, Any], pair: Mapping[str, Any], confidence: float) -> str:
    p = pair["p_adjusted"]
    test = f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'} after Holm's adjustment"  # noqa: PLR2004
    if pair["low"] is None:
        return f"no interval from so few clusters, {test}"
    if task["metric"] == "accuracy":
        ends = f"{_points(pair['low'], sign=True)} to {_points(pair['high'], sign=True)} points"
    else:
        ends = f"{pair['low']:+.3f} to {pair['high']:+.3f}"
    return f"difference {ends} with {confidence:.0%} confidence, {test}"


def _sample(task: Mapping[str, Any]) -> str:
    unit = "questions" if task["metric"] == "accuracy" else "pages"
    unit = unit if task["items"] != 1 else unit[:-1]
    clusters = "cluster" if task["clusters"] == 1 else "clusters"
    return f"{task['items']} {unit} in {task['clusters']} {clusters}"


def _points(share: float, *, sign: bool = False) -> str:
    return f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
