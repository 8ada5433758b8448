"""Scales, ticks, smoothing, the layout of the graph, and drawings that stay inside their frame."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.report.figures.bars import Bar, BarRow, bar_chart
from tsugiki.report.figures.distribution import StackedBin, Threshold, distribution
from tsugiki.report.figures.graph import Node, graph_chart, layer_of
from tsugiki.report.figures.histogram import Bin, histogram
from tsugiki.report.figures.intervals import IntervalRow, Mark, Reference, interval_chart
from tsugiki.report.figures.lines import Series, line_chart, scatter, smooth, thin
from tsugiki.report.figures.scales import Scale, extent, nice_ticks, tick_labels
from tsugiki.report.figures.svg import Canvas, element, fit, marker, text_width

numbers = st.floats(-1e9, 1e9, allow_nan=False)
WIDTHS = [350, 430, 880]


def canvas(width: float = 880) -> Canvas:
    return Canvas("key", "A title", "In words", width)


def parsed(source: str) -> ET.Element:
    return ET.fromstring(source)  # noqa: S314 - our own output


def test_scale_maps_ends_and_middle():
    scale = Scale(2, 4, 100, 0)
    assert [scale(2), scale(3), scale(4)] == [100, 50, 0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (2.05, 3.6, [2.5, 3.0, 3.5]),
        (-1.4, 0.1, [-1.0, -0.5, 0.0]),
    ],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


@given(numbers, st.floats(1e-6, 1e9), st.integers(1, 12))
def test_ticks_lie_inside_and_rise(low, span, count):
    high = low + span
    ticks = nice_ticks(low, high, count)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert ticks == sorted(ticks)
    assert len(ticks) <= count + 2


@given(st.lists(numbers, min_size=0, max_size=5))
def test_extent_is_never_empty(values):
    low, high = extent(values)
    assert low < high
    assert all(low <= value <= high for value in values)


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([-1, 0], ["−1", "0"]),
        ([0, 500, 1000], ["0", "500", "1,000"]),
        ([0, 200_000, 400_000], ["0", "200k", "400k"]),
        ([0, 1_500_000], ["0.0", "1.5M"]),
        ([0, 1e-4, 2e-4], ["0", "0.0001", "0.0002"]),
    ],
)
def test_tick_labels(ticks, labels):
    assert tick_labels(ticks) == labels


def test_smooth_is_a_centred_mean_that_narrows_at_the_ends():
    line = tuple((float(x), 2.0 * x) for x in range(20))
    assert [y for _, y in smooth(line, 5)][2:-2] == pytest.approx([y for _, y in line][2:-2])
    spike = [(0.0, 0.0), (1.0, 3.0), (2.0, 0.0), (3.0, 0.0)]
    assert smooth(spike, 3) == ((0.0, 1.5), (1.0, 1.0), (2.0, 1.0), (3.0, 0.0))
    assert smooth([], 3) == ()


@given(st.integers(0, 3000))
def test_thin_keeps_both_ends_and_the_bound(count):
    points = [(float(x), 0.0) for x in range(count)]
    kept = thin(points, 100)
    assert len(kept) <= 101
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_text_width_counts_full_width_characters_as_one_em():
    assert text_width("日本", 10) == 20
    assert text_width("ab", 10) == pytest.approx(11.2)


@given(st.text(max_size=60), st.floats(20, 300))
def test_fit_is_never_wider_than_asked(text, width):
    assert text_width(fit(text, width)) <= max(width, text_width("…"))


def test_element_escapes_text_and_attributes():
    made = element("text", "<b>&\x00", x=1.50, title='"><script>')
    assert "<b>" not in made
    assert "<script>" not in made
    root = parsed(made)
    assert (root.text, root.get("x"), root.get("title")) == ("<b>&\u2400", "1.5", '"><script>')


def test_markers_of_six_models_differ():
    assert len({re.sub(r"m\d", "", marker(f"m{index}", 0, 0)) for index in range(6)}) == 6


def check_inside(source: str) -> None:
    root = parsed(source)
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    for node in root.iter():
        x = float(node.get("x", node.get("cx", "0")))
        y = float(node.get("y", node.get("cy", "0")))
        assert -1 <= x <= width + 1
        assert -1 <= y <= height + 1
        if node.tag == "rect":
            assert x + float(node.get("width", "0")) <= width + 1


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_as_long_as_their_values(width):
    rows = [BarRow("a", (Bar(10, "ink", "10"),)), BarRow("b" * 80, (Bar(5, "ink", "5"), Bar(0, "pale", "0")))]
    source = bar_chart(canvas(width), rows, "pages")
    check_inside(source)
    lengths = [float(node.get("width", "0")) for node in parsed(source).iter("rect")]
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=0.02)
    assert lengths[2] == 0


@pytest.mark.parametrize("name", ["2", "3", "2 to 3", "9", "1 or more", "lyx.ja.example"])
def test_bars_whose_labels_have_room_do_not_cut_them(name):
    assert f">{name}<" in bar_chart(canvas(420), [BarRow(name, (Bar(76, "pale", "76"),))], "pages")


@pytest.mark.parametrize("width", WIDTHS)
def test_intervals_stay_inside_and_show_the_reference(width):
    marks = (Mark("m0", 2.0, 1.5, 2.5, "2.000"), Mark("m1", 1.0, None, None, "1.000"))
    rows = [
        IntervalRow("site one", marks),
        IntervalRow("a name that is far too long to stand beside" * 2, marks),
    ]
    source = interval_chart(canvas(width), rows, "bits per byte", Reference(0.0, "no difference"))
    check_inside(source)
    assert "no difference" in source
    assert source.count('class="whisker m0"') == 6
    assert "whisker m1" not in source


@pytest.mark.parametrize("width", WIDTHS)
def test_curves_stay_inside(width):
    rising = tuple((float(x), x * 0.01) for x in range(1000))
    source = line_chart(canvas(width), [Series("a", "m0", rising, rising)], ("tokens", "bits"), 300)
    check_inside(source)
    for curve in parsed(source).iter("polyline"):
        points = [tuple(map(float, pair.split(","))) for pair in (curve.get("points") or "").split()]
        assert len(points) <= 501
        assert all(0 <= x <= width and 0 <= y <= 300 for x, y in points)


def test_scatter_with_one_point_and_with_many():
    for points in ([(1.0, 1.0)], [(x / 10, x / 20) for x in range(3000)]):
        source = scatter(canvas(430), points, ("before", "after"), "m1")
        check_inside(source)
        assert source.count('class="dot m1"') == len(thin(points, 1500))


def test_histogram_columns_are_as_high_as_their_counts():
    bins = [Bin(0.0, 0.5, 4), Bin(0.5, 1.0, 2), Bin(1.0, 1.5, 0)]
    source = histogram(canvas(430), bins, ("similarity", "pages"), Reference(0.75, "limit 0.75"), 200)
    check_inside(source)
    heights = [float(node.get("height", "0")) for node in parsed(source).iter("rect")]
    assert len(heights) == 2
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.02)
    assert "limit 0.75" in source


@st.composite
def stacked_bins(draw):
    """Bins that rise, with or without open ends."""
    edges = sorted(draw(st.sets(st.integers(0, 10**7), min_size=2, max_size=40)))
    bounds = list(pairwise(edges))
    bounds = [(None, edges[0])] * draw(st.booleans()) + bounds + [(edges[-1], None)] * draw(st.booleans())
    totals = [draw(st.integers(0, 10**6)) for _ in bounds]
    parts = [draw(st.integers(0, total)) for total in totals]
    return [StackedBin(low, high, t, p) for (low, high), t, p in zip(bounds, totals, parts, strict=True)]


@given(
    stacked_bins(),
    st.lists(st.builds(Threshold, st.sampled_from(["<", ">", "<=", ">="]), numbers), max_size=3),
)
@settings(deadline=None, max_examples=60)
def test_distribution_stays_inside_whatever_the_bins(bins, thresholds):
    source = distribution(canvas(280), bins, thresholds, 138)
    check_inside(source)
    root = parsed(source)
    assert len([node for node in root.iter() if node.get("class") == "threshold"]) == len(thresholds)
    for node in root.iter("rect"):
        assert float(node.get("height", "0")) >= 0
        assert float(node.get("y", "0")) + float(node.get("height", "0")) <= 138


def test_distribution_stacks_kept_under_rejected():
    bins = [StackedBin(0, 0.5, 40, 10), StackedBin(0.5, 1, 30, 30), StackedBin(1, 1.5, 0, 0)]
    root = parsed(distribution(canvas(280), bins, [Threshold("<", 0.25)], 138))
    heights = [(n.get("class"), float(n.get("height", "0"))) for n in root.iter("rect")]
    refused, rejected, kept, all_kept = heights
    assert (refused[0], rejected[0], kept[0], all_kept[0]) == ("refused", "bar pale", "bar ink", "bar ink")
    assert rejected[1] == pytest.approx(3 * kept[1], abs=0.05)
    assert all_kept[1] == pytest.approx(3 * kept[1], abs=0.05)
    line = next(node for node in root.iter("line") if node.get("class") == "threshold")
    first = next(node for node in root.iter("rect") if node.get("class") == "bar pale")
    middle = float(first.get("x", "0")) + float(first.get("width", "0")) / 2
    assert float(line.get("x1", "0")) == pytest.approx(middle, abs=0.6)


def test_distribution_breaks_a_bar_that_hides_the_others():
    bins = [StackedBin(0, 1, 1000, 600), StackedBin(1, 2, 10, 10)]
    source = distribution(canvas(280), bins, [], 138)
    assert 'class="break"' in source
    assert ">1,000<" in source
    small = next(n for n in list(parsed(source).iter("rect"))[::-1])
    assert float(small.get("height", "0")) > 40
    even = distribution(canvas(280), [StackedBin(0, 1, 20, 6), StackedBin(1, 2, 10, 10)], [], 138)
    assert 'class="break"' not in even


NODES = (
    Node("a", "corpus", "plain", ()),
    Node("b", "corpus", "plain", ("missing",)),
    Node("c", "train", "m0", ("b",)),
    Node("d", "vocabulary", "m3", ("c", "a")),
    Node("e", "train", "m1", ("d", "a", "b")),
    Node("f", "evaluate", "plain", ("e", "c", "a", "b")),
)


def test_layers_put_every_stage_after_all_that_it_reads():
    depth = layer_of(NODES)
    assert depth == {"a": 0, "b": 0, "c": 1, "d": 2, "e": 3, "f": 4}
    assert layer_of(NODES[::-1]) == depth


def test_layers_of_a_cycle_are_bounded():
    depth = layer_of([Node("a", "", "plain", ("b",)), Node("b", "", "plain", ("a",))])
    assert set(depth.values()) <= {0, 1}


@st.composite
def graphs(draw):
    """Acyclic graphs of up to fourteen stages, listed in any order."""
    count = draw(st.integers(1, 14))
    earlier = [draw(st.sets(st.integers(0, max(0, n - 1)), max_size=4)) if n else set() for n in range(count)]
    nodes = [
        Node(f"stage-{n}", "train", "m0", tuple(f"stage-{m}" for m in sorted(inputs)))
        for n, inputs in enumerate(earlier)
    ]
    return draw(st.permutations(nodes))


@given(graphs())
@settings(deadline=None, max_examples=60)
def test_graph_boxes_never_overlap_and_read_from_before(nodes):
    check_boxes(880, nodes)
    depth = layer_of(nodes)
    assert all(depth[name] < depth[node.name] for node in nodes for name in node.inputs)


@pytest.mark.parametrize("width", WIDTHS)
def test_graph_boxes_do_not_overlap(width):
    check_inside(graph_chart(canvas(width), NODES))
    check_boxes(width, NODES)


def check_boxes(width, nodes):
    boxes = [
        tuple(float(node.get(key, "0")) for key in ("x", "y", "width", "height"))
        for node in parsed(graph_chart(canvas(width), nodes)).iter("rect")
        if node.get("class") == "node"
    ]
    assert len(boxes) == len(nodes)
    for index, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[index + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_graph_of_one_stage():
    assert "alone" in graph_chart(canvas(), [Node("alone", "corpus", "plain", ())])


def test_line_chart_of_whole_places_has_no_ticks_between_them():
    def drawn(*places):
        curve = Series("a", "m0", tuple((place, place / 7) for place in places))
        return re.findall(
            r">(\d[\d.]*)</text>", str(line_chart(canvas(900), [curve], ("layer", "cosine"), 200))
        )

    assert drawn(0.0, 1.0, 2.0, 3.0)[-4:] == ["0", "1", "2", "3"]
    assert "0.5" in drawn(0.0, 0.5, 3.0)


def test_seventh_model_has_another_shape_than_the_first_whose_colour_it_has():
    first, seventh = (str(marker(f"m{number}", 0, 0)).replace(f"m{number}", "m") for number in (0, 6))
    assert first != seventh
