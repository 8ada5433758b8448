"""A table of models x benchmarks, checked: which column is what, what is missing, what can't be a score."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError, InputError, did_you_mean
from tsugiki.study.artifacts_table import read_artifact
from tsugiki.study.findings import Finding
from tsugiki.study.reading import Cell, RawTable, listed, read_raw

Array = NDArray[np.float64]

_MODEL_COLUMNS: Final = ("model", "name", "model_name", "hf_model", "hf_id")
_AVERAGE: Final = re.compile(r"(?:^|[\s_\-.])(avg|average|mean)(?:$|[\s_\-.])|平均", re.IGNORECASE)
_NO_SCORE: Final = re.compile(
    r"#?(size|params?|parameters?|active_params?|(?-i:N|D)|tokens?|training_tokens|flops?|compute|year|rank|index|id)"
    r"([_ (]*(b|billions?|bn|t|total|en|ja|6nd)\)?)*",
    re.IGNORECASE,
)
"""Numeric columns that describe a model instead of scoring it."""
_PERCENT: Final = 100.0
FEWEST_MODELS: Final = 4
"""Fisher's interval divides by sqrt(n - 3)."""
FEWEST_BENCHMARKS: Final = 2


@dataclass(frozen=True)
class Columns:
    """How to read a table.

    model: the column of names; drop: columns that are no benchmarks; only: those that are. percent: scores
    are per cent. any_range: scores may lie outside of [0, 1].
    """

    model: str | None = None
    drop: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    percent: bool = False
    any_range: bool = False


@dataclass(frozen=True)
class ScoreTable:
    """Scores of M models on B benchmarks; NaN where one is missing.

    averages: stated averages (M each) by column. information: text columns and sizes by column, for matching.
    findings: what reading it brought up.
    """

    models: tuple[str, ...]
    benchmarks: tuple[str, ...]
    scores_MB: Array
    averages: Mapping[str, Array] = field(default_factory=dict)
    information: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def missing(self) -> int:
        """How many scores are missing."""
        return int(np.isnan(self.scores_MB).sum())

    def column(self, benchmark: str) -> Array:
        """The scores of one benchmark; raises InputError for a name that is none."""
        if benchmark not in self.benchmarks:
            raise InputError(
                f'there is no benchmark "{benchmark}"', hint=did_you_mean(benchmark, self.benchmarks)
            )
        return self.scores_MB[:, self.benchmarks.index(benchmark)]


def read_table(paths: Sequence[Path], columns: Columns | None = None) -> ScoreTable:
    """Read and join tables; models of the same name in several are one row.

    paths: files (see `reading.read_raw`) and directories of evaluate artifacts. Raises InputError for what
    can't be read, repeated models, text among scores, scores outside of [0, 1] and scores that contradict
    each other; DataError where too few models or benchmarks are left.
    """
    columns = columns or Columns()
    if not paths:
        raise InputError("no table is given", hint="name a file, or try --example")
    parts: list[ScoreTable] = []
    names: list[str] = []
    for path in paths:
        raw, findings = read_artifact(path) if path.is_dir() else (read_raw(path), [])
        names += raw.columns
        # whatever the columns of an artifact are called, they are scores
        known = tuple(name for name in raw.columns[1:] if name not in columns.drop) if path.is_dir() else ()
        asked = columns if columns.only or not known else replace(columns, only=known, model="model")
        parts.append(_typed(raw, asked, findings))
    _check_named(names, columns)
    return _large_enough(_without_empty(_large_enough(_joined(parts))))


def _typed(raw: RawTable, columns: Columns, findings: Sequence[Finding]) -> ScoreTable:
    model_column = _model_column(raw, columns.model)
    models = _model_names(raw, model_column)
    found = list(findings)
    scores: dict[str, Array] = {}
    averages: dict[str, Array] = {}
    information: dict[str, tuple[Cell, ...]] = {}
    for name in raw.columns:
        cells = raw.column(name)
        kind = "model" if name == model_column else _kind(name, cells, columns)
        if kind == "text":
            information[name] = tuple(cells)
        elif kind == "average":
            averages[name] = _numbers(raw, name, models) / (_PERCENT if columns.percent else 1.0)
        elif kind == "score":
            scores[name] = _numbers(raw, name, models) / (_PERCENT if columns.percent else 1.0)
        elif kind == "described":
            information[name] = tuple(cells)
            found.append(Finding("column", f'column "{name}" is taken for no benchmark', "", name))
    matrix = np.column_stack(list(scores.values())) if scores else np.empty((len(models), 0))
    table = ScoreTable(models, tuple(scores), matrix, averages, information, tuple(found))
    _check_range(raw.source, table, columns)
    return table


def _model_column(raw: RawTable, asked: str | None) -> str:
    if asked is not None:
        if asked not in raw.columns:
            raise InputError(
                f'{raw.source} has no column "{asked}"', hint=did_you_mean(asked, list(raw.columns))
            )
        return asked
    by_name = {name.casefold(): name for name in raw.columns}
    for known in _MODEL_COLUMNS:
        if known in by_name:
            return by_name[known]
    for name in raw.columns:
        if any(isinstance(cell, str) for cell in raw.column(name)):
            return name
    raise InputError(f"{raw.source} has no column with names", hint="name it with --model-column")


def _model_names(raw: RawTable, column: str) -> tuple[str, ...]:
    names = []
    for number, cell in enumerate(raw.column(column), start=1):
        if cell is None:
            raise InputError(f"{raw.source}: row {number} has no name in {column}", hint="name every model")
        names.append(cell if isinstance(cell, str) else f"{cell:g}")
    repeated = (
        sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    )
    if repeated:
        raise InputError(
            f'{raw.source}: models that are there twice in column "{column}": {listed(repeated)}',
            hint="keep one row each, or name another column with --model-column",
        )
    return tuple(names)


def _kind(name: str, cells: Sequence[Cell], columns: Columns) -> str:
    """`score`, `average`, `text`, `described` (a number that is no score), or `dropped`."""
    present = [cell for cell in cells if cell is not None]
    numbers = sum(isinstance(cell, float) for cell in present)
    if name in columns.only:
        return "score"
    if name in columns.drop:
        return "dropped"
    if 2 * numbers <= len(present) and present:
        return "text"
    if columns.only:
        return "dropped"
    if _AVERAGE.search(name):
        return "average"
    return "described" if _NO_SCORE.fullmatch(name.strip()) else "score"


def _numbers(raw: RawTable, name: str, models: Sequence[str]) -> Array:
    cells = raw.column(name)
    wrong = [f'{model}: "{cell}"' for model, cell in zip(models, cells, strict=True) if isinstance(cell, str)]
    if wrong:
        raise InputError(
            f'{raw.source}: no numbers in column "{name}": {listed(wrong)}',
            hint=f'write decimal numbers, leave missing ones empty, or leave it out: --drop "{name}"',
        )
    return np.array([np.nan if cell is None else float(cell) for cell in cells], dtype=np.float64)


def _check_range(source: str, table: ScoreTable, columns: Columns) -> None:
    if columns.any_range:
        return
    with np.errstate(invalid="ignore"):
        outside = (table.scores_MB < 0) | (table.scores_MB > 1)
    places = np.argwhere(outside)
    if not len(places):
        return
    cells = [f"{table.models[m]} {table.benchmarks[b]} {table.scores_MB[m, b]:g}" for m, b in places.tolist()]
    high = float(np.nanmax(table.scores_MB))
    percent = not columns.percent and high <= _PERCENT and float(np.nanmin(table.scores_MB)) >= 0
    hint = "give --percent if scores are per cent; " if percent else "mend these cells; "
    raise InputError(
        f"{source}: {len(cells)} scores outside of [0, 1]: {listed(cells)}",
        hint=hint + "--drop leaves a column out; --any-range takes scores that have no such bounds",
    )


def _joined(parts: Sequence[ScoreTable]) -> ScoreTable:
    if len(parts) == 1:
        return parts[0]
    models = tuple(dict.fromkeys(model for part in parts for model in part.models))
    benchmarks = tuple(dict.fromkeys(name for part in parts for name in part.benchmarks))
    matrix = np.full((len(models), len(benchmarks)), np.nan)
    for part in parts:
        rows = [models.index(model) for model in part.models]
        for place, name in enumerate(part.benchmarks):
            column = benchmarks.index(name)
            old, new = matrix[rows, column], part.scores_MB[:, place]
            differ = np.flatnonzero(~np.isnan(old) & ~np.isnan(new) & (old != new))
            if len(differ):
                one = int(differ[0])
                raise InputError(
                    f"the tables give {part.models[one]} two scores on {name}: {old[one]:g} and {new[one]:g}",
                    hint="leave one table out, or give the models different names",
                )
            matrix[rows, column] = np.where(np.isnan(new), old, new)
    averages = _spread(parts, models)
    information = _spread_information(parts, models)
    findings = tuple(finding for part in parts for finding in part.findings)
    return ScoreTable(models, benchmarks, matrix, averages, information, findings)


def _spread(parts: Sequence[ScoreTable], models: Sequence[str]) -> dict[str, Array]:
    spread: dict[str, Array] = {}
    for part in parts:
        for name, values in part.averages.items():
            whole = spread.setdefault(name, np.full(len(models), np.nan))
            whole[[models.index(model) for model in part.models]] = values
    return spread


def _spread_information(parts: Sequence[ScoreTable], models: Sequence[str]) -> dict[str, tuple[Cell, ...]]:
    spread: dict[str, list[Cell]] = {}
    for part in parts:
        for name, cells in part.information.items():
            whole = spread.setdefault(name, [None] * len(models))
            for model, cell in zip(part.models, cells, strict=True):
                whole[models.index(model)] = cell
    return {name: tuple(cells) for name, cells in spread.items()}


def _without_empty(table: ScoreTable) -> ScoreTable:
    """Without benchmarks and models that have no score, and benchmarks on which all models have the same."""
    found = list(table.findings)
    present = ~np.isnan(table.scores_MB)
    keep_B = np.ones(len(table.benchmarks), dtype=bool)
    for place, name in enumerate(table.benchmarks):
        values = table.scores_MB[present[:, place], place]
        if not len(values):
            found.append(Finding("missing", f"no model has a score on {name}: left out", "", name))
        elif np.ptp(values) == 0:
            said = f"all models have {values[0]:g} on {name}: it tells nothing apart, and is left out"
            found.append(Finding("constant", said, "", name, float(values[0])))
        else:
            continue
        keep_B[place] = False
    keep_M: NDArray[np.bool_] = np.asarray(present[:, keep_B].any(axis=1))
    found += [
        Finding("missing", f"{model} has no score: left out", model)
        for model, kept in zip(table.models, keep_M.tolist(), strict=True)
        if not kept
    ]
    rows = np.flatnonzero(keep_M).tolist()
    return ScoreTable(
        tuple(table.models[row] for row in rows),
        tuple(name for name, kept in zip(table.benchmarks, keep_B.tolist(), strict=True) if kept),
        table.scores_MB[np.ix_(keep_M, keep_B)],
        {name: values[keep_M] for name, values in table.averages.items()},
        {name: tuple(cells[row] for row in rows) for name, cells in table.information.items()},
        tuple(found),
    )


def _check_named(known: Sequence[str], columns: Columns) -> None:
    for name in (*columns.only, *columns.drop):
        if name not in known:
            raise InputError(f'no table has a column "{name}"', hint=did_you_mean(name, known))


def _large_enough(table: ScoreTable) -> ScoreTable:
    models, benchmarks = len(table.models), len(table.benchmarks)
    if models < FEWEST_MODELS:
        said = "one model" if models == 1 else f"{models} models"
        raise DataError(
            f"the table has {said}; correlations and factors need at least {FEWEST_MODELS}",
            hint="add models: a study of what models have in common needs many (35 in the example)",
        )
    if benchmarks < FEWEST_BENCHMARKS:
        raise DataError(
            f"the table has {benchmarks} benchmark(s) that tell models apart; {FEWEST_BENCHMARKS} are needed",
            hint="add benchmarks; columns of text, sizes and averages are none",
        )
    return table
