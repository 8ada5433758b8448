# ruff: noqa: C901, PLR0911, PLR0912, PLR0915, PLR2004, PLR1714, PLR1730, SIM109 (one loop over bytes, plain for numba)
"""One pass over a page's bytes: its blocks of text, and the elements that they stand in.

No tree is built. A stack of open block-level elements is enough to know where a text stands; end tags close
as browsers close them in the common cases (an `li` ends an `li`, any block ends a `p`). Each byte is read a
constant number of times, so hostile pages cost no more than others.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from tsugiki.corpus.extract_tags import (
    BLOCK,
    BODY,
    BREAK,
    DD,
    DT,
    HTML,
    INLINE,
    KINDS,
    LI,
    OL,
    RAW,
    SEMANTIC_BIT,
    TABLE,
    TD,
    TH,
    TR,
    UL,
    P,
    attributes,
    end_of,
    find,
    name_at,
    tag_of,
)

_kernel: Any = nb.njit

MAX_OPEN = 512
_SEARCH = 64  # how far up an end tag looks for its start

# Columns of a block
START, END, ELEMENT, WIDTH, LINKED, STOPS, COMMAS, DIGITS, CAPITALS, LAST_STOP, AFTER_BREAK, LETTERS = range(
    12
)
COLUMNS = 12
# Columns of an element
PARENT, TAG, OWN_HINTS, ALL_HINTS, INSIDE, DEPTH = range(6)
ELEMENT_COLUMNS = 6


@_kernel("int64(int64[:, ::1], int64[::1], int64, int64)", nogil=True, cache=True)
def _closed(elements: Any, stack: Any, top: Any, tag: Any) -> Any:
    """The height of the stack after an end tag."""
    for place in range(top - 1, max(-1, top - 1 - _SEARCH), -1):
        other = elements[stack[place], TAG]
        if other == tag:
            return place
        if other == TABLE and tag != TABLE and (tag == P or tag == LI):
            return top
    return top


@_kernel("int64(int64[:, ::1], int64[::1], int64, int64)", nogil=True, cache=True)
def _implied(elements: Any, stack: Any, top: Any, tag: Any) -> Any:
    """The height of the stack after what the start of a block closes without being told."""
    if top and elements[stack[top - 1], TAG] == P:
        top -= 1
    for place in range(top - 1, max(-1, top - 9), -1):
        other = elements[stack[place], TAG]
        if tag == LI:
            if other == LI:
                return place
            if other == UL or other == OL or other == TD:
                return top
        elif tag == TD or tag == TH:
            if other == TD or other == TH:
                return place
            if other == TR or other == TABLE:
                return top
        elif tag == TR:
            if other == TR:
                return place
            if other == TABLE:
                return top
        elif tag == DT or tag == DD:
            if other == DT or other == DD:
                return place
        else:
            return top
    return top


@_kernel("int64(uint8[::1], int64, int64[::1])", nogil=True, cache=True)
def _count(page: Any, at: Any, row: Any) -> Any:
    """Count the character at `at` into its block; its width: 0 for the later bytes of one."""
    size, byte = page.size, page[at]
    wide = 0
    if byte < 128:
        wide = 1
        if 97 <= byte <= 122:
            row[LETTERS] += 1
            row[LAST_STOP] = 0
        elif byte == 46 or byte == 33 or byte == 63 or byte == 58:
            row[STOPS] += 1
            row[LAST_STOP] = 1
        elif byte == 44:
            row[COMMAS] += 1
            row[LAST_STOP] = 0
        elif 48 <= byte <= 57:
            row[DIGITS] += 1
            row[LAST_STOP] = 0
        elif 65 <= byte <= 90:
            row[CAPITALS] += 1
            row[LETTERS] += 1
            row[LAST_STOP] = 0
        elif byte != 34 and byte != 39 and byte != 41 and byte != 93:
            row[LAST_STOP] = 0
    elif byte >= 0xE0:
        wide = 2
        if at + 2 < size and byte == 0xE3 and page[at + 1] == 0x80 and 0x81 <= page[at + 2] <= 0x82:
            if page[at + 2] == 0x82:
                row[STOPS] += 1
                row[LAST_STOP] = 1
            else:
                row[COMMAS] += 1
                row[LAST_STOP] = 0
        elif (
            at + 2 < size
            and byte == 0xEF
            and page[at + 1] == 0xBC
            and (page[at + 2] == 0x81 or page[at + 2] == 0x9F or page[at + 2] == 0x8E or page[at + 2] == 0x9A)
        ):
            row[STOPS] += 1
            row[LAST_STOP] = 1
        elif at + 2 < size and (
            (byte == 0xE3 and page[at + 1] == 0x80 and (page[at + 2] == 0x8D or page[at + 2] == 0x8F))
            or (byte == 0xEF and page[at + 1] == 0xBC and page[at + 2] == 0x89)
            or (byte == 0xE2 and page[at + 1] == 0x80)
        ):
            pass
        else:
            row[LETTERS] += 2
            row[LAST_STOP] = 0
    elif byte >= 0xC0:
        wide = 1
        row[LETTERS] += 1
        row[LAST_STOP] = 0
    return wide


@_kernel(
    "UniTuple(int64, 3)(uint8[::1], uint8[::1], int64[:, ::1], int64[:, ::1])",
    nogil=True,
    cache=True,
)
def scan(page: Any, text: Any, blocks: Any, elements: Any) -> Any:
    """Fill `text` with the page's text, `blocks` and `elements` with their columns; how many of each.

    page: uint8[n], UTF-8. text: uint8[n + 1]. Every tag starts one block and one element at most, so
    "<" counted and one is enough rows for either.
    """
    stack = np.zeros(MAX_OPEN + 1, np.int64)
    state = np.zeros(4, np.int64)
    absent = np.zeros(KINDS.size, np.bool_)
    elements[0, :] = 0
    elements[0, TAG] = HTML
    elements[0, PARENT] = -1
    top, made, count, written = 1, 1, 0, 0
    link_from: Any = np.int64(-1)
    blocks[0, :] = 0
    after_break = 0
    ignored = 0
    space = False
    at = 0
    size = page.size
    while at <= size:
        byte = page[at] if at < size else np.uint8(60)
        if byte != 60:
            if byte <= 32:
                space = True
                at += 1
                continue
            row = blocks[count]
            if space and written > row[START]:
                text[written] = 32
                written += 1
                row[WIDTH] += 1
                if link_from >= 0:
                    row[LINKED] += 1
            space = False
            wide = np.int64(1)
            if byte == 38:  # an entity counts as one letter
                stop = at + 1
                while (
                    stop < size
                    and stop < at + 9
                    and page[stop] != 59
                    and page[stop] > 32
                    and page[stop] != 60
                ):
                    stop += 1
                if stop < size and page[stop] == 59:
                    while at < stop:
                        text[written] = page[at]
                        written += 1
                        at += 1
                    byte = np.uint8(59)
                    row[LETTERS] += 1
                row[LAST_STOP] = 0
            else:
                wide = _count(page, at, row)
            row[WIDTH] += wide
            if link_from >= 0:
                row[LINKED] += wide
            text[written] = byte
            written += 1
            at += 1
            continue
        # a tag, or the end of the page
        kind, tag, closing = INLINE, -1, False
        if at < size:
            following = page[at + 1] if at + 1 < size else np.uint8(0)
            if following == 33 or following == 63:  # comment, doctype, processing instruction
                if at + 3 < size and page[at + 2] == 45 and page[at + 3] == 45:
                    stop = at + 4
                    while stop < size and not (
                        page[stop] == 62 and page[stop - 1] == 45 and page[stop - 2] == 45
                    ):
                        stop += 1
                else:
                    stop = find(page, at, 62)
                at = stop + 1
                if at > size:
                    at = size
                continue
            closing = following == 47
            key, end = name_at(page, at + 2 if closing else at + 1)
            if key == 0:
                if closing:
                    at = find(page, at, 62) + 1
                    if at > size:
                        at = size
                else:  # a plain "<"; its text is not worth a case of its own
                    space = True
                    at += 1
                continue
            tag = tag_of(key)
            kind = KINDS[tag] if tag >= 0 else INLINE
            state[0] = 0
            state[1] = 0
            begin = np.int64(end)
            at = attributes(page, begin, state)
            if kind == RAW and not closing:
                if not absent[tag]:
                    stop = end_of(page, at, key)
                    if stop >= 0:
                        at = stop
                    else:
                        absent[tag] = True
                space = True
                continue
            if key == np.uint64(0x6100000000000000):
                link_from = written if (not closing and state[1]) else np.int64(-1)
                continue
            if kind < BREAK:
                continue
        # a block ends here
        if written > blocks[count, START]:
            blocks[count, END] = written
            blocks[count, ELEMENT] = stack[top - 1]
            blocks[count, AFTER_BREAK] = after_break
            count += 1
            blocks[count, :] = 0
            blocks[count, START] = written
        after_break = 1 if kind == BREAK else 0
        space = False
        if at >= size and tag < 0:
            break
        if link_from >= 0 and written - link_from > 4096:
            link_from = np.int64(-1)
        if kind == BLOCK:
            if closing:
                if ignored and top == MAX_OPEN:
                    ignored -= 1
                else:
                    top = max(1, _closed(elements, stack, top, tag))
            else:
                top = max(1, _implied(elements, stack, top, tag))
                if top >= MAX_OPEN:
                    ignored += 1
                else:
                    parent = stack[top - 1]
                    own = state[0] if tag != BODY and tag != HTML else 0
                    elements[made, PARENT] = parent
                    elements[made, TAG] = tag
                    elements[made, OWN_HINTS] = own
                    elements[made, ALL_HINTS] = elements[parent, ALL_HINTS] | own
                    elements[made, INSIDE] = elements[parent, INSIDE] | SEMANTIC_BIT[tag]
                    elements[made, DEPTH] = elements[parent, DEPTH] + 1
                    stack[top] = made
                    top += 1
                    made += 1
    return count, made, written
