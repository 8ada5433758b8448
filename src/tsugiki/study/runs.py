"""Losses of training runs as a table: sizes, tokens, mixture ratios, and losses of one or two languages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError, InputError, did_you_mean
from tsugiki.study.findings import Finding
from tsugiki.study.laws import Runs
from tsugiki.study.reading import RawTable, listed, read_raw
from tsugiki.study.table import Array

_BILLION: Final = 1e9
_KNOWN: Final = {
    "parameters": re.compile(r"(n|params?|parameters|size)(?P<unit>_b|_billions?|_bn)?", re.IGNORECASE),
    "tokens": re.compile(r"(d|d_total|tokens)(?P<unit>_b|_billions?|_bn)?", re.IGNORECASE),
    "share": re.compile(r"r|ratio|share|mixture|mixture_ratio", re.IGNORECASE),
    "loss": re.compile(r"loss|l|target_loss|loss_target", re.IGNORECASE),
}
_DOMAIN: Final = re.compile(r"domains?|languages?", re.IGNORECASE)
_LOSS: Final = re.compile(r"(.*[_\s])?(loss|bpb|bits_per_byte)([_\s].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class RunTable:
    """The columns of a table of runs (N each) and its losses by column name.

    groups: the run (size and ratio) of each row: checkpoints of one run are not independent.
    """

    parameters: Array
    tokens: Array
    share: Array
    losses: dict[str, Array]
    groups: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    domains: tuple[str, ...] = ()
    """The domain of each row, where the table has a column of them."""

    def runs(self, loss: str, *, other: bool = False) -> Runs:
        """The runs that have a loss. other: it is of the language with the rest of the mixture, 1 - r."""
        values = self.losses[self._loss(loss)]
        rows = np.isfinite(values)
        share = 1 - self.share if other else self.share
        return Runs(self.parameters[rows], self.tokens[rows], share[rows], values[rows])

    def groups_of(self, loss: str) -> tuple[str, ...]:
        """The run of each row that has this loss."""
        rows = np.isfinite(self.losses[self._loss(loss)])
        return tuple(group for group, kept in zip(self.groups, rows, strict=True) if kept)

    def domains_of(self, loss: str) -> tuple[str, ...]:
        """The domain of each row that has this loss. Raises InputError where the table tells none."""
        if not self.domains:
            raise InputError(
                "there is no column of domain", hint="a law over domains needs one: domain, or language"
            )
        rows = np.isfinite(self.losses[self._loss(loss)])
        return tuple(one for one, kept in zip(self.domains, rows, strict=True) if kept)

    def _loss(self, name: str) -> str:
        if name not in self.losses:
            raise InputError(
                f'there is no column "{name}" of losses', hint=did_you_mean(name, list(self.losses))
            )
        return name


def read_runs(path: Path, *, need_share: bool = True) -> RunTable:
    """Read runs: columns N (or parameters, N_billion), D (tokens, tokens_B), ratio (share, r), and losses.

    A column is a loss if `loss` or `bpb` is a word of its name. Raises InputError for missing columns and
    text among numbers, DataError for no complete row.
    """
    raw = read_raw(path)
    places = {name: _find(raw, pattern) for name, pattern in _KNOWN.items() if name != "loss"}
    losses = [name for name in raw.columns if _LOSS.fullmatch(name) or _KNOWN["loss"].fullmatch(name)]
    missing = [name for name in ("parameters", "tokens") if places[name] is None]
    missing += ["share"] if need_share and places["share"] is None else []
    missing += [] if losses else ["loss"]
    if missing:
        raise InputError(
            f"{path} has no column of {', '.join(missing)}; it has {listed(raw.columns)}",
            hint="columns: parameters, tokens, ratio, loss (or loss_ja, loss_en ...)",
        )
    columns = {
        name: _numbers(raw, column, _KNOWN[name]) for name, column in places.items() if column is not None
    }
    share = columns.get("share", np.ones(len(raw.rows)))
    if np.isfinite(share).any() and float(np.nanmax(share)) > 1:
        raise InputError(
            f"{path}: a ratio of {float(np.nanmax(share)):g}; ratios are shares between 0 and 1",
            hint="divide per cent by 100",
        )
    by_name = {name: _numbers(raw, name) for name in losses}
    whole = np.isfinite(columns["parameters"]) & np.isfinite(columns["tokens"]) & np.isfinite(share)
    if not whole.any():
        raise DataError(f"{path} has no row with parameters, tokens and ratio", hint="fill them in")
    found = _gaps(whole, by_name)
    rows = np.flatnonzero(whole)
    return RunTable(
        columns["parameters"][rows],
        columns["tokens"][rows],
        share[rows],
        {name: values[rows] for name, values in by_name.items()},
        tuple(f"{columns['parameters'][row]:g} {share[row]:g}" for row in rows.tolist()),
        tuple(found),
        _domains(raw, rows.tolist()),
    )


def _domains(raw: RawTable, rows: Sequence[int]) -> tuple[str, ...]:
    column = _find(raw, _DOMAIN)
    if column is None:
        return ()
    cells = raw.column(column)
    return tuple("" if cells[row] is None else str(cells[row]) for row in rows)


def _gaps(whole: NDArray[np.bool_], losses: dict[str, Array]) -> list[Finding]:
    found = []
    if not whole.all():
        said = f"{int((~whole).sum())} rows without parameters, tokens or ratio: left out"
        found.append(Finding("missing", said))
    for name, values in losses.items():
        gaps = int(np.isnan(values[whole]).sum())
        if gaps:
            found.append(Finding("missing", f"{gaps} rows without {name}: left out of its law", "", name))
    return found


def _find(raw: RawTable, pattern: re.Pattern[str]) -> str | None:
    return next((name for name in raw.columns if pattern.fullmatch(name.strip())), None)


def _numbers(raw: RawTable, column: str, pattern: re.Pattern[str] | None = None) -> Array:
    cells = raw.column(column)
    wrong: Sequence[str] = [
        f'row {row}: "{cell}"' for row, cell in enumerate(cells, 2) if isinstance(cell, str)
    ]
    if wrong:
        raise InputError(
            f'{raw.source}: no numbers in column "{column}": {listed(wrong)}', hint="write plain numbers"
        )
    match = pattern.fullmatch(column.strip()) if pattern is not None else None
    unit = _BILLION if match is not None and match.groupdict().get("unit") else 1.0
    return np.array([np.nan if cell is None else float(cell) * unit for cell in cells])
