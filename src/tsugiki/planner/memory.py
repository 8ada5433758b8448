"""Bytes of every pipeline stage, part by part.

Per parameter, with D processes sharing (`Layout.sharing`): Megatron's mixed precision has bfloat16 weights 2,
gradients g = 4 or 2, and 12 of the optimizer (float32 weights and AdamW's two moments), so 6 + 12/D with the
distributed optimizer, g + 2 + 12/D in general (Megatron docs/user-guide/features/dist_optimizer.md). FSDP2
over float32 weights has 4 + 4 + 8, all of it shared, and beside it the parts that are gathered for use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from tsugiki.planner.activations import (
    element_bytes,
    in_flight,
    layer_activations,
    stage_activations,
)
from tsugiki.planner.kernels import Kernels
from tsugiki.planner.layout import SHARDINGS, Layout, Workload
from tsugiki.planner.parameters import StageParameters, largest_shard, stage_parameters

FLOAT32 = 4.0


@dataclass(frozen=True)
class StageMemory:
    """Bytes of the busiest process of one pipeline stage.

    The first seven are tensors that the formulas count; `counted` is their sum, which the bands of
    `verdict.py` are about. `working` (what lives while one layer goes backward), `buffers` (of the
    pipeline's messages), `communicators` and `context` come beside them; the caching allocator's
    fragmentation is in none.
    """

    stage: int
    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    logits: float
    inputs: float
    working: float
    buffers: float
    communicators: float
    context: float

    @property
    def counted(self) -> float:
        """Weights, gradients, optimizer, gathered weights, activations, logits and token ids."""
        states = self.weights + self.gradients + self.optimizer + self.gathered
        return states + self.activations + self.logits + self.inputs

    @property
    def total(self) -> float:
        """All parts."""
        return self.counted + self.working + self.buffers + self.communicators + self.context

    def parts(self) -> Iterator[tuple[str, float]]:
        """Every part by name, in bytes."""
        for field in fields(self):
            if field.name != "stage":
                yield field.name, getattr(self, field.name)


def memory(workload: Workload, layout: Layout, kernels: Kernels) -> tuple[StageMemory, ...]:
    """The memory of every pipeline stage, the first one first."""
    return tuple(_stages(workload, layout, kernels, range(layout.pipeline)))


def busiest(workload: Workload, layout: Layout, kernels: Kernels) -> StageMemory:
    """The stage that needs most.

    Only the first two and the last one can: those between hold fewer micro-batches than the second, and the
    same of everything else. A model whose sparse layers are unevenly spread is looked at stage by stage.
    """
    stages: range | list[int] = range(layout.pipeline)
    if workload.sparse_before[-1] in {0, workload.model.layers}:
        stages = sorted({0, min(1, layout.pipeline - 1), layout.pipeline - 1})
    return max(_stages(workload, layout, kernels, stages), key=lambda one: one.total)


def _stages(
    workload: Workload, layout: Layout, kernels: Kernels, stages: range | list[int]
) -> Iterator[StageMemory]:
    per_layer = layer_activations(workload, layout, kernels)
    tokens, last = layout.tokens(workload), layout.pipeline - 1
    stream = tokens * workload.model.hidden_size * element_bytes(workload) / layout.tensor
    for stage in stages:
        parameters = stage_parameters(workload, layout, stage)
        weights, gradients, optimizer = state_bytes(workload, layout, kernels, stage)
        ids = 8.0 * tokens * in_flight(workload, layout, stage)
        yield StageMemory(
            stage=stage,
            weights=weights,
            gradients=gradients,
            optimizer=optimizer,
            gathered=gathered_bytes(workload, layout, kernels, parameters, gradients),
            activations=stage_activations(workload, layout, kernels, per_layer, stage),
            logits=logit_bytes(workload, layout, kernels, stage) if stage == last else 0.0,
            inputs=ids if stage == 0 else 0.0,
            working=per_layer.working * tokens,
            buffers=2 * stream if layout.pipeline > 1 else 0.0,
            communicators=kernels.communicator_bytes * communicator_count(layout),
            context=kernels.context_bytes,
        )


def state_bytes(
    workload: Workload, layout: Layout, kernels: Kernels, stage: int
) -> tuple[float, float, float]:
    """Bytes of weights, accumulated gradients and optimizer states of one process.

    Megatron cuts its buffers into equal parts; FSDP2 cuts each tensor by rows, and the first process has the
    larger parts.
    """
    weight, gradient, optimizer = _bytes_per_parameter(workload, kernels)
    parameters = stage_parameters(workload, layout, stage)
    level = SHARDINGS.index(layout.sharding)
    shared = parameters.dense / layout.sharing
    if kernels.master_weights:
        shared = float(largest_shard(workload, layout, stage, layout.sharing))

    def spread(per_parameter: float, from_level: int) -> float:
        if level < from_level:
            return per_parameter * parameters.total
        return per_parameter * (shared + parameters.experts / layout.experts_sharing)

    weights = spread(weight, 3)
    if (
        workload.precision == "float8" and kernels.keeps_float8
    ):  # float8 copies of the matrices and of their transposes, 1 byte each
        weights += 2.0 * parameters.matrices
    return weights, spread(gradient, 2), spread(optimizer, 1)


def _bytes_per_parameter(workload: Workload, kernels: Kernels) -> tuple[float, float, float]:
    """Weight, gradient and optimizer bytes; with float32 throughout there is no second copy of weights."""
    if kernels.master_weights or workload.precision == "float32":
        return FLOAT32, FLOAT32, 2 * FLOAT32
    return 2.0, float(workload.gradient_bytes), 3 * FLOAT32


def gathered_bytes(
    workload: Workload, layout: Layout, kernels: Kernels, parameters: StageParameters, gradients: float
) -> float:
    """Weights and gradients that are whole for a while, beside those that stay (ZeRO-3, FSDP2).

    In the type of the products: the embedding and the head, which stay, and two layers (one in use, one on
    its way); and one layer's gradients, whole in that type and in float32 on their way to the others. With a
    pipeline all layers' weights stay, and it leaves whole float32 gradients of them, of which the shared
    `gradients` (bytes) are made afterwards; so do several micro-batches where `whole_gradients`.
    One process alone has a copy of one layer, or of all of them (`copies_alone`), in bfloat16.
    """
    size = element_bytes(workload)
    if layout.sharding != "weights" or layout.world == 1:
        if not kernels.master_weights or size >= FLOAT32:
            return 0.0
        return size * (parameters.total if kernels.copies_alone else parameters.layer)
    whole = FLOAT32 * parameters.total - gradients
    if layout.pipeline > 1:
        return size * parameters.total + whole
    layers = size * (parameters.root + 2 * parameters.layer)
    if kernels.whole_gradients and layout.micro_batches(workload) > 1:
        return layers + whole
    return layers + (size + FLOAT32) * parameters.layer


def logit_bytes(workload: Workload, layout: Layout, kernels: Kernels, stage: int) -> float:
    """Logits and the two copies of the hidden states that the head works on: (n v + 4 h) bytes / t a token.

    Where logits come in chunks (fused cross entropy), those of one chunk and a copy of the hidden states, and
    what `loss_bytes` says.
    """
    model, tokens = workload.model, layout.tokens(workload)
    logits = tokens * model.vocabulary_size
    if kernels.logit_chunk is not None:
        hidden = tokens * model.hidden_size * element_bytes(workload)
        chunk = kernels.logit_bytes * min(logits, kernels.logit_chunk) / layout.tensor
        return chunk + hidden + loss_bytes(workload, layout, kernels)
    held = in_flight(workload, layout, stage) if layout.schedule == "gpipe" else 1.0
    return (kernels.logit_bytes * logits + 4.0 * tokens * model.hidden_size) / layout.tensor * held


def loss_bytes(workload: Workload, layout: Layout, kernels: Kernels) -> float:
    """What fused cross entropy keeps for the backward pass: gradients of the head and of the hidden states.

    And the final norm's input, as the norms of layers keep theirs.
    """
    model, size = workload.model, element_bytes(workload)
    stream = layout.tokens(workload) * model.hidden_size
    norm = (size + kernels.norm_bytes - 2) * stream / layout.tensor
    return size * (model.vocabulary_size * model.hidden_size / layout.tensor + stream) + norm


def communicator_count(layout: Layout) -> int:
    """Groups of processes that talk: tensor, context, pipeline, expert, and those that share states."""
    degrees = (layout.tensor, layout.context, layout.pipeline, layout.expert, layout.data * layout.context)
    return sum(degree > 1 for degree in degrees)
