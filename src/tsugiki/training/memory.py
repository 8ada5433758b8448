"""Bytes that training takes on the busiest device. The full planner will refine this.

Symbols: L layers, h width, f feed-forward width, a query heads, k key-value heads, H head dimension, v
vocabulary, s sequence, b micro-batch, and the degrees t tensor, p pipeline, c context, d data, e expert. Of a
mixture: E experts, of which a token goes through q, f_e the width of one. Sparse and dense layers are counted
by their mean over all layers, and tokens as if they fell evenly on the experts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsugiki.models.config import DecoderConfig

if TYPE_CHECKING:
    from tsugiki.training.stage import Config

MIB = 2**20

PROCESS_BYTES = 700 * MIB
"""torch, pyarrow and tokenizers loaded, and what the tokeniser leaves behind, before any model (resident set
on a CPU: the demo's base model peaked at 931 MiB in all)."""

ACCELERATOR_BYTES = 2.5 * 2**30
"""CUDA context, NCCL and library workspaces: 2-3 GiB by judgement, not measured."""

LOGIT_BUFFERS = 3
"""Float32 buffers of one chunk of logits that live at once: logits, softmax, gradient."""

LOGIT_ELEMENTS = {"cpu": 2**21, "cuda": 2**26}
"""Logits held at once. On a CPU a chunk should stay near the caches (8 MiB of float32 was the fastest of
0.5 to 16 Mi numbers for V = 6144, 1.3 to 2 times torch's own way); a GPU wants matrices with many rows."""


def training_bytes(shape: DecoderConfig, config: Config, rows: int) -> float:
    """The peak of the busiest device: weights, gradients, AdamW, activations, logits, buffers.

    rows: sequences of a micro-batch. The first pipeline stage holds min(m, p) micro-batches of its L/p
    layers in flight (1F1B), the last one the logits; the larger is the answer.
    """
    parallel = config.parallel
    micro_batches = max(1, config.sequences_per_step // (parallel.data * rows))
    tokens = rows * config.sequence_length / parallel.context
    layers = shape.layers / parallel.pipeline
    bfloat16 = config.precision != "float32"
    per_layer = activation_bytes_per_token(shape, bfloat16=bfloat16) / parallel.tensor
    activations = (per_layer + routed_bytes_per_token(shape, bfloat16=bfloat16)) * tokens * layers
    state = state_bytes_per_parameter(config)
    experts = expert_parameters(shape, config) * state_bytes_per_parameter(config, parallel.expert)
    last = max_parameters(shape, config, first=parallel.pipeline == 1, last=True) * state + experts
    is_cpu = parallel.product == 1 and config.device != "cuda" and config.hardware in {None, "cpu"}
    last += activations + head_bytes(shape, config, tokens, "cpu" if is_cpu else "cuda")
    if parallel.pipeline > 1:
        first = max_parameters(shape, config, first=True, last=False) * state + experts
        last = max(last, first + activations * min(micro_batches, parallel.pipeline))
    return last + (PROCESS_BYTES if is_cpu else ACCELERATOR_BYTES)


def max_parameters(shape: DecoderConfig, config: Config, *, first: bool, last: bool) -> float:
    """Parameters of one device of the first and/or last pipeline stage, experts left out.

    P = l (attention + feed-forward) / t + 2 l h + [first] h v / t + [last] (h + h v / t); norms and routers
    (h E) are copied, and tied embeddings on different stages are held twice.
    """
    tensor = config.parallel.tensor
    layers = shape.layers / config.parallel.pipeline
    attention = 2 * shape.hidden_size * shape.head_dim * (shape.heads + shape.kv_heads)
    sparse = sparse_share(shape)
    dense = 3 * shape.hidden_size * shape.intermediate_size * (1 - sparse)
    routers = layers * sparse * shape.hidden_size * (shape.moe.experts if shape.moe else 0)
    matrices = layers * (attention + dense)
    embedding = shape.hidden_size * shape.vocabulary_size / tensor
    both_are_one = first and last and shape.tied_embeddings
    ends = embedding * (int(first) + int(last and not both_are_one))
    return matrices / tensor + routers + (2 * layers + int(last)) * shape.hidden_size + ends


def sparse_share(shape: DecoderConfig) -> float:
    """The share of the layers that are mixtures of experts."""
    return sum(shape.is_sparse(layer) for layer in range(shape.layers)) / shape.layers


def expert_parameters(shape: DecoderConfig, config: Config) -> float:
    """Parameters of the experts of one device: l · 3 h f_e · E / (e t) of its sparse layers."""
    if shape.moe is None:
        return 0.0
    layers = shape.layers / config.parallel.pipeline * sparse_share(shape)
    one = 3 * shape.hidden_size * shape.moe.intermediate_size
    return layers * one * shape.moe.experts / (config.parallel.expert * config.parallel.tensor)


def state_bytes_per_parameter(config: Config, expert: int = 1) -> float:
    """Weights, gradients and AdamW's two moments of one parameter of the shard.

    One process: float32 throughout, 4 + 4 + 8, and 2 for the bfloat16 copy that autocast makes. Several:
    bfloat16 weights, float32 gradients, and 12 bytes of float32 weights and moments shared by the D = d c
    processes that hold the same shard: 6 + 12/D (Megatron's distributed optimizer, ZeRO stage 1). FSDP
    needs less; this is the safe side. expert: the degree for experts' parameters, which D/e processes hold.
    """
    parallel = config.parallel
    bfloat16 = config.precision != "float32"
    if parallel.product == 1:
        return 18.0 if bfloat16 else 16.0
    sharing = parallel.data * parallel.context / expert
    return 6 + 12 / sharing if bfloat16 else 8 + 8 / sharing


def activation_bytes_per_token(shape: DecoderConfig, *, bfloat16: bool) -> float:
    """Bytes that one layer keeps of one token for the backward pass, with flash attention.

    In bfloat16: inputs of both norms, of the attention and of the feed-forward 2h each, queries and attention
    output 2aH each, keys and values 2kH each, and gate, up, silu(gate) and product 2f each; together
    s b h (12 + 4 k/a + 8 f/h) where aH = h. Float32 doubles it. (After Korthikanti et al. 2022,
    arXiv 2205.05198, for SwiGLU and grouped-query attention.) A sparse layer has q f_e for f; what it keeps
    besides is `routed_bytes_per_token`.
    """
    head_width = shape.head_dim * (2 * shape.heads + 2 * shape.kv_heads)
    sparse = sparse_share(shape)
    chosen = shape.moe.experts_per_token * shape.moe.intermediate_size if shape.moe else 0
    width = (1 - sparse) * shape.intermediate_size + sparse * chosen
    elements = 4 * shape.hidden_size + head_width + 4 * width
    return elements * (2.0 if bfloat16 else 4.0)


def routed_bytes_per_token(shape: DecoderConfig, *, bfloat16: bool) -> float:
    """Bytes that a layer keeps of a token for its routing, by the mean over layers; not cut by tensor.

    The q copies that go to experts and the q results, h each, and the router's logits and probabilities in
    float32, E each (counted as whole; each process of a tensor group has a part of them).
    """
    if shape.moe is None:
        return 0.0
    copies = 2 * shape.moe.experts_per_token * shape.hidden_size * (2.0 if bfloat16 else 4.0)
    return sparse_share(shape) * (copies + 2 * 4.0 * shape.moe.experts)


def head_bytes(shape: DecoderConfig, config: Config, tokens: float, device: str) -> float:
    """Output head and loss: chunks of logits, the gradient of the hidden states, and one of the head."""
    tensor = config.parallel.tensor
    logits = min(tokens * shape.vocabulary_size, LOGIT_ELEMENTS[device]) / tensor
    hidden = 2 * tokens * shape.hidden_size
    head = shape.vocabulary_size * shape.hidden_size / tensor
    return 4.0 * (LOGIT_BUFFERS * logits + hidden + head)


def checkpoint_bytes(shape: DecoderConfig) -> float:
    """One checkpoint: weights and two moments in float32."""
    return 12.0 * shape.parameters
