"""From a dense model's shape to that of the mixture; which layouts can hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tsugiki.errors import InputError
from tsugiki.models.config import FAMILIES, DecoderConfig, MixtureOfExperts
from tsugiki.upcycling.config import Config

_TARGETS: Mapping[str, str] = {
    "llama": "mixtral",
    "mistral": "mixtral",
    "qwen3": "qwen3_moe",
}
"""The family of experts that computes attention as a dense family does, so that the function is kept.

Qwen2's attention has biases, which only Qwen2-MoE has too, and that always has a shared expert. Llama has no
norms of queries and keys, and no weights of Qwen3's make them do nothing."""

_SHARED_TARGETS: Mapping[str, str] = {
    "llama": "qwen2_moe",
    "mistral": "qwen2_moe",
    "qwen2": "qwen2_moe",
}
"""The same with a shared expert. Biases that are 0 do nothing, so Qwen2-MoE's attention can be Llama's (as
mergekit has it too); that of Qwen3 has norms of queries and keys, which no family with a shared expert and
plain attention has."""


def upcycled_shape(dense: DecoderConfig, config: Config) -> DecoderConfig:
    """The shape of the mixture that `config` makes of a model of shape `dense`.

    Mixtral's layout for Llama and Mistral (the same attention), Qwen3-MoE's for Qwen3, Qwen2-MoE's where
    there is a shared expert. Expert weights are normalised to add up to 1 in all, without which equal experts
    would not compute what one did. Raises InputError where the source has experts already, where no layout
    holds what is asked for, and where numbers don't divide.
    """
    family = _family(dense, config)
    grain = config.granularity
    if dense.intermediate_size % grain:
        near = _divisor_near(dense.intermediate_size, grain)
        raise InputError(
            f"the intermediate size {dense.intermediate_size} can't be cut into {grain} equal experts",
            hint=f"choose a granularity that divides it, such as {near}",
        )
    width = dense.intermediate_size // grain
    moe = MixtureOfExperts(
        experts=config.num_experts,
        experts_per_token=config.experts_per_token,
        intermediate_size=width,
        normalise=True,
        dense_layers=_dense_layers(dense, config),
        balance_coefficient=config.balance_coefficient,
        shared_size={"none": 0, "copy": grain, "slices": config.shared_slices}[config.shared_expert] * width,
    )
    if family == "mixtral":
        if moe.dense_layers:
            raise InputError(
                "Mixtral's layout has experts in every layer; `layers` leaves some dense",
                hint="leave `layers` out; chosen layers can become mixtures in Qwen3 models, and with a "
                "shared expert",
            )
        return replace(dense, family=family, moe=moe, intermediate_size=width)
    if family == "qwen2_moe" and dense.sliding_window:
        raise InputError(
            f"this model has a sliding window of {dense.sliding_window} tokens; Qwen2-MoE, the layout with a "
            "shared expert, has none",
            hint="leave `shared_expert` out, or choose a model without a sliding window",
        )
    if dense.full_attention_layers:
        raise InputError(
            "Qwen3-MoE has one sliding window for all layers; this model has one in the upper layers only",
            hint="choose a model without a sliding window",
        )
    return replace(dense, family=family, moe=moe)


def same_tensors(one: DecoderConfig, other: DecoderConfig) -> bool:
    """Whether two models have the same tensors and compute alike, so that their weights can be averaged.

    Begin and end tokens, the initialisation and the longest sequence may differ.
    """
    return _without_names(one) == _without_names(other)


def _without_names(shape: DecoderConfig) -> DecoderConfig:
    return replace(shape, bos_id=None, eos_id=None, initializer_std=1.0, max_positions=1)


def _family(dense: DecoderConfig, config: Config) -> str:
    if dense.moe is not None:
        raise InputError(
            f"the model has {dense.moe.experts} experts already ({dense.family})",
            hint="name a dense model: Llama, Mistral, Qwen2 or Qwen3",
        )
    shared = config.shared_expert != "none"
    family = (_SHARED_TARGETS if shared else _TARGETS).get(dense.family)
    if family is None:
        raise _no_layout(dense, shared=shared)
    asked = config.target.replace("-", "_")
    if asked not in {"auto", family}:
        differs = "norms of queries and keys" if FAMILIES[asked].qk_norms else "no norms of queries and keys"
        raise InputError(
            f"target {config.target} has {differs}, other than {dense.family}: the result could not compute "
            "what the dense model does",
            hint=f"leave `target` out, or write {family.replace('_', '-')}",
        )
    return family


def _no_layout(dense: DecoderConfig, *, shared: bool) -> InputError:
    if shared:
        return InputError(
            f"no mixture with a shared expert that can be written here has {dense.family}'s attention (norms "
            "of queries and keys)",
            hint="leave `shared_expert` out, or choose a Llama, Mistral or Qwen2 model",
        )
    return InputError(
        f"no mixture of experts without a shared one has {dense.family}'s attention (biases of queries, keys "
        "and values)",
        hint="say `shared_expert: copy` (or slices), which Qwen2-MoE's layout has",
    )


def _dense_layers(dense: DecoderConfig, config: Config) -> tuple[int, ...]:
    if config.layers == "all":
        return ()
    beyond = [layer for layer in config.layers if not 0 <= layer < dense.layers]
    if beyond:
        raise InputError(
            f"`layers` names {', '.join(map(str, beyond))}; the model has layers 0 to {dense.layers - 1}",
            hint="count layers from 0",
        )
    return tuple(layer for layer in range(dense.layers) if layer not in config.layers)


def _divisor_near(number: int, wanted: int) -> int:
    """The divisor of `number` that is nearest to `wanted`."""
    below = next(size for size in range(min(wanted, number), 0, -1) if number % size == 0)
    above = next(size for size in range(min(wanted, number), number + 1) if number % size == 0)
    return below if wanted - below <= above - wanted else above
