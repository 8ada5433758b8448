"""The graph of a run: stages in layers, each to the right of (on a phone: below) all that it reads.

A layered drawing after Sugiyama, Tagawa and Toda (1981): an arrow that skips layers runs through a lane of
its own in each, so that it never passes behind a box. All such arrows of one stage share their lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.svg import Canvas, decimal, element, fit, frame, group, label

_BOX_HEIGHT: Final = 44.0
_LANE: Final = 12.0
_GAP: Final = 14.0
_SWEEPS: Final = 4
_MOST_COLUMNS: Final = 9
"""A longer chain is drawn downwards on wide screens too."""
_SMALLEST_BOX: Final = 16.0
_LARGEST_BOX: Final = 146.0
Slot = tuple[str, int]
"""A stage's name and a layer: its box where that is its own layer, else its lane through that layer."""


@dataclass(frozen=True)
class Node:
    """A stage: its name, a word on what it is, a CSS class, and the names of what it reads."""

    name: str
    note: str
    css: str
    inputs: tuple[str, ...]


@dataclass
class _Layout:
    depth: dict[str, int]
    columns: list[list[Slot]] = field(default_factory=list)
    places: dict[Slot, float] = field(default_factory=dict)
    """Offset of each slot's middle within its layer."""

    def is_box(self, slot: Slot) -> bool:
        return self.depth[slot[0]] == slot[1]


def layer_of(nodes: Sequence[Node]) -> dict[str, int]:
    """The layer of each stage: the length of the longest way to it from a stage that reads nothing.

    Inputs that are not stages count as nothing; a cycle (which no recipe may hold) ends at a bound.
    """
    depth = {node.name: 0 for node in nodes}
    for _ in nodes:
        for node in nodes:
            deepest = max((depth[name] for name in node.inputs if name in depth), default=-1)
            depth[node.name] = min(deepest + 1, len(nodes) - 1)
    return depth


def graph_chart(canvas: Canvas, nodes: Sequence[Node]) -> Markup:
    """Boxes and curved arrows."""
    edges = _edges(nodes)
    layout = _Layout(layer_of(nodes))
    _fill(layout, nodes, edges)
    down = canvas.stacked or len(layout.columns) > _MOST_COLUMNS
    box = _box_width(layout, canvas.width, down=down)
    extent = _place(layout, edges, box if down else _BOX_HEIGHT)
    steps = max(1, len(layout.columns) - 1)
    along = _BOX_HEIGHT + 30 if down else (canvas.width - 4 - box) / steps
    shift = (canvas.width - extent) / 2 if down else 2.0

    def corner(slot: Slot) -> tuple[float, float]:
        """Top left of the slot's box, or of a box of no thickness for a lane."""
        middle, level = layout.places[slot] + shift, 2 + along * slot[1]
        if down:
            return middle - (box / 2 if layout.is_box(slot) else 0), level
        return level, middle - (_BOX_HEIGHT / 2 if layout.is_box(slot) else 0)

    height = along * steps + _BOX_HEIGHT + 4 if down else extent + 4
    hops = _hops(layout, edges)
    arrows = [
        _arrow(
            _port(corner(start), box if layout.is_box(start) else 0.0, box, down=down, leaving=True),
            _port(corner(end), box if layout.is_box(end) else 0.0, box, down=down, leaving=False),
            down=down,
            head=layout.is_box(end),
        )
        for start, end in hops
    ]
    slots = [slot for column in layout.columns for slot in column]
    lanes = [_lane(corner(slot), box, down=down) for slot in slots if not layout.is_box(slot)]
    boxes = [_box(node, corner((node.name, layout.depth[node.name])), box) for node in nodes]
    return frame(canvas, height, [*lanes, *arrows, *boxes])


def _edges(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    names = {node.name for node in nodes}
    return [(source, node.name) for node in nodes for source in dict.fromkeys(node.inputs)
            if source in names and source != node.name]  # fmt: skip


def _fill(layout: _Layout, nodes: Sequence[Node], edges: Sequence[tuple[str, str]]) -> None:
    """Put boxes and lanes into layers."""
    depth = layout.depth
    last = dict(depth)
    for source, target in edges:
        last[source] = max(last[source], depth[target] - 1)
    layout.columns = [
        [(node.name, level) for node in nodes if depth[node.name] <= level <= last[node.name]]
        for level in range(max(depth.values(), default=0) + 1)
    ]


def _box_width(layout: _Layout, width: float, *, down: bool) -> float:
    if not down:
        return min(_LARGEST_BOX, (width - 4) / len(layout.columns) - 26)
    boxes = max(sum(layout.is_box(slot) for slot in column) for column in layout.columns)
    lanes = max(sum(not layout.is_box(slot) for slot in column) for column in layout.columns)
    room = (width - 4 - lanes * (_LANE + _GAP)) / boxes - _GAP
    return max(_SMALLEST_BOX, min(_LARGEST_BOX, room))


def _place(layout: _Layout, edges: Sequence[tuple[str, str]], thickness: float) -> float:
    """Order each layer by the mean place of its neighbours (barycentre) and centre it; returns the extent."""
    sizes = {
        slot: thickness if layout.is_box(slot) else _LANE for column in layout.columns for slot in column
    }
    spans = [sum(sizes[slot] + _GAP for slot in column) - _GAP for column in layout.columns]
    extent = max(spans, default=0.0)
    for sweep in range(_SWEEPS + 1):
        for level, column in enumerate(layout.columns):
            if sweep:
                ranks = {slot: (_barycentre(layout, slot, edges), n) for n, slot in enumerate(column)}
                column.sort(key=ranks.__getitem__)
            at = (extent - spans[level]) / 2
            for slot in column:
                layout.places[slot] = at + sizes[slot] / 2
                at += sizes[slot] + _GAP
    return extent


def _barycentre(layout: _Layout, slot: Slot, edges: Sequence[tuple[str, str]]) -> float:
    name, level = slot
    near = [(name, level - 1), (name, level + 1)]
    if layout.is_box(slot):
        near += [(source, level - 1) for source, target in edges if target == name]
    near += [(target, level + 1) for source, target in edges if source == name]
    places = [layout.places[other] for other in near if other in layout.places]
    return sum(places) / len(places) if places else layout.places[slot]


def _hops(layout: _Layout, edges: Sequence[tuple[str, str]]) -> list[tuple[Slot, Slot]]:
    """All edges cut into steps from one layer to the next; steps that several edges share come once."""
    hops: dict[tuple[Slot, Slot], None] = {}
    for source, target in edges:
        first, last = layout.depth[source], layout.depth[target]
        for level in range(first, last):
            end = (target, last) if level == last - 1 else (source, level + 1)
            hops[(source, level), end] = None
    return list(hops)


def _port(
    place: tuple[float, float], breadth: float, box: float, *, down: bool, leaving: bool
) -> tuple[float, float]:
    """Where a line leaves or enters a slot; `breadth` is the box's width, 0 for a lane."""
    x, y = place
    if down:
        return x + breadth / 2, y + (_BOX_HEIGHT if leaving else 0.0)
    return x + (box if leaving else 0.0), y + (_BOX_HEIGHT / 2 if breadth else 0.0)


def _box(node: Node, place: tuple[float, float], width: float) -> Markup:
    x, y = place
    return group(
        element("title", f"{node.name}: {node.note}"),
        element("rect", x=x, y=y, width=width, height=_BOX_HEIGHT, rx=6, class_="node"),
        element("rect", x=x, y=y + 8, width=4, height=_BOX_HEIGHT - 16, rx=2, class_="tab"),
        label(fit(node.name, width - 16), x + 11, y + 18, "strong"),
        label(fit(node.note, width - 16, 10), x + 11, y + 34, "tick"),
        class_=node.css,
    )


def _lane(place: tuple[float, float], box: float, *, down: bool) -> Markup:
    x, y = place
    end = (x, y + _BOX_HEIGHT) if down else (x + box, y)
    return element("line", x1=x, y1=y, x2=end[0], y2=end[1], class_="edge")


def _arrow(start: tuple[float, float], end: tuple[float, float], *, down: bool, head: bool) -> Markup:
    """A curve that leaves and arrives along the direction of the layers, with or without an arrow head."""
    (x1, y1), (x2, y2) = start, end
    if down:
        bend = (y2 - y1) / 2
        controls = f"{decimal(x1)},{decimal(y1 + bend)} {decimal(x2)},{decimal(y2 - bend)}"
        tip = [(x2 - 3.5, y2 - 6), (x2, y2 - 1), (x2 + 3.5, y2 - 6)]
    else:
        bend = (x2 - x1) / 2
        controls = f"{decimal(x1 + bend)},{decimal(y1)} {decimal(x2 - bend)},{decimal(y2)}"
        tip = [(x2 - 6, y2 - 3.5), (x2 - 1, y2), (x2 - 6, y2 + 3.5)]
    curve = f"M{decimal(x1)},{decimal(y1)} C{controls} {decimal(x2)},{decimal(y2)}"
    points = " ".join(f"{decimal(x)},{decimal(y)}" for x, y in tip)
    heads = [element("polyline", points=points, class_="edge")] if head else []
    return group(element("path", d=curve, class_="edge"), *heads)
