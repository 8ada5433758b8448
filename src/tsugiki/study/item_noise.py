"""How far the questions themselves move a study: items drawn again within each benchmark, models fixed.

Drawing models again asks "would other models give these components?"; drawing items asks "would other
questions of the same kind?". A benchmark of 120 questions moves each model by points, and the components with
it. Only tables that `tsugiki evaluate` made have items; other columns stay as they are, and are named.

Axis letters: C clusters of items, M models, B benchmarks, R draws.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsugiki.artifacts.scores import SCORES, read_scores
from tsugiki.study.artifacts_table import BITS, column_name
from tsugiki.study.findings import Finding
from tsugiki.study.table import Array, ScoreTable

_COLUMNS = ("model", "task", "dataset", "item", "cluster", "score", "nll_nats", "bytes", "sums")


@dataclass(frozen=True)
class Items:
    """One benchmark's clusters: sums of scores (or bits) and of items (or bytes), C x M each."""

    numerator_CM: Array
    denominator_CM: Array


def items_of(paths: Sequence[Path], table: ScoreTable) -> dict[str, Items]:
    """The items behind the columns of a table, of those of its files that are evaluate artifacts.

    Metrics of a whole corpus are no mean of items, and are left out.
    """
    place = {model: number for number, model in enumerate(table.models)}
    sums: dict[str, dict[str, Array]] = defaultdict(lambda: defaultdict(lambda: np.zeros((2, len(place)))))
    corpus: set[str] = set()
    for path in paths:
        if not (path / SCORES).exists():
            continue
        found = read_scores(path)
        for (name, cluster, model), (score, size) in _by_item(
            found.select(list(_COLUMNS)).to_pylist(), corpus
        ):
            if model in place and name in table.benchmarks:
                sums[name][cluster][:, place[model]] += (score, size)
    return {
        name: Items(*np.stack([clusters[key] for key in sorted(clusters)], axis=1))
        for name, clusters in sums.items()
        if name not in corpus
    }


def _by_item(
    rows: Sequence[Mapping[str, object]], corpus: set[str]
) -> list[tuple[tuple[str, str, str], tuple[float, float]]]:
    """Score and size of each item of each model, samples averaged; corpus metrics are noted in `corpus`."""
    samples: dict[tuple[str, str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        name = column_name(str(row["task"]), str(row["dataset"]))
        cluster = str(row["cluster"] or row["item"])
        key = (name, cluster, str(row["model"]), str(row["item"]))
        score, bits, size = row["score"], row["nll_nats"], row["bytes"]
        if row["task"] == BITS:
            if isinstance(bits, float) and isinstance(size, int) and size:
                samples[key].append((bits / math.log(2), float(size)))
        elif isinstance(score, float) and math.isfinite(score):
            samples[key].append((score, 1.0))
            corpus |= {name} if row["sums"] else set()
    return [
        (key[:3], (math.fsum(s for s, _ in several) / len(several), several[0][1]))
        for key, several in samples.items()
    ]


def drawn_tables(
    scores_MB: Array, table: ScoreTable, items: Mapping[str, Items], draws: int, seed: int
) -> Array:
    """R tables, R x M x B: columns with items drawn again by whole clusters, the others as they are.

    scores_MB: the table without gaps; a model without items on a benchmark keeps its (filled in) score.
    """
    tables_RMB = np.repeat(scores_MB[None], draws, axis=0)
    for column, name in enumerate(table.benchmarks):
        if name not in items:
            continue
        one = items[name]
        clusters = len(one.numerator_CM)
        rng = np.random.default_rng((seed, column))
        counts_RC = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn_RM = (counts_RC @ one.numerator_CM) / (counts_RC @ one.denominator_CM)
        tables_RMB[:, :, column] = np.where(np.isfinite(drawn_RM), drawn_RM, tables_RMB[:, :, column])
    return tables_RMB


def item_findings(table: ScoreTable, items: Mapping[str, Items]) -> list[Finding]:
    """Which columns were not drawn again, for want of items."""
    without = [name for name in table.benchmarks if name not in items]
    if not without:
        return []
    shown = ", ".join(without[:8]) + (f" and {len(without) - 8} more" if len(without) > 8 else "")  # noqa: PLR2004
    return [Finding("items", f"no items are known of {shown}: these columns are not drawn again")]
