"""How many parameters one process of a pipeline stage holds, by how they are spread.

Symbols: h width, f feed-forward width, a query heads, k key-value heads, H head dimension, v vocabulary,
t tensor, p pipeline, E experts of width f_e, e expert, e_t expert-tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from tsugiki.models.config import DecoderConfig
from tsugiki.planner.layout import Layout, Workload


@dataclass(frozen=True)
class StageParameters:
    """Parameters of one process.

    dense: everything but experts. experts: of its experts. matrices: those of `dense` and `experts` that
    multiply activations inside of layers. root: embedding, head and final norm (part of `dense`). layer: of
    the largest layer, experts included.
    """

    dense: float
    experts: float
    matrices: float
    root: float
    layer: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.dense + self.experts


def stage_layers(workload: Workload, layout: Layout, stage: int) -> list[range]:
    """The layers of a pipeline stage: one range, or one for each chunk of an interleaved pipeline.

    Layers are spread evenly; `layout_problems` refuses what does not divide.
    """
    pieces = layout.pipeline * layout.chunks
    size = workload.model.layers // pieces
    starts = ((chunk * layout.pipeline + stage) * size for chunk in range(layout.chunks))
    return [range(start, start + size) for start in starts]


def sparse_layers(workload: Workload, layers: list[range]) -> tuple[int, int]:
    """How many of these layers there are in all, and how many of them are mixtures of experts."""
    before = workload.sparse_before
    return sum(map(len, layers)), sum(before[part.stop] - before[part.start] for part in layers)


def attention_matrices(model: DecoderConfig) -> int:
    """Parameters of the four matrices of attention: 2 h a H + 2 h k H."""
    return 2 * model.hidden_size * model.head_dim * (model.heads + model.kv_heads)


def stage_parameters(workload: Workload, layout: Layout, stage: int) -> StageParameters:
    """P_i = l (attention + feed-forward) / t + copied vectors + [first] h v / t + [last] (h + h v / t).

    Norms are copied over the tensor group, and so are routers and the gates of shared experts; biases of
    queries, keys and values are cut. A shared expert is cut as a dense feed-forward, and counted in `dense`.
    A tied matrix that is needed on two stages is held by both (Megatron adds up their gradients).
    """
    model, tensor = workload.model, layout.tensor
    layers, sparse = sparse_layers(workload, stage_layers(workload, layout, stage))
    attention = attention_matrices(model)
    feed_forward = 3 * model.hidden_size * model.intermediate_size
    biases = model.features.qkv_biases * model.head_dim * (model.heads + 2 * model.kv_heads)
    copied = 2 * model.hidden_size + model.features.qk_norms * 2 * model.head_dim
    router, experts, shared = 0.0, 0.0, 0.0
    if model.moe is not None:
        router = model.hidden_size * (model.moe.experts + bool(model.moe.shared_size))
        shared = 3 * model.hidden_size * model.moe.shared_size
        one = 3 * model.hidden_size * model.moe.intermediate_size
        experts = one * model.moe.experts / (layout.expert * layout.experts_tensor)
    first, last = stage == 0, stage == layout.pipeline - 1
    ends = int(first) + int(last and not (first and model.tied_embeddings))
    root = ends * model.hidden_size * model.vocabulary_size / tensor + int(last) * model.hidden_size
    matrices = (layers * attention + (layers - sparse) * feed_forward + sparse * shared) / tensor
    vectors = layers * (biases / tensor + copied) + sparse * router
    common = attention / tensor + copied + biases / tensor
    return StageParameters(
        dense=matrices + vectors + root,
        experts=sparse * experts,
        matrices=matrices + sparse * experts,
        root=root,
        layer=common
        + max(feed_forward / tensor if sparse < layers else 0.0, router + shared / tensor + experts),
    )


def largest_shard(workload: Workload, layout: Layout, stage: int, processes: int) -> int:
    """Parameters, experts left out, on the process with most of them where FSDP2 shares a stage out.

    Each tensor is cut by its rows, `ceil(rows / processes)` to a process (torch's `Shard(0)`), after tensor
    parallelism has cut it.
    """
    model, tensor = workload.model, layout.tensor
    layers, sparse = sparse_layers(workload, stage_layers(workload, layout, stage))
    width, queries, keys = model.hidden_size, model.heads * model.head_dim, model.kv_heads * model.head_dim
    inner = model.intermediate_size // tensor
    biases = model.features.qkv_biases
    shapes = [
        (layers, queries // tensor, width + biases),
        (2 * layers, keys // tensor, width + biases),
        (layers, width, queries // tensor),
        (2 * (layers - sparse), inner, width),
        (layers - sparse, width, inner),
        (2 * layers, width, 1),
        (2 * layers * model.features.qk_norms, model.head_dim, 1),
        (sparse, 0 if model.moe is None else model.moe.experts, width),
    ]
    if model.moe is not None and model.moe.shared_size:
        shared = model.moe.shared_size // tensor
        shapes += [(2 * sparse, shared, width), (sparse, width, shared), (sparse, 1, width)]
    first, last = stage == 0, stage == layout.pipeline - 1
    ends = int(first) + int(last and not (first and model.tied_embeddings))
    shapes += [(ends, model.vocabulary_size // tensor, width), (int(last), width, 1)]
    return sum(count * -(-rows // processes) * columns for count, rows, columns in shapes)
