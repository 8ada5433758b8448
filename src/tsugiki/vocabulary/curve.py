"""Tokens saved against pieces added: the curve by which a size can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.extend import Candidates, Extension, choose_pieces
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.words import batches

CURVE_CHARACTERS = 1_000_000
"""Held-out text that the curve is measured on; an even sample of a larger corpus."""


@dataclass(frozen=True)
class Point:
    """What a number of new pieces makes of some texts."""

    pieces: int
    tokens: int
    characters: int
    bytes: int


def count_tokens(tokenizer: TextTokenizer, texts: Sequence[str]) -> int:
    """Tokens of all texts together, without special ones."""
    return sum(len(ids) for batch in batches(texts) for ids in tokenizer.encode_batch(batch))


def measure_sizes(
    base: TextTokenizer,
    candidates: Candidates,
    limits: Limits,
    sizes: Sequence[int],
    texts: Sequence[str],
    *,
    apart: bool,
) -> list[tuple[Point, Extension | None]]:
    """The base's point (0 pieces, no extension), then one for each of `sizes`, with its extension.

    candidates: learnt for the largest size. Raises DataError where they are fewer than a size asks for.
    """
    characters, size = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
    found: list[tuple[Point, Extension | None]] = []
    for wanted in sorted(sizes, reverse=True):  # the largest first: it fails at once where text is short
        extension = choose_pieces(base, candidates, limits._replace(wanted=wanted), apart=apart)
        tokens = count_tokens(extension.tokenizer, texts)
        found.append((Point(wanted, tokens, characters, size), extension))
    found.append((Point(0, count_tokens(base, texts), characters, size), None))
    return found[::-1]


def choose_point(points: Sequence[Point], doubling_saves: float) -> int:
    """The place of the first point from which the next one saves less than a share of its tokens.

    points: rising by doubling from the second on (the first is the base's).
    """
    for place in range(1, len(points) - 1):
        here, there = points[place], points[place + 1]
        if here.tokens - there.tokens < doubling_saves * here.tokens:
            return place
    return len(points) - 1
