"""Punctuation by majority (corpus.md §1.7; Swallow's kutoten.py): `，．` become `、。` where they prevail.

Which marks, behind what they count and behind what they stay is data of the language pack. Two properties of
the original are kept, so that results are the same:

- A run at the very beginning of a text stays: no character says what the mark stands for.
- `^` is one of the characters behind which a mark stays. In Swallow it is one by a slip (`[^^...]`); the
  Japanese pack names it openly, because it also saves the emoticon `(^．^)`.

One is not: a run is taken as a whole. In `Ｈｉ，，` the original's expression would take the first mark for
the character before the second one and give `Ｈｉ，、`; here both stay, as the definition says.
"""

from __future__ import annotations

import re
from functools import cache

from tsugiki.languages import CodePoints, LanguagePack


def restore_punctuation(text: str, pack: LanguagePack) -> tuple[str, int]:
    """The text with native marks where western ones have the strict majority, and how many were replaced.

    For each pair: runs of the mark behind a character of `counted_after` are counted; where there are more
    western than native runs, all western marks of the text become native ones, but for runs behind a
    character of `kept_after` and a run at position 0. The length of the text stays the same.
    """
    replaced = 0
    facts = pack.cleanup
    for western, native in facts.punctuation:
        if western not in text:
            continue
        counted = [len(_counted(mark, facts.counted_after).findall(text)) for mark in (western, native)]
        if counted[0] <= counted[1]:
            continue
        before = text.count(western)
        text = _replaceable(western, facts.kept_after).sub(lambda run, mark=native: mark * len(run[0]), text)  # type: ignore[misc]
        replaced += before - text.count(western)
    return text, replaced


@cache
def _counted(mark: str, after: tuple[CodePoints, ...]) -> re.Pattern[str]:
    """The first mark of a run behind one of the characters; the mark leads, since it is found fast."""
    inside = re.escape(mark)
    return re.compile(f"{inside}(?<=[{character_ranges(after)}]{inside})" if after else "(?!)")


@cache
def _replaceable(mark: str, kept: tuple[CodePoints, ...]) -> re.Pattern[str]:
    inside = re.escape(mark)
    return re.compile(f"{inside}(?<=[^{inside}{character_ranges(kept)}]{inside}){inside}*")


def character_ranges(ranges: tuple[CodePoints, ...]) -> str:
    r"""The inside of a character class of a regular expression, e.g. `\U00003041-\U00003096`."""
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
