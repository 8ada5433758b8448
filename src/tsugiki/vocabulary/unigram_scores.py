"""Scores of a Unigram model's pieces by expectation maximisation: of the new ones alone, or of all.

*keep*: the old scores are not touched. The new pieces share as much weight as all old ones have together,
each in proportion to how often it is expected. Each epoch raises the sum of the weights of all segmentations
of the corpus under that constraint, as EM does (Dempster, Laird and Rubin 1977). The base's ways through a
text keep their scores, and so does an unknown character. So where the best way uses no new piece, it is the
base's own: the best of more ways is the best of fewer, if it is among them.

*re-estimate*: all scores, as LLM-jp did for the union of several vocabularies (llm-jp-tokenizer,
scripts/howToCreateModel_ver2.md: 2 epochs of EM). The base's own distribution counts as much as the corpus
does, since the text that it was made from is not at hand: without it, English pieces would get no weight from
a Japanese corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tsugiki.models.spelling import byte_of
from tsugiki.vocabulary.unigram_lattice import Lattices, build_trie, expect

Scores = Literal["keep", "re-estimate"]

EPOCHS = 2
"""LLM-jp's (see above)."""

_UNKNOWN_PENALTY = 10.0
"""How far an unknown character scores below the worst piece: kUnkPenalty of SentencePiece, `tokenizers`."""

_STEP = 2.0**-10
"""Scores are multiples of this, so that sums of them are exact in float32 (SentencePiece) and float64
(`tokenizers`), and both break ties alike; and so that the last bits of an exponential do not matter."""


@dataclass(frozen=True)
class BaseScores:
    """The base's pieces that the search through a text may take.

    texts, ids, log_weight_P: their spelling, ids and scores. unknown: the score of an unknown character.
    Special, added and byte pieces are not among them, nor those of score 0 or more: such are no logarithms of
    probabilities but pieces that their makers want to win always.
    """

    texts: tuple[str, ...]
    ids: tuple[int, ...]
    log_weight_P: NDArray[np.float64]
    unknown: float

    @classmethod
    def of(cls, tokenizer_json: Mapping[str, Any]) -> BaseScores:
        """What a tokenizer.json with a Unigram model says."""
        vocabulary = tokenizer_json["model"]["vocab"]
        added = {token["id"] for token in tokenizer_json["added_tokens"]}
        found = [
            (number, piece, score)
            for number, (piece, score) in enumerate(vocabulary)
            if number not in added
            and number != tokenizer_json["model"]["unk_id"]
            and byte_of(piece) is None
            and score < 0
        ]
        return cls(
            tuple(piece for _, piece, _ in found),
            tuple(number for number, _, _ in found),
            np.array([score for _, _, score in found], dtype=np.float64),
            min((score for _, score in vocabulary), default=0.0) - _UNKNOWN_PENALTY,
        )

    @property
    def mass(self) -> float:
        """The sum of the pieces' weights, 1 where they are probabilities."""
        return float(np.exp(self.log_weight_P).sum())

    def within(self, characters: set[str]) -> BaseScores:
        """Those pieces that are made of some characters alone."""
        places = [place for place, text in enumerate(self.texts) if characters.issuperset(text)]
        return BaseScores(
            tuple(self.texts[place] for place in places),
            tuple(self.ids[place] for place in places),
            self.log_weight_P[places],
            self.unknown,
        )


@dataclass(frozen=True)
class Estimate:
    """Scores of old and new pieces, and the objective before each epoch and at the end.

    objective: nats per character of the corpus; where all scores are estimated, the part of the base's own
    distribution is in it.
    """

    old_P: NDArray[np.float64]
    new_Q: NDArray[np.float64]
    objective: tuple[float, ...]


def share_out(
    expected_P: NDArray[np.float64], mass: float, prior_P: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Log weights of sum `mass` in proportion to expected counts (and a prior's): the M step."""
    count_P = expected_P if prior_P is None else expected_P + prior_P
    total = count_P.sum()
    if total == 0:
        return np.full(len(count_P), -np.inf)
    with np.errstate(divide="ignore"):  # a count of 0 gives no weight at all
        return np.log(count_P / total) + np.log(mass)


def estimate(
    lattices: Lattices,
    base: BaseScores,
    new: Sequence[str],
    start_Q: NDArray[np.float64],
    scores: Scores,
    *,
    epochs: int = EPOCHS,
) -> Estimate:
    """The scores after `epochs` of EM, exact. start_Q: log weights of the new pieces to begin with."""
    trie = build_trie([*base.texts, *new])
    whole = base.mass if scores == "keep" else 0.5  # of the old pieces, and of the new ones
    old_P = base.log_weight_P - np.log(base.mass) + np.log(whole)
    if scores == "keep":
        old_P = base.log_weight_P  # to the last bit
    new_Q = start_Q - np.log(np.exp(start_Q).sum()) + np.log(whole)
    characters = max(float(np.dot(lattices.count_W, np.diff(lattices.end_W, prepend=0))), 1.0)
    share_P = np.exp(base.log_weight_P - np.log(base.mass))
    prior_P = np.zeros(len(old_P) + len(new))
    objective = []
    for epoch in range(epochs + 1):
        both = np.concatenate((old_P, new_Q))
        expected = expect(lattices, trie, both, base.unknown)
        if epoch == 0 and scores == "re-estimate":
            # As many tokens of the base's text as the corpus has.
            prior_P[: len(old_P)] = share_P * expected.count_P.sum()
        prior = np.dot(prior_P[prior_P > 0], both[prior_P > 0])  # the log-likelihood of that text
        objective.append(float(expected.log_likelihood + prior) / characters)
        if epoch == epochs:
            break
        if scores == "keep":
            new_Q = share_out(expected.count_P[len(old_P) :], base.mass)
        else:
            both = share_out(expected.count_P, 1.0, prior_P)
            old_P, new_Q = both[: len(old_P)], both[len(old_P) :]
    return Estimate(old_P, new_Q, tuple(objective))


def written_scores(log_weight_P: NDArray[np.float64], lowest: float, highest: float) -> NDArray[np.float64]:
    """Scores as they are written: multiples of `_STEP` between two scores that the base has.

    A lower one would change what unknown characters score, a higher one what SentencePiece gives to pieces
    that are to win always.
    """
    inside = np.floor(highest / _STEP) * _STEP, np.ceil(lowest / _STEP) * _STEP
    return np.clip(np.round(np.maximum(log_weight_P, lowest) / _STEP) * _STEP, inside[1], inside[0])
