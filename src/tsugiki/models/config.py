"""The shape of a decoder: its family's features, how many parameters it has, and how much it computes.

config.json, the same thing in Hugging Face's words, is `tsugiki.models.config_json`'s.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any

from tsugiki.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Family:
    """What sets one family of decoders apart; everything else is the same for all of them.

    architecture: Hugging Face's class. qkv_biases: the query, key and value projections have biases.
    qk_norms: queries and keys are normalised, each head by itself, before they are rotated. windows: layers
    may attend to the last `sliding_window` tokens only: "none" of them, "all", or the "upper" ones (those
    from `full_attention_layers` on). experts: the feed-forward is a mixture of experts. shared_expert: beside
    the experts that a router chooses there is one that every token goes through.
    """

    architecture: str
    qkv_biases: bool = False
    qk_norms: bool = False
    windows: str = "none"
    experts: bool = False
    shared_expert: bool = False


FAMILIES: Mapping[str, Family] = {
    "llama": Family("LlamaForCausalLM"),
    "mistral": Family("MistralForCausalLM", windows="all"),
    "qwen2": Family("Qwen2ForCausalLM", qkv_biases=True, windows="upper"),
    "qwen3": Family("Qwen3ForCausalLM", qk_norms=True, windows="upper"),
    "mixtral": Family("MixtralForCausalLM", windows="all", experts=True),
    "qwen2_moe": Family("Qwen2MoeForCausalLM", qkv_biases=True, experts=True, shared_expert=True),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", qk_norms=True, windows="all", experts=True),
}
"""By Hugging Face's `model_type`, with what transformers' modeling code of that name computes. Llama is
also Llama 3 (with `rope_scaling` from 3.1 on), Qwen2 also Qwen2.5, Qwen2-MoE also Qwen1.5-MoE. Qwen2-MoE's
windows, which no published model uses, are not computed."""

ARCHITECTURES = tuple(family.architecture for family in FAMILIES.values())
"""What `Decoder` computes."""


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
class MixtureOfExperts:
    """Feed-forward layers of several experts, of which a router chooses a few for each token.

    experts, experts_per_token: how many there are, and how many of them a token goes through.
    intermediate_size: feed-forward width of one expert. normalise: the chosen experts' weights are divided by
    their sum (Mixtral always; Qwen's `norm_topk_prob`). Layer l is sparse where (l + 1) % sparse_step
    == 0 and l is not in dense_layers; the others are dense (Qwen's `decoder_sparse_step` and
    `mlp_only_layers`). balance_coefficient: weight of the load-balancing loss that the model's makers used
    (`router_aux_loss_coef`); it is carried along, and read by whoever trains. shared_size: width of the
    shared expert, which every token goes through, times the sigmoid of its gate (Qwen2-MoE's
    `shared_expert_intermediate_size`); 0: there is none.
    """

    experts: int
    experts_per_token: int
    intermediate_size: int
    normalise: bool = True
    sparse_step: int = 1
    dense_layers: tuple[int, ...] = ()
    balance_coefficient: float = 0.001
    shared_size: int = 0

    def shared_parameters(self, width: int) -> int:
        """Parameters of the shared expert and its gate (one row) in a layer of a model of this width."""
        return (3 * self.shared_size + 1) * width if self.shared_size else 0

    def is_sparse(self, layer: int) -> bool:
        """Whether this layer (from 0) has experts."""
        return layer not in self.dense_layers and (layer + 1) % self.sparse_step == 0


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder.

    heads, kv_heads: of the queries, and of the keys and values that groups of query heads share.
    intermediate_size: width of a dense feed-forward. max_positions: the longest sequence in tokens that the
    model was made for. family: a key of `FAMILIES`. sliding_window: a token sees itself and the
    sliding_window - 1 tokens before it, in the layers from `full_attention_layers` on. embedding_scale:
    multiplies the embedding's output (`spike_no_more`); no Hugging Face family of ours has it, so
    `save_model` multiplies the rows by it.
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
    family: str = "llama"
    sliding_window: int | None = None
    full_attention_layers: int = 0
    moe: MixtureOfExperts | None = None
    embedding_scale: float = 1.0

    def __post_init__(self) -> None:
        _check_shape(self)
        _check_family(self)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """See `config_json.from_hf`."""
        from tsugiki.models.config_json import from_hf

        return from_hf(config)

    def to_hf(self) -> dict[str, Any]:
        """See `config_json.to_hf`."""
        from tsugiki.models.config_json import to_hf

        return to_hf(self)

    @property
    def features(self) -> Family:
        """What this model's family computes."""
        return FAMILIES[self.family]

    def window(self, layer: int) -> int | None:
        """Tokens that a token of this layer (from 0) sees, itself included; None: all before it."""
        return self.sliding_window if layer >= self.full_attention_layers else None

    def is_sparse(self, layer: int) -> bool:
        """Whether this layer (from 0) has experts."""
        return self.moe is not None and self.moe.is_sparse(layer)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input and output embeddings together (counted once where they are tied)."""
        return self.vocabulary_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self._parameters(experts=self.moe.experts if self.moe else 0)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token meets: all of them but the experts that are not chosen for it."""
        return self._parameters(experts=self.moe.experts_per_token if self.moe else 0)

    def _parameters(self, experts: int) -> int:
        """All parameters where a sparse layer had this many experts (and the whole router)."""
        matrices = sum(self._matrix_parameters(layer, experts) for layer in range(self.layers))
        vectors = 2 * self.hidden_size
        vectors += self.features.qkv_biases * self.head_dim * (self.heads + 2 * self.kv_heads)
        vectors += self.features.qk_norms * 2 * self.head_dim
        return self.embedding_parameters + matrices + self.layers * vectors + self.hidden_size

    def _matrix_parameters(self, layer: int, experts: int) -> int:
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        if self.moe is None or not self.moe.is_sparse(layer):
            return attention + 3 * self.hidden_size * self.intermediate_size
        router = self.hidden_size * self.moe.experts
        shared = self.moe.shared_parameters(self.hidden_size)
        return attention + router + shared + experts * 3 * self.hidden_size * self.moe.intermediate_size

    def training_flops_per_token(self, sequence_length: int, *, full_attention: bool = False) -> float:
        """Floating-point operations of one token's forward and backward pass, causal attention counted.

        6 · P + 12 · N · H · (sum over layers of a token's mean number of keys), where P counts the parameters
        that take part in matrix products (output head included, embedding look-up excluded: it multiplies
        nothing; of the experts those that a token goes through, the shared one among them), N heads, H head
        dimension. A causal layer has T / 2 keys on average, T `sequence_length` in tokens; a window of W < T
        leaves W - W² / 2T. PaLM (2204.02311, appendix B) has 6·P + 12·L·N·H·T with full attention; a causal
        mask needs half of it.
        full_attention: count as there, so that figures compare with those of papers and of Megatron-LM.
        """
        experts = self.moe.experts_per_token if self.moe else 0
        matrices = sum(self._matrix_parameters(layer, experts) for layer in range(self.layers))
        matrices += self.vocabulary_size * self.hidden_size
        windows = (
            min(self.window(layer) or sequence_length, sequence_length) for layer in range(self.layers)
        )
        keys = sum(window - window**2 / (2 * sequence_length) for window in windows)
        if full_attention:
            keys = self.layers * sequence_length
        return 6.0 * matrices + 12.0 * self.heads * self.head_dim * keys


def spike_no_more(config: DecoderConfig) -> DecoderConfig:
    """The same shape with the small initialisation and scaled embedding of "Spike No More" (2312.16903).

    All matrices are drawn with standard deviation sqrt(2 / 5d) (Nguyen and Salazar 2019; d hidden size;
    those that write into the residual stream are divided by sqrt(2 · layers) by `initialise`, as ever), so
    that sub-layers are small; and the embedding's output is multiplied by sqrt(d), so that the shortcut is
    large: its standard deviation is sqrt(2 / 5) whatever d. For models trained from the start: scaling an
    embedding that was trained without it changes the function.
    """
    std = (2 / (5 * config.hidden_size)) ** 0.5
    return replace(config, initializer_std=std, embedding_scale=config.hidden_size**0.5)


def _check_shape(config: DecoderConfig) -> None:
    _check_positive(config, allowed_zero={"full_attention_layers"})
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
    if config.sliding_window is not None and config.sliding_window < 1:
        raise InputError(
            f"sliding_window is {config.sliding_window}; a token has to see itself",
            hint="use 1 or more, or none",
        )
    if config.moe is not None:
        _check_positive(config.moe, allowed_zero={"balance_coefficient", "shared_size"})
        if config.moe.experts_per_token > config.moe.experts:
            raise InputError(
                f"{config.moe.experts_per_token} experts a token are more than all {config.moe.experts}",
                hint="mend the model's shape",
            )


def _check_positive(shape: DecoderConfig | MixtureOfExperts, allowed_zero: set[str]) -> None:
    for field in fields(shape):
        value = getattr(shape, field.name)
        if field.type not in {"int", "float"} or (value == 0 and field.name in allowed_zero):
            continue
        if not value > 0:
            raise InputError(f"{field.name} is {value}; it has to be positive", hint="mend the model's shape")


def _check_family(config: DecoderConfig) -> None:
    """A shape that its family can't have could not be written as a Hugging Face model."""
    family = FAMILIES.get(config.family)
    if family is None:
        raise InputError(
            f'there is no model family "{config.family}"', hint=did_you_mean(config.family, tuple(FAMILIES))
        )
    wrong = ""
    if config.sliding_window and family.windows == "none":
        wrong = "has no sliding window"
    elif config.full_attention_layers and family.windows != "upper":
        wrong = "has the same attention in all layers"
    elif family.experts != (config.moe is not None):
        wrong = "is a mixture of experts" if family.experts else "has no experts"
    elif config.moe is not None and family.shared_expert != (config.moe.shared_size > 0):
        wrong = "has a shared expert" if family.shared_expert else "has no shared expert"
    elif config.family == "mixtral" and config.moe is not None:
        plain = MixtureOfExperts(
            config.moe.experts,
            config.moe.experts_per_token,
            config.intermediate_size,
            balance_coefficient=config.moe.balance_coefficient,
        )
        wrong = "" if config.moe == plain else "has experts of intermediate_size, normalised, in every layer"
    if wrong:
        raise InputError(f"{config.family} {wrong}", hint="choose a family that has what the shape asks for")


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
    if "moe" in values:
        moe = {"dense_layers": [], **values["moe"]}
        values["moe"] = MixtureOfExperts(**{**moe, "dense_layers": tuple(moe["dense_layers"])})
    return DecoderConfig(**{"bos_id": None, "eos_id": None, **values})


def preset_of_hub_id(hub_id: str) -> DecoderConfig | None:
    """The shape of a Hugging Face hub model (`owner/name`, any case), or None where it is not known."""
    for name, values in _presets().items():
        if hub_id.lower() in (known.lower() for known in values.get("hub_ids", ())):
            return preset(name)
    return None
