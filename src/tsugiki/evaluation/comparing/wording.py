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


@dataclass(frozen=True)
class Plan:
    """What the sentences say of the method: confidence of intervals, the correction, the power asked for."""

    confidence: float = 0.95
    correction: str = "holm"
    power: float = 0.8


ADJUSTMENTS = {"holm": "Holm's", "benjamini-hochberg": "Benjamini and Hochberg's"}
FEW_CLUSTERS = 10
"""With fewer, a test over clusters can't reach small p-values: 2 * 2**-n is the least of a sign-flip test."""


def pair_sentence(task: Mapping[str, Any], pair: Mapping[str, Any], sides: Sides, plan: Plan) -> str:
    """One English sentence: who is better on what, by how much, how sure, and from how many items."""
    if pair["verdict"] == "no difference seen":
        return _no_difference(task, pair, sides, plan)
    figures = f"{_figures(task, pair, plan)}; {_sample(task)}"
    name, base = pair["model"], pair["baseline"]
    if task["metric"] == "accuracy":
        direction = "more" if pair["difference"] > 0 else "fewer"
        return (
            f"{name} answers {_points(abs(pair['difference']))} points {direction} {_of(task)} right "
            f"than {base}: {sides.model:.1%} against {sides.baseline:.1%} ({figures})."
        )
    if not _in_bits(task):
        direction = "higher" if pair["difference"] > 0 else "lower"
        return (
            f"{name} scores {_points(abs(pair['difference']))} points {direction} than {base} {_of(task)}: "
            f"{task['metric']} {sides.model:.1%} against {sides.baseline:.1%} ({figures})."
        )
    direction = "fewer" if pair["difference"] < 0 else "more"
    share = f"{abs(pair['relative']):.1%}" if pair["relative"] is not None else "clearly"
    return (
        f"{name} needs {share} {direction} {task['metric']} than {base} {_of(task)}: "
        f"{sides.model:.3f} against {sides.baseline:.3f} ({figures})."
    )


def _in_bits(task: Mapping[str, Any]) -> bool:
    """Whether the score counts bits; other scores are shares of 1, shown as points of 100."""
    return bool(task["lower_is_better"])


def _no_difference(task: Mapping[str, Any], pair: Mapping[str, Any], sides: Sides, plan: Plan) -> str:
    name, base = pair["model"], pair["baseline"]
    if pair["unequal"] == 0:
        return f"{name} and {base} have the same score on every item of {_place(task)}."
    bits = _in_bits(task)
    shown = [f"{value:.3f}" if bits else f"{value:.1%}" for value in (sides.model, sides.baseline)]
    text = (
        f"No difference between {name} and {base} can be seen {_of(task, 'in')}: "
        f"{shown[0]} against {shown[1]} ({_figures(task, pair, plan)}); "
    )
    beyond_zero = pair["low"] is not None and not pair["low"] <= 0 <= pair["high"]
    if pair["detectable"] is None or (beyond_zero and task["clusters"] < FEW_CLUSTERS):
        return text + f"{_sample(task)} are too few to tell."
    size = f"{pair['detectable']:.3f}" if bits else f"{_points(pair['detectable'])} points"
    text += f"with {_sample(task)} a difference of {size} would be found {_often(plan.power)}"
    if pair["needed"] is None or pair["needed"] <= task["items"]:
        return text + "."
    wanted = f"{pair['interest']:.3f}" if bits else f"{100 * pair['interest']:g} points"
    return text + f", and {pair['needed']:,} {_unit(task)} would be needed for {wanted}."


def _often(power: float) -> str:
    return "four times in five" if power == 0.8 else f"{100 * power:g} times in 100"  # noqa: PLR2004


def _place(task: Mapping[str, Any]) -> str:
    if task["by_byte"] or task["task"] == task["dataset"]:
        return str(task["dataset"])
    return f"{task['task']} on {task['dataset']}"


def _of(task: Mapping[str, Any], preposition: str = "on") -> str:
    if task["by_byte"]:
        return f"{preposition} held-out pages of {task['dataset']}"
    questions = f"{task['task']} questions on {task['dataset']}"
    if task["task"] == task["dataset"]:
        questions = f"{task['task']} questions"
    return f"{preposition} {questions}" if preposition == "in" or task["metric"] != "accuracy" else questions


def _figures(task: Mapping[str, Any], pair: Mapping[str, Any], plan: Plan) -> str:
    p = pair["p_adjusted"]
    adjusted = ADJUSTMENTS[plan.correction]
    test = f"p {'< 0.001' if p < 0.001 else f'= {p:.3f}'} after {adjusted} adjustment"  # noqa: PLR2004
    if pair["low"] is None:
        return f"no interval from so few clusters, {test}"
    if _in_bits(task):
        ends = f"{pair['low']:+.3f} to {pair['high']:+.3f}"
    else:
        ends = f"{_points(pair['low'], sign=True)} to {_points(pair['high'], sign=True)} points"
    return f"difference {ends} with {plan.confidence:.0%} confidence, {test}"


def _unit(task: Mapping[str, Any]) -> str:
    return "pages" if task["by_byte"] else "questions"


def _sample(task: Mapping[str, Any]) -> str:
    unit = _unit(task)
    unit = unit if task["items"] != 1 else unit[:-1]
    if not task["by_byte"] and task["clusters"] == task["items"]:
        return f"these {task['items']:,} {unit}" if task["items"] != 1 else f"1 {unit}"
    clusters = "cluster" if task["clusters"] == 1 else "clusters"
    return f"{task['items']:,} {unit} in {task['clusters']:,} {clusters}"


def _points(share: float, *, sign: bool = False) -> str:
    return f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
