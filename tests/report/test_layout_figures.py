"""The planner's figures: lengths in proportion, limits where they belong, and text that can't break out."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tsugiki.report.figures.scatter import Axes, Dot, scatter_chart
from tsugiki.report.figures.stacks import Limit, StackRow, stack_chart
from tsugiki.report.figures.svg import NARROW, WIDE, Canvas

HOSTILE = "<script>&\"'"


def elements(markup, name, css=""):
    tree = ET.fromstring(str(markup))  # noqa: S314 (our own)
    return [one for one in tree.iter(name) if css in one.get("class", "")]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_stack_chart_parts_are_as_long_as_their_values_and_lie_end_to_end(width) -> None:
    rows = [
        StackRow("stage 0", ((10.0, "m0"), (30.0, "m1"), (0.0, "m2")), "40"),
        StackRow(HOSTILE, ((20.0, "m0"),), "20"),
    ]
    drawn = stack_chart(Canvas("key", "title", HOSTILE, width), rows, [Limit(80.0, "80 %")], "GiB")
    first, second, third = elements(drawn, "rect", "bar")
    assert float(second.get("width")) == pytest.approx(3 * float(first.get("width")), abs=0.05)
    assert float(third.get("width")) == pytest.approx(2 * float(first.get("width")), abs=0.05)
    assert float(second.get("x")) == pytest.approx(
        float(first.get("x")) + float(first.get("width")), abs=0.05
    )
    (limit,) = elements(drawn, "line", "threshold")
    start, unit = float(first.get("x")), float(first.get("width")) / 10
    assert float(limit.get("x1")) == pytest.approx(start + 80 * unit, abs=1)
    assert float(limit.get("x1")) <= width


def test_scatter_chart_has_larger_x_to_the_right_and_larger_y_above() -> None:
    dots = [Dot(10.0, 5.0, "m0", HOSTILE), Dot(20.0, 9.0, "m0", "b")]
    front = [Dot(15.0, 12.0, "m2", "c", "chosen")]
    drawn = scatter_chart(
        Canvas("key", "title", "words", WIDE), dots, front, Axes("x", "y", ((18.0, "limit"),))
    )
    low, high, best = elements(drawn, "circle", "mark")
    assert float(low.get("cx")) < float(best.get("cx")) < float(high.get("cx"))
    assert float(low.get("cy")) > float(high.get("cy")) > float(best.get("cy"))
    assert {"chosen", "limit"} <= {one.text for one in elements(drawn, "text")}
    assert low.find("title").text == HOSTILE


def test_scatter_chart_without_a_front_draws_the_dots_alone() -> None:
    drawn = scatter_chart(
        Canvas("key", "title", "words", NARROW), [Dot(1.0, 1.0, "m0", "a")], [], Axes("x", "y")
    )
    assert len(elements(drawn, "circle")) == 1
    assert not elements(drawn, "polyline")
