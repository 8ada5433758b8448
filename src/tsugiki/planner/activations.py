"""Bytes that one layer keeps of a micro-batch for its backward pass, with flash attention.

Symbols as in `parameters`. In bfloat16 and with sequence parallelism, a dense layer keeps of each token
2h (norm) + 2h (attention's input) + 2aH + 4kH + 2aH + 2h (norm) + 2h (feed-forward's input) + 8f bytes, all
cut by t; together s b h (12 + 4 k/a + 8 f/h) / (c t) where aH = h (arXiv 2411.06465, eq. 12, as in the
authors' code). Which of them a framework keeps is set by `Kernels`. A sparse layer has the columns of the
experts of a token for f, and those of the shared expert.
"""

from __future__ import annotations

from dataclasses import dataclass

from tsugiki.planner.kernels import Kernels
from tsugiki.planner.layout import Layout, Workload
from tsugiki.planner.parameters import sparse_layers, stage_layers


@dataclass(frozen=True)
class LayerActivations:
    """Bytes of one token in one layer of each kind, on one process (tensor parallelism has cut them).

    dense, sparse: kept between forward and backward. working: bytes of a token that live while one layer
    goes backward, whichever kind is larger: gathered input and gradient, gradients of the feed-forward's
    columns, and with recomputation what was computed again.
    """

    dense: float
    sparse: float
    working: float


def element_bytes(workload: Workload) -> float:
    """Of an activation: 4 in float32, else 2 (float8 casts the inputs of matrix products only)."""
    return 4.0 if workload.precision == "float32" else 2.0


def layer_activations(workload: Workload, layout: Layout, kernels: Kernels) -> LayerActivations:
    """What one layer keeps of one token, and needs while it goes backward."""
    kept_dense, kept_sparse = _kept(workload, layout, kernels, layout.recompute)
    whole_dense, whole_sparse = kept_dense, kept_sparse
    if layout.recompute != "none":
        whole_dense, whole_sparse = _kept(workload, layout, kernels, "none")
    again = max(whole_dense - kept_dense, whole_sparse - kept_sparse, 0.0)
    return LayerActivations(kept_dense, kept_sparse, _transient(workload, layout) + again)


def _kept(workload: Workload, layout: Layout, kernels: Kernels, recompute: str) -> tuple[float, float]:
    """Bytes of a token that a dense and a sparse layer keep."""
    model, size, tensor = workload.model, element_bytes(workload), layout.tensor
    hidden = model.hidden_size * size / tensor
    if recompute == "full":
        return hidden, hidden
    operand = 0.5 if workload.precision == "float8" and kernels.keeps_float8 else 1.0
    gathered = operand * hidden * (tensor if kernels.keeps_gathered else 1)
    heads, keys = model.heads / tensor, max(model.kv_heads / tensor, 1.0)
    queries, keys = heads * model.head_dim * size, keys * model.head_dim * size
    statistics = 4.0 * heads if kernels.keeps_statistics else 0.0
    norm = 1 + (kernels.norm_bytes - 2) / size  # of the input's bytes: itself, and what is kept beside it
    column = size / tensor
    saved = kernels.swiglu_saved / 2 - 1 + operand
    routed = _routed(workload, layout, kernels)
    gathers = kernels.gathers_keys and layout.context > 1
    masks = gathers and (kernels.masks_gathered or workload.precision == "float32")  # no kernel takes float32
    mask = workload.sequence_length if masks else 0
    width = model.intermediate_size
    experts, shared = 0.0, 0.0
    if model.moe is not None:
        experts = model.moe.experts_per_token * model.moe.intermediate_size * kernels.routing_imbalance
        experts += model.moe.shared_size
    if model.moe is not None and model.moe.shared_size:
        # its output, which its gate multiplies, and under tensor parallelism its input, gathered by itself
        shared = hidden + (gathered if tensor > 1 and kernels.keeps_gathered else 0.0)
    if recompute == "selective" and kernels.selective == "products":
        # the layer's input, the results of all products (those of o and down are cut like the stream only
        # afterwards), attention's output, and its mask (boolean, as was seen: `tsugiki planner verify`)
        base = hidden + 2 * hidden * tensor + 2 * queries + 2 * keys + statistics + mask
        shared = bool(shared) * hidden * tensor  # the result of its product down
        return base + 2 * width * column, base + 2 * experts * column + routed + shared
    if recompute == "selective" and kernels.selective == "every-other-product":
        base = hidden * (1 + tensor) + 2 * queries + keys + statistics
        return base + width * column, base + experts * column + routed
    own_norms = norm * (queries + keys) if model.features.qk_norms else 0.0
    attention = norm * hidden + gathered + queries + 2 * keys + operand * queries + own_norms + statistics
    if gathers:  # of a row's keys all that the mask is for; the kernel gets them apart for each of two pieces
        attention += mask * size + 2 * keys * (layout.context - (1.0 if masks else 0.5))
    base = attention + norm * hidden + gathered
    return base + saved * width * column, base + saved * experts * column + routed + shared


def _routed(workload: Workload, layout: Layout, kernels: Kernels) -> float:
    """Bytes of a token that a sparse layer keeps for its routing.

    The q copies that go to experts and the q results that come back, h each (all of them on each of the e_t
    processes that cut an expert), and the router's logits and probabilities in float32.
    """
    moe = workload.model.moe
    if moe is None or not kernels.routed_copies:
        return 0.0
    copies = 2 * moe.experts_per_token * workload.model.hidden_size * element_bytes(workload)
    spread = layout.experts_tensor / layout.tensor * kernels.routing_imbalance
    return copies * spread + 2 * 4.0 * moe.experts / layout.tensor


def _transient(workload: Workload, layout: Layout) -> float:
    """Bytes of a token while one layer goes backward.

    Under tensor parallelism a layer's input and the gradient of its output are gathered whole (2h each in
    bfloat16); gradients of gate, up and product are 3f / t columns.
    """
    model, size = workload.model, element_bytes(workload)
    gathered = 2 * model.hidden_size * size if layout.tensor > 1 else 0.0
    width = float(model.intermediate_size if workload.sparse_before[-1] < model.layers else 0)
    if model.moe is not None:
        chosen = model.moe.experts_per_token * model.moe.intermediate_size
        width = max(width, chosen, model.moe.shared_size)
    return gathered + 3 * width * size / layout.tensor


def in_flight(workload: Workload, layout: Layout, stage: int) -> float:
    """How many micro-batches' worth of its layers a stage holds at once.

    1F1B: min(m, p - i). Interleaved: 2 (p - i - 1) + (V - 1) p + 1 chunks of L / (p V) layers, never more
    than all m V of them. GPipe: all m. Without a pipeline: 1.
    """
    stages, count = layout.pipeline, layout.micro_batches(workload)
    if stages == 1:
        return 1.0
    if layout.schedule == "gpipe":
        return float(count)
    if layout.chunks > 1:
        held = 2 * (stages - stage - 1) + (layout.chunks - 1) * stages + 1
        return min(count * layout.chunks, held) / layout.chunks
    return float(min(count, stages - stage))


def stage_activations(
    workload: Workload, layout: Layout, kernels: Kernels, per_layer: LayerActivations, stage: int
) -> float:
    """Bytes that the layers of a stage keep of all micro-batches in flight.

    Where kernels are torch's own, also the tables of the rotary embedding, 2 H for each token, and what a
    stage passes on (Megatron fuses the one and frees the other).
    """
    layers, sparse = sparse_layers(workload, stage_layers(workload, layout, stage))
    token = (layers - sparse) * per_layer.dense + sparse * per_layer.sparse
    if kernels.keeps_gathered:
        size = element_bytes(workload)
        token += 2 * workload.model.head_dim * size
        if stage < layout.pipeline - 1:
            token += workload.model.hidden_size * size / layout.tensor
    return token * layout.tokens(workload) * in_flight(workload, layout, stage)
