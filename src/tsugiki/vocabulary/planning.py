"""What the vocabulary stage will cost, and the shape of the model that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsugiki.artifacts.contract import ArtifactType, Forecast, Forecasts
from tsugiki.vocabulary.config import Config, final_rows

PRODUCES = ArtifactType.MODEL

_BYTES_OF_DTYPE = {"float32": 4, "bfloat16": 2, "float16": 2}

# For the forecast, measured on two cores: learning, and encoding twice with round trips.
_LEARNING_CHARACTERS_PER_SECOND = 300_000
_MEASURING_CHARACTERS_PER_SECOND = 1_500_000
_COPIED_BYTES_PER_SECOND = 200e6
_LEARNING_BYTES_PER_CHARACTER = 200
_SECONDS_TO_START = 3.0
_PROCESS_BYTES = 0.6e9  # torch, transformers and numba, loaded
_DISTILLING_FLOPS = 50e9  # a second, of two cores in float32; a GPU does a thousand times as much


def estimate(config: Config, inputs: Forecasts) -> Forecast:
    """The extended model's shape, and the cost of making it. Where a curve chooses the size: the largest.

    Memory: the largest weight file (5 GB by custom) with what the learner holds, or both ends and a layer in
    float32, whichever is more. Logits are compared in more layers where there is memory for them. Weights are
    streamed file by file otherwise.
    """
    model = inputs.get(config.model, Forecast(ArtifactType.MODEL))
    facts = {"tokenizer": tokenizer_name(config)}
    config_hf: Mapping[str, Any] | None = model.facts.get("model_config")
    if config_hf is None:
        return Forecast(PRODUCES, facts=facts)
    shape = {
        **config_hf,
        "vocab_size": final_rows(int(config_hf["vocab_size"]), config.add, config.multiple_of),
    }
    parameters = float(model.counts.get("parameters", 0)) + _new_parameters(config_hf, shape)
    counts = {"vocabulary_size": shape["vocab_size"], "parameters": parameters}
    dtype = config_hf.get("torch_dtype") or config_hf.get("dtype") or "bfloat16"
    disk_bytes = parameters * _BYTES_OF_DTYPE.get(str(dtype), 4)
    read = [
        min(inputs[name].counts.get("characters", 0), config.sample)
        for name in (config.corpus, *config.measure)
        if name in inputs
    ]
    learnt = read[0] if read else 0
    # The weights are copied once, then read by the base's, our and transformers' decoder.
    seconds = _SECONDS_TO_START + 4 * disk_bytes / _COPIED_BYTES_PER_SECOND
    seconds += learnt / _LEARNING_CHARACTERS_PER_SECOND + sum(read) / _MEASURING_CHARACTERS_PER_SECOND
    if config.initialise == "distillation":
        # The teacher's pass, and the student's with its backward pass (no gradients of weights): 6 N a token.
        tokens = config.add * config.distillation.snippets * config.distillation.tokens
        seconds += 6 * parameters * tokens * config.distillation.epochs / _DISTILLING_FLOPS
    streaming_bytes = min(5e9, disk_bytes) + learnt * _LEARNING_BYTES_PER_CHARACTER
    memory_bytes = _PROCESS_BYTES + max(_smallest_decoder_bytes(shape, parameters), streaming_bytes)
    return Forecast(
        PRODUCES,
        counts,
        {"model_config": shape, **facts},
        seconds=seconds,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
    )


def _smallest_decoder_bytes(shape: Mapping[str, Any], parameters: float) -> float:
    """Both ends and one layer in float32, with the quarter that `models.directory` leaves free."""
    ends = (
        int(shape["vocab_size"]) * int(shape["hidden_size"]) * (1 if shape.get("tie_word_embeddings") else 2)
    )
    layers = int(shape.get("num_hidden_layers") or 1)
    return 4 / 0.75 * (ends + max(0.0, parameters - ends) / layers)


def tokenizer_name(config: Config) -> str:
    """The same in forecast and result: which tokenizer this is, as a name to compare by."""
    return f"{config.model}+{config.corpus}:{config.add}"


def _new_parameters(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    tables = 1 if before.get("tie_word_embeddings") else 2
    return (int(after["vocab_size"]) - int(before["vocab_size"])) * int(before["hidden_size"]) * tables
