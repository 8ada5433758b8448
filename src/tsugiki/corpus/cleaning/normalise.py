"""Optional NFKC that leaves alone what NFKC would spoil.

Plain NFKC makes `10²` into `102`, `①` into `1`, `㌔` into `キロ`, `…` into `...` and `～` into `~`. Here
the characters of the pack's `nfkc_keep` stay as they are. What is left is what a corpus wants: one width for
letters, digits and katakana, and composed characters.

Lines stay lines: no character becomes a line break, and no line becomes empty. Spaces that come of wide or
unbreakable ones are collapsed, as `tsugiki.corpus.extract.tidy` does.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

from tsugiki.corpus.cleaning import unicode_facts
from tsugiki.corpus.cleaning.punctuation import character_ranges
from tsugiki.languages import CodePoints, LanguagePack

_LAST_OF_PLANE_0 = 0xFFFF


def normalise_width(text: str, pack: LanguagePack) -> tuple[str, int]:
    """The text in NFKC, but for the pack's `nfkc_keep`, and how many runs of characters were changed."""
    if unicodedata.is_normalized("NFKC", text):
        return text, 0
    any_affected, pattern = _affected(pack.cleanup.nfkc_keep)
    changes = 0
    lines = text.split("\n")
    for place, line in enumerate(lines):
        if any_affected.search(line) is None:
            continue
        changed, count = pattern.subn(_normalised, line)
        if changed == line:
            continue
        changes += count
        lines[place] = " ".join(changed.split()) or changed
    return "\n".join(lines), changes


def _normalised(run: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", run[0])


@cache
def _affected(keep: tuple[CodePoints, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds a line that NFKC may change, and in it each run that it may change.

    A run has the character before it along if that may be joined to. The finder takes all characters above
    U+FFFF together, since `re` tests those range by range at every place.
    """
    kept = {c for first, last in keep for c in range(first, last + 1)}
    joining = unicode_facts.joining() - kept
    alone = unicode_facts.unstable() - kept - joining
    joiners = character_ranges(_ranges(joining))
    changing = character_ranges(_ranges(alone))
    never = character_ranges(keep)
    base = f"[^{never}]" if never else "(?s:.)"
    either = f"[{changing}{joiners}]"
    low = character_ranges(_ranges({c for c in alone | joining if c <= _LAST_OF_PLANE_0}))
    return re.compile(f"[{low}\U00010000-\U0010ffff]"), re.compile(
        f"(?:[{changing}]|{base}?[{joiners}]){either}*"
    )


def _ranges(codes: set[int] | frozenset[int]) -> tuple[CodePoints, ...]:
    """Code points as ranges, both ends included."""
    out: list[CodePoints] = []
    for code in sorted(codes):
        if out and out[-1][1] == code - 1:
            out[-1] = (out[-1][0], code)
        else:
            out.append((code, code))
    return tuple(out)
