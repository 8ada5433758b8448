"""config.json of a Hugging Face model directory: read into a `DecoderConfig`, and written from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from tsugiki.errors import InputError
from tsugiki.models.config import ARCHITECTURES, FAMILIES, DecoderConfig, MixtureOfExperts, RopeScaling

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"bos_token_id": 1, "eos_token_id": 2},
    "mistral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32_768},
    "qwen3": {"num_key_value_heads": 32, "max_position_embeddings": 32_768, "head_dim": 128},
    "mixtral": {
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    "qwen2_moe": {
        "num_key_value_heads": 16,
        "max_position_embeddings": 32_768,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "num_experts": 60,
        "num_experts_per_tok": 4,
    },
    "qwen3_moe": {
        "num_key_value_heads": 4,
        "max_position_embeddings": 32_768,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
    },
}
"""What transformers 5.23's configuration classes take for keys that a config.json leaves out (the tests
compare); where a family says nothing, `from_hf` has the default that all of them share."""

_MAX_WINDOW_LAYERS = 28
"""Qwen2Config's and Qwen3Config's default: windows begin at this layer."""

_ONLY_COMPUTED: Mapping[str, Any] = {
    "hidden_act": "silu",
    "mlp_bias": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "router_jitter_noise": 0.0,
    "partial_rotary_factor": 1.0,
    "kv_lora_rank": None,  # multi-head latent attention (DeepSeek)
    "quantization_config": None,
}
"""Variations that would load and then compute something else than their makers meant."""

_ONLY_COMPUTED_OF: Mapping[str, Mapping[str, Any]] = {
    "qwen2_moe": {"qkv_bias": True, "use_sliding_window": False},
}
"""The same, of keys that transformers reads for one family only. Qwen2-MoE's windows lie in every second of
the lower layers in transformers 5, in the upper ones in 4: no published model has them in use."""


def from_hf(config: Mapping[str, Any]) -> DecoderConfig:
    """Read a config.json (transformers 4 or 5 spelling) of one of `ARCHITECTURES`.

    Raises InputError for any other architecture and for variations that are not computed (rope types but
    "default" and "llama3", activations but SiLU, biases beyond the family's, dropout, quantised weights,
    windows in an order of their own): such a model would load and give wrong logits. Values of the wrong
    type too.
    """
    name = _family(config)
    family = FAMILIES[name]
    config = {**_DEFAULTS[name], **config}
    _check_variations(config, name)
    theta, scaling = _rope_from_hf(config)
    heads, hidden = _number(config, "num_attention_heads"), _number(config, "hidden_size")
    window, full_layers = _window_from_hf(config, family.windows)
    shape = DecoderConfig(
        vocabulary_size=_number(config, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_number(config, "intermediate_size"),
        layers=_number(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_number(config, "num_key_value_heads", heads),
        head_dim=_number(config, "head_dim", hidden // max(1, heads)),
        rope_theta=theta,
        norm_eps=_real(config, "rms_norm_eps", 1e-6),
        tied_embeddings=_flag(config, "tie_word_embeddings"),
        max_positions=_number(config, "max_position_embeddings", 2048),
        bos_id=_token_id(config, "bos_token_id"),
        eos_id=_token_id(config, "eos_token_id"),
        initializer_std=_real(config, "initializer_range", 0.02),
        rope_scaling=scaling,
        family=name,
        sliding_window=window,
        full_attention_layers=full_layers,
        moe=_experts_from_hf(config, name) if family.experts else None,
        embedding_scale=_real(config, "embedding_scale", 1.0),
    )
    _check_layer_types(config, shape)
    return shape


def to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The config.json of this model.

    RoPE is written in transformers 4's spelling, which transformers 5 and the inference engines read too.
    `torch_dtype` is left to whoever writes the weights. An `embedding_scale` other than 1 is written under
    that name, which only `from_hf` reads: `save_model` makes it 1 first.
    """
    scaling = None if config.rope_scaling is None else {"rope_type": "llama3", **asdict(config.rope_scaling)}
    extra = {} if config.embedding_scale == 1 else {"embedding_scale": config.embedding_scale}
    return {
        "architectures": [config.features.architecture],
        "model_type": config.family,
        "vocab_size": config.vocabulary_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "initializer_range": config.initializer_std,
        "use_cache": True,
        **_family_to_hf(config),
        **extra,
    }


def _family_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The keys that only some families have."""
    keys: dict[str, Any] = {}
    if not config.features.qkv_biases:
        keys["attention_bias"] = False
    if config.family == "llama":
        keys["mlp_bias"] = False
    if config.features.windows != "none":
        keys["sliding_window"] = config.sliding_window
    if config.family.startswith("qwen"):
        keys["use_sliding_window"] = config.sliding_window is not None
    if config.features.windows == "upper":
        keys["max_window_layers"] = config.full_attention_layers if config.sliding_window else config.layers
    if config.moe is None:
        return keys
    keys |= {
        "num_experts_per_tok": config.moe.experts_per_token,
        "router_aux_loss_coef": config.moe.balance_coefficient,
        "output_router_logits": False,
    }
    if config.family == "mixtral":
        return {**keys, "num_local_experts": config.moe.experts}
    return {
        **keys,
        "num_experts": config.moe.experts,
        "moe_intermediate_size": config.moe.intermediate_size,
        "norm_topk_prob": config.moe.normalise,
        "decoder_sparse_step": config.moe.sparse_step,
        "mlp_only_layers": list(config.moe.dense_layers),
        **({"shared_expert_intermediate_size": config.moe.shared_size} if config.moe.shared_size else {}),
    }


def _family(config: Mapping[str, Any]) -> str:
    if not isinstance(config, Mapping):
        raise InputError("the model's config.json holds no JSON object", hint="fetch the model again")
    named = config.get("architectures") or ["(none)"]
    architecture = named[0] if isinstance(named, list) else named
    for name, family in FAMILIES.items():
        if family.architecture == architecture and isinstance(named, list):
            _check_type(config, name)
            return name
    raise InputError(
        f'the model has architecture "{architecture}"; known: {", ".join(ARCHITECTURES)}',
        hint="choose a Llama, Mistral, Mixtral, Qwen2 or Qwen3 model, or Qwen's mixtures of experts",
    )


def _check_type(config: Mapping[str, Any], family: str) -> None:
    """Transformers goes by `model_type`, and would compute something else."""
    named = config.get("model_type")
    if named is not None and named != family:
        raise InputError(
            f'the model\'s config.json has model_type "{named}", and architecture '
            f'"{FAMILIES[family].architecture}", which is of "{family}"',
            hint="mend the file, or choose another model",
        )


def _check_variations(config: Mapping[str, Any], family: str) -> None:
    for key, computed in {**_ONLY_COMPUTED, **_ONLY_COMPUTED_OF.get(family, {})}.items():
        if key == "attention_bias" and FAMILIES[family].qkv_biases:
            continue  # transformers does not read it there
        if config.get(key) is not None and config[key] != computed:
            raise InputError(
                f"the model's config.json has {key} = {config[key]!r}; only {computed!r} is computed",
                hint="choose a model without this variation",
            )


def _window_from_hf(config: Mapping[str, Any], windows: str) -> tuple[int | None, int]:
    """The sliding window, and the number of layers below it that see everything.

    Qwen's files name a window that is not in use unless `use_sliding_window` is true.
    """
    qwen = "use_sliding_window" in config or windows == "upper"
    window = _number(config, "sliding_window", 0)
    if windows == "none" or (qwen and not _flag(config, "use_sliding_window")):
        return None, 0
    if qwen and "sliding_window" not in config:
        window = 4096  # the default of Qwen's configuration classes
    layers = _number(config, "max_window_layers", _MAX_WINDOW_LAYERS) if windows == "upper" else 0
    return (window, layers) if window else (None, 0)


def _check_layer_types(config: Mapping[str, Any], shape: DecoderConfig) -> None:
    """Transformers 5 also writes each layer's attention out; an order of its own is not computed."""
    named = config.get("layer_types")
    if named is None or not (shape.features.windows == "upper" or shape.family == "qwen2_moe"):
        return  # transformers reads it for Qwen2, Qwen3 and Qwen2-MoE only
    ours = ["sliding_attention" if shape.window(layer) else "full_attention" for layer in range(shape.layers)]
    if named != ours:
        raise InputError(
            f"the model's config.json has layer_types = {named!r}; windows are computed in all layers from "
            "max_window_layers on",
            hint="choose a model without this variation",
        )


def _experts_from_hf(config: Mapping[str, Any], family: str) -> MixtureOfExperts:
    chosen = _number(config, "num_experts_per_tok")
    coefficient = _real(config, "router_aux_loss_coef", 0.001)
    if family == "mixtral":
        return MixtureOfExperts(
            experts=_number(config, "num_local_experts"),
            experts_per_token=chosen,
            intermediate_size=_number(config, "intermediate_size"),
            normalise=True,
            balance_coefficient=coefficient,
        )
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(type(layer) is int for layer in dense):
        raise _wrong(config, "mlp_only_layers", "a list of layers")
    return MixtureOfExperts(
        experts=_number(config, "num_local_experts", _number(config, "num_experts")),
        experts_per_token=chosen,
        intermediate_size=_number(config, "moe_intermediate_size"),
        normalise=_flag(config, "norm_topk_prob"),
        sparse_step=_number(config, "decoder_sparse_step", 1),
        dense_layers=tuple(dense),
        balance_coefficient=coefficient,
        shared_size=_number(config, "shared_expert_intermediate_size") if family == "qwen2_moe" else 0,
    )


def _rope_from_hf(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary embedding; transformers 5 keeps both in `rope_parameters`."""
    rope: Any = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        key = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
        raise _wrong(config, key, "one object for all layers")
    theta = _real(rope, "rope_theta", _real(config, "rope_theta", 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise _wrong(rope, "partial_rotary_factor", "1.0")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise InputError(
            f'the model scales its rotary embedding by "{kind}"; known: default, llama3',
            hint="choose a model of the original context length",
        )
    names = [field.name for field in fields(RopeScaling)]
    missing = [name for name in names if name not in rope]
    if missing:
        raise InputError(
            f"rope scaling llama3 lacks {', '.join(missing)}", hint="mend the model's config.json"
        )
    return theta, RopeScaling(
        factor=_real(rope, "factor"),
        low_freq_factor=_real(rope, "low_freq_factor"),
        high_freq_factor=_real(rope, "high_freq_factor"),
        original_max_position_embeddings=_number(rope, "original_max_position_embeddings"),
    )


def _number(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A whole number; `default` where the key is absent or null."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(config, key, "a whole number")
    return value


def _real(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A number; `default` where the key is absent or null."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(config, key, "a number")
    return value


def _flag(config: Mapping[str, Any], key: str) -> bool:
    """True or false; false where the key is absent or null."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise _wrong(config, key, "true or false")
    return bool(value)


def _wrong(config: Mapping[str, Any], key: str, wanted: str) -> InputError:
    return InputError(
        f"the model's config.json has {key} = {config.get(key)!r}; {wanted} is needed", hint="mend the file"
    )


def _token_id(config: Mapping[str, Any], key: str) -> int | None:
    """Llama 3 instruct models list several end tokens; the first is the document's end."""
    value = config.get(key)
    if isinstance(value, list):
        value = value[0] if value else None
    if value is not None and not isinstance(value, int):
        raise _wrong(config, key, "a token id")
    return value
