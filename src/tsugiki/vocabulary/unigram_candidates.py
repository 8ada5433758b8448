"""Pieces that could be added to a Unigram tokenizer, from the most to the least useful.

Many pieces are learnt by merging neighbours, as for the other tokenizers; then those whose loss would cost
the corpus least are taken away, again and again, with the scores estimated anew in between (Kudo 2018, arXiv
1804.10959, section 3.2). What goes first stands last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsugiki.models.spelling import SPACE
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.learner import Limits, learn_merges
from tsugiki.vocabulary.pieces import Scripts, describe_pieces
from tsugiki.vocabulary.unigram_lattice import Lattices, best_splits, build_trie, expect
from tsugiki.vocabulary.unigram_scores import BaseScores, Scores, share_out
from tsugiki.vocabulary.unigram_words import UnigramWords

_SEEDS = 3
"""How many pieces are learnt for each that is wanted."""

_KEPT = 0.75
"""The share of the pieces that outlives a round (SentencePiece's shrinking_factor)."""

_EPOCHS = 2
"""Of EM in each round (SentencePiece's num_sub_iterations)."""

_SMALLEST = 8
"""The size `tsugiki vocabulary` looks at last is an eighth of the largest (`config.size_ladder`)."""


@dataclass(frozen=True)
class Ranking:
    """Candidates from the most useful on, as tokenizer.json spells them, with log weights to begin with.

    words: what they were learnt on. scores: how scores will be estimated.
    """

    texts: tuple[str, ...]
    log_weight_Q: NDArray[np.float64]
    words: UnigramWords
    scores: Scores


def rank_candidates(
    base: TextTokenizer, scores: BaseScores, words: UnigramWords, limits: Limits, *, apart: bool, mode: Scores
) -> Ranking:
    """The pieces that the base lacks, best first.

    apart: judge them as a vocabulary of its own (with what the base has of it), as where vocabularies are
    united; else by what they add to the base's pieces at their scores.
    """
    taken = set(base.pieces)
    seeds = _seeds(words, limits, taken)
    lacking = [text for text in seeds if text not in taken]
    lattices = Lattices.of(words.words.items())
    characters = set("".join(words.words))
    if apart:
        rest = sorted({*characters, *seeds} - set(lacking))
        counts = {
            character: words.characters[character.replace(SPACE, " ")] for character in characters
        } | seeds
        fixed = BaseScores((), (), np.empty(0), scores.unknown)
    else:
        rest, counts = [], seeds
        fixed = scores.within(characters)
    free = [*rest, *lacking]
    start = share_out(np.array([counts[text] for text in free], dtype=np.float64), fixed.mass or 1.0)
    order, weights = _prune(lattices, fixed, free, start, kept=len(rest), smallest=limits.wanted // _SMALLEST)
    return Ranking(tuple(free[place] for place in order), weights, words, mode)


def _seeds(words: UnigramWords, limits: Limits, taken: set[str]) -> dict[str, float]:
    """Pieces of two or more characters that merging finds, and characters the base lacks, with counts."""
    found: dict[str, float] = {
        character: float(count)
        for character, count in words.characters.items()
        if count >= limits.minimum_count
        and not character.isascii()
        and words.may_grow(character)
        and character not in taken
    }
    asked = _SEEDS * limits.wanted
    while True:
        merged = _merged(words, limits._replace(wanted=asked))
        lacking = sum(text not in taken for text in merged)
        if lacking >= _SEEDS * limits.wanted or len(merged) < asked:
            return dict(sorted((found | merged).items()))
        asked += max(asked // 2, 1)


def _merged(words: UnigramWords, limits: Limits) -> dict[str, float]:
    characters, atoms = words.in_characters()
    contents = [
        character.replace(SPACE, " ").encode() if words.may_grow(character) else None
        for character in characters
    ]
    scripts = Scripts()
    table = describe_pieces(contents, len(contents) + limits.wanted, scripts)
    merges = learn_merges(atoms, contents, table, scripts.table(words.characters), limits)
    spelt = list(characters)
    counts: Counter[str] = Counter()
    rows = zip(merges.merges_M3.tolist(), merges.counts_M.tolist(), strict=True)
    for (left, right, target), count in rows:
        if target == len(spelt):
            spelt.append(spelt[left] + spelt[right])
        counts[spelt[target]] += count
    return {text: float(count) for text, count in counts.items()}


def _prune(
    lattices: Lattices,
    fixed: BaseScores,
    free: list[str],
    weight_F: NDArray[np.float64],
    *,
    kept: int,
    smallest: int,
) -> tuple[list[int], NDArray[np.float64]]:
    """Places in `free` from the most useful piece on, and their log weights; the first `kept` stay unranked.

    fixed: pieces whose weights stay. The loss of a piece is what the corpus's log-likelihood falls by where
    each use of it becomes the best split of its text.
    """
    alive = np.arange(len(free))
    old = len(fixed.texts)
    gone: list[tuple[int, float]] = []
    while True:
        texts = [free[place] for place in alive]
        trie = build_trie([*fixed.texts, *texts])
        weights = weight_F[alive]
        for _ in range(_EPOCHS):
            expected = expect(lattices, trie, np.append(fixed.log_weight_P, weights), fixed.unknown)
            weights = share_out(expected.count_P[old:], fixed.mass or 1.0)
        counts = expected.count_P[old:]
        splits = best_splits(texts, trie, np.append(fixed.log_weight_P, weights), fixed.unknown)
        with np.errstate(invalid="ignore"):
            loss = np.where(counts > 0, counts * (weights - splits), -np.inf)
        loss[alive < kept] = np.inf
        order = np.lexsort((alive, -loss))  # the most useful first; ties by place
        removable = int((alive >= kept).sum())
        left = max(smallest, int(removable * _KEPT))
        cut = len(alive) if removable <= smallest else len(alive) - (removable - left)
        ranked = [(int(alive[place]), float(weights[place])) for place in order]
        if cut == len(alive):
            final = [one for one in ranked if one[0] >= kept] + gone
            return [place for place, _ in final], np.array([weight for _, weight in final])
        gone = ranked[cut:] + gone
        weight_F = weight_F.copy()
        weight_F[alive] = weights
        alive = np.sort(alive[order[:cut]])
