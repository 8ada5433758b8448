"""Masking personal data: mail addresses, cards, public IP addresses, and the numbers that a pack describes.

A cheap look for `@` and for runs of seven digits decides whether there is anything to do. Numbers are looked
at in a copy of their surroundings in which digits, hyphens and spaces are ASCII, one character for one, so
patterns are simple and places stay the same. Rounds are repeated until nothing changes, since a masked number
may have hidden the one beside it; each round takes digits or an `@` away, so there is an end.
"""

from __future__ import annotations

import io
import ipaddress
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.cleaning.numbers import CHECKS, is_card
from tsugiki.languages import LanguagePack
from tsugiki.languages.schema import NumberPattern, PersonalData

Int64s = npt.NDArray[np.int64]

MAIL, CARD, IP = "mail", "card", "ip"

_ROUNDS = 16
"""More are only needed for text made to need them."""

_BEFORE, _AFTER = 32, 14
"""How many characters before and behind a number are looked at."""
_BORDER = 4
"""A sign and a bracket that belong to a number, and two characters that may not stand before these."""

_HYPHENS = "‐‑‒–—―−－﹣"
_LONG_VOWELS = "ーｰ"  # written for hyphens between digits, and letters elsewhere
_SPACES = "\u00a0\u2002\u2003\u2009\u3000\t"
_ASCII: dict[int, int | str] = {
    **{0xFF01 + i: 0x21 + i for i in range(94)},
    **{ord(hyphen): "-" for hyphen in _HYPHENS},
    **{ord(space): " " for space in _SPACES},
}

_ASCII_NUMBERS = {**_ASCII, **{ord(vowel): "-" for vowel in _LONG_VOWELS}}
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))

_DIGIT = "0-9０-９"
_BETWEEN = rf"[-{_HYPHENS}{_LONG_VOWELS} {_SPACES}.．()（）]"
_RUN = re.compile(f"[{_DIGIT}](?:{_BETWEEN}{{0,3}}+[{_DIGIT}]){{6,}}+")
"""Seven digits or more (the shortest number that is masked, a postal code or a local telephone number).

Possessive: nothing is tried again, so that a run of millions of digits needs no memory for it."""

_LOCAL = r"A-Za-z0-9._%+\-Ａ-Ｚａ-ｚ０-９．＿－"
_DOMAIN = r"A-Za-z0-9\-Ａ-Ｚａ-ｚ０-９－"
_NOT_DOMAINS = frozenset(
    "png jpg jpeg gif svg webp bmp ico css js ts json html htm php rb go java txt xml yml yaml toml pdf zip "  # noqa: SIM905
    "gz bz2 xz tar deb rpm exe dll local service socket".split()
)
"""Endings of file and unit names such as `logo@2x.png` and `getty@tty1.service`; none is a top-level domain
in use for mail."""

_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)", re.ASCII)

_CARDS = tuple(
    NumberPattern(kind=CARD, pattern=pattern, digits=tuple(range(13, 20)))
    for pattern in (
        r"\d{13,19}",
        r"\d{4}(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?P=gap)\d{4}(?P=gap)\d{3}",
        r"\d{4}(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?P=gap)\d{4}",
        r"\d{4}(?P<gap>[ -])\d{6}(?P=gap)\d{4,5}",
        r"\d{4}(?P<gap>[ -])\d{3}(?P=gap)\d{3}(?P=gap)\d{3}",
    )
)
"""The ways in which card numbers are grouped; Luhn and the issuer decide."""


_Found = tuple[int, int, str]
"""Where something starts and ends, and its kind."""


@dataclass(frozen=True)
class _Places:
    """What is masked, in order of place; 17 bytes each, as a page may hold millions.

    kinds: numbers of `names`.
    """

    starts: Int64s
    ends: Int64s
    kinds: npt.NDArray[np.int8]
    names: tuple[str, ...]


def mask_personal_data(
    text: str, pack: LanguagePack, optional_kinds: tuple[str, ...] = ()
) -> tuple[str, Counter[str]]:
    """The text with personal data replaced by the pack's tokens, and how many of each kind were replaced.

    optional_kinds: those of the pack's `optional` that are masked too.
    """
    changes: Counter[str] = Counter()
    facts = pack.personal_data
    if facts is None:
        return text, changes
    kinds = frozenset(facts.tokens) - (set(facts.optional) - set(optional_kinds))
    for _ in range(_ROUNDS):
        found = _distinct(_find(text, facts, kinds), len(text))
        if not found.starts.size:
            break
        counts = np.bincount(found.kinds, minlength=len(found.names)).tolist()
        changes.update(dict(zip(found.names, counts, strict=True)))
        text = _replace(text, found, facts.tokens)
    return text, changes


def _replace(text: str, found: _Places, tokens: dict[str, str]) -> str:
    out = io.StringIO()
    last = 0
    for start, end, kind in zip(found.starts, found.ends, found.kinds, strict=True):
        out.write(text[last:start])
        out.write(tokens[found.names[kind]])
        last = end
    out.write(text[last:])
    return out.getvalue()


def _distinct(found: Iterator[_Found], length: int) -> _Places:
    """In order of place; of two that overlap, the one found first stays. length: of the text they are in.

    One byte tells of each character whether it is taken, so it costs as much as what was found is long.
    """
    starts, ends, kinds = array("q"), array("q"), array("b")
    names: dict[str, int] = {}
    taken = bytearray()
    for start, end, kind in found:
        taken = taken or bytearray(length)
        if taken.find(1, start, end) < 0:
            taken[start:end] = b"\1" * (end - start)
            starts.append(start)
            ends.append(end)
            kinds.append(names.setdefault(kind, len(names)))
    first, last = (np.frombuffer(places, np.int64) for places in (starts, ends))
    order = np.argsort(first)
    return _Places(first[order], last[order], np.frombuffer(kinds, np.int8)[order], tuple(names))


def _find(text: str, facts: PersonalData, kinds: frozenset[str]) -> Iterator[_Found]:
    if MAIL in kinds:
        yield from _mails(text, facts.at_signs)
    if IP in kinds:
        for match in _IP.finditer(text):
            if _is_public(match[0]):
                yield match.start(), match.end(), IP
    patterns: list[_Pattern] = []
    for run in _RUN.finditer(text):
        patterns = patterns or [_compiled(item) for item in (*_CARDS, *facts.numbers) if item.kind in kinds]
        yield from _numbers(text, run.start(), run.end(), patterns)


def _mails(text: str, at_signs: tuple[str, ...]) -> Iterator[_Found]:
    if "@" in text or "＠" in text:
        yield from _addresses(text, _address_pattern("[@＠]"))
    if at_signs and (marks := _bracketed(at_signs)).search(text):
        yield from _addresses(text, _address_pattern(f"[ 　]?{marks.pattern}[ 　]?"))


def _addresses(text: str, pattern: re.Pattern[str]) -> Iterator[_Found]:
    for match in pattern.finditer(text):
        if match["top"].translate(_ASCII).lower() not in _NOT_DOMAINS:
            yield match.start(), match.end(), MAIL


@cache
def _bracketed(words: tuple[str, ...]) -> re.Pattern[str]:
    """`(at)`, `[at]`, `＜アット＞` and the like, with a space at most inside."""
    inside = "|".join(re.escape(word) for word in words)
    return re.compile(f"[(（\\[［<＜{{｛] ?(?i:{inside}) ?[)）\\]］>＞}}｝]")


@cache
def _address_pattern(at: str) -> re.Pattern[str]:
    """An address as it is met on pages: RFC 5321's lengths, ASCII or full-width, a domain of two labels.

    The local part must take its whole run of characters, so the time is linear in the text's length.
    """
    label = f"[{_DOMAIN}]{{1,63}}"
    top = "(?P<top>[A-Za-zＡ-Ｚａ-ｚ]{2,24})"
    return re.compile(
        f"(?<![{_LOCAL}@＠/])[{_LOCAL}]{{1,64}}{at}(?:{label}[.．]){{1,8}}{top}(?![{_DOMAIN}]|[.．][{_DOMAIN}])"
    )


def _is_public(address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address).is_global
    except ipaddress.AddressValueError:
        return False


@dataclass(frozen=True)
class _Pattern:
    """A number's pattern; least: how many digits it has at least, as far as is known."""

    facts: NumberPattern
    number: re.Pattern[str]
    before: re.Pattern[str] | None
    least: int


@cache
def _compiled(facts: NumberPattern) -> _Pattern:
    after = rf"(?=\s{{0,3}}(?:{facts.after}))" if facts.after else ""
    edge = r"(?<![0-9\-])(?<![0-9]\.)" if facts.before else r"(?<![0-9A-Za-z.\-])"
    number = re.compile(rf"{edge}(?:{facts.pattern})(?![0-9A-Za-z]|[.\-][0-9]){after}")
    before = re.compile(rf"(?:{facts.before})\D{{0,6}}\Z") if facts.before else None
    return _Pattern(facts, number, before, min(facts.digits, default=0))


def _numbers(text: str, start: int, end: int, patterns: list[_Pattern]) -> Iterator[_Found]:
    """The personal numbers of one run of digits; a sign or bracket before it may belong to one.

    What stands before a number is translated only where a pattern asks for it: of a page of 50 MB that is
    nothing but numbers, most of the time went into that.
    """
    origin = max(0, start - _BORDER)
    window = text[origin : end + _AFTER]
    if not window.isascii():
        window = window.translate(_ASCII_NUMBERS)
    for pattern in patterns:
        if pattern.least > end - start:
            continue
        place = max(0, start - origin - 2)
        while (match := pattern.number.search(window, place)) is not None and origin + match.end() <= end:
            place = match.start() + 1
            if _accepted(text, origin, match, pattern):
                place = match.end()
                yield origin + match.start(), origin + match.end(), pattern.facts.kind


def _accepted(text: str, origin: int, match: re.Match[str], pattern: _Pattern) -> bool:
    """Whether a match in the window that begins at `origin` of the text is such a number."""
    facts = pattern.facts
    digits = match[0].encode("ascii", "replace").translate(None, _NO_DIGITS)
    if facts.digits and len(digits) not in facts.digits:
        return False
    if pattern.before is not None and not _is_named(text, origin + match.start(), pattern.before):
        return False
    if facts.kind == CARD:
        return is_card(digits.decode())
    return CHECKS[facts.check](digits.decode())


def _is_named(text: str, place: int, before: re.Pattern[str]) -> bool:
    """Whether `before` matches what ends at the place; one character more is read, for word edges."""
    first = max(0, place - _BEFORE - 1)
    words = text[first:place]
    if not words.isascii():
        words = words.translate(_ASCII)
    return before.search(words, min(first, 1)) is not None
