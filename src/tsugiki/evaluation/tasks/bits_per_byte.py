"""Bits per byte of whole pages: the measure that does not depend on the tokenizer.

BPB = sum over tokens of -ln p / (ln 2 * UTF-8 bytes of the raw text). Only the text's own tokens are scored:
the beginning-of-sequence token is given, an end-of-sequence token would have no bytes. Windows count tokens,
so a model with a better vocabulary sees more text in its window; that is part of what the vocabulary buys it.
Compare models within a language only: a Japanese character takes three bytes, an English letter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from tsugiki.evaluation.backend import Backend
from tsugiki.evaluation.items import Item, Page, byte_length
from tsugiki.evaluation.tasks.base import Measure, Row, base_row

NAME = "bits-per-byte"
MEASURE = Measure("bits per byte", lower_is_better=True, by_byte=True)


@dataclass(frozen=True)
class BitsPerByte:
    """Every page is one item; its one choice is the whole text."""

    name: str = NAME
    measure: Measure | None = MEASURE
    written_bytes: int = 0

    def items(self, pages: Sequence[Page]) -> list[Item]:
        """One item a page, under the page's own id."""
        return [
            Item(NAME, page.dataset, page.language, page.domain, page.cluster, page.id, "", (page.text,))
            for page in pages
        ]

    def rows(self, backend: Backend, items: Sequence[Item]) -> list[Row]:
        """score: bits per byte of the page. The page's text is not repeated in the rows."""
        answers = backend.text_likelihoods([item.choices[0] for item in items])
        rows = []
        for item, answer in zip(items, answers, strict=True):
            size_bytes = byte_length(item.choices[0])
            rows.append(
                base_row(item)
                | {
                    "score": answer.nll_nats / (log(2) * size_bytes),
                    "nll_nats": answer.nll_nats,
                    "tokens": answer.tokens,
                    "bytes": size_bytes,
                    "characters": len(item.choices[0]),
                    "cut_context": answer.cut_context,
                    "empty": answer.tokens == 0,
                    # Japanese has three bytes where English has one: bits per character say how much.
                    "other_scores": {"bits_per_character": answer.nll_nats / (log(2) * len(item.choices[0]))},
                }
            )
        return rows
