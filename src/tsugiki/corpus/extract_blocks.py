"""The main text of a page by judging its blocks: one pass, a hundred facts a block, a small forest of trees.

The forest (extract_forest.json: 120 trees of 8 leaves) was fitted by `benchmarks/extraction_training.py` on
half of trafilatura's evaluation set; the other half gives the figures that we publish. It knows no words, so
it serves any language; Japanese pages had no part in the fitting.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from tsugiki.corpus.extract_features import FEATURES, SENTENCE, features_of
from tsugiki.corpus.extract_scan import (
    COLUMNS,
    ELEMENT,
    ELEMENT_COLUMNS,
    END,
    LAST_STOP,
    START,
    TAG,
    WIDTH,
    scan,
)
from tsugiki.corpus.extract_tags import H1

_kernel: Any = nb.njit

THRESHOLD = 0.45
"""A block is main text from this probability on (about the best F1 of four folds of the fitting half)."""

MAX_TAGS = 1 << 18
"""Pages with more are not for this module: a block's facts take half a kilobyte."""
_LONG_NUMBER = re.compile("&#[0-9]{9,};?")  # beyond Unicode; int() raises on thousands of digits


@dataclass(frozen=True)
class Blocks:
    """A page's blocks in order.

    texts: UTF-8, white space collapsed. widths: in letters, ideographs counting two. probabilities: of main
    text. headlines: which are an h1. sentences: which end like one and are no shorter than a short one.
    """

    texts: tuple[bytes, ...]
    widths: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    headlines: npt.NDArray[np.bool_]
    sentences: npt.NDArray[np.bool_]

    def main(self) -> str:
        """The blocks that are main text, one a line; from the headline on, if short ones stand before."""
        places = np.flatnonzero(self.probabilities >= THRESHOLD).tolist()
        return _joined([self.texts[place] for place in places[self._headline(places) :]])

    def everything(self) -> str:
        """All the page's text, one block a line."""
        return _joined(list(self.texts))

    @property
    def main_width(self) -> int:
        """How wide the main text is."""
        return int(self.widths[self.probabilities >= THRESHOLD].sum())

    def _headline(self, places: list[int]) -> int:
        for number, place in enumerate(places):
            if self.headlines[place]:
                return number
            if self.sentences[place]:
                break
        return 0


def blocks_of(page: str) -> Blocks:
    """The blocks of an HTML page with at most MAX_TAGS "<", judged. Lone surrogates become question marks."""
    flat, blocks, elements = scanned(page)
    widths = blocks[:, WIDTH]
    return Blocks(
        texts=tuple(flat[start:end] for start, end in blocks[:, [START, END]].tolist()),
        widths=widths,
        probabilities=probabilities_of(features_of(blocks, elements), *_forest()),
        headlines=elements[blocks[:, ELEMENT], TAG] == H1,
        sentences=(blocks[:, LAST_STOP] > 0) & (widths >= SENTENCE),
    )


def scanned(page: str) -> tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The text of a page, its blocks and its elements, as `scan` describes them."""
    raw = np.frombuffer(bytearray(page.encode("utf-8", "replace")), np.uint8)
    rows = page.count("<") + 2
    text = np.empty(raw.size + 1, np.uint8)
    blocks = np.empty((rows, COLUMNS), np.int64)
    elements = np.empty((rows, ELEMENT_COLUMNS), np.int64)
    count, made, written = scan(raw, text, blocks, elements)
    return text[:written].tobytes(), blocks[:count], elements[:made]


def _joined(texts: list[bytes]) -> str:
    text = b"\n".join(texts).decode("utf-8", "replace")
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text


@cache
def _forest() -> tuple[npt.NDArray[Any], ...]:
    """Roots int64[trees]; then for each node: feature (-1 for a leaf), threshold, left, right, value."""
    stored = json.loads((files("tsugiki.corpus") / "extract_forest.json").read_text(encoding="utf-8"))
    feature = np.array(stored["feature"], np.int64)
    if feature.max() >= FEATURES:
        raise AssertionError("the forest knows more features than there are")
    return (
        np.array(stored["roots"], np.int64),
        feature,
        np.array(stored["threshold"], np.float32),
        np.array(stored["left"], np.int64),
        np.array(stored["right"], np.int64),
        np.array(stored["value"], np.float64),
    )


@_kernel(
    "float64[::1](float32[:,::1], int64[::1], int64[::1], float32[::1], int64[::1], int64[::1], f8[::1])",
    nogil=True,
    cache=True,
)
def probabilities_of(  # noqa: PLR0917
    features: Any, roots: Any, feature: Any, threshold: Any, left: Any, right: Any, value: Any
) -> Any:
    """The logistic function of the sum over trees: float64[blocks]."""
    out = np.empty(features.shape[0], np.float64)
    for i in range(features.shape[0]):
        total = 0.0
        for root in roots:
            node = root
            while feature[node] >= 0:
                node = left[node] if features[i, feature[node]] <= threshold[node] else right[node]
            total += value[node]
        out[i] = 1.0 / (1.0 + np.exp(-total))
    return out
