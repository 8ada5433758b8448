"""Where sentences begin and end, from the language pack's facts alone."""

from __future__ import annotations

from dataclasses import dataclass

_CLOSERS = frozenset("\"'”’»)]}」』）］】〉》")
"""Closing quotes and brackets belong to the sentence that ends before them."""


@dataclass(frozen=True)
class SentenceRules:
    """terminators: characters that end a sentence. spaceless: words are not separated by spaces."""

    terminators: frozenset[str]
    spaceless: bool


@dataclass(frozen=True)
class Span:
    """A sentence is text[start:end], without the white space around it. closed: it ends with a terminator."""

    start: int
    end: int
    closed: bool


def sentence_spans(text: str, rules: SentenceRules) -> list[Span]:
    """The sentences of a text, in order. A line break always ends one.

    Where words are separated by spaces, a terminator ends a sentence only before white space, and not
    before a lower-case letter (which follows an abbreviation, not a sentence).
    """
    spans: list[Span] = []
    start = position = 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\n":
            _add(spans, text, start, position, closed=False)
            start = position
        elif character in rules.terminators:
            while position < len(text) and (
                text[position] in rules.terminators or text[position] in _CLOSERS
            ):
                position += 1
            if _ends_here(text, position, rules):
                _add(spans, text, start, position, closed=True)
                start = position
    _add(spans, text, start, len(text), closed=False)
    return spans


def _ends_here(text: str, position: int, rules: SentenceRules) -> bool:
    if position >= len(text):
        return True
    if rules.spaceless and not text[position - 1].isascii():
        return True
    if not text[position].isspace():
        return False
    following = text[position:].lstrip(" \t")[:1]
    return not following.islower()


def _add(spans: list[Span], text: str, start: int, end: int, *, closed: bool) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        spans.append(Span(start, end, closed))
