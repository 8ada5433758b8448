"""Items one by one: what both models answered, where one wins, where it loses, and where both fail."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tsugiki.report import facts
from tsugiki.report.run import Palette
from tsugiki.report.text import clip

_SHOWN: Final = 4
_PROMPT_CHARACTERS: Final = 500
_ANSWER_CHARACTERS: Final = 500
_COLUMNS: Final = (
    "model",
    "task",
    "dataset",
    "language",
    "item",
    "prompt",
    "output",
    "gold",
    "score",
    "sample",
)
COLUMNS: Final = _COLUMNS
"""The columns of scores.parquet that a browser needs."""


@dataclass(frozen=True)
class Answer:
    """What a model gave for an item, and its score."""

    model: str
    css: str
    text: str
    score: float


@dataclass(frozen=True)
class Item:
    """One item: the end of its prompt, both answers and the right one."""

    name: str
    language: str
    prompt: str
    answers: tuple[Answer, ...]
    gold: str


@dataclass(frozen=True)
class Kind:
    """A folder of items: a title, how many there are, and a sample of them."""

    title: str
    tone: str
    count: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Browser:
    """The kinds of one task's items, for two models."""

    kinds: tuple[Kind, ...]

    @property
    def items(self) -> int:
        """How many items there are in all kinds."""
        return sum(kind.count for kind in self.kinds)


def browsers(
    rows: Sequence[Mapping[str, Any]], models: tuple[str, str], palette: Palette
) -> dict[tuple[str, str], Browser]:
    """A browser for each scored task with answers; models: the baseline, and the one that is compared.

    Of several samples of an item the first is shown. The sample of items is drawn by a hash of their names:
    the same rows show the same items.
    """
    tasks: dict[tuple[str, str], dict[str, dict[str, Mapping[str, Any]]]] = {}
    for row in rows:
        if (
            row["model"] in models
            and facts.number(row, "score") is not None
            and row.get("output") is not None
        ):
            by_item = tasks.setdefault((row["task"], row["dataset"]), {}).setdefault(row["item"], {})
            first = by_item.get(row["model"])
            if first is None or (row.get("sample") or 0) < (first.get("sample") or 0):
                by_item[row["model"]] = row
    found = {key: _browser(by_item, models, palette) for key, by_item in sorted(tasks.items())}
    return {key: one for key, one in found.items() if one.items}


def _browser(
    by_item: Mapping[str, Mapping[str, Mapping[str, Any]]], models: tuple[str, str], palette: Palette
) -> Browser:
    base, other = models
    kinds: dict[str, list[str]] = {"wins": [], "losses": [], "wrong": [], "right": []}
    for name, answers in by_item.items():
        if base in answers and other in answers:
            before, after = answers[base]["score"], answers[other]["score"]
            level = "right" if after > 0 else "wrong"
            kinds["wins" if after > before else "losses" if after < before else level].append(name)
    titles = (
        ("wins", f"{other} is better", "good"),
        ("losses", f"{other} is worse", "bad"),
        ("wrong", "both score nothing", "level"),
        ("right", "both score the same", "level"),
    )
    return Browser(
        tuple(
            Kind(
                title,
                tone,
                len(kinds[key]),
                tuple(_item(by_item[n], models, palette) for n in _some(kinds[key])),
            )
            for key, title, tone in titles
        )
    )


def _some(names: Sequence[str]) -> list[str]:
    """A few names, those whose hashes come first."""

    def key(name: str) -> str:
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()

    return sorted(names, key=key)[:_SHOWN]


def _item(answers: Mapping[str, Mapping[str, Any]], models: tuple[str, str], palette: Palette) -> Item:
    first = answers[models[0]]
    prompt = facts.text(first, "prompt")
    # the question stands at the end; before it come the examples
    shown = prompt if len(prompt) <= _PROMPT_CHARACTERS else "…" + prompt[1 - _PROMPT_CHARACTERS :]
    return Item(
        name=facts.text(first, "item"),
        language=facts.text(first, "language"),
        prompt=shown,
        answers=tuple(
            Answer(
                name,
                palette.css(name),
                clip(facts.text(answers[name], "output"), _ANSWER_CHARACTERS),
                answers[name]["score"],
            )
            for name in models
        ),
        gold=clip(facts.text(first, "gold"), _ANSWER_CHARACTERS),
    )
