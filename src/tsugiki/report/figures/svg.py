"""Writing SVG: elements with everything escaped, text widths, markers, and the frame of a figure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from tsugiki.report.text import visible

LABEL_SIZE: Final = 12.5
TICK_SIZE: Final = 11.5
WIDE: Final = 880
PANEL: Final = 430
NARROW: Final = 350
_STACKED_BELOW: Final = 400

Attribute = str | float | None


def decimal(value: float) -> str:
    """A coordinate with at most two decimals and no trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def element(name: str, *children: str | Markup, **attributes: Attribute) -> Markup:
    """An SVG element. `class_` and `text_anchor` become `class` and `text-anchor`; None is left out.

    Children that are not Markup are made visible and escaped, and so is every attribute.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    body = "".join(child if isinstance(child, Markup) else escape(visible(str(child))) for child in children)
    return Markup(f"<{name}{written}>{body}</{name}>" if body else f"<{name}{written}/>")  # noqa: S704 - escaped above


def _attribute(value: str | float) -> str:
    return decimal(value) if isinstance(value, int | float) else str(escape(visible(value)))


def group(*children: Markup, **attributes: Attribute) -> Markup:
    """A `<g>`."""
    return element("g", *children, **attributes)


def label(content: str, x: float, y: float, css: str = "label", anchor: str = "start") -> Markup:
    """A text whose baseline begins, is centred or ends at (x, y)."""
    return element("text", content, x=x, y=y, class_=css, text_anchor=None if anchor == "start" else anchor)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def text_width(content: str, font_size: float = LABEL_SIZE) -> float:
    """About how wide `content` will be, in drawing units: full-width characters 1 em, others 0.56 em."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in content)
    return font_size * (wide + 0.56 * (len(content) - wide))


def fit(content: str, width: float, font_size: float = LABEL_SIZE) -> str:
    """`content`, cut with an ellipsis where it would be wider than `width`."""
    content = " ".join(visible(content).split())
    if text_width(content, font_size) <= width:
        return content
    while content and text_width(content + "…", font_size) > width:
        content = content[:-1]
    return content + "…"


def marker(css: str, x: float, y: float, radius: float = 5.0) -> Markup:
    """The marker of a model: its shape tells it apart in black and white too.

    There are six colours and six shapes; from the seventh model on a colour comes back with another shape.
    """
    number = int(css[1:]) if css[:1] == "m" and css[1:].isdigit() else 0
    shape = (number + number // 6) % 6
    r = radius
    outlines = {
        1: [(-r, -r), (r, -r), (r, r), (-r, r)],
        2: [(0, -r * 1.35), (r * 1.35, 0), (0, r * 1.35), (-r * 1.35, 0)],
        3: [(0, -r * 1.2), (r * 1.15, r), (-r * 1.15, r)],
        4: [(0, r * 1.2), (r * 1.15, -r), (-r * 1.15, -r)],
    }
    if shape not in outlines:
        return element("circle", cx=x, cy=y, r=r, class_=f"mark {css}" + (" hollow" if shape else ""))
    points = " ".join(f"{decimal(x + dx * 0.9)},{decimal(y + dy * 0.9)}" for dx, dy in outlines[shape])
    return element("polygon", points=points, class_=f"mark {css}")


def swatch(css: str, *, line_only: bool = False) -> Markup:
    """The key of a legend: the model's marker on a short piece of its line."""
    stroke = line(0, 6, 22, 6, f"curve {css}")
    mark = Markup("") if line_only else marker(css, 11, 6, 4.5)
    return element("svg", stroke, mark, viewBox="0 0 22 12", width=22, height=12, class_="swatch",
                   aria_hidden="true", focusable="false")  # fmt: skip


def block(css: str) -> Markup:
    """The key of a legend of bars."""
    return element("svg", element("rect", x=0, y=0, width=12, height=12, rx=2, class_=f"bar {css}"),
                   viewBox="0 0 12 12", width=12, height=12, class_="swatch",
                   aria_hidden="true", focusable="false")  # fmt: skip


@dataclass(frozen=True)
class Canvas:
    """What a drawing is called and how wide it is; `key` must be unique on the page."""

    key: str
    title: str
    description: str
    width: float

    @property
    def stacked(self) -> bool:
        """Whether the drawing is so narrow that labels stand above their rows, not beside them."""
        return self.width < _STACKED_BELOW


def frame(canvas: Canvas, height: float, children: Sequence[Markup]) -> Markup:
    """A whole figure with its accessible name and description."""
    key = canvas.key
    return element(
        "svg",
        element("title", canvas.title, id=f"{key}-title"),
        element("desc", canvas.description, id=f"{key}-desc"),
        *children,
        viewBox=f"0 0 {decimal(canvas.width)} {decimal(height)}",
        width=canvas.width,
        height=height,
        class_="chart",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
    )


def horizontal_axis(
    ticks: Sequence[tuple[float, str]], top: float, bottom: float, title: str, centre: float
) -> list[Markup]:
    """Grid lines from top to bottom at each (x, label), labels below them and the axis title under all."""
    parts = [line(x, top, x, bottom, "grid") for x, _ in ticks]
    parts += [label(text, x, bottom + 16, "tick", "middle") for x, text in ticks]
    return [*parts, label(title, centre, bottom + 34, "axis", "middle")]
