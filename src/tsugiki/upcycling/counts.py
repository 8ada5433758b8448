"""Parameters and operations of a mixture, as papers and model cards count them.

All from the shape alone: no weights are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from tsugiki.models.config import DecoderConfig


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has.

    active: those that a token meets, the whole router included. active_on_cards: the same with only the rows
    of the router that belong to the chosen experts, as LLM-jp's model cards count "activated" parameters.
    """

    total: int
    embedding: int
    non_embedding: int
    active: int
    active_on_cards: int


def parameter_counts(shape: DecoderConfig) -> ParameterCounts:
    """Count the parameters of a model; for a dense one all are active."""
    rows = 0
    if shape.moe is not None:
        sparse = sum(shape.is_sparse(layer) for layer in range(shape.layers))
        rows = sparse * shape.hidden_size * (shape.moe.experts - shape.moe.experts_per_token)
    return ParameterCounts(
        total=shape.parameters,
        embedding=shape.embedding_parameters,
        non_embedding=shape.parameters - shape.embedding_parameters,
        active=shape.active_parameters,
        active_on_cards=shape.active_parameters - rows,
    )


def published_flops_per_token(shape: DecoderConfig, sequence_length: int) -> float:
    """Operations of one token's forward and backward pass as Drop-Upcycling's code reports them.

    12 h² L ((1 + k/a + s/h) + 1.5 K f/h + v / (2 L h)): h hidden size, L layers, a heads, k key-value heads,
    s sequence length in tokens, f width of an expert, K experts a token, v vocabulary (moe-recipes, the
    framework that the paper names); a shared expert's width, which the paper's models don't have, is added to
    K f. Attention is counted in full, without the causal half, and routers are left out;
    `DecoderConfig.training_flops_per_token` counts both.
    """
    width = shape.hidden_size
    attention = 1 + shape.kv_heads / shape.heads + sequence_length / width
    feed_forward = 0.0
    for layer in range(shape.layers):
        inner = shape.intermediate_size
        if shape.moe is not None and shape.is_sparse(layer):
            inner = shape.moe.experts_per_token * shape.moe.intermediate_size + shape.moe.shared_size
        feed_forward += 1.5 * inner / width
    head = shape.vocabulary_size / (2 * width)
    return 12 * width**2 * (shape.layers * attention + feed_forward + head)
