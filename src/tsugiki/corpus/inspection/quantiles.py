"""How a feature is distributed among kept and rejected documents: a table of quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.inspection.artifact import Corpus, as_floats, batches, row_count
from tsugiki.corpus.inspection.cuts import Cut

LEVELS: Final = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
MOST_VALUES: Final = 4_000_000
"""Up to so many documents quantiles are exact; of more, every n-th document is looked at (32 MB)."""

_ROWS: Final = 1 << 17


@dataclass
class Quantiles:
    """A feature's values at LEVELS. kept, rejected: empty where there is no such document.

    every: 1, or n where only every n-th document was looked at. cuts: the rules that read the feature.
    """

    feature: str
    documents: dict[str, int] = field(default_factory=dict)
    values: dict[str, list[float]] = field(default_factory=dict)
    every: int = 1
    cuts: tuple[Cut, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        parts = {
            part: {"documents": self.documents[part], "quantiles": values}
            for part, values in self.values.items()
        }
        rules = [cut.reason for cut in self.cuts]
        return {"feature": self.feature, "levels": LEVELS, **parts, "every": self.every, "rules": rules}


def quantiles(corpus: Corpus, feature: str) -> Quantiles:
    """The quantiles of a stored feature among the documents that have it (those of the language).

    Quantiles are order statistics without interpolation, so that counts stay whole numbers.
    """
    every = -(-row_count(corpus.files) // MOST_VALUES) or 1
    found = Quantiles(feature, every=every)
    found.cuts = tuple(cut for cut in corpus.cuts if cut.feature == feature)
    for part, files in (("kept", corpus.kept), ("rejected", corpus.rejected)):
        values = _values(files, feature, every)
        found.documents[part] = len(values)
        found.values[part] = (
            np.quantile(values, LEVELS, method="inverted_cdf").tolist() if len(values) else []
        )
    return found


def _values(files: Sequence[Any], feature: str, every: int) -> npt.NDArray[np.float64]:
    pieces = []
    seen = 0
    for file in files:
        for batch in batches(file, [feature], _ROWS):
            column = as_floats(batch.column(feature))
            pieces.append(column[-seen % every :: every])
            seen += len(column)
    values = np.concatenate(pieces) if pieces else np.empty(0)
    return values[~np.isnan(values)]
