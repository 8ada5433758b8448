"""What models were trained with: parameters, tokens by language, the family that they descend from.

Compute is C = 6 N D (Kaplan et al. 2020), N all parameters, D tokens of a language summed over base training
and continual pre-training. Tokens depend on the tokenizer; nothing here knows of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from tsugiki.errors import DataError, InputError
from tsugiki.study.findings import Finding
from tsugiki.study.reading import Cell, RawTable, listed, read_raw
from tsugiki.study.table import Array, ScoreTable

FLOPS: Final = 6.0
"""FLOPs a parameter and token: two forward, four backward."""
TOTAL: Final = "total"
_BILLION: Final = 1e9
_PARAMETERS: Final = re.compile(r"(n|params?|parameters|size)(?P<unit>_?b|_billions?|_bn)?", re.IGNORECASE)
_TOKENS: Final = re.compile(
    r"(d|tokens)(_(?P<language>[a-z]{2,3}(?:-[a-z0-9]+)*|total))?(?P<unit>_b|_billions?|_bn)?", re.IGNORECASE
)
_STATED: Final = re.compile(r"c_(?P<language>[a-z]{2,3}(?:-[a-z0-9]+)*|total)(_6nd)?", re.IGNORECASE)
_AGREES: Final = 0.01
_FLAG: Final = re.compile(r"\bX\b")
_NAMES: Final = ("model", "name", "model_name", "hf_model", "hf_id")


@dataclass(frozen=True)
class Budgets:
    """Training of the models of a score table, in its order; NaN where it is not known.

    parameters_M: all parameters. tokens: by language (and "total"), M each. families, groups: one a model.
    continued_M: 1 for continual pre-training, 0 for not, NaN for unknown. assumed: models whose provenance
    has the flag X. findings: models without a budget, stated compute that is not 6ND, missing families.
    """

    parameters_M: Array
    tokens: Mapping[str, Array]
    families: tuple[str, ...]
    continued_M: Array
    groups: tuple[str, ...]
    assumed: tuple[bool, ...]
    has_families: bool = True
    findings: tuple[Finding, ...] = field(default=())

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages with tokens of their own, without the total."""
        return tuple(name for name in self.tokens if name != TOTAL)

    def compute(self, language: str) -> Array:
        """6 N D in FLOPs, M; NaN where unknown or not above 0."""
        compute_M = FLOPS * self.parameters_M * self.tokens[language]
        return np.where(compute_M > 0, compute_M, np.nan)


def read_budgets(path: Path, table: ScoreTable) -> Budgets:
    """Read budgets and put them beside the models of a score table.

    Columns: a name (model, name, hf_model), parameters (N_billion, parameters), tokens of each language
    (D_ja_B, tokens_en) and in all (D_total_B, tokens), C_ja_6ND and so on to be checked, and as far as known
    family, continued (0 or 1), group and provenance. Names are compared with the table's models and its text
    columns, without case. Raises InputError for missing columns, text among numbers and models that are there
    twice, DataError where no model of the table has a budget.
    """
    raw = read_raw(path)
    rows = _rows_of(raw, table)
    parameters = _named(raw, _PARAMETERS)
    tokens = {(match["language"] or TOTAL).lower(): name for name, match in _matching(raw, _TOKENS).items()}
    if parameters is None or not tokens:
        missing = "parameters (N_billion)" if parameters is None else "tokens (D_total_B, D_ja_B, D_en_B ...)"
        raise InputError(
            f"{path} has no column of {missing}; it has {listed(raw.columns)}",
            hint="columns: name, N_billion, D_total_B, D_<language>_B, family, continued, provenance",
        )
    if all(row is None for row in rows):
        raise DataError(
            f"no model of the table has a budget in {path}; the table has {listed(table.models, 3)}",
            hint="write the names of the models as in the table of scores",
        )
    findings = [
        Finding("budget", f"no row in {path.name}", model)
        for model, row in zip(table.models, rows, strict=True)
        if row is None
    ]
    budgets = Budgets(
        _numbers(raw, parameters, rows, _PARAMETERS),
        {language: _numbers(raw, name, rows, _TOKENS) for language, name in tokens.items()},
        *_families(raw, rows, table.models),
        _numbers(raw, "continued", rows) if "continued" in raw.columns else np.full(len(rows), np.nan),
        tuple(text or "" for text in _texts(raw, "group", rows)),
        tuple(bool(_FLAG.search(text or "")) for text in _texts(raw, "provenance", rows)),
        "family" in raw.columns,
    )  # fmt: skip
    findings += _check_stated(raw, budgets, rows, table.models)
    findings += _check_amounts(budgets, table.models)
    return Budgets(**{**vars(budgets), "findings": tuple(findings)})


def _rows_of(raw: RawTable, table: ScoreTable) -> list[int | None]:
    """The row of each of the table's models; raises InputError where two rows claim one."""
    column = next((name for name in raw.columns if name.casefold() in _NAMES), raw.columns[0])
    by_name: dict[str, int] = {}
    for number, cell in enumerate(raw.column(column)):
        key = str(cell).strip().casefold()
        if key in by_name:
            raise InputError(f'{raw.source}: "{cell}" is there twice', hint="keep one row a model")
        by_name[key] = number
    found: list[int | None] = []
    for place, model in enumerate(table.models):
        other = [cells[place] for cells in table.information.values() if isinstance(cells[place], str)]
        keys = [str(name).strip().casefold() for name in (model, *other)]
        found.append(next((by_name[key] for key in keys if key in by_name), None))
    return found


def _matching(raw: RawTable, pattern: re.Pattern[str]) -> dict[str, re.Match[str]]:
    matches = {name: pattern.fullmatch(name.strip()) for name in raw.columns}
    return {name: match for name, match in matches.items() if match is not None}


def _named(raw: RawTable, pattern: re.Pattern[str]) -> str | None:
    return next(iter(_matching(raw, pattern)), None)


def _numbers(
    raw: RawTable, column: str, rows: Sequence[int | None], pattern: re.Pattern[str] | None = None
) -> Array:
    """The cells of the models' rows as numbers; in billions where the column's name says so."""
    cells = raw.column(column)
    match = pattern.fullmatch(column.strip()) if pattern is not None else None
    unit = _BILLION if match is not None and match["unit"] else 1.0
    wrong = [f'"{cell}"' for cell in cells if isinstance(cell, str)]
    if wrong:
        raise InputError(
            f'{raw.source}: no numbers in column "{column}": {listed(wrong)}',
            hint="write plain numbers; leave cells that are not known empty",
        )
    picked = [None if row is None else cells[row] for row in rows]
    return np.array([np.nan if cell is None else float(cell) * unit for cell in picked])


def _texts(raw: RawTable, column: str, rows: Sequence[int | None]) -> list[str | None]:
    if column not in raw.columns:
        return [None] * len(rows)
    cells: list[Cell] = raw.column(column)
    return [None if row is None or cells[row] is None else str(cells[row]) for row in rows]


def _families(raw: RawTable, rows: Sequence[int | None], models: Sequence[str]) -> tuple[tuple[str, ...]]:
    """The family of each model; one of its own where none is given."""
    texts = _texts(raw, "family", rows)
    return (tuple(text or model for text, model in zip(texts, models, strict=True)),)


def _check_stated(
    raw: RawTable, budgets: Budgets, rows: Sequence[int | None], models: Sequence[str]
) -> list[Finding]:
    """Stated compute that is not 6ND of the stated parameters and tokens."""
    found = []
    for name, match in _matching(raw, _STATED).items():
        language = match["language"].lower()
        if language not in budgets.tokens:
            continue
        stated, ours = _numbers(raw, name, rows), budgets.compute(language)
        with np.errstate(invalid="ignore"):
            differ = np.flatnonzero(np.abs(stated / ours - 1) > _AGREES).tolist()
        found += [
            Finding("budget", f"{name} says {stated[m]:.3g}, 6ND is {ours[m]:.3g} and is used", models[m])
            for m in differ
        ]
    return found


def _check_amounts(budgets: Budgets, models: Sequence[str]) -> list[Finding]:
    found = []
    total = budgets.tokens.get(TOTAL)
    for place, model in enumerate(models):
        amounts = {language: float(budgets.tokens[language][place]) for language in budgets.languages}
        if any(amount <= 0 for amount in (*amounts.values(), float(budgets.parameters_M[place]))):
            found.append(Finding("budget", "parameters or tokens of 0 or less: left out of fits", model))
        if total is not None and sum(amounts.values()) > float(total[place]) * (1 + _AGREES):
            found.append(Finding("budget", "the languages have more tokens than there are in all", model))
    if not budgets.has_families:
        said = (
            "no column family: each model is a cluster of its own; errors are too small where models are kin"
        )
        found.append(Finding("family", said))
    return found
