"""Whether tokenizer.model, read by SentencePiece itself, gives the ids of tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsugiki.models.spelling import TokenizerKind
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.writing import SENTENCE_PIECE_FILE


@dataclass
class PeerIds:
    """SentencePiece's own reading of the base and the extended tokenizer.model, and what differed.

    documents: compared. differences: documents that it encodes otherwise than the extended tokenizer.json,
    although it agreed about the base's. base_differences: documents about which it did not agree before.
    """

    base: TextTokenizer
    base_peer: Any
    peer: Any
    documents: int = 0
    differences: int = 0
    base_differences: int = 0

    @classmethod
    def of(cls, base: TextTokenizer, extended: TextTokenizer) -> PeerIds | None:
        """The comparison, or None where the extended tokenizer has no tokenizer.model."""
        if (
            extended.kind is not TokenizerKind.SENTENCE_PIECE
            or SENTENCE_PIECE_FILE not in extended.side_files
        ):
            return None
        from sentencepiece import SentencePieceProcessor

        files = [one.side_files[SENTENCE_PIECE_FILE] for one in (base, extended)]
        before, after = (SentencePieceProcessor(model_proto=file) for file in files)
        return cls(base, before, after)

    def compare(self, texts: Sequence[str], encoded: Sequence[NDArray[np.uint32]]) -> None:
        """Compare the ids of some documents; `encoded` are those of the extended tokenizer.json."""
        for text, ids_T in zip(texts, encoded, strict=True):
            if self.peer.encode(text) == ids_T.tolist():
                continue
            if self.base_peer.encode(text) == self.base.encode_batch([text])[0].tolist():
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
        }
