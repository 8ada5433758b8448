"""The difference of two texts as lines that can be read: whole lines where they differ much, else words.

Marks as in `wdiff`: `[-taken away-]` and `{+put in+}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

_MOST_LINES: Final = 2000
_MOST_CHARACTERS: Final = 4000
"""A pair of longer lines is shown as two lines: the comparison takes quadratic time."""
_ALIKE: Final = 0.5
"""From this ratio on, two lines are shown as one with the differences marked."""
_CONTEXT: Final = 1
_PIECE: Final = re.compile(r"[A-Za-z0-9]+|\s+|.", re.DOTALL)


def readable_difference(before: str, after: str) -> list[str]:
    """Lines that begin with `  ` (both), `- ` (before only), `+ ` (after only) or `~ ` (both, marked inside).

    Equal stretches are cut to a line of context at each end. Texts of more than 2,000 lines are compared up
    to there, and a last line says so.
    """
    left, right = before.splitlines(), after.splitlines()
    cut = max(len(left), len(right)) > _MOST_LINES
    left, right = left[:_MOST_LINES], right[:_MOST_LINES]
    lines = list(_lines(left, right))
    if not any(line[0] in "-+~" for line in lines):
        lines = ["  (no difference in the lines)"]
    return [*lines, f"  (compared up to line {_MOST_LINES:,})"] if cut else lines


def _lines(left: Sequence[str], right: Sequence[str]) -> Iterator[str]:
    blocks = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    for tag, a, b, c, d in blocks:
        if tag == "equal":
            yield from _shortened(left[a:b])
        else:
            yield from _replaced(left[a:b], right[c:d])


def _shortened(lines: Sequence[str]) -> Iterator[str]:
    skipped = len(lines) - 2 * _CONTEXT
    if skipped <= 1:
        yield from (f"  {line}" for line in lines)
        return
    yield from (f"  {line}" for line in lines[:_CONTEXT])
    yield f"  … {skipped:,} equal lines …"
    yield from (f"  {line}" for line in lines[-_CONTEXT:])


def _replaced(left: Sequence[str], right: Sequence[str]) -> Iterator[str]:
    """Line by line while they are alike; what is left over as it is."""
    pairs = min(len(left), len(right))
    for old, new in zip(left[:pairs], right[:pairs], strict=True):
        marked = _marked(old, new)
        if marked is None:
            yield f"- {old}"
            yield f"+ {new}"
        else:
            yield f"~ {marked}"
    yield from (f"- {line}" for line in left[pairs:])
    yield from (f"+ {line}" for line in right[pairs:])


def _marked(old: str, new: str) -> str | None:
    """One line with the differences marked; None where the two have little in common, or are very long."""
    if max(len(old), len(new)) > _MOST_CHARACTERS:
        return None
    a, b = _PIECE.findall(old), _PIECE.findall(new)
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return None
    out = []
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag == "equal":
            out.append("".join(a[i:j]))
            continue
        out.append(f"[-{''.join(a[i:j])}-]" if j > i else "")
        out.append(f"{{+{''.join(b[k:m])}+}}" if m > k else "")
    return "".join(out)
