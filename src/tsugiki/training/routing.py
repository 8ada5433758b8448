"""How a mixture of experts routes held-out text: load, entropies, dead experts, specialisation.

Every validation set (a language, or a domain) is routed through the model at each point of validation. Of its
routing is kept, by sparse layer: the share of the choices that fell on each expert, the entropy of those
shares and of the routers' probabilities (both over log E: 1 where all experts are equal), and how many
experts nothing chose. How far experts have specialised is measured as in clustering: between the set that a
token comes from and the expert that it goes to,

    NMI = I(set; expert) / sqrt(H(set) · H(expert))            (Strehl and Ghosh 2002, JMLR 3, equation 2)

with every set counted alike, whatever its size: 0 where all sets use the experts alike, 1 where the expert
tells the set and the set the expert. With D sets in disjoint halves of E experts it is sqrt(ln D / ln E).
From N choices it comes out too high by about (D - 1)(E - 1) / 2N nats before the division.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tsugiki.models.moe import Routing

DIGITS = 6
"""Decimal places of shares and entropies in metrics and manifest: enough for thousands of experts."""


def entropy(logits_SE: Tensor, probabilities_SE: Tensor) -> Tensor:
    """Entropy in nats of each row's softmax, (S)."""
    # log Z - sum of p · logit, without a logarithm of probabilities that may be 0
    return logits_SE.logsumexp(dim=-1) - (probabilities_SE * logits_SE).sum(dim=-1)


@dataclass(frozen=True)
class Watched:
    """How some text was routed, by sparse layer.

    counts_LE: choices by expert. entropies_L: of the routers' probabilities, in nats, summed over tokens.
    moved_L: choices that the routers' biases changed. tokens_L: counted tokens.
    """

    counts_LE: NDArray[np.float64]
    entropies_L: NDArray[np.float64]
    moved_L: NDArray[np.float64]
    tokens_L: NDArray[np.float64]

    @staticmethod
    def width(experts: int) -> int:
        """Numbers of a layer in a table that is added up."""
        return experts + 3

    @staticmethod
    def row(routing: Routing, kept_S: Tensor) -> Tensor:
        """A layer's numbers, of the tokens that count, (E + 3)."""
        logits_SE = routing.logits_SE[kept_S].float()
        experts_SK = routing.experts_SK[kept_S]
        experts, chosen = logits_SE.shape[1], experts_SK.shape[1]
        taken_SE = torch.zeros_like(logits_SE).scatter_(1, experts_SK, 1.0)
        plain_SK = logits_SE.topk(chosen, dim=-1).indices
        plain_SE = torch.zeros_like(logits_SE).scatter_(1, plain_SK, 1.0)
        row = logits_SE.new_empty(Watched.width(experts))
        row[:experts] = taken_SE.sum(dim=0)
        row[experts] = entropy(logits_SE, logits_SE.softmax(dim=-1)).sum()
        row[experts + 1] = (taken_SE * (1 - plain_SE)).sum()
        row[experts + 2] = len(logits_SE)
        return row

    @classmethod
    def of(cls, table: Tensor, experts: int) -> Watched:
        """From the sum of tables of `row`s, (L, E + 3)."""
        numbers = table.numpy()
        return cls(numbers[:, :experts], *(numbers[:, experts + place] for place in range(3)))

    @property
    def load_LE(self) -> NDArray[np.float64]:  # noqa: N802
        """Each expert's share of the choices of its layer."""
        return load_of(self.counts_LE)

    def as_row(self) -> dict[str, Any]:
        """For metrics and manifest; see the module."""
        tokens_L = np.maximum(self.tokens_L, 1)
        even = _even(self.counts_LE.shape[1])
        return {
            **load_row(self.counts_LE),
            "router_entropy": _rounded(self.entropies_L / tokens_L / even),
            "tokens": int(self.tokens_L.max(initial=0)),
        }

    @property
    def moved_share(self) -> float:
        """Share of all choices that the biases changed."""
        return float(self.moved_L.sum() / max(1.0, self.counts_LE.sum()))


def load_of(counts_LE: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each expert's share of the choices of its layer; 0 where there are none."""
    shares: NDArray[np.float64] = counts_LE / np.maximum(counts_LE.sum(axis=1, keepdims=True), 1)
    return shares


def load_row(counts_LE: NDArray[np.float64]) -> dict[str, Any]:
    """Load by layer and expert, its entropy by layer (over log E), and the dead experts of each layer."""
    load_LE = load_of(counts_LE)
    entropies_L = _entropies(load_LE) / _even(counts_LE.shape[1])
    return {
        "load": _rounded(load_LE),
        "load_entropy": _rounded(entropies_L),
        "dead_experts": [int(dead) for dead in (counts_LE == 0).sum(axis=1)],
    }


def specialisation(loads: Sequence[NDArray[np.float64]]) -> list[float]:
    """NMI between set and expert by layer, from the loads (L, E) of at least two sets; see the module.

    0 where there are fewer sets.
    """
    if len(loads) < 2:  # noqa: PLR2004 (of one set nothing can be told)
        return [0.0] * (len(loads[0]) if loads else 0)
    loads_SLE = np.stack(loads)
    whole_L = _entropies(loads_SLE.mean(axis=0))
    information_L = whole_L - _entropies(loads_SLE).mean(axis=0)
    scale_L = np.sqrt(math.log(len(loads)) * np.maximum(whole_L, 1e-12))
    found: list[float] = _rounded(np.clip(information_L / scale_L, 0.0, 1.0))
    return found


def by_label(
    loads: Mapping[str, NDArray[np.float64]], labels: Mapping[str, str]
) -> dict[str, NDArray[np.float64]]:
    """The mean load of the sets of each language or domain, sets counted alike; without one: left out."""
    groups: dict[str, list[NDArray[np.float64]]] = {}
    for name, load_LE in loads.items():
        if labels.get(name):
            groups.setdefault(labels[name], []).append(load_LE)
    return {label: np.mean(group, axis=0) for label, group in groups.items()}


def _entropies(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: NDArray[np.float64] = -(shares * logs).sum(axis=-1)
    return found


def _even(experts: int) -> float:
    return math.log(experts) if experts > 1 else 1.0


def _rounded(values: NDArray[np.float64]) -> Any:
    return np.round(values, DIGITS).tolist()
