"""What would change if assumed language shares were otherwise: correlations over draws of the shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tsugiki.errors import DataError, InputError
from tsugiki.study.budgets import FLOPS, TOTAL, Budgets
from tsugiki.study.findings import Finding
from tsugiki.study.reading import Cell, RawTable, read_raw
from tsugiki.study.scaling import usable_models
from tsugiki.study.table import Array, ScoreTable

_COLUMNS: Final = ("name", "tokens_B", "language", "share", "low", "high")
_AGREES: Final = 0.02
_BILLION: Final = 1e9


@dataclass(frozen=True)
class Share:
    """Tokens of one source of a model and the share of a language in them: stated, and from low to high.

    log: drawn evenly on a logarithmic scale. draw: sources with the same word have the same draw (two sizes
    of one model, or a base and what descends from it).
    """

    place: int
    language: str
    tokens: float
    share: float
    low: float
    high: float
    log: bool
    draw: str


@dataclass(frozen=True)
class Spread:
    """r of an outcome and a language's log compute: as stated, and median and 95 % of the draws."""

    outcome: str
    language: str
    stated: float
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Sensitivity:
    """All spreads, over how many draws, and where the shares came from (`file` or `factor`)."""

    draws: int
    source: str
    models: tuple[str, ...]
    spreads: tuple[Spread, ...]
    findings: tuple[Finding, ...] = ()


def read_shares(path: Path, table: ScoreTable) -> list[Share]:
    """Shares from a table: name, tokens_B, language, share, low, high, and if wanted scale and draw.

    Rows of models that are not in the table are passed over. Raises InputError for missing columns, text
    among numbers, and shares that are none.
    """
    raw = read_raw(path)
    missing = [name for name in _COLUMNS if name not in raw.columns]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}", hint=f"columns: {', '.join(_COLUMNS)}")
    places = {model.casefold(): place for place, model in enumerate(table.models)}
    for names in table.information.values():
        for place, cell in enumerate(names):
            if isinstance(cell, str):
                places.setdefault(cell.casefold(), place)
    found = []
    for number, row in enumerate(raw.rows, start=2):
        cells = dict(zip(raw.columns, row, strict=True))
        at = places.get(str(cells["name"]).strip().casefold())
        if at is not None:
            found.append(_share(raw, number, at, cells))
    return found


def _share(raw: RawTable, number: int, place: int, cells: Mapping[str, Cell]) -> Share:
    values = [cells[name] for name in ("tokens_B", "share", "low", "high")]
    numbers = [value for value in values if isinstance(value, float)]
    if len(numbers) < len(values):
        raise InputError(
            f"{raw.source}: row {number} lacks a number", hint="fill tokens_B, share, low and high in"
        )
    tokens, share, low, high = numbers
    log = cells.get("scale") == "log"
    if not (0 <= low <= high <= 1 and 0 <= share <= 1 and tokens > 0) or (log and low <= 0):
        raise InputError(
            f"{raw.source}: row {number} has share {share:g} from {low:g} to {high:g} of {tokens:g} B tokens",
            hint="shares lie between 0 and 1, low is not above high, and a logarithmic scale begins above 0",
        )
    draw = str(cells.get("draw") or f"row {number}")
    return Share(place, str(cells["language"]).lower(), tokens * _BILLION, share, low, high, log, draw)


def assumed_shares(budgets: Budgets, factor: float) -> list[Share]:
    """For rows flagged X without a file of shares: tokens times 1/factor to factor, on a log scale.

    Never more than all tokens; models of one family are drawn apart, for nothing is known of what they share.
    """
    found = []
    total = budgets.tokens.get(TOTAL)
    for place, assumed in enumerate(budgets.assumed):
        for language in budgets.languages:
            tokens = float(budgets.tokens[language][place])
            if assumed and tokens > 0:
                whole = tokens * factor if total is None or not total[place] > 0 else float(total[place])
                share = min(tokens / whole, 1.0)
                high = min(share * factor, 1.0)
                found.append(
                    Share(place, language, whole, share, share / factor, high, True, f"{place} {language}")
                )
    return found


def sensitivity(
    models: Sequence[str],
    outcomes: Mapping[str, Array],
    budgets: Budgets,
    shares: Sequence[Share],
    *,
    draws: int = 5000,
    seed: int = 0,
    source: str = "file",
) -> Sensitivity:
    """Correlations of every outcome with every language's compute over draws of the shares.

    A model's tokens of a language are the sum over its shares of that language; other models keep theirs.
    Raises DataError where there are no shares to draw.
    """
    if not shares:
        raise DataError("no share is assumed", hint="mark rows X in the provenance, or give a file of shares")
    languages = budgets.languages
    usable = usable_models(budgets, languages)
    tokens = _drawn_tokens(budgets, shares, draws, seed)
    spreads = []
    for language in languages:
        if not any(share.language == language and share.low < share.high for share in shares):
            continue  # nothing is assumed of it
        log_RM = np.log10(FLOPS * budgets.parameters_M * tokens[language])
        stated_M = np.log10(budgets.compute(language))
        for outcome, values in outcomes.items():
            used = usable & np.isfinite(values)
            r_R = _correlations(log_RM[:, used], values[used])
            stated = float(_correlations(stated_M[None, used], values[used])[0])
            low, median, high = np.quantile(r_R, [0.025, 0.5, 0.975]).tolist()
            spreads.append(Spread(outcome, language, stated, median, low, high))
    touched = sorted({models[share.place] for share in shares if share.low < share.high})
    return Sensitivity(
        draws, source, tuple(touched), tuple(spreads), tuple(_disagreeing(models, budgets, shares))
    )


def _drawn_tokens(budgets: Budgets, shares: Sequence[Share], draws: int, seed: int) -> dict[str, Array]:
    """Tokens by language, R x M."""
    rng = np.random.default_rng(seed)
    even = {name: rng.random(draws) for name in dict.fromkeys(share.draw for share in shares)}
    tokens = {language: np.tile(budgets.tokens[language], (draws, 1)) for language in budgets.languages}
    begun: set[tuple[str, int]] = set()
    for share in shares:
        if share.language not in tokens:
            raise InputError(
                f'a share is of the language "{share.language}", of which the budgets have no tokens',
                hint=f"languages of the budgets: {', '.join(budgets.languages)}",
            )
        if (share.language, share.place) not in begun:
            begun.add((share.language, share.place))
            tokens[share.language][:, share.place] = 0.0
        at = even[share.draw]
        if share.log:
            drawn = share.low * (share.high / share.low) ** at
        else:
            drawn = share.low + (share.high - share.low) * at
        tokens[share.language][:, share.place] += share.tokens * drawn
    return tokens


def _disagreeing(models: Sequence[str], budgets: Budgets, shares: Sequence[Share]) -> list[Finding]:
    """Models whose stated shares do not add up to their stated tokens."""
    sums: dict[tuple[int, str], float] = {}
    for share in shares:
        key = (share.place, share.language)
        sums[key] = sums.get(key, 0.0) + share.tokens * share.share
    found = []
    for (place, language), tokens in sums.items():
        stated = float(budgets.tokens[language][place])
        if abs(tokens - stated) > _AGREES * stated:
            said = f"the shares give {tokens:.4g} tokens of {language}, the budget says {stated:.4g}"
            found.append(Finding("budget", said, models[place]))
    return found


def _correlations(x_RN: Array, y_N: Array) -> Array:
    x = x_RN - x_RN.mean(axis=1, keepdims=True)
    y = y_N - y_N.mean()
    scale = np.sqrt((x**2).sum(axis=1) * float(y @ y))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x @ y) / scale
