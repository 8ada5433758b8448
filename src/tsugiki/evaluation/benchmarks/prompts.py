"""Templates and prompts. A template has {field} for a record's field and {field.2} for an entry of a list."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.schema import Cut, Settings
from tsugiki.evaluation.items import byte_length, cut_bytes

_PLACE = re.compile(r"\{([a-z_]+)(?:\.(\d+))?\}")


def render(template: str, record: Mapping[str, Any]) -> str:
    """The template with the record's values; what a value holds is never read as a template.

    Raises InputError where the record lacks a field that the template names.
    """

    def value(match: re.Match[str]) -> str:
        try:
            found = record[match[1]]
            return str(found[int(match[2])] if match[2] is not None else found)
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(
                f'the template "{template:.60}" names {match[0]}, which the record '
                f'"{record.get("id")}" has not (it has: {", ".join(record)})',
                hint="mend the template, or choose the format that gives the field",
            ) from error

    return _PLACE.sub(value, template)


def prompt_of(settings: Settings, record: Mapping[str, Any], shots: Sequence[Mapping[str, Any]]) -> str:
    """Preamble, worked examples and the question, as the settings join them."""
    examples = [example(settings, shot) for shot in shots]
    question = render(settings.query, shortened(settings.cut, record))
    return render(settings.preamble, record) + settings.separator.join([*examples, question])


def sections_of(
    settings: Settings, record: Mapping[str, Any], shots: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, str], ...]:
    """The prompt of `prompt_of` in parts: the preamble, each worked example, the question.

    Each part is (what `fit` may shorten, what it may not).
    """
    assert settings.fit is not None  # noqa: S101 (asked for nothing else)
    head, before, _ = settings.query.partition(settings.fit.before) if settings.fit.before else ("", "", "")
    parts = [("", render(settings.preamble, record))]
    for shot in shots:
        whole = example(settings, shot) + settings.separator
        start = len(render(head, shortened(settings.cut, shot))) if before else 0
        parts.append((whole[:start], whole[start:]))
    whole = render(settings.query, shortened(settings.cut, record))
    start = len(render(head, shortened(settings.cut, record))) if before else 0
    return (*parts, (whole[:start], whole[start:]))


def example(settings: Settings, shot: Mapping[str, Any]) -> str:
    """One worked example: the question, the delimiter and its answer."""
    shot = shortened(settings.cut, shot)
    if settings.example is not None:
        return render(settings.example, shot)
    return render(settings.query, shot) + settings.delimiter + render(settings.target, shot)


def shortened(cut: Cut | None, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record with its long field cut by sentences."""
    if cut is None:
        return record
    text = cut_sentences(record[cut.field], cut.sentence_end, cut.maximum_bytes)
    return {**record, cut.field: text}


def cut_sentences(text: str, end: str, most: int, size: Callable[[str], int] = byte_length) -> str:
    """As many of the text's first sentences as have at most this size together, with the last one's end.

    Where the first sentence alone is longer, as many of its first bytes.
    """
    if size(text) <= most:
        return text
    kept: list[str] = []
    for sentence in text.split(end):
        if size(end.join([*kept, sentence]) + end) > most:
            break
        kept.append(sentence)
    return end.join(kept) + end if kept else cut_bytes(text, most)
