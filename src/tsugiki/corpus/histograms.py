"""How the features that rules read are distributed, kept and rejected documents apart, for the report.

Bins are fixed in advance by the feature, so that the counts of any number of workers, in any order, add up.
Only documents that have the feature count: those of the language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tsugiki.corpus.features import feature_types
from tsugiki.corpus.inspection.cuts import Cut, cut_of
from tsugiki.corpus.rules import Rule
from tsugiki.languages import LanguagePack

SHARE_BINS: Final = 40
_PER_DECADE: Final = 10
_DECADES: Final = 7
_COUNT_FLOATS: Final = ("_mean", "_max")
"""Endings of features that are numbers of characters though they may be fractions."""

Counts = npt.NDArray[np.int64]


def bin_edges(pack: LanguagePack, feature: str) -> npt.NDArray[np.float64]:
    """The inner and outer edges of a feature's bins, rising; shape (bins + 1,).

    Shares: 0 to 1 in 40 equal bins. Counts: 0, then whole numbers, ten a decade, up to 10^7.
    """
    kind = feature_types(pack).get(feature, pa.float64())
    if pa.types.is_integer(kind) or feature.endswith(_COUNT_FLOATS):
        powers = 10.0 ** (np.arange(_DECADES * _PER_DECADE + 1) / _PER_DECADE)
        return np.unique(np.concatenate([[0.0], np.round(powers)]))
    return np.arange(SHARE_BINS + 1) / SHARE_BINS


class Histograms:
    """Counts documents by the value of each feature that a rule reads.

    `state()` is JSON data that `restored` makes the same accumulator of.
    """

    def __init__(self, pack: LanguagePack, rules: Sequence[Rule]) -> None:
        self._pack = pack
        self._rules = tuple(rules)
        self._cuts: tuple[Cut, ...] = tuple(map(cut_of, rules))
        self._edges = {cut.feature: bin_edges(pack, cut.feature) for cut in self._cuts}
        # per feature: documents and kept documents below the first edge, in each bin, and above the last
        self._counts = {name: np.zeros((2, len(edges) + 1), np.int64) for name, edges in self._edges.items()}
        # per rule: documents that it rejects, and those that it alone rejects
        self._by_rule = np.zeros((len(self._cuts), 2), np.int64)

    def add(self, table: pa.Table, kept: npt.NDArray[np.bool_]) -> None:
        """Count the rows of a documents table; `kept`, of shape (rows,), says which of them are kept.

        A rule rejects alone where `rejected_by` holds one reason and the rule's threshold is passed.
        """
        single = pc.equal(pc.list_value_length(table["rejected_by"]), 1)
        single = np.asarray(pc.fill_null(single, False).to_numpy(), bool)
        values = {}
        for name, edges in self._edges.items():
            column = np.asarray(table[name].to_numpy(), np.float64)
            values[name] = column
            known = ~np.isnan(column)
            places = np.searchsorted(edges, column[known], side="right")
            # the last edge belongs to the last bin: a share of exactly 1 is not above the scale
            places[column[known] == edges[-1]] = len(edges) - 1
            for row, chosen in enumerate((places, places[kept[known]])):
                self._counts[name][row] += np.bincount(chosen, minlength=len(edges) + 1)
        for index, cut in enumerate(self._cuts):
            rejects = cut.rejects(values[cut.feature])
            self._by_rule[index] += np.count_nonzero(rejects), np.count_nonzero(rejects & single)

    def merge(self, other: Histograms) -> None:
        """Add the counts of another accumulator for the same pack and rules."""
        for name in self._counts:
            self._counts[name] += other._counts[name]
        self._by_rule += other._by_rule

    def state(self) -> dict[str, Any]:
        """The counts as JSON data."""
        features = {name: counts.tolist() for name, counts in self._counts.items()}
        return {"features": features, "rules": self._by_rule.tolist()}

    def restored(self, state: Mapping[str, Any]) -> Histograms:
        """A new accumulator for the same pack and rules with the counts of `state`."""
        other = Histograms(self._pack, self._rules)
        for name in other._counts:
            other._counts[name] += np.array(state["features"][name], np.int64)
        other._by_rule += np.array(state["rules"], np.int64).reshape(other._by_rule.shape)
        return other

    def facts(self) -> list[dict[str, Any]]:
        """For the manifest: each feature's bins as far as they hold a document or a threshold, and its rules.

        `from` is None for what lies below the scale and `to` is None for what lies above it.
        """
        return [
            {
                "feature": name,
                "bins": _bins(self._edges[name], counts, [c.value for c in self._cuts if c.feature == name]),
                "rules": [
                    {
                        "name": cut.name,
                        "sign": cut.sign,
                        "threshold": cut.value,
                        "rejected": int(rejected),
                        "alone": int(alone),
                    }
                    for cut, (rejected, alone) in zip(self._cuts, self._by_rule, strict=True)
                    if cut.feature == name
                ],
            }
            for name, counts in self._counts.items()
        ]


def _bins(
    edges: npt.NDArray[np.float64], counts: Counts, thresholds: Sequence[float]
) -> list[dict[str, float | int | None]]:
    filled = np.flatnonzero(counts[0]).tolist()
    if not filled:
        return []
    # the first and the last bin that touch a threshold: a threshold on an edge has a bin on either side
    filled += np.searchsorted(edges, thresholds, side="left").tolist()
    filled += np.searchsorted(edges, thresholds, side="right").tolist()
    inside = [place for place in filled if 0 < place < len(edges) or counts[0, place]]
    bounds = [None, *(_number(edge) for edge in edges.tolist()), None]
    return [
        {"from": bounds[i], "to": bounds[i + 1], "documents": int(counts[0, i]), "kept": int(counts[1, i])}
        for i in range(min(inside), max(inside) + 1)
    ]


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 12)
