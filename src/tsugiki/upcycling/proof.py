"""Proof of an upcycled model, from the files that were written: what it computes, and what its experts are.

Three residual streams go through the layers side by side, one layer in memory at a time, and of the experts
one at a time: that of the dense model; that of the mixture's twin with every neuron kept, whose routers,
shared experts, attention and layout are the written ones and which has to compute what the dense model does;
and that of the mixture itself. All in float32.

Shapes: S probe tokens, D model width, R rows that experts compute, E experts, K experts a token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tsugiki.errors import StageError
from tsugiki.models.config import DecoderConfig
from tsugiki.models.decoder import Decoder
from tsugiki.models.directory import EMBEDDING, HEAD, load_weights, stored_tensors
from tsugiki.models.moe import SparseFeedForward
from tsugiki.upcycling.convert import Conversion, Weights, read_tensor
from tsugiki.upcycling.experts import (
    NEURON_DIMENSION,
    keeps_function,
    routed_gain,
    scale_of,
    slice_number,
    slice_of,
)
from tsugiki.upcycling.measures import LayerMeasures, Observer
from tsugiki.upcycling.weights import expert_names, shared_name

TOLERANCE = 1e-6
"""Of logits in float32, relative to the largest of them where that is above 1. Weights that add up to 1 but
for rounding, and products in another order, leave 1e-7."""

_HEAD_ROWS = 8192

Matrices = Sequence[Tensor]
"""gate_proj (f, D), up_proj (f, D) and down_proj (D, f)."""


@dataclass(frozen=True)
class Proof:
    """What was found, over `tokens` probe tokens.

    function_difference: largest difference of logits between the dense model and the twin with every neuron
    kept; None for branch-train-mix, whose trunk is another one. largest_logit: of the dense model.
    result_difference, divergence: of the mixture itself, its largest difference of logits and mean
    Kullback-Leibler divergence from the dense model, in nats a token. layers: the sparse ones.
    """

    tokens: int
    function_difference: float | None
    tolerance: float
    largest_logit: float
    result_difference: float
    divergence: float
    layers: tuple[LayerMeasures, ...]


def prove(
    conversion: Conversion,
    models: Sequence[Path],
    out: Path,
    ids_BT: Tensor,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Proof:
    """Measure what was written to `out`. models: as of `convert`. ids_BT: probe tokens, (B, T).

    Raises StageError where the twin's logits differ from the dense model's, or where neurons are not kept
    that should be.
    """
    mixed = len(models) > 1
    written = stored_tensors(conversion.shape, out)
    dense_x = _embedded(conversion.sources[0], ids_BT)
    twin_x = mixture_x = _embedded(written, ids_BT)
    measured = []
    positions_BT = torch.arange(ids_BT.shape[1])[None]
    with torch.inference_mode():
        for layer in range(conversion.dense.layers):
            block = _Layer(conversion, layer, models, out, written)
            dense_x = block.dense(dense_x, positions_BT)
            if not mixed:
                twin_x = block.twin(twin_x, positions_BT)
            mixture_x = block.mixture(mixture_x, positions_BT)
            if block.observer is not None:
                measured.append(block.observer.measures())
            if progress is not None:
                progress(layer + 1, conversion.dense.layers)
        streams = [(conversion.sources[0], dense_x), (written, mixture_x)]
        streams += [] if mixed else [(written, twin_x)]
        logits = [_logits(conversion.dense, weights, x_BTD) for weights, x_BTD in streams]
    largest = float(logits[0].abs().max())
    proof = Proof(
        tokens=ids_BT.numel(),
        function_difference=None if mixed else _difference(logits[0], logits[2]),
        tolerance=TOLERANCE * max(1.0, largest),
        largest_logit=largest,
        result_difference=_difference(logits[0], logits[1]),
        divergence=_divergence(logits[0], logits[1]),
        layers=tuple(measured),
    )
    _check(proof, conversion)
    return proof


class _Layer:
    """One layer of the three models."""

    def __init__(
        self, conversion: Conversion, layer: int, models: Sequence[Path], out: Path, written: Weights
    ) -> None:
        self._conversion, self._layer = conversion, layer
        self._written, self._out = written, out
        self._dense = _part(conversion.dense, layer)
        self._dense.to_empty(device="cpu")
        load_weights(self._dense, models[0])
        self.observer: Observer | None = None

    def dense(self, x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
        """The dense model's layer; its feed-forward's input and output are kept to compare with."""
        seen: list[Tensor] = []
        feed_forward: nn.Module = self._dense.model.layers[str(self._layer)].get_submodule("mlp")
        hook = feed_forward.register_forward_hook(lambda _, given, result: seen.extend((given[0], result)))
        y_BTD = self._dense.blocks(x_BTD, positions_BT)
        hook.remove()
        if self._conversion.shape.is_sparse(self._layer):
            x_SD, y_SD = (one.flatten(0, 1) for one in seen)
            self.observer = Observer(self._conversion, self._layer, x_SD, y_SD)
        return y_BTD

    def twin(self, x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
        """The mixture's layer, each expert of which is the dense model's slice."""
        return self._sparse(_Streamed(self._kept)).blocks(x_BTD, positions_BT)

    def mixture(self, x_BTD: Tensor, positions_BT: Tensor) -> Tensor:
        """The mixture's layer; what its experts are is looked at while they are in memory."""
        part = self._sparse(_Streamed(self._observed))
        y_BTD = part.blocks(x_BTD, positions_BT)
        feed_forward = part.model.layers[str(self._layer)].mlp
        if self.observer is not None and isinstance(feed_forward, SparseFeedForward):
            self.observer.see_routing(feed_forward.gate(self.observer.x_SD))
            shared_SD = feed_forward.shared(self.observer.x_SD)
            if shared_SD is not None:
                names = [shared_name(self._layer, matrix) for matrix in NEURON_DIMENSION]
                self.observer.see_shared([read_tensor(self._written[name]) for name in names], shared_SD)
        return y_BTD

    def _sparse(self, experts: _Streamed) -> Decoder:
        part = _part(self._conversion.shape, self._layer)
        feed_forward = part.model.layers[str(self._layer)].mlp
        if isinstance(feed_forward, SparseFeedForward):
            feed_forward.experts = experts  # type: ignore[assignment]
        part.to_empty(device="cpu")
        load_weights(part, self._out)
        return part

    def _kept(self, expert: int) -> Matrices:
        config = self._conversion.config
        dense = self._dense.model.layers[str(self._layer)].mlp
        number = slice_number(config, expert)
        return [
            slice_of(getattr(dense, matrix).weight, dimension, number, config.granularity)
            * scale_of(matrix, routed_gain(config), config.scaling)
            for matrix, dimension in NEURON_DIMENSION.items()
        ]

    def _observed(self, expert: int) -> Matrices:
        stored = [
            read_tensor(self._written[expert_names(self._conversion.shape, self._layer, matrix)[expert]])
            for matrix in NEURON_DIMENSION
        ]
        exact = [matrix.float() for matrix in stored]
        if self.observer is not None:
            self.observer.see_expert(expert, stored, compute(self.observer.x_SD, exact))
        return exact


class _Streamed(nn.Module):
    """Experts that are fetched one at a time; called as `models.moe.Experts` is."""

    def __init__(self, fetch: Callable[[int], Matrices]) -> None:
        super().__init__()
        self.fetch = fetch

    def forward(self, x_RD: Tensor, ends_E: Tensor) -> Tensor:
        """Each row through its expert, (R, D); expert e has the rows from ends_E[e - 1] to ends_E[e]."""
        ends = [0, *ends_E.tolist()]
        return torch.cat(
            [
                compute(x_RD[ends[expert] : ends[expert + 1]], self.fetch(expert))
                for expert in range(len(ends_E))
            ]
        )


def compute(x_SD: Tensor, matrices: Matrices) -> Tensor:
    """SwiGLU: down(silu(gate(x)) · up(x)), (S, D)."""
    gate, up, down = matrices
    return F.linear(F.silu(F.linear(x_SD, gate)) * F.linear(x_SD, up), down)


def _part(shape: DecoderConfig, layer: int) -> Decoder:
    """One layer of a decoder, without memory."""
    with torch.device("meta"):
        return Decoder(shape, layers=[layer], first=False, last=False)


def _embedded(weights: Weights, ids_BT: Tensor) -> Tensor:
    return read_tensor(weights[EMBEDDING])[ids_BT].float()


def _logits(shape: DecoderConfig, weights: Weights, x_BTD: Tensor) -> Tensor:
    """Final norm and head, (S, V); the head is turned into float32 some rows at a time."""
    norm = read_tensor(weights["model.norm.weight"]).float()
    x_SD = F.rms_norm(x_BTD.flatten(0, 1), norm.shape, norm, shape.norm_eps)
    head = read_tensor(weights[EMBEDDING if shape.tied_embeddings else HEAD])
    return torch.cat([F.linear(x_SD, rows.float()) for rows in torch.split(head, _HEAD_ROWS)], dim=1)


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _divergence(one: Tensor, other: Tensor) -> float:
    """Mean over tokens of the divergence of `other`'s predictions from those of `one`, in nats."""
    return float(F.kl_div(other.log_softmax(-1), one.log_softmax(-1), log_target=True, reduction="batchmean"))


def _check(proof: Proof, conversion: Conversion) -> None:
    difference = proof.function_difference
    keeps = keeps_function(conversion.config)
    if difference is not None and keeps and not difference <= proof.tolerance:
        raise StageError(
            f"with every neuron kept, the logits differ from the dense model's by {difference:.3g} "
            f"(tolerance {proof.tolerance:.3g})",
            hint="this is a fault in Tsugiki; please report it with the model's name",
        )
    for layer in proof.layers:
        if not layer.least_intact - 1e-9 <= layer.intact_share <= layer.most_intact + 1e-9:
            raise StageError(
                f"layer {layer.layer}: {layer.intact_share:.4f} of the neurons are as in the dense model; "
                f"{layer.least_intact:.4f} to {layer.most_intact:.4f} were meant to be",
                hint="this is a fault in Tsugiki; please report it with the model's name",
            )
        if layer.shared_intact is not None and layer.shared_intact < 1:
            raise StageError(
                f"layer {layer.layer}: {layer.shared_intact:.4f} of the shared expert's neurons are as in "
                "the dense model; all of them were meant to be",
                hint="this is a fault in Tsugiki; please report it with the model's name",
            )
    if not math.isfinite(proof.divergence):
        raise StageError(
            "the mixture's logits are not finite",
            hint="the dense model may hold numbers that are not finite; try it alone first",
        )
