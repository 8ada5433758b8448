"""Counting n-grams and what two texts have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


def ngrams(tokens: Sequence[Any], order: int) -> Counter[Any]:
    """How often every run of `order` tokens occurs; a text shorter than that has none."""
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def overlap(first: Counter[Any], second: Counter[Any]) -> int:
    """The size of the common part, each n-gram counted as often as both have it."""
    if len(second) < len(first):
        first, second = second, first
    return sum(min(count, second[key]) for key, count in first.items() if key in second)
