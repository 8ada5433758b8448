"""One door to every kind of file that the corpus stage reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from tsugiki.corpus.items import WHOLE, Limits, Page, Span, Tally, Text
from tsugiki.corpus.read import read_records
from tsugiki.corpus.texts import read_texts
from tsugiki.errors import InputError

__all__ = ["SUFFIXES", "Kind", "Limits", "Page", "Tally", "Text", "fault_in_words", "kind_of", "read_items"]

Kind = Literal["warc", "wet", "jsonl", "parquet"]

_ENDINGS: tuple[tuple[str, Kind], ...] = (
    (".wet", "wet"),
    (".wet.gz", "wet"),
    (".wet.zst", "wet"),
    (".warc", "warc"),
    (".warc.gz", "warc"),
    (".warc.zst", "warc"),
    (".jsonl", "jsonl"),
    (".jsonl.gz", "jsonl"),
    (".jsonl.zst", "jsonl"),
    (".json.gz", "jsonl"),  # lines, as C4 and Dolma name them
    (".json.zst", "jsonl"),
    (".parquet", "parquet"),
)
SUFFIXES = tuple(suffix for suffix, _ in _ENDINGS)
"""Of the names that are read. `x.warc.wet.gz`, Common Crawl's way, ends in one of them."""

_DEFAULT_LIMITS = Limits()


def kind_of(name: str) -> Kind | None:
    """The kind of a file by its name, in any case; None for one that isn't read."""
    lower = name.lower()
    return next((kind for suffix, kind in _ENDINGS if lower.endswith(suffix)), None)


def fault_in_words(warning: Mapping[str, str | int]) -> str:
    """A warning of a tally as a line: file, place, what was seen.

    Its offset is a byte of a WARC or WET file, else a row's number from 0; people count lines from 1.
    """
    file, offset = str(warning["file"]), int(warning["offset"])
    places = {"jsonl": f"line {offset + 1}", "parquet": f"row {offset + 1}"}
    return f"{file}, {places.get(kind_of(file) or '', f'byte {offset}')}: {warning['message']}"


def read_items(
    path: Path, tally: Tally, limits: Limits = _DEFAULT_LIMITS, span: Span = WHOLE
) -> Iterator[Page | Text]:
    """The pages and texts of one file, or of a part of it, in order.

    How it is compressed is seen by its first bytes.

    Damage is counted in `tally`, with its place, and never raised; `tally.records` is then the number of
    pages and texts and all that was left out. Raises InputError for a name of no known kind and for a
    Parquet file without a `text` column of strings, OSError where the file can't be opened.
    """
    kind = kind_of(path.name)
    if kind is None:
        raise InputError(f"{path} is of no kind that is read", hint=f"known are {', '.join(SUFFIXES)}")
    if kind in ("warc", "wet"):
        return read_records(path, tally, limits, span)
    return read_texts(path, tally, limits, span)
