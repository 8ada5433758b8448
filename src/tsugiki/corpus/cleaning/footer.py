"""Removing page footers: copyright lines, menus, "follow us" (corpus.md §1.8; Swallow's footer.py).

The original cuts at the first of the last ten lines that looks like a footer, and takes everything behind it
along; a short page can lose all of its text, and a heading such as `記事` or a sentence such as
`リンクをクリックします。` cuts real text. It is here as mode `swallow`, for comparison.

The safe mode differs in this:

- A line counts only if all that follows it, taken together, looks like a footer too.
- A line that ends like a sentence needs twice the share of footer words (`footer_sentence_share`).
- Words of Latin letters match whole words only (`PR` is not in `PRINT`), in either case.
- If more than `footer_lines` lines, more than `footer_part` of the characters would go, or fewer than
  `footer_remainder` characters stay, nothing is cut: such a page is no text with a footer.
- Cutting again cuts nothing more.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from tsugiki.languages import LanguagePack
from tsugiki.languages.schema import Cleanup

FOOTER_LIST = "footer"
"""The pack's list of footer words; without it nothing is cut."""

FooterMode = Literal["off", "safe", "swallow"]

_LATIN = re.compile("[A-Za-z]")


def cut_footer(text: str, pack: LanguagePack, mode: FooterMode = "safe") -> tuple[str, int]:
    """The text without its footer, and how many lines were cut.

    Mode `swallow` gives exactly what the original gives, an empty text included.
    """
    words = pack.lists.get(FOOTER_LIST)
    if mode == "off" or words is None:
        return text, 0
    lines = text.split("\n")
    if mode == "swallow":
        end = _swallow_end(lines, words.entries, pack.cleanup)
    else:
        end = _safe_end(lines, words.entries, pack)
    return ("\n".join(lines[:end]), len(lines) - end) if end < len(lines) else (text, 0)


def _swallow_end(lines: list[str], words: tuple[str, ...], facts: Cleanup) -> int:
    """The number of lines that stay: those before the first of the last lines that is a footer's."""
    longest_first = sorted(words, key=len, reverse=True)
    for place in range(max(0, len(lines) - facts.footer_lines), len(lines)):
        rest = lines[place]
        for word in longest_first:
            rest = rest.replace(word, "")
        if len(lines[place]) - len(rest) > facts.footer_share * len(lines[place]):
            return place
    return len(lines)


def _safe_end(lines: list[str], words: tuple[str, ...], pack: LanguagePack) -> int:
    """As `_swallow_end`, within the bounds. Repeated until stable, so that a second call finds no more."""
    facts = pack.cleanup
    pattern = _words_pattern(words)
    terminators = tuple(pack.script.sentence_terminators)
    end = len(lines)
    while (start := _footer_start(lines[:end], pattern, terminators, facts)) < end:
        end = start
        if len(lines) - end > facts.footer_lines:
            return len(lines)
    if end < len(lines):
        whole = sum(map(len, lines)) + len(lines) - 1
        left = sum(map(len, lines[:end])) + max(end - 1, 0)
        least = max(facts.footer_remainder, whole * (1 - facts.footer_part))
        return end if left >= least else len(lines)
    return end


def _footer_start(
    lines: list[str], pattern: re.Pattern[str], terminators: tuple[str, ...], facts: Cleanup
) -> int:
    """The first line that is a footer's and begins a tail that is one; `len(lines)` if there is none."""
    start = len(lines)
    matched = letters = 0
    for place in range(len(lines) - 1, max(-1, len(lines) - facts.footer_lines - 1), -1):
        line = lines[place].strip()
        found = sum(map(len, pattern.findall(line.lower())))
        matched += found
        letters += len(line)
        share = facts.footer_sentence_share if line.endswith(terminators) else facts.footer_share
        if found > share * len(line) and matched > facts.footer_share * letters:
            start = place
    return start


@cache
def _words_pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words in lower case, the longest first; Latin letters at its ends must not go on there."""
    branches: dict[str, list[str]] = {}
    for word in sorted({word.lower() for word in words}, key=lambda word: (-len(word), word)):
        right = "(?![a-z])" if _LATIN.match(word[-1]) else ""
        branches.setdefault(word[0], []).append(f"{re.escape(word[1:])}{right}")
    # Branches that begin with different letters: the expression engine skips to those letters.
    parts = []
    for letter, rests in branches.items():
        left = f"(?<![a-z]{letter})" if _LATIN.match(letter) else ""
        parts.append(f"{re.escape(letter)}{left}(?:{'|'.join(rests)})")
    return re.compile("|".join(parts))
