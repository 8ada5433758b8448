"""The shape of a language pack: typed facts, checked when a pack is read."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_LAST_CODE_POINT = 0x10FFFF


def _parse_range(value: object) -> object:
    """`"3041-3096"` or `"3005"` (hexadecimal code points, both ends included) -> (first, last)."""
    if not isinstance(value, str):
        return value
    first, _, last = value.partition("-")
    try:
        bounds = (int(first, 16), int(last or first, 16))
    except ValueError:
        message = f'"{value}" is not a range of code points; write hexadecimal such as "3041-3096"'
        raise ValueError(message) from None
    if not 0 <= bounds[0] <= bounds[1] <= _LAST_CODE_POINT:
        message = f'"{value}" is not a range of code points: 0 <= first <= last <= 10FFFF is needed'
        raise ValueError(message)
    return bounds


CodePoints = Annotated[tuple[int, int], BeforeValidator(_parse_range)]
"""A range of Unicode code points, both ends included."""


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Identification(_Facts):
    """How the language identifier's answer is read."""

    labels: tuple[str, ...] = Field(min_length=1)
    """Labels of the identifier (py3langid: ISO 639-1) that count as this language."""
    minimum_score: float = Field(ge=0, le=1)
    """The least probability of the labels together."""


class Script(_Facts):
    """The writing system."""

    spaceless: bool = False
    """Whether words are written without spaces between them; word features make no sense then."""
    sentence_terminators: str = Field(min_length=1)
    """Characters that end a sentence; each is a single character."""
    ellipses: tuple[str, ...] = ("…",)
    """A sentence (or, in languages with spaces, a line) that ends with one of these breaks off."""
    classes: dict[str, tuple[CodePoints, ...]] = Field(default_factory=dict)
    """Disjoint named classes of characters. Each gives a feature `<name>_share`: its share of all
    characters in any class; all of them together give `language_letters` and `language_share`."""

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        spans = sorted((span, name) for name, ranges in self.classes.items() for span in ranges)
        for ((_, last), name), ((first, _), other) in pairwise(spans):
            if first <= last:
                message = f'character classes "{name}" and "{other}" overlap at U+{first:04X}'
                raise ValueError(message)
        return self


class Decoding(_Facts):
    """Encodings to try where a page is not UTF-8, and what well-decoded text looks like."""

    legacy_encodings: tuple[str, ...] = ()
    """Python codec names, the most frequent first."""
    frequent: tuple[CodePoints, ...] = ()
    """Characters that every page of the language has many of: full credit when a decoding is scored."""
    plausible: tuple[CodePoints, ...] = ()
    """Characters that belong to the language's pages but prove little: half credit."""


class Prefilter(_Facts):
    """What tells a candidate page before its main text is extracted."""

    html_lang: tuple[str, ...] = Field(min_length=1)
    """Primary subtags of `<html lang>`; "ja" fits "ja" and "ja-JP", not "jav"."""
    charsets: tuple[str, ...] = ()
    """Encodings (Python codec names) that are used for this language alone."""
    domains: tuple[str, ...] = ()
    """Top-level domains where most pages are in this language."""
    evidence: tuple[CodePoints, ...] = ()
    """Characters that hardly any other language uses; two in the title, or a share of the head, suffice."""
    trust_other_lang: bool = False
    """Whether a page that declares another language is dropped at once. For scripts shared by many
    languages, where the characters say nothing."""
    undeclared_share: float | None = Field(default=None, gt=0, le=1)
    """A page without any sign either way is a candidate if at least this share of the letters in its head
    belongs to the script's classes; absent: never."""


class Bound(_Facts):
    """A rule: a document is rejected where `feature` is below `min` or above `max`; equality passes."""

    feature: str
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _has_bound(self) -> Self:
        if self.min is None and self.max is None:
            message = 'a rule needs "min" or "max"'
            raise ValueError(message)
        return self


class WordList(_Facts):
    """A list of words in a file of the pack's folder: UTF-8, one entry a line, `#` begins a comment line."""

    file: str = Field(pattern=r"^[\w.-]+$")
    """Name of the file beside pack.toml."""
    licence: str = Field(min_length=1)
    """Under which licence the list may be used; an SPDX name where there is one."""
    source: str = Field(min_length=1)
    """Where the list comes from, for the person who wants to check it."""
    entries: tuple[str, ...] = ()
    """What stands in the file, in its order; filled in when the pack is read."""


class Typical(_Facts):
    """What a page that passes the rules is like; for forecasts only."""

    characters_per_document: float = Field(default=2000, gt=0)
    bytes_per_character: float = Field(default=1.5, gt=0)
    """In UTF-8."""


class LanguagePack(_Facts):
    """One language's facts; see the comments in `languages/ja/pack.toml` for a worked example."""

    code: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]+)?$")
    name: str
    native_name: str
    identification: Identification
    script: Script
    decoding: Decoding = Decoding()
    prefilter: Prefilter
    stop_words: tuple[str, ...] = ()
    """Frequent function words, lower case; only for languages with spaces (Gopher's stop-word rule)."""
    typical: Typical = Typical()
    lists: dict[str, WordList] = Field(default_factory=dict)
    """Word lists by the name under which code asks for them: `ng` (expressions of harmful pages),
    `dating` (names of dating sites), `footer` (words of page footers)."""
    rules: dict[str, Bound] = Field(default_factory=dict)
    """The rules that are used unless a recipe names a set."""
    rule_sets: dict[str, dict[str, Bound]] = Field(default_factory=dict)
    """Further sets of rules by name, e.g. `fineweb2`; a recipe chooses one with `rules: fineweb2`."""
