"""Whether tokenizer.model, read by SentencePiece itself, gives the ids of tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsugiki.models.spelling import TokenizerKind, byte_of
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.writing import SENTENCE_PIECE_FILE


@dataclass
class PeerIds:
    """SentencePiece's own reading of the base and the extended tokenizer.model, and what differed.

    documents: compared. differences: documents that it encodes otherwise than the extended tokenizer.json,
    although it agreed about the base's. base_differences: documents about which it did not agree before.
    ties: documents of a Unigram tokenizer that differ only where two ways through the text score the same but
    for what float32, in which SentencePiece adds scores up, rounds off; `tokenizers` adds in float64.
    """

    base: TextTokenizer
    base_peer: Any
    peer: Any
    documents: int = 0
    differences: int = 0
    base_differences: int = 0
    ties: int = 0
    tie: Ties | None = None

    @classmethod
    def of(cls, base: TextTokenizer, extended: TextTokenizer) -> PeerIds | None:
        """The comparison, or None where the extended tokenizer has no tokenizer.model."""
        kinds = {TokenizerKind.SENTENCE_PIECE, TokenizerKind.UNIGRAM}
        if extended.kind not in kinds or SENTENCE_PIECE_FILE not in extended.side_files:
            return None
        from sentencepiece import SentencePieceProcessor

        files = [one.side_files[SENTENCE_PIECE_FILE] for one in (base, extended)]
        before, after = (SentencePieceProcessor(model_proto=file) for file in files)
        tie = Ties.of(extended) if extended.kind is TokenizerKind.UNIGRAM else None
        return cls(base, before, after, tie=tie)

    def compare(self, texts: Sequence[str], encoded: Sequence[NDArray[np.uint32]]) -> None:
        """Compare the ids of some documents; `encoded` are those of the extended tokenizer.json."""
        for text, ids_T in zip(texts, encoded, strict=True):
            found = self.peer.encode(text)
            if found == ids_T.tolist():
                continue
            if self.tie is not None and self.tie.holds(found, ids_T.tolist()):
                self.ties += 1
            elif self.base_peer.encode(text) == self.base.encode_batch([text])[0].tolist():
                self.differences += 1
            else:
                self.base_differences += 1
        self.documents += len(texts)

    def facts(self) -> dict[str, int]:
        """The counts, for the manifest."""
        return {
            "documents": self.documents,
            "differences": self.differences,
            "base_differences": self.base_differences,
            **({"ties": self.ties} if self.tie is not None else {}),
        }


_FLOAT32_ROUNDING = 2.0**-24
"""Of one addition, relative to its result."""


@dataclass(frozen=True)
class Ties:
    """Whether two segmentations of a text differ only between ways of equal score.

    scores, lengths: of each piece, the length in bytes of text.
    """

    scores: tuple[float, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> Ties:
        """The scores of a Unigram tokenizer."""
        vocabulary = json.loads(tokenizer.tokenizer.to_str())["model"]["vocab"]
        unknown = min(score for _, score in vocabulary)  # of bytes; they are the same on both ways
        scores = [unknown if byte_of(piece) is not None else score for piece, score in vocabulary]
        return cls(tuple(scores), tuple(len(content or b"") for content in tokenizer.contents))

    def holds(self, one: Sequence[int], other: Sequence[int]) -> bool:
        """Whether between any two borders that both have the scores are equal but for float32's rounding."""
        ways = [self._borders(one), self._borders(other)]
        common = sorted(ways[0].keys() & ways[1].keys())
        if common[-1] != max(ways[0]) or common[-1] != max(ways[1]):
            return False
        for begin, end in pairwise(common):
            (score, pieces), (other_score, other_pieces) = (
                (way[end][0] - way[begin][0], way[end][1] - way[begin][1]) for way in ways
            )
            rounding = (pieces + other_pieces) * abs(ways[0][end][0]) * _FLOAT32_ROUNDING
            if abs(score - other_score) > rounding:
                return False
        return True

    def _borders(self, ids: Sequence[int]) -> dict[int, tuple[float, int]]:
        """Byte offset of each border -> score and number of pieces up to it."""
        found, place, score = {0: (0.0, 0)}, 0, 0.0
        for number, piece in enumerate(ids, start=1):
            place += self.lengths[piece]
            score += self.scores[piece]
            found[place] = (score, number)
        return found
