"""Word segmenters for languages without spaces, by the name that a language pack gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.errors import DependencyError, InputError
from tsugiki.languages import load_pack
from tsugiki.vocabulary.words import Cut

_PIECE_BYTES = 30_000
"""Sudachi takes at most 49,149 bytes at a time."""


def cut_of_corpus(directory: Path) -> Cut:
    """The segmenter that the pack of the documents' language names, as a function from a text to offsets.

    Raises InputError where the pack names none, DependencyError where it is not installed.
    """
    first = next(iterate_documents(directory, columns=["language"]), None)
    language = (first or {}).get("language") or ""
    if not language:
        raise InputError(
            "keep_words: the documents do not say what language they are in",
            hint="make them with a corpus stage (rules: none keeps all), or leave out keep_words",
        )
    name = load_pack(language).script.word_segmenter
    if name not in SEGMENTERS:
        raise InputError(
            f'the language pack "{language}" names no word segmenter that is known ("{name}")',
            hint=f"leave keep_words out, or set script.word_segmenter to one of {', '.join(SEGMENTERS)}",
        )
    return SEGMENTERS[name]()


def sudachi() -> Cut:
    """Sudachi's short units (mode A, about UniDic's; what LLM-jp's tokenizer v3 took its words from)."""
    try:
        from sudachipy import Dictionary, SplitMode  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise DependencyError(
            "keep_words needs SudachiPy and a dictionary for Japanese", hint="pip install 'tsugiki[japanese]'"
        ) from error
    tokenizer = Dictionary().tokenizer(mode=SplitMode.A)

    def words(text: str) -> list[str]:
        return [word.surface() for line in _lines(text) for word in tokenizer.tokenize(line)]

    return offsets_of(words)


def offsets_of(words: Callable[[str], Sequence[str]]) -> Cut:
    """A segmenter as a function that gives the offsets at which words begin.

    words: cuts a text into words that joined give the text again.
    """

    def cut(text: str) -> list[int]:
        return [0, *accumulate(map(len, words(text)))][:-1]

    return cut


def _lines(text: str) -> list[str]:
    """Lines, long ones in parts that a segmenter takes."""
    longest = _PIECE_BYTES // 4  # UTF-8 bytes of a character
    return [
        line[start : start + longest]
        for line in text.splitlines(keepends=True)
        for start in range(0, len(line), longest)
    ]


SEGMENTERS: dict[str, Callable[[], Cut]] = {"sudachi": sudachi}
