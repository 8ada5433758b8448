"""What is known of benchmarks: language, the score of guessing, and the highest score that can be reached."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tsugiki.errors import InputError
from tsugiki.study.reading import Cell, RawTable, read_raw

_SHIPPED: Final = Path(__file__).with_name("benchmarks.csv")


@dataclass(frozen=True)
class Benchmark:
    """Facts of one benchmark. chance: the score of guessing; highest: the best score that can be reached."""

    name: str
    language: str | None = None
    chance: float | None = None
    highest: float | None = None
    note: str = ""


def known_benchmarks(names: Sequence[str], own: Path | None = None) -> Mapping[str, Benchmark]:
    """The facts of those of `names` that are known; names are compared without case, spaces and marks.

    own: a table with the columns benchmark, language, chance, highest, note; it goes before the shipped one.
    Raises InputError where it can't be read or holds no numbers.
    """
    known = _by_key(read_raw(_SHIPPED))
    if own is not None:
        known.update(_by_key(read_raw(own)))
    return {name: known[_key(name)] for name in names if _key(name) in known}


def _key(name: str) -> str:
    return re.sub(r"[^\w]|_", "", name).casefold()


def _by_key(table: RawTable) -> dict[str, Benchmark]:
    if "benchmark" not in table.columns:
        raise InputError(
            f'{table.source} has no column "benchmark"',
            hint="columns: benchmark, language, chance, highest, note",
        )
    found = {}
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        name = str(cells["benchmark"])
        one = Benchmark(
            name,
            _text(cells.get("language")),
            _share(table.source, name, cells.get("chance")),
            _share(table.source, name, cells.get("highest")),
            _text(cells.get("note")) or "",
        )
        for alias in (name, *(_text(cells.get("aliases")) or "").split(";")):
            if alias.strip():
                found[_key(alias)] = one
    return found


def _text(cell: Cell) -> str | None:
    return None if cell is None else str(cell)


def _share(source: str, name: str, cell: Cell) -> float | None:
    if isinstance(cell, str):
        raise InputError(f'{source}: "{cell}" of {name} is no number', hint="write 0.25, or nothing")
    return cell
