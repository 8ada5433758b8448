"""A figure on the page: drawings for wide and narrow screens, a title, an explanation and a legend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tsugiki.report.figures.svg import NARROW, PANEL, WIDE, Canvas, block, swatch

Draw = Callable[[Canvas], Markup]
"""Draws a figure at the width of the canvas."""


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    name: str
    swatch: Markup


@dataclass(frozen=True)
class Figure:
    """What the template shows. `narrow` is empty where one drawing serves all screens."""

    title: str
    explanation: str
    wide: Markup
    narrow: Markup
    legend: tuple[Key, ...] = ()

    @property
    def panel(self) -> bool:
        """Whether the figure is half a page wide."""
        return not self.narrow


@dataclass(frozen=True)
class Words:
    """What a figure says: its title, an explanation for newcomers, and the drawing's content in words."""

    title: str
    explanation: str
    description: str


def full_width(key: str, words: Words, draw: Draw, legend: Sequence[Key] = ()) -> Figure:
    """A figure across the page, drawn again with other proportions for a phone."""
    wide, narrow = (
        draw(Canvas(f"{key}-{name}", words.title, words.description, width))
        for name, width in (("wide", WIDE), ("narrow", NARROW))
    )
    return Figure(words.title, words.explanation, wide, narrow, tuple(legend))


def half_width(key: str, words: Words, draw: Draw, legend: Sequence[Key] = ()) -> Figure:
    """A figure half a page wide, to stand beside another."""
    drawn = draw(Canvas(key, words.title, words.description, PANEL))
    return Figure(words.title, words.explanation, drawn, Markup(), tuple(legend))


def model_legend(models: Sequence[tuple[str, str]], *, line_only: bool = False) -> tuple[Key, ...]:
    """A legend of (name, CSS class) with the models' markers."""
    return tuple(Key(name, swatch(css, line_only=line_only)) for name, css in models)


def bar_legend(entries: Sequence[tuple[str, str]]) -> tuple[Key, ...]:
    """A legend of (name, CSS class) with filled blocks."""
    return tuple(Key(name, block(css)) for name, css in entries)
