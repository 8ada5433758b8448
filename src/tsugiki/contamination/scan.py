"""An index for each language, and the documents streamed past it.

A question is found where n-grams of it that stand in a document cover `share` of it (corpus/contamination.py
has the details and their sources). A question *and its answer* are found where the gold, too, stands in the
same place: within one length of the question plus `AROUND` letters before or after what was found. A document
that quotes the question without its answer leaks less. Golds of one letter ("3", "B") prove nothing.
Questions with too few letters for that are looked for as a whole, and told apart (whole.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tsugiki.contamination.wanted import Wanted
from tsugiki.contamination.whole import ShortQuestions, letters_of
from tsugiki.corpus.contamination import SHARE, Contamination, UInt32s, ngram_of, simplify
from tsugiki.corpus.contamination_items import Item
from tsugiki.corpus.kernels import ngram_hashes
from tsugiki.errors import InputError
from tsugiki.languages import load_pack

AROUND = 200
"""Letters beside a question in which its gold counts: options or some words may stand between."""
MINIMUM_ANSWER = 2
EVIDENCE_LETTERS = 120
"""Letters of a document shown before and after the place that was found."""
_BATCH = 256


@dataclass(frozen=True)
class Hit:
    """A question in a document. share: how much of it stands there; excerpt: the document around it."""

    item: Wanted
    document: str
    share: float
    with_answer: bool
    excerpt: str


@dataclass(frozen=True)
class Found:
    """What a scan saw.

    short: items that are looked for as a whole only; weak: where they stand. unsearched: items with fewer
    than two letters.
    """

    items: tuple[Wanted, ...]
    short: frozenset[str]
    unsearched: frozenset[str]
    documents: int
    letters: int
    hits: tuple[Hit, ...]
    weak: tuple[Hit, ...]


@dataclass(frozen=True)
class Index:
    """The items of one language."""

    contamination: Contamination
    items: Mapping[str, Wanted]
    simple: Mapping[str, UInt32s]
    short: ShortQuestions

    @property
    def few_letters(self) -> frozenset[str]:
        """Items that n-grams can't find."""
        minimum = self.contamination.minimum
        return frozenset(key for key, letters in self.simple.items() if letters.size < minimum)


def build_indexes(items: Sequence[Wanted], *, ngram: int | None = None, share: float = SHARE) -> list[Index]:
    """One index a language: n-grams are shorter where words have no spaces between them.

    Raises InputError for no items, or where all of them are too short to be looked for in any way.
    """
    by_language: dict[str, list[Wanted]] = {}
    for item in items:
        by_language.setdefault(item.language, []).append(item)
    indexes = []
    for language, found in sorted(by_language.items()):
        length = ngram_of(load_pack(language)) if ngram is None else ngram
        index = Contamination.from_items([Item(item.key, (item.question,)) for item in found], length, share)
        simple = {item.key: simplify(item.question) for item in found}
        few = {key: letters for key, letters in simple.items() if letters.size < index.minimum}
        by_key = {item.key: item for item in found}
        indexes.append(Index(index, by_key, simple, ShortQuestions.of(few)))
    if not any(index.contamination.owners or index.short.symbols for index in indexes):
        raise InputError(
            f"none of {len(items)} items is long enough to be looked for", hint="name tasks with questions"
        )
    return indexes


def scan(indexes: Sequence[Index], documents: Iterable[tuple[str, str]], *, threads: int = 1) -> Found:
    """Stream all documents past all indexes; memory holds a few hundred documents and the hits."""
    hits: list[Hit] = []
    weak: list[Hit] = []
    count = letters = 0
    stream = iter(documents)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(stream, _BATCH)):
            count += len(batch)
            letters += sum(len(text) for _, text in batch)
            for found, unsure in pool.map(lambda document: _both(indexes, *document), batch):
                hits += found
                weak += unsure
    items = tuple(item for index in indexes for item in index.items.values())
    few = frozenset(key for index in indexes for key in index.few_letters)
    short = frozenset(key for index in indexes for key in index.short.symbols)
    return Found(items, short, few - short, count, letters, tuple(hits), tuple(weak))


def _both(indexes: Sequence[Index], document: str, text: str) -> tuple[list[Hit], list[Hit]]:
    return list(_hits(indexes, document, text)), list(_weak_hits(indexes, document, text))


def _hits(indexes: Sequence[Index], document: str, text: str) -> Iterator[Hit]:
    for index in indexes:
        for key in index.contamination.hits(text).items:
            yield _hit(index, key, document, text)


def _weak_hits(indexes: Sequence[Index], document: str, text: str) -> Iterator[Hit]:
    """Short questions that stand in a document as a whole."""
    if not any(index.short.symbols for index in indexes):
        return
    letters = letters_of(text)
    for index in indexes:
        for key, start, end in index.short.found(letters):
            beside = _answer_beside(letters.symbols, simplify(index.items[key].answer), start, end)
            yield Hit(index.items[key], document, 1.0, beside, excerpt(text, start, end))


def _hit(index: Index, key: str, document: str, text: str) -> Hit:
    """Where the question stands, how much of it, and whether its gold stands beside it."""
    item, question, symbols = index.items[key], index.simple[key], simplify(text)
    length = min(index.contamination.ngram, question.size)
    start, end, share = locate(symbols, question, length)
    beside = _answer_beside(symbols, simplify(item.answer), start, end, question.size)
    return Hit(item, document, share, beside, excerpt(text, start, end))


def _answer_beside(symbols: UInt32s, answer: UInt32s, start: int, end: int, more: int = 0) -> bool:
    """Whether the gold stands within `AROUND` and `more` letters before or behind a place."""
    reach = AROUND + more
    before, after = symbols[max(0, start - reach) : start], symbols[end : end + reach]
    return answer.size >= MINIMUM_ANSWER and any(_holds(part, answer) for part in (before, after))


def locate(symbols: UInt32s, question: UInt32s, length: int) -> tuple[int, int, float]:
    """(start, end, share): the stretch of a document that holds most of the question's n-grams.

    Lengths in simplified letters. share: covered letters of the question in that stretch, from 0 to 1.
    """
    wanted = ngram_hashes(question, length)
    hashes = ngram_hashes(symbols, length)
    places = np.flatnonzero(np.isin(hashes, wanted))
    if not places.size:
        return 0, 0, 0.0
    width = 2 * question.size
    inside = np.searchsorted(places, places + width, side="right") - np.arange(places.size)
    first = int(np.argmax(inside))
    chosen = places[first : first + int(inside[first])]
    covered = np.zeros(question.size, bool)
    for place in np.flatnonzero(np.isin(wanted, hashes[chosen])):
        covered[place : place + length] = True
    return int(chosen[0]), int(chosen[-1]) + length, float(covered.mean())


def _holds(symbols: UInt32s, part: UInt32s) -> bool:
    """Whether `part` stands in `symbols` without a break; at a letter's boundary, both are UTF-32."""
    text, wanted = (
        symbols.tobytes().decode("utf-32-le", "replace"),
        part.tobytes().decode("utf-32-le", "replace"),
    )
    return wanted in text


def excerpt(text: str, start: int, end: int) -> str:
    """The text around the simplified letters start..end, as it stands in the document.

    Letters are counted one by one, so a ligature or a combining mark may shift the ends a little.
    """
    first, last = max(0, start - EVIDENCE_LETTERS), end + EVIDENCE_LETTERS
    letters, begin, finish = 0, -1, len(text)
    for place, character in enumerate(text):
        if begin < 0 and letters >= first:
            begin = place
        letters += simplify(character).size
        if letters > last:
            finish = place
            break
    return text[max(0, begin) : finish]
