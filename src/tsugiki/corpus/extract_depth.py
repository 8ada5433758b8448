# ruff: noqa: C901, PLR0912, PLR2004 (one loop over bytes, plain for numba)
"""Whether a page's elements are nested too deep for a parser, told without one."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numba as nb
import numpy as np

_kernel: Any = nb.njit

MAX_DEPTH = 512
"""Deeper pages are refused, as browsers do: parsers' time grows with the square of the depth."""

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements that need no end tag: unclosed ones are siblings, not nested.
_UNCLOSED = frozenset(
    "area base br col embed hr img input link meta param source track wbr p li dt dd tr td th thead tbody "  # noqa: SIM905
    "tfoot colgroup caption option optgroup rp rt html head body".split()
)
_SLOTS = 1 << 12
_BASIS, _PRIME = 0xCBF29CE484222325, 0x100000001B3  # FNV-1a, 64 bits


def too_deep(page: str) -> bool:
    """Whether elements of one name are open MAX_DEPTH times at once, or all together four times as often."""
    if page.count("<") < MAX_DEPTH:
        return False
    raw = np.frombuffer(bytearray(page.encode("utf-8", "replace")), np.uint8)
    answer = _depth(raw, _UNCLOSED_HASHES)
    return too_deep_plainly(page) if answer < 0 else bool(answer)


def too_deep_plainly(page: str) -> bool:
    """The same without the kernel: for pages of thousands of different names, and for the tests."""
    depth: Counter[str] = Counter()
    total = 0
    for slash, name in _TAG.findall(page):
        tag = name.lower()
        if tag in _UNCLOSED:
            continue
        if not slash:
            depth[tag] += 1
            total += 1
            if depth[tag] > MAX_DEPTH or total > 4 * MAX_DEPTH:
                return True
        elif depth[tag]:
            depth[tag] -= 1
            total -= 1
    return False


def _hash(name: str) -> int:
    value = _BASIS
    for byte in name.encode():
        value = (value ^ byte) * _PRIME & (1 << 64) - 1
    return value


_UNCLOSED_HASHES = np.array(sorted(_hash(name) for name in _UNCLOSED), np.uint64)


@_kernel("int64(uint8[::1], uint64[::1])", nogil=True, cache=True)
def _depth(page: Any, unclosed: Any) -> Any:
    """1 or 0 as `too_deep` says; -1 where more names occur than the table holds."""
    names = np.zeros(_SLOTS, np.uint64)
    depth = np.zeros(_SLOTS, np.int64)
    used = total = at = 0
    while at < page.size:
        if page[at] != 60:
            at += 1
            continue
        at += 1
        closing = at < page.size and page[at] == 47
        if closing:
            at += 1
        if at >= page.size or not 97 <= page[at] | 32 <= 122:
            continue
        name = np.uint64(_BASIS)
        while at < page.size:
            byte = page[at]
            if 65 <= byte <= 90:
                byte += 32
            if not (97 <= byte <= 122 or 48 <= byte <= 57):
                break
            name = (name ^ np.uint64(byte)) * np.uint64(_PRIME)
            at += 1
        place = np.searchsorted(unclosed, name)
        if place < unclosed.size and unclosed[place] == name:
            continue
        slot = np.int64(name & np.uint64(_SLOTS - 1))
        while names[slot] != 0 and names[slot] != name:
            slot = (slot + 1) & (_SLOTS - 1)
        if names[slot] == 0:
            names[slot] = name
            used += 1
            if 2 * used > _SLOTS:
                return -1
        if not closing:
            depth[slot] += 1
            total += 1
            if depth[slot] > MAX_DEPTH or total > 4 * MAX_DEPTH:
                return 1
        elif depth[slot]:
            depth[slot] -= 1
            total -= 1
    return 0
