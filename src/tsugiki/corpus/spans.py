"""Which parts of a large file are units of their own, so that one file keeps all cores busy.

The cuts follow from the file alone, never from the workers. All parts together hold what the whole holds:
records, counts, faults and places.
"""

from __future__ import annotations

from pathlib import Path

from tsugiki.corpus.formats import kind_of
from tsugiki.corpus.items import WHOLE, Span
from tsugiki.corpus.parquet_rows import group_spans
from tsugiki.corpus.texts import line_spans

UNIT_BYTES = 256 << 20
"""Of a file, for one unit, at most: on one core some minutes of work, so that its start does not count."""

_LEAST_BYTES = 8 << 20
_PARTS = 8
"""Of a file that is neither large nor small, so that it alone keeps several cores busy."""


def part_bytes(size: int, unit_bytes: int = UNIT_BYTES) -> int:
    """How much of a file of `size` bytes is one unit: all of its parts are equal, and so end together."""
    wanted = min(unit_bytes, max(_LEAST_BYTES, -(-size // _PARTS)))
    return -(-size // max(1, -(-size // wanted)))


def spans_of(path: Path, unit_bytes: int = UNIT_BYTES) -> list[Span]:
    """The parts of a local file, in order; WHOLE alone for a small one.

    Parquet is cut between row groups, lines of JSON at line ends (for which the file is read once, and
    unpacked), WARC anywhere: there a part begins at the first record or member that is found (`stage` checks
    that it is one). Raises OSError where the file can't be opened.
    """
    size = path.stat().st_size
    if size <= unit_bytes:
        return [WHOLE]
    kind = kind_of(path.name)
    if kind == "parquet":
        return group_spans(path, unit_bytes)
    if kind == "jsonl":
        return line_spans(path, unit_bytes)
    starts = range(0, size, unit_bytes)
    return [
        Span(start, start + unit_bytes if start + unit_bytes < size else None, exact=start == 0)
        for start in starts
    ]
