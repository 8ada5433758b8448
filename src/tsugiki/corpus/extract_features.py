# ruff: noqa: C901, PLR0912, PLR0915, PLR2004 (one pass over blocks, plain for numba)
"""What is known of each block of a page, for telling main text from what stands around it.

The measures are those of the literature, written from their definitions: text and link density and the
neighbours' (boilerpipe, Kohlschütter et al. 2010), the container that holds the most running text
(readability), what kind of element and what its class says. None depends on a language's words.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from tsugiki.corpus.extract_scan import (
    AFTER_BREAK,
    ALL_HINTS,
    CAPITALS,
    COMMAS,
    DEPTH,
    DIGITS,
    ELEMENT,
    INSIDE,
    LAST_STOP,
    LETTERS,
    LINKED,
    OWN_HINTS,
    PARENT,
    STOPS,
    TAG,
    WIDTH,
)
from tsugiki.corpus.extract_tags import HINTS, NAMES, SEMANTIC

_kernel: Any = nb.njit

_GROUPS: tuple[tuple[str, ...], ...] = (
    ("p",),
    ("li",),
    ("h1", "h2", "h3", "h4", "h5", "h6"),
    ("td", "th"),
    ("blockquote", "pre"),
    ("dt", "dd"),
    ("h1",),
)
_GROUP = np.array(
    [sum(1 << i for i, group in enumerate(_GROUPS) if name in group) for name in NAMES], np.int64
)
_OWN = 12
_NEAR = 3
_OF_NEIGHBOUR = 6
FEATURES = _OWN + len(_GROUPS) + len(SEMANTIC) + 2 * len(HINTS) + 13 + 2 * _NEAR * _OF_NEIGHBOUR + 3
SENTENCE = 40


@_kernel("float32[:, ::1](int64[:, ::1], int64[:, ::1])", nogil=True, cache=True)
def features_of(blocks: Any, elements: Any) -> Any:
    """float32[blocks, FEATURES]; `blocks` and `elements` as `scan` leaves them, cut to their numbers."""
    count, made = blocks.shape[0], elements.shape[0]
    out = np.zeros((count, FEATURES), np.float32)
    total = np.zeros(
        (made, 5), np.float64
    )  # of an element and all in it: width, linked, running text, blocks, width of p
    last = np.arange(made)
    score = np.zeros(made, np.float64)
    page_width, page_linked, page_running = 1.0, 0.0, 1.0
    for i in range(count):
        block = blocks[i]
        element = block[ELEMENT]
        width, linked = block[WIDTH], block[LINKED]
        group = _GROUP[elements[element, TAG]]
        running = (
            width - linked
            if width >= SENTENCE and 2 * linked < width and (block[LAST_STOP] or width > 160)
            else 0
        )
        total[element, 0] += width
        total[element, 1] += linked
        total[element, 2] += running
        total[element, 3] += 1
        if group & 1:
            total[element, 4] += width
        page_width += width
        page_linked += linked
        page_running += running
        if running:
            container = element
            if group & 0x17 and elements[element, PARENT] >= 0:
                container = elements[element, PARENT]
            score[container] += running
            if elements[container, PARENT] >= 0:
                score[elements[container, PARENT]] += running / 2
    best = 0
    for i in range(made):
        if score[i] > score[best]:
            best = i
    for i in range(made - 1, 0, -1):
        parent = elements[i, PARENT]
        for k in range(5):
            total[parent, k] += total[i, k]
        last[parent] = max(last[parent], last[i])
    best_up = max(0, elements[best, PARENT])
    best_share = total[best, 2] / page_running
    before = 0.0
    running_before = 0.0
    for i in range(count):
        block = blocks[i]
        row = out[i]
        element = block[ELEMENT]
        width, linked = block[WIDTH], block[LINKED]
        letters = 1.0 * max(1, block[LETTERS])
        row[0] = np.log(1.0 + width)
        row[1] = linked / width
        row[2] = min(1.0, 20.0 * block[STOPS] / width)
        row[3] = min(1.0, 20.0 * block[COMMAS] / width)
        row[4] = block[DIGITS] / width
        row[5] = min(1.0, block[CAPITALS] / letters)
        row[6] = block[LAST_STOP]
        row[7] = letters / width
        row[8] = block[AFTER_BREAK]
        row[9] = before / page_width
        row[10] = running_before / page_running
        row[11] = min(4, block[STOPS])
        at = _OWN
        group = _GROUP[elements[element, TAG]]
        for k in range(len(_GROUPS)):
            row[at + k] = (group >> k) & 1
        at += len(_GROUPS)
        inside = elements[element, INSIDE]
        for k in range(len(SEMANTIC)):
            row[at + k] = (inside >> k) & 1
        at += len(SEMANTIC)
        parent = max(0, elements[element, PARENT])
        grand = max(0, elements[parent, PARENT])
        near = elements[element, OWN_HINTS] | elements[parent, OWN_HINTS] | elements[grand, OWN_HINTS]
        every = elements[element, ALL_HINTS]
        for k in range(len(HINTS)):
            row[at + k] = (every >> k) & 1
            row[at + len(HINTS) + k] = (near >> k) & 1
        at += 2 * len(HINTS)
        row[at] = best <= element <= last[best]
        row[at + 1] = best_up <= element <= last[best_up]
        row[at + 2] = best_share
        row[at + 3] = elements[element, DEPTH] - elements[best, DEPTH]
        row[at + 4] = np.log(1.0 + total[parent, 2])
        row[at + 5] = total[parent, 1] / max(1.0, total[parent, 0])
        row[at + 6] = np.log(1.0 + total[grand, 2])
        row[at + 7] = total[grand, 1] / max(1.0, total[grand, 0])
        row[at + 8] = total[parent, 2] / page_running
        row[at + 9] = total[element, 1] / max(1.0, total[element, 0])
        row[at + 10] = np.log(1.0 + total[element, 0])
        row[at + 11] = total[parent, 0] / max(1.0, total[parent, 3])
        row[at + 12] = 0.0
        if i and elements[blocks[i - 1, ELEMENT], TAG] == elements[element, TAG]:
            row[at + 12] = 1.0
        at += 13
        for step in range(-_NEAR, _NEAR + 1):
            if step == 0:
                continue
            other = i + step
            if 0 <= other < count:
                neighbour = blocks[other]
                place = neighbour[ELEMENT]
                row[at] = np.log(1.0 + neighbour[WIDTH])
                row[at + 1] = neighbour[LINKED] / neighbour[WIDTH]
                row[at + 2] = neighbour[LAST_STOP]
                row[at + 3] = max(0, elements[place, PARENT]) == parent
                row[at + 4] = _GROUP[elements[place, TAG]] & 7
                row[at + 5] = best <= place <= last[best]
            else:
                row[at] = -1.0
            at += _OF_NEIGHBOUR
        row[at] = np.log(page_width)
        row[at + 1] = page_linked / page_width
        row[at + 2] = np.log(page_running)
        before += width
        running_before += running
    return out
