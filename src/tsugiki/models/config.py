"""The shape of a Llama-family decoder: from and to Hugging Face's config.json, and how much it computes."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

from tsugiki.errors import InputError, did_you_mean

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
"""What `Decoder` computes: RMSNorm, RoPE, SwiGLU, grouped-query attention, no biases."""

_MISTRAL_DEFAULTS = {"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096}
"""What transformers' MistralConfig takes for keys that a config.json leaves out, where Llama differs."""


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3.1's scaling of the rotary frequencies ("llama3"), in Hugging Face's names.

    Wavelengths beyond original_max_position_embeddings / low_freq_factor are stretched by `factor`, those
    below original_max_position_embeddings / high_freq_factor are kept, and those between are interpolated.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder.

    heads, kv_heads: of the queries, and of the keys and values that groups of query heads share.
    max_positions: the longest sequence in tokens that the model was made for.
    """

    vocabulary_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    norm_eps: float
    tied_embeddings: bool
    max_positions: int
    bos_id: int | None
    eos_id: int | None
    initializer_std: float
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        _check_shape(self)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Read a config.json (transformers 4 or 5 spelling) of one of `ARCHITECTURES`.

        A Mistral sliding window that is smaller than `max_position_embeddings` caps `max_positions`: within
        one window sliding attention is plain causal attention.

        Raises InputError for any other architecture, rope type, activation or for biases (such a model would
        load and give wrong logits), and for values of the wrong type.
        """
        _check_supported(config)
        if config["architectures"][0] == "MistralForCausalLM":
            config = {**_MISTRAL_DEFAULTS, **config}
        theta, scaling = _rope_from_hf(config)
        heads = _number(config, "num_attention_heads")
        hidden = _number(config, "hidden_size")
        positions = _number(config, "max_position_embeddings", 2048)
        window = _number(config, "sliding_window", 0)
        return cls(
            vocabulary_size=_number(config, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=_number(config, "intermediate_size"),
            layers=_number(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=_number(config, "num_key_value_heads", heads),
            head_dim=_number(config, "head_dim", hidden // max(1, heads)),
            rope_theta=theta,
            norm_eps=_real(config, "rms_norm_eps", 1e-6),
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            max_positions=min(positions, window) if window else positions,
            bos_id=_token_id(config, "bos_token_id"),
            eos_id=_token_id(config, "eos_token_id"),
            initializer_std=_real(config, "initializer_range", 0.02),
            rope_scaling=scaling,
        )

    def to_hf(self) -> dict[str, Any]:
        """The config.json of this model as a LlamaForCausalLM.

        RoPE is written in transformers 4's spelling, which transformers 5 and the inference engines read too.
        `torch_dtype` is left to whoever writes the weights.
        """
        scaling = None if self.rope_scaling is None else {"rope_type": "llama3", **asdict(self.rope_scaling)}
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": scaling,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.tied_embeddings,
            "bos_token_id": self.bos_id,
            "eos_token_id": self.eos_id,
            "initializer_range": self.initializer_std,
            "use_cache": True,
        }

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input and output embeddings together (counted once where they are tied)."""
        return self.vocabulary_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        """All parameters."""
        norms = (2 * self.layers + 1) * self.hidden_size
        return self.embedding_parameters + self.layers * self._block_matrix_parameters + norms

    @property
    def _block_matrix_parameters(self) -> int:
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden_size * self.intermediate_size

    def training_flops_per_token(self, sequence_length: int) -> float:
        """Floating-point operations of one token's forward and backward pass, causal attention counted.

        6 · P + 6 · L · T · N · H, where P counts the parameters that take part in matrix products (output
        head included, embedding look-up excluded: it multiplies nothing), L layers, T `sequence_length` in
        tokens, N heads, H head dimension. PaLM (2204.02311, appendix B) has 6·P + 12·L·N·H·T with full
        attention; a causal mask needs half of the attention term.
        """
        matrices = self.layers * self._block_matrix_parameters + self.vocabulary_size * self.hidden_size
        return 6.0 * matrices + 6.0 * self.layers * sequence_length * self.heads * self.head_dim


def _check_shape(config: DecoderConfig) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if field.type in {"int", "float"} and not value > 0:
            raise InputError(f"{field.name} is {value}; it has to be positive", hint="mend the model's shape")
    if config.heads % config.kv_heads:
        raise InputError(
            f"{config.heads} heads can't share {config.kv_heads} key-value heads",
            hint="the number of heads has to be a multiple of the number of key-value heads",
        )
    if config.head_dim % 2:
        raise InputError(
            f"the head dimension {config.head_dim} is odd",
            hint="rotary embeddings rotate pairs: use an even one",
        )


def _check_supported(config: Mapping[str, Any]) -> None:
    if not isinstance(config, Mapping):
        raise InputError("the model's config.json holds no JSON object", hint="fetch the model again")
    named = config.get("architectures") or ["(none)"]
    architecture = named[0] if isinstance(named, list) else named
    if architecture not in ARCHITECTURES or not isinstance(named, list):
        raise InputError(
            f'the model has architecture "{architecture}"; known: {", ".join(ARCHITECTURES)}',
            hint="choose a Llama or Mistral model",
        )
    wanted = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise InputError(
                f"the model's config.json has {key} = {config[key]!r}; only {value!r} is computed",
                hint="choose a model without this variation",
            )


def _rope_from_hf(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Base and scaling of the rotary embedding; transformers 5 keeps both in `rope_parameters`."""
    rope: Any = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise _wrong(config, "rope_scaling", "an object")
    theta = _real(rope, "rope_theta", _real(config, "rope_theta", 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
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


@cache
def _presets() -> Mapping[str, Mapping[str, Any]]:
    text = files("tsugiki.models").joinpath("presets.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def preset_names() -> tuple[str, ...]:
    """The names that `preset` knows."""
    return tuple(_presets())


def preset(name: str) -> DecoderConfig:
    """A published or built-in shape by name; raises InputError for a name that is not known."""
    if name not in _presets():
        raise InputError(f'there is no model preset "{name}"', hint=did_you_mean(name, preset_names()))
    values = {key: value for key, value in _presets()[name].items() if key != "hub_ids"}
    if "rope_scaling" in values:
        values["rope_scaling"] = RopeScaling(**values["rope_scaling"])
    return DecoderConfig(**{"bos_id": None, "eos_id": None, **values})


def preset_of_hub_id(hub_id: str) -> DecoderConfig | None:
    """The shape of a Hugging Face hub model (`owner/name`, any case), or None where it is not known."""
    for name, values in _presets().items():
        if hub_id.lower() in (known.lower() for known in values.get("hub_ids", ())):
            return preset(name)
    return None
