"""What a layer's experts are, measured against the dense feed-forward that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tsugiki.models.moe import Routing
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.convert import Conversion, read_tensor
from tsugiki.upcycling.draws import chosen_count
from tsugiki.upcycling.experts import (
    NEURON_DIMENSION,
    SHARED_GATE,
    routed_gain,
    scale_of,
    shared_gain,
    shared_matrix,
    slice_number,
    slice_of,
    whole_scale,
)
from tsugiki.upcycling.weights import dense_name


@dataclass(frozen=True)
class Expected:
    """What theory says of neurons that are drawn independently, and of equal size with those they replace.

    kept: the share of an expert's neurons that is as it was, and so the cosine of its output with the dense
    one's; alike: the cosine between two experts, kept². (Drop-Upcycling, appendix C.5: of k experts a share
    of (1 - r)^k is common.) None where nothing is known: noise, and several dense models.
    """

    kept: float | None
    alike: float | None


def expected(config: Config, width: int) -> Expected:
    """Theory for experts of `width` neurons: 1 - r, or (1 - r)³ where each matrix has a set of its own."""
    if config.method == "branch-train-mix":
        return Expected(None, None)
    if config.method == "noise" and config.ratio:
        return Expected(None, None)
    kept = 1.0
    if config.method == "drop":
        kept = (1 - chosen_count(width, config.ratio) / width) ** (1 if config.shared_indices else 3)
    return Expected(kept, kept**2)


@dataclass(frozen=True)
class LayerMeasures:
    """One sparse layer.

    intact_share: of all experts' neurons those that are, to the bit, a neuron of the dense model (times the
    scale of fine-grained experts) in all three matrices; least_intact, most_intact: what it has to lie
    between. cosine_dense: of an expert's output with that of the dense slice it comes from; cosine_experts:
    between experts of the same slice; both are means over tokens and experts. norm: of the mixture's output
    relative to the dense one's, both root mean squares over tokens; expected_norm: what theory says of it
    (None as in `Expected`), with the weights that the router gave. shared_intact: the share of the shared
    expert's neurons that are, to the bit, the dense model's times their scale: all of them; None where there
    is none, or where it is a mean of several models'. Its output is a part of the mixture's.
    """

    layer: int
    intact_share: float
    least_intact: float
    most_intact: float
    cosine_dense: float
    cosine_experts: float | None
    norm: float
    expected_norm: float | None
    shared_intact: float | None


@dataclass
class Observer:
    """Collects what is seen of a layer. x_SD, y_SD: the dense feed-forward's input and output."""

    conversion: Conversion
    layer: int
    x_SD: Tensor
    y_SD: Tensor
    _outputs: dict[int, Tensor] = field(default_factory=dict)
    _intact: dict[int, int] = field(default_factory=dict)
    _routing: Routing | None = None
    _shared: Tensor | None = None
    _shared_intact: float | None = None
    _dense: dict[int, list[Tensor]] = field(default_factory=dict)

    def see_expert(self, expert: int, stored: Sequence[Tensor], y_SD: Tensor) -> None:
        """stored: the expert's gate, up and down, as they are in the files. y_SD: its output of x_SD."""
        self._outputs[expert] = y_SD
        self._intact[expert] = self._intact_neurons(expert, stored)

    def see_routing(self, routing: Routing) -> None:
        """How the layer's router sends the tokens of x_SD."""
        self._routing = routing

    def see_shared(self, stored: Sequence[Tensor], y_SD: Tensor) -> None:
        """stored: the shared expert's gate, up and down. y_SD: its output of x_SD, times its own gate."""
        self._shared = y_SD
        if len(self.conversion.sources) > 1:
            return
        same = torch.ones(stored[0].shape[0], dtype=torch.bool)
        whole = self._dense_matrices(0)
        for one, dense, (matrix, dimension) in zip(stored, whole, NEURON_DIMENSION.items(), strict=True):
            meant = shared_matrix(dense, matrix, self.conversion.config)
            same &= (one == meant).all(dim=1 - dimension)
        self._shared_intact = float(same.double().mean())

    def measures(self) -> LayerMeasures:
        """All figures, once every expert and the routing were seen."""
        config = self.conversion.config
        width = self.conversion.dense.intermediate_size // config.granularity
        theory = expected(config, width)
        least, most = _bounds(config, width)
        return LayerMeasures(
            layer=self.layer,
            intact_share=sum(self._intact.values()) / (len(self._intact) * width),
            least_intact=least,
            most_intact=most,
            cosine_dense=self._cosine_dense(),
            cosine_experts=self._cosine_experts(),
            norm=self._norm(),
            expected_norm=self._expected_norm(theory),
            shared_intact=self._shared_intact,
        )

    def _intact_neurons(self, expert: int, stored: Sequence[Tensor]) -> int:
        config = self.conversion.config
        experts_each = config.num_experts // len(self.conversion.sources)
        dense = self._dense_matrices(expert // experts_each)
        meant = []
        for (matrix, dimension), whole in zip(NEURON_DIMENSION.items(), dense, strict=True):
            number = slice_number(config, expert % experts_each)
            part = slice_of(whole, dimension, number, config.granularity)
            scale = scale_of(matrix, routed_gain(config), config.scaling)
            meant.append(part if scale == 1 else part.clone().mul_(scale))
        same = torch.ones(meant[0].shape[0], dtype=torch.bool)
        if config.draws == "released":
            order, same = _order(stored[0], meant[0])
            dimensions = NEURON_DIMENSION.values()
            meant = [one.index_select(dim, order) for one, dim in zip(meant, dimensions, strict=True)]
        for one, other, dimension in zip(stored, meant, NEURON_DIMENSION.values(), strict=True):
            same &= (one == other).all(dim=1 - dimension)
        return int(same.sum())

    def _dense_matrices(self, source: int) -> list[Tensor]:
        if source not in self._dense:
            weights = self.conversion.sources[source]
            self._dense = {
                source: [read_tensor(weights[dense_name(self.layer, matrix)]) for matrix in NEURON_DIMENSION]
            }
        return self._dense[source]

    def _cosine_dense(self) -> float:
        grain = self.conversion.config.granularity
        found = []
        for expert, y_SD in self._outputs.items():
            slice_SD = self.y_SD if grain == 1 else self._slice_output(expert)
            found.append(float(F.cosine_similarity(y_SD, slice_SD).mean()))
        return sum(found) / len(found)

    def _slice_output(self, expert: int) -> Tensor:
        grain = self.conversion.config.granularity
        number = slice_number(self.conversion.config, expert)
        gate, up, down = (
            slice_of(whole, dimension, number, grain).float()
            for whole, dimension in zip(self._dense_matrices(0), NEURON_DIMENSION.values(), strict=True)
        )
        return F.linear(F.silu(F.linear(self.x_SD, gate)) * F.linear(self.x_SD, up), down)

    def _cosine_experts(self) -> float | None:
        copy = self.conversion.config.copy_experts
        found = [
            float(F.cosine_similarity(self._outputs[one], self._outputs[other]).mean())
            for one in self._outputs
            for other in range(one + copy, len(self._outputs), copy)
        ]
        return sum(found) / len(found) if found else None

    def _norm(self) -> float:
        mixed_SD = torch.zeros_like(self.y_SD) if self._shared is None else self._shared.clone()
        for expert, y_SD in self._outputs.items():
            mixed_SD += self._weights_SE()[:, expert, None] * y_SD
        return float(mixed_SD.square().sum().sqrt() / self.y_SD.square().sum().sqrt())

    def _expected_norm(self, theory: Expected) -> float | None:
        """√(p² / G · mean over tokens of Σ w_e w_e' c + b p k / G + b² g² s / G), the dense one's being 1.

        c = 1 for e = e', `alike` within a slice, else 0: slices are as good as independent, and each has 1/G
        of the dense output's square. p: what experts' outputs are scaled by (G where there is no shared
        expert). With G = 1 and two equal weights that is √((1 + (1 - r)²) / 2). Of a shared expert, scaled by
        b and its gate g = 1/2: s, how many slices it has; the second term, 2 g Σ w = 1 times what both have
        in common, only where it has the same neurons as the experts, a share k of which these have kept.
        """
        if theory.kept is None or theory.alike is None:
            return None
        config, experts = self.conversion.config, len(self._outputs)
        slices = torch.arange(experts) % config.copy_experts
        alike_EE = torch.where(slices[:, None] == slices, theory.alike, 0.0).fill_diagonal_(1.0)
        weights_SE = self._weights_SE()
        squares_S = torch.einsum("se,ef,sf->s", weights_SE, alike_EE, weights_SE)
        gain = whole_scale(routed_gain(config), config.scaling)
        square = gain**2 / config.granularity * float(squares_S.mean())
        if config.shared_expert != "none":
            shared = whole_scale(shared_gain(config), config.scaling)
            copied = config.shared_expert == "copy"
            held = config.granularity if copied else config.slices_kept_back
            square += (shared * SHARED_GATE) ** 2 * held / config.granularity
            square += shared * gain / config.granularity * theory.kept * copied
        return square**0.5

    def _weights_SE(self) -> Tensor:  # noqa: N802
        """What each expert's output is multiplied by for each token; 0 where it was not chosen."""
        assert self._routing is not None  # noqa: S101 (for the type checker)
        empty_SE = torch.zeros_like(self._routing.logits_SE)
        return empty_SE.scatter(1, self._routing.experts_SK, self._routing.weights_SK)


def _bounds(config: Config, width: int) -> tuple[float, float]:
    """Between which shares of intact neurons a layer has to lie.

    Exactly the kept ones for one set of neurons; noise that is too small for the stored precision may leave
    more intact; with a set for each matrix between none of them falling together and all.
    """
    if config.method not in {"drop", "noise"}:
        return 1.0, 1.0
    changed = chosen_count(width, config.ratio) / width
    least = 1 - changed if config.shared_indices else max(0.0, 1 - 3 * changed)
    return least, 1 - changed if config.method == "drop" else 1.0


def _order(shuffled: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of `shuffled` where it is in `rows` (0 if nowhere), and whether it is there."""
    where = {_key(row): place for place, row in enumerate(rows)}
    found = [where.get(_key(row), -1) for row in shuffled]
    order = torch.tensor(found)
    return order.clamp(min=0), order >= 0


def _key(row: Tensor) -> bytes:
    return row.contiguous().view(torch.uint8).numpy().tobytes()
