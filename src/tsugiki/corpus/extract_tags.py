# ruff: noqa: C901, PLR0912, PLR2004, PLR1714, SIM109 (loops over bytes, plain for numba)
"""What the names of tags, classes and attributes tell about an element: tables for extract_scan.py.

With the readers of names and attributes. A name is known by its first eight bytes, packed into an integer.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

_kernel: Any = nb.njit

# What a tag does. Elements of SEMANTIC tags set a bit for everything inside.
INLINE, RAW, VOID, BREAK, BLOCK = 0, 1, 2, 3, 4
TAGS: dict[str, int] = {
    **dict.fromkeys(
        [
            "script",
            "style",
            "textarea",
            "title",
            "noscript",
            "template",
            "svg",
            "select",
            "button",
            "iframe",
            "object",
            "video",
        ],
        RAW,
    ),
    **dict.fromkeys("br hr".split(), BREAK),  # noqa: SIM905
    **dict.fromkeys("img input link meta base col embed source track wbr area param".split(), VOID),  # noqa: SIM905
    **dict.fromkeys(
        "html body p div li ul ol h1 h2 h3 h4 h5 h6 td th tr table tbody thead tfoot article section main "  # noqa: SIM905
        "header footer nav aside form blockquote pre dl dt dd figure figcaption address fieldset details "
        "summary center label caption".split(),
        BLOCK,
    ),
}
NAMES = tuple(TAGS)
TAG_ID = {name: place for place, name in enumerate(NAMES)}
P, LI, TD, TR, DT, DD, PRE, H1 = (TAG_ID[n] for n in ("p", "li", "td", "tr", "dt", "dd", "pre", "h1"))
TH, UL, OL, TABLE, BODY, HTML = (TAG_ID[n] for n in ("th", "ul", "ol", "table", "body", "html"))
SEMANTIC = ("nav", "aside", "footer", "header", "form", "figure", "table", "article", "main", "ul", "ol",
            "blockquote", "figcaption", "pre", "dl", "section", "address", "label")  # fmt: skip

# Parts of class, id, role and itemprop that tell what an element is for.
HINTS: tuple[tuple[str, ...], ...] = (
    ("nav", "menu", "breadcrumb", "paginat", "pager", "toc"),
    ("foot", "copyright", "legal", "imprint", "disclaimer"),
    ("header", "masthead", "topbar", "banner"),
    ("side", "widget", "rail", "column"),
    ("comment", "disqus", "respond", "reply", "discuss"),
    ("share", "sharing", "social", "follow", "subscri", "newsletter", "login", "signup", "search"),
    ("related", "recommend", "teaser", "popular", "latest", "recent", "archive", "also", "ranking", "more"),
    ("advert", "sponsor", "promo", "cookie", "consent", "popup", "modal", "gdpr", "ads"),
    ("meta", "byline", "author", "date", "tags", "categor", "credit", "caption", "info"),
    ("article", "story", "hentry"),
    ("content", "entry", "post", "body", "text", "main"),
    (
        "articlebody",
        "entry-content",
        "post-content",
        "post-body",
        "article-body",
        "article__body",
        "maintext",
    ),
    ("hidden", "display:none", "display: none", "tooltip"),
)


def packed(name: str) -> int:
    """The first eight bytes of a name as an integer."""
    return int.from_bytes(name.encode()[:8].ljust(8, b"\0"), "big")


_order = np.argsort(np.array([packed(name) for name in NAMES], np.uint64))
TAG_KEYS = np.array([packed(name) for name in NAMES], np.uint64)[_order]
TAG_IDS = _order.astype(np.int64)
KINDS = np.array([TAGS[name] for name in NAMES], np.int64)
SEMANTIC_BIT = np.array([1 << SEMANTIC.index(n) if n in SEMANTIC else 0 for n in NAMES], np.int64)
_flat = sorted((pattern, group) for group, patterns in enumerate(HINTS) for pattern in patterns)
PATTERN_BYTES = np.frombuffer("".join(p for p, _ in _flat).encode(), np.uint8).copy()
PATTERN_START = np.cumsum([0] + [len(p) for p, _ in _flat]).astype(np.int64)
PATTERN_GROUP = np.array([group for _, group in _flat], np.int64)
FIRST_PATTERN = np.searchsorted([ord(p[0]) for p, _ in _flat], np.arange(257)).astype(np.int64)
CLASS, IDENTIFIER, ROLE, ITEMPROP, HREF, STYLE = (
    np.uint64(packed(name)) for name in ("class", "id", "role", "itemprop", "href", "style")
)


@_kernel("int64(uint8[::1], int64, uint8)", nogil=True, cache=True)
def find(page: Any, at: Any, byte: Any) -> Any:
    """Where the next such byte is; the page's size where there is none."""
    while at < page.size and page[at] != byte:
        at += 1
    return at


@_kernel("int64(uint64)", nogil=True, cache=True)
def tag_of(key: Any) -> Any:
    """The number of a tag by its packed name; -1 for others."""
    place = np.searchsorted(TAG_KEYS, key)
    if place < TAG_KEYS.size and TAG_KEYS[place] == key:
        return TAG_IDS[place]
    return -1


@_kernel("UniTuple(uint64, 2)(uint8[::1], int64)", nogil=True, cache=True)
def name_at(page: Any, at: Any) -> Any:
    """The name at `at`, lower case, its first eight bytes packed; and where it ends."""
    key = np.uint64(0)
    count = 0
    while at < page.size:
        byte = page[at]
        if 65 <= byte <= 90:
            byte += 32
        if not (97 <= byte <= 122 or 48 <= byte <= 57 or byte == 45 or byte == 58):
            break
        if count < 8:
            key |= np.uint64(byte) << np.uint64(56 - 8 * count)
        count += 1
        at += 1
    return key, np.uint64(at)


@_kernel("int64(uint8[::1], int64, int64)", nogil=True, cache=True)
def _hints(page: Any, start: Any, end: Any) -> Any:
    found = 0
    for at in range(start, end):
        byte = page[at] | 32
        for pattern in range(FIRST_PATTERN[byte], FIRST_PATTERN[byte + 1]):
            begin, stop = PATTERN_START[pattern], PATTERN_START[pattern + 1]
            if at + stop - begin > end:
                continue
            same = True
            for offset in range(1, stop - begin):
                other = page[at + offset]
                if 65 <= other <= 90:
                    other |= 32
                if other != PATTERN_BYTES[begin + offset]:
                    same = False
                    break
            if same:
                found |= 1 << PATTERN_GROUP[pattern]
    return found


@_kernel("int64(uint8[::1], int64, uint64)", nogil=True, cache=True)
def end_of(page: Any, at: Any, name: Any) -> Any:
    """Where the end tag of a raw element starts, -1 where there is none."""
    while True:
        at = find(page, at, 60)
        if at + 2 >= page.size:
            return -1
        if page[at + 1] == 47 and name_at(page, at + 2)[0] == name:
            return at
        at += 1


@_kernel("int64(uint8[::1], int64, int64[::1])", nogil=True, cache=True)
def attributes(page: Any, at: Any, out: Any) -> Any:
    """Read attributes from `at` on; the place behind the ">".

    out: hints, whether there is a href, whether no " is left in the page, and no '.
    """
    while at < page.size:
        byte = page[at]
        if byte == 62:
            return at + 1
        if byte <= 32 or byte == 47 or byte == 34 or byte == 39 or byte == 61:
            at += 1
            continue
        key, end = name_at(page, at)
        if np.int64(end) == at:
            at += 1
            continue
        at = np.int64(end)
        if key == HREF:
            out[1] = 1
        while at < page.size and page[at] <= 32:
            at += 1
        if at >= page.size or page[at] != 61:
            continue
        at += 1
        while at < page.size and page[at] <= 32:
            at += 1
        if at >= page.size:
            break
        quote = page[at]
        start, stop = at, -1
        if quote == 34 or quote == 39:
            which = 2 if quote == 34 else 3
            if not out[which]:
                stop = find(page, at + 1, quote)
                if stop >= page.size:
                    out[which] = 1
                    stop = -1
                else:
                    start += 1
        if stop < 0:
            stop = start
            while stop < page.size and page[stop] > 32 and page[stop] != 62:
                stop += 1
            at = stop
        else:
            at = stop + 1
        if key == CLASS or key == IDENTIFIER or key == ROLE or key == ITEMPROP or key == STYLE:
            found = _hints(page, start, min(stop, start + 400))
            out[0] |= found & (1 << 12) if key == STYLE else found
    return at
