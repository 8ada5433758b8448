"""What a tokenizer makes of documents, and what new pieces would make of them, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsugiki.errors import DataError
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.curve import CURVE_CHARACTERS, Point, count_tokens, measure_sizes
from tsugiki.vocabulary.extend import Candidates, Method, check_extendable, read_corpus, with_candidates
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.segmenters import cut_of_corpus
from tsugiki.vocabulary.words import measuring_split, sample_documents, training_texts

MAXIMUM_PIECE_CHARACTERS = 16
MINIMUM_COUNT = 2


@dataclass(frozen=True)
class Fertility:
    """What a tokenizer makes of a directory's documents in one language."""

    dataset: str
    language: str
    documents: int
    characters: int
    bytes: int
    tokens: int


def fertility(tokenizer: TextTokenizer, directory: Path, name: str) -> list[Fertility]:
    """Tokens of the held-out documents (all where none are held out) by language, at most a sample."""
    texts: dict[str, list[str]] = {}
    split = measuring_split(directory)
    for row in sample_documents(directory, CURVE_CHARACTERS, split=split, columns=("language",)):
        texts.setdefault(row["language"] or "", []).append(row["text"])
    return [
        Fertility(
            name,
            language,
            len(found),
            sum(map(len, found)),
            sum(len(text.encode()) for text in found),
            count_tokens(tokenizer, found),
        )
        for language, found in sorted(texts.items())
    ]


def savings_curve(
    tokenizer: TextTokenizer,
    corpus: Path,
    sizes: Sequence[int],
    *,
    method: Method = "continued",
    keep_words: bool = False,
    sample: int = 20_000_000,
) -> list[Point]:
    """Tokens of held-out documents by the number of new pieces, learnt on the train split; the base first.

    Sizes that the corpus has too little text for are left out. Raises InputError for a tokenizer that can't
    be extended, DataError where not even the smallest size can be had.
    """
    check_extendable(tokenizer)
    cut = cut_of_corpus(corpus) if keep_words else None
    words = read_corpus(tokenizer, training_texts(corpus, sample), minimum_count=MINIMUM_COUNT, cut=cut)
    limits = Limits(max(sizes), MINIMUM_COUNT, MAXIMUM_PIECE_CHARACTERS, words.mostly_ascii)
    split = measuring_split(corpus)
    texts = [row["text"] for row in sample_documents(corpus, CURVE_CHARACTERS, split=split)]
    possible = sorted(sizes)

    def points(candidates: Candidates) -> list[Point]:
        apart = method == "append"
        return [one for one, _ in measure_sizes(tokenizer, candidates, limits, possible, texts, apart=apart)]

    while True:
        try:
            return with_candidates(points, tokenizer, words, limits._replace(wanted=possible[-1]), method)
        except DataError:
            if len(possible) == 1:
                raise
            possible.pop()
