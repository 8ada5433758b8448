"""What a recipe says about the data of a run: sources, weights, limits, phases. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from tsugiki.artifacts.contract import Count

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]

WeightUnit: TypeAlias = Literal["tokens", "bytes"]
"""What weights are shares of: tokens trained on, or UTF-8 bytes of the text behind them."""

Packing: TypeAlias = Literal["concatenate", "best-fit"]
"""How documents fill sequences: end to end, cut where one is full; or whole where they fit, and padded."""


class Phase(BaseModel):
    """One part of a curriculum: for how many tokens, and from which documents by which weights.

    Aurora-M (arXiv 2404.00399) trained in two: 377 billion tokens of a broad mixture, then 58 billion of a
    cleaner one with more instructions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(default="", description="What the phase is called in the log and the report.")
    tokens: Count = Field(
        description="Tokens of this phase; where the run takes others in all, phases keep these ratios."
    )
    data: dict[str, Weight] = Field(
        min_length=1, description="Documents and their weights in this phase; others are not drawn from."
    )


Weights: TypeAlias = Mapping[str, float] | Sequence[Phase]
"""One set of weights for the whole run, or phases."""


def phases_of(weights: Weights) -> tuple[Phase, ...]:
    """The phases of a run; one set of weights is a single phase."""
    if isinstance(weights, Mapping):
        return (Phase(tokens=1, data=dict(weights)),)
    return tuple(weights)


def source_names(phases: Iterable[Phase]) -> tuple[str, ...]:
    """Every source that a phase draws from, in the order of their first mention."""
    return tuple(dict.fromkeys(name for phase in phases for name in phase.data))


def asked_shares(weights: Weights) -> dict[str, float]:
    """Each source's share of the whole run, over all phases; the shares add up to 1."""
    phases = phases_of(weights)
    whole = sum(phase.tokens for phase in phases)
    shares = dict.fromkeys(source_names(phases), 0.0)
    for phase in phases:
        for name, weight in phase.data.items():
            shares[name] += phase.tokens / whole * weight / sum(phase.data.values())
    return shares


def epoch_limit(max_epochs: float | Mapping[str, float], name: str) -> float:
    """The most passes over a source; one that a mapping does not name has none."""
    return max_epochs.get(name, float("inf")) if isinstance(max_epochs, Mapping) else max_epochs
