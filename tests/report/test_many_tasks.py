"""Reports with many tasks: overview, radar, averages, regression verdicts, items one by one."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest

from tsugiki.report import render
from tsugiki.report.figures.radar import Outline, radar_chart
from tsugiki.report.figures.svg import Canvas
from tsugiki.report.run import Palette
from tsugiki.report.sections.browser import browsers


def add_tasks(document, count):
    cloze = next(task for task in document["tasks"] if task["task"] == "cloze")
    for number in range(count):
        language = ("ja", "en")[number % 2]
        document["tasks"].append(
            cloze
            | {
                "task": f"benchmark{number}",
                "dataset": f"benchmark{number}",
                "language": language,
                "other_scores": {"published": {"base": 0.111, "adapted": 0.222}},
            }
        )
    pair = cloze["pairs"][0]
    document["averages"] = [
        {"language": "ja", "tasks": [["a", "a"], ["b", "b"]], "by_model": cloze["by_model"], "pairs": [pair]}
    ]
    document["regressions"] = [
        {"language": "en", "verdict": "worse", "sentence": "adapted got worse than base in English."},
        {"language": "ja", "verdict": "unclear", "sentence": "Whether it got worse can't be told."},
    ]


def test_report_of_nineteen_tasks_has_an_overview_and_folds_the_rest(new_run, parse):
    source = render(new_run(comparison=lambda document: add_tasks(document, 19)))
    page = parse(source)
    assert "All tasks at a glance" in page.text
    assert "All tasks: differences from base" in page.text
    assert "average, Japanese" in page.text
    assert "English: worse adapted got worse than base in English." in page.text
    assert "<summary>Benchmark18 accuracy, Japanese</summary>" in source
    assert "11.1" in page.text
    for figure in page.figures:
        ET.fromstring(figure)  # noqa: S314 - our own output, and well-formedness is the question
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_report_of_few_tasks_has_no_overview(new_run, parse):
    page = parse(render(new_run()))
    assert "All tasks" not in page.text
    assert "got worse?" not in page.text


def test_radar_points_lie_on_their_spokes_at_their_values():
    drawn = radar_chart(Canvas("r", "t", "d", 880), ["a", "b", "c", "d"], [Outline("m0", (80, 40, 0, 20))])
    root = ET.fromstring(drawn)  # noqa: S314 - our own output
    [outline] = [one for one in root.iter("polygon") if one.get("class") == "curve m0"]
    points = [tuple(map(float, point.split(","))) for point in outline.get("points").split()]
    centre = points[2]  # the value 0
    assert [round(math.dist(point, centre)) for point in points] == [190, 95, 0, 48]
    assert points[0][0] == pytest.approx(centre[0])
    assert points[1][0] > centre[0]
    assert points[3][0] < centre[0]


def test_radar_missing_value_leaves_a_gap():
    drawn = radar_chart(Canvas("r", "t", "d", 350), ["a", "b", "c"], [Outline("m1", (50, None, 20))])
    root = ET.fromstring(drawn)  # noqa: S314 - our own output
    assert [one.get("class") for one in root.iter("line")].count("curve m1") == 1
    assert len([one for one in root.iter() if one.get("class") == "mark m1"]) == 2


def rows(score_of):
    return [
        {"model": model, "task": "t", "dataset": "t", "language": "ja", "item": f"{item}",
         "prompt": "p" * 900, "output": f"{model}{item}", "gold": "g",
         "score": score_of(model, item), "sample": None}
        for model in ("base", "adapted")
        for item in range(40)
    ]  # fmt: skip


def test_browser_sorts_items_into_wins_losses_and_ties():
    def score(model, item):
        return float({0: model == "adapted", 1: model == "base", 2: True, 3: False}[item % 4])

    palette = Palette(("base", "adapted"))
    found = browsers(rows(score), ("base", "adapted"), palette)[("t", "t")]
    assert [(kind.title, kind.count, len(kind.items)) for kind in found.kinds] == [
        ("adapted is better", 10, 4),
        ("adapted is worse", 10, 4),
        ("both score nothing", 10, 4),
        ("both score the same", 10, 4),
    ]
    assert all(int(one.name) % 4 == 0 for one in found.kinds[0].items)
    assert all(len(one.prompt) == 500 for kind in found.kinds for one in kind.items)
    assert browsers(rows(score)[::-1], ("base", "adapted"), palette)[("t", "t")] == found
    assert browsers(rows(score), ("base", "other"), palette) == {}
