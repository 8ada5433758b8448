"""What the upcycling stage will cost, and the shape of the model that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsugiki.artifacts.contract import ArtifactType, Forecast, Forecasts
from tsugiki.errors import Problem
from tsugiki.models.config import DecoderConfig
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.counts import parameter_counts
from tsugiki.upcycling.shapes import same_tensors, upcycled_shape

PRODUCES = ArtifactType.MODEL

PARITY_PARAMETERS = 2 * 10**9
"""The largest model whose logits are compared with transformers', which holds all of it in float32 (8 GB)."""

PROBE_SHAPE = (2, 32)
"""Sequences and tokens that the proof computes with."""
PROBE_TOKENS = PROBE_SHAPE[0] * PROBE_SHAPE[1]

_BYTES_OF_DTYPE = {"float32": 4, "bfloat16": 2, "float16": 2}
_WRITTEN_BYTES_PER_SECOND = 400e6  # measured on two cores, fsync included
_PROVED_BYTES_PER_SECOND = 250e6
_SECONDS_TO_START = 3.0
_PROCESS_BYTES = 0.6e9  # torch, loaded


def estimate(config: Config, inputs: Forecasts) -> Forecast:
    """The mixture's shape, its parameters (total and active), and the cost of making it.

    Memory: see `_streaming_bytes`; for models small enough the whole of it, which transformers loads. A
    source that can't be upcycled, and models that differ in shape, are problems.
    """
    dense_hf: Mapping[str, Any] | None = inputs[config.model].facts.get("model_config")
    facts = {"tokenizer": inputs[config.model].facts.get("tokenizer", config.model)}
    if dense_hf is None:
        return Forecast(PRODUCES, facts=facts)
    dense = DecoderConfig.from_hf(dense_hf)
    shape = upcycled_shape(dense, config)  # raises InputError, which `plan` shows with the stage's name
    counts = parameter_counts(shape)
    dtype = str(dense_hf.get("torch_dtype") or dense_hf.get("dtype") or "bfloat16")
    disk_bytes = counts.total * _BYTES_OF_DTYPE.get(dtype, 4)
    seconds = _SECONDS_TO_START
    seconds += disk_bytes / _WRITTEN_BYTES_PER_SECOND + disk_bytes / _PROVED_BYTES_PER_SECOND
    memory_bytes = _PROCESS_BYTES + _streaming_bytes(config, dense, shape, _BYTES_OF_DTYPE.get(dtype, 4))
    if counts.total <= PARITY_PARAMETERS:
        memory_bytes = max(memory_bytes, _PROCESS_BYTES + 4.4 * counts.total)
    return Forecast(
        PRODUCES,
        {
            "vocabulary_size": shape.vocabulary_size,
            "parameters": counts.total,
            "active_parameters": counts.active,
        },
        {"model_config": {**shape.to_hf(), "torch_dtype": dtype}, **facts},
        seconds=seconds,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        problems=tuple(_differing(config, inputs, dense)),
    )


def _streaming_bytes(config: Config, dense: DecoderConfig, shape: DecoderConfig, dtype_bytes: int) -> float:
    """What conversion and proof hold at the most, one after the other.

    A worker has a dense matrix and two experts'. The proof has a layer of the dense model and the trunk of
    one of the mixture (its shared expert too) in float32, and an expert as it is stored and in float32; or
    the whole embedding or head as it is stored, with the logits of its tokens.
    """
    matrix = dense.hidden_size * dense.intermediate_size
    attention = 2 * dense.hidden_size * dense.head_dim * (dense.heads + dense.kv_heads)
    converting = 3.0 * config.workers * matrix * dtype_bytes
    shared = 3 * dense.hidden_size * (shape.moe.shared_size if shape.moe else 0)
    layer = 4 * (2 * attention + 3 * matrix + shared) + 3 * matrix * (2 * dtype_bytes + 4)
    head = dense.vocabulary_size * (dense.hidden_size * dtype_bytes + 6 * 4 * PROBE_TOKENS)
    return max(converting, float(layer), float(head))


def _differing(config: Config, inputs: Forecasts, dense: DecoderConfig) -> list[Problem]:
    """Models that can't be mixed, because their shapes differ."""
    problems = []
    for place, name in enumerate(config.models):
        other_hf = inputs[name].facts.get("model_config")
        if other_hf is not None and not same_tensors(DecoderConfig.from_hf(other_hf), dense):
            problems.append(
                Problem(
                    f'"{name}" has another shape or vocabulary than "{config.model}"',
                    "branch-train-mix averages the models' weights: train them all from the same one",
                    f"models.{place}",
                )
            )
    return problems
