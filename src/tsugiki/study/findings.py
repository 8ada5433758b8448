"""What a study has to say about its input: nothing is mended, left out or filled in without a word here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of the results has to know.

    kind: a word to select by (missing, imputed, zero, chance, range, ceiling, average, outlier, column,
    constant, budget, family, clusters). model, benchmark: the cell or row or column that is meant, empty for
    none.
    """

    kind: str
    message: str
    model: str = ""
    benchmark: str = ""
    value: float | None = None

    def as_dict(self) -> dict[str, object]:
        """Plain data, for --json."""
        return dict(vars(self))
