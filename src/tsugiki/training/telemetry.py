"""What a run notes of its routers: their biases step by step, and how text is routed at every validation.

Rows of metrics with `event: routing` hold, by sparse layer, load and entropies of one validation set, or of
the training text since the row before (`dataset: null`); rows with `event: specialisation` how far the
experts tell the sets, and their languages and domains, apart (`routing`). The manifest has the last ones too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tsugiki.artifacts.contract import Workspace
from tsugiki.artifacts.files import read_json, write_json
from tsugiki.errors import InputError
from tsugiki.models.config import DecoderConfig
from tsugiki.training.routers import Routers, watched
from tsugiki.training.routing import Watched, by_label, load_of, load_row, specialisation

if TYPE_CHECKING:
    from tsugiki.training.loop import Counters
    from tsugiki.training.validation import ValidationSet

BIAS_FILE = "router_bias.json"
"""Beside a model's weights: its routers' biases, which config.json has no place for."""


@dataclass(frozen=True)
class Routed:
    """The routers of this process's parts of a model, all alike.

    add_up: over all processes, in place; None for one. first_biases: that training starts from, (L, E).
    """

    routers: Sequence[Routers]
    add_up: Callable[[Tensor], Any] | None = None
    first_biases: Sequence[Sequence[float]] | None = None

    @property
    def balances_by_bias(self) -> bool:
        """Whether the routers have biases that every step moves."""
        return self.routers[0].balancing.bias_rate > 0

    def start(self, counters: Counters) -> None:
        """Begin, or go on with what a checkpoint says: give the routers their biases."""
        first = self.routers[0]
        if not counters.expert_tokens:
            counters.expert_tokens = np.zeros((first.layers, first.experts), np.int64).tolist()
        if self.balances_by_bias and not counters.router_biases:
            given = self.first_biases or torch.zeros(first.layers, first.experts).tolist()
            counters.router_biases = [list(row) for row in given]
        self._give(counters.router_biases)

    def after_step(self, counters: Counters) -> None:
        """Count a step that was taken, and move the biases by its load; the same on every process."""
        first = self.routers[0]
        counts_LE = first.counts_LE.cpu().numpy().astype(np.int64)
        counters.expert_tokens = (np.asarray(counters.expert_tokens, np.int64) + counts_LE).tolist()
        if self.balances_by_bias:
            moved_LE = first.next_biases(torch.tensor(counters.router_biases))
            counters.router_biases = moved_LE.tolist()
            self._give(counters.router_biases)

    def watched(self) -> Watched:
        """How the text was routed that was measured since the last call."""
        return watched(self.routers, self.add_up)

    def without_biases(self, measure: Callable[[], float], counters: Counters) -> float:
        """What `measure` gives of the model as other programs read it."""
        self._give([])
        try:
            return measure()
        finally:
            self.watched()  # not of this model
            self._give(counters.router_biases)

    def record(
        self,
        counters: Counters,
        step: int,
        sets: Sequence[tuple[ValidationSet, Watched]],
        out: Workspace,
    ) -> None:
        """Write the rows of a point of validation, and keep them for the manifest."""
        training = load_row(np.asarray(counters.expert_tokens, np.float64)) if step else None
        if training is not None:
            out.metrics.append(event="routing", after_step=step, dataset=None, **training)
        counters.expert_tokens = np.zeros_like(np.asarray(counters.expert_tokens)).tolist()
        rows = {
            one.name: {"language": one.language, "domain": one.domain, **found.as_row()}
            for one, found in sets
        }
        for name, row in rows.items():
            out.metrics.append(event="routing", after_step=step, dataset=name, **row)
        kept: dict[str, Any] = {
            "layers": self.routers[0].sparse,
            "experts": self.routers[0].experts,
            "experts_per_token": self.routers[0].chosen,
            "training": training,
            "sets": rows,
            "specialisation": list(counters.routing.get("specialisation", ())),
        }
        if len(sets) > 1:
            apart = _apart(sets)
            out.metrics.append(event="specialisation", after_step=step, **apart)
            kept["specialisation"].append({"step": step, **apart})
        if self.balances_by_bias and sets:
            choices = sum(found.counts_LE.sum() for _, found in sets)
            kept["moved_share"] = float(sum(found.moved_L.sum() for _, found in sets) / max(1.0, choices))
        counters.routing = kept

    def _give(self, biases: Sequence[Sequence[float]]) -> None:
        table = torch.tensor(biases) if biases else None
        for routers in self.routers:
            routers.set_biases(table)


def _apart(sets: Sequence[tuple[ValidationSet, Watched]]) -> dict[str, list[float]]:
    """NMI by layer between expert and validation set, language, and domain (where some sets share one)."""
    loads = {one.name: load_of(found.counts_LE) for one, found in sets}
    languages = by_label(loads, {one.name: one.language for one, _ in sets})
    domains = by_label(loads, {one.name: one.domain for one, _ in sets})
    return {
        "by_dataset": specialisation(list(loads.values())),
        "by_language": specialisation(list(languages.values())) if len(languages) > 1 else [],
        "by_domain": specialisation(list(domains.values())) if 1 < len(domains) < len(loads) else [],
    }


def bias_facts(counters: Counters, rate: float) -> dict[str, Any]:
    """What the manifest says of biases: that the model's files don't hold them, and what that changes.

    without: bits per byte of the validation sets with the biases, and of the model as written.
    """
    last = max((row["step"] for row in counters.validation), default=0)
    rows = [
        {key: row[key] for key in ("dataset", "bits_per_byte", "bits_per_byte_without_bias")}
        for row in counters.validation
        if row["step"] == last and "bits_per_byte_without_bias" in row
    ]
    return {
        "rate": rate,
        "in_files": False,
        "file": BIAS_FILE,
        "largest": float(np.abs(np.asarray(counters.router_biases)).max(initial=0.0)),
        "moved_share": counters.routing.get("moved_share"),
        "without": rows,
    }


def write_biases(directory: Path, layers: Sequence[int], biases: Sequence[Sequence[float]]) -> None:
    """Write `router_bias.json` into a model directory: the number of each sparse layer and its biases."""
    rows = {str(layer): list(row) for layer, row in zip(layers, biases, strict=True)}
    write_json(directory / BIAS_FILE, {"selection_bias": rows})


def read_biases(directory: Path, shape: DecoderConfig) -> list[list[float]] | None:
    """The biases beside a model, by sparse layer; None where there is no file.

    Raises InputError where the file does not fit the model.
    """
    if not (directory / BIAS_FILE).exists():
        return None
    data = read_json(directory / BIAS_FILE)
    rows = data.get("selection_bias") if isinstance(data, Mapping) else None
    sparse = [str(layer) for layer in range(shape.layers) if shape.is_sparse(layer)]
    experts = shape.moe.experts if shape.moe else 0
    if not isinstance(rows, Mapping) or sorted(rows) != sorted(sparse):
        raise _unfit(directory, f"holds no biases of the layers {', '.join(sparse)}")
    found = [rows[layer] for layer in sparse]
    for row in found:
        if not isinstance(row, list) or len(row) != experts or not all(_is_real(value) for value in row):
            raise _unfit(directory, f"does not hold {experts} finite numbers for each layer")
    return found


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _unfit(directory: Path, what: str) -> InputError:
    return InputError(f"{directory / BIAS_FILE} {what}", hint="delete the file to start from no biases")
