"""`kind: upcycle`: a dense model in, a mixture of experts out, and proof."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tsugiki.artifacts.contract import Inputs, Outcome, Workspace
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.planning import PARITY_PARAMETERS, PROBE_SHAPE, PRODUCES, estimate

if TYPE_CHECKING:
    from torch import Tensor

    from tsugiki.upcycling.convert import Conversion
    from tsugiki.upcycling.measures import LayerMeasures
    from tsugiki.upcycling.proof import Proof

__all__ = ["CODE_VERSION", "KIND", "PRODUCES", "Config", "estimate", "run"]

KIND = "upcycle"
CODE_VERSION = 2

FLOPS_SEQUENCE_LENGTH = 4096
"""Tokens of a sequence for which operations a token are told, the paper's (its scripts, section 7)."""

_PROBE_SEED = 20250220  # any number; the same in every proof
_PARITY_TOLERANCE = 1e-4
_SHARE_OF_WRITING = 0.5  # of the stage's time, for the progress


def run(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Write the mixture to `out.root`, and prove it.

    A run that was killed goes on with the first weight file that is not whole. Raises InputError for a
    source that can't be upcycled, StorageError for a full disk, StageError where a proof fails.
    """
    from tsugiki.models.directory import resolve_model, vocabulary_size
    from tsugiki.upcycling.convert import convert
    from tsugiki.upcycling.proof import prove

    models = [resolve_model(inputs.path(name)) for name in (config.model, *config.models)]

    def wrote(done: int, total: int) -> None:
        out.progress(_SHARE_OF_WRITING * done / total, 1.0, "stage", f"{done / 1e9:.1f} GB written")

    def proved(done: int, total: int) -> None:
        share = _SHARE_OF_WRITING + (1 - _SHARE_OF_WRITING) * done / total
        out.progress(share, 1.0, "stage", f"layer {done} of {total} proved")

    conversion = convert(models, out.root, config, progress=wrote)
    out.log.info("%d parameters written", conversion.shape.parameters)
    size = vocabulary_size(out.root)
    ids_BT = _probe(out)
    proof = prove(conversion, models, out.root, ids_BT, progress=proved)
    return Outcome(
        _counts(conversion, size), {**_facts(conversion, proof), **_other_facts(conversion, out, ids_BT)}
    )


def _probe(out: Workspace) -> Tensor:
    """Token ids to compute with, the same every time: drawn evenly from the tokenizer's pieces, (B, T)."""
    import torch

    from tsugiki.models.tokenizer import load_tokenizer

    generator = torch.Generator().manual_seed(_PROBE_SEED)
    return torch.randint(load_tokenizer(out.root).size, PROBE_SHAPE, generator=generator)


def _counts(conversion: Conversion, vocabulary_size: int) -> dict[str, int]:
    from tsugiki.upcycling.counts import parameter_counts

    counts = parameter_counts(conversion.shape)
    return {
        "vocabulary_size": vocabulary_size,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "active_parameters_on_cards": counts.active_on_cards,
        "embedding_parameters": counts.embedding,
        "dense_parameters": conversion.dense.parameters,
    }


def _facts(conversion: Conversion, proof: Proof) -> dict[str, Any]:
    """What was made, what theory says of it, and what was measured; all of it is in the report."""
    from tsugiki.upcycling.counts import published_flops_per_token
    from tsugiki.upcycling.measures import expected

    config, layers = conversion.config, proof.layers
    width = conversion.dense.intermediate_size // config.granularity
    return {
        "method": config.method,
        "ratio": config.ratio if config.method in {"drop", "noise"} else None,
        "shared_indices": config.shared_indices,
        "experts": config.num_experts,
        "experts_per_token": config.experts_per_token,
        "granularity": config.granularity,
        "shared_expert": _shared_facts(conversion),
        "family": conversion.shape.family,
        "sparse_layers": [layer.layer for layer in layers],
        "function": {
            "max_abs_logit_difference": proof.function_difference,
            "tolerance": proof.tolerance,
            "largest_logit": proof.largest_logit,
            "tokens": proof.tokens,
        },
        "result": {
            "max_abs_logit_difference": proof.result_difference,
            "divergence_nats": proof.divergence,
        },
        "expected": {**asdict(expected(config, width)), "norm": _mean(layers, "expected_norm")},
        "measured": {
            name: _mean(layers, name)
            for name in ("intact_share", "shared_intact", "cosine_dense", "cosine_experts", "norm")
        },
        "intact_bounds": [layers[0].least_intact, layers[0].most_intact],
        "layers": [_rounded(asdict(layer)) for layer in layers],
        "flops_per_token": {
            "sequence_length": FLOPS_SEQUENCE_LENGTH,
            "published": published_flops_per_token(conversion.shape, FLOPS_SEQUENCE_LENGTH),
            "published_dense": published_flops_per_token(conversion.dense, FLOPS_SEQUENCE_LENGTH),
            "causal": conversion.shape.training_flops_per_token(FLOPS_SEQUENCE_LENGTH),
        },
    }


def _shared_facts(conversion: Conversion) -> dict[str, Any] | None:
    """The shared expert: what it is made of, its width and parameters in a layer, where its gate begins."""
    from tsugiki.upcycling.experts import SHARED_GATE, routed_gain, shared_gain, whole_scale

    config, moe = conversion.config, conversion.shape.moe
    if moe is None or not moe.shared_size:
        return None
    return {
        "made_as": config.shared_expert,
        "slices": config.slices_kept_back or config.granularity,
        "width": moe.shared_size,
        "parameters": moe.shared_parameters(conversion.shape.hidden_size),
        "gate": SHARED_GATE,
        "scale": whole_scale(shared_gain(config), config.scaling),
        "experts_scale": whole_scale(routed_gain(config), config.scaling),
    }


def _other_facts(conversion: Conversion, out: Workspace, ids_BT: Tensor) -> dict[str, Any]:
    from tsugiki.artifacts.files import read_json
    from tsugiki.models.directory import CONFIG_FILE, check_parity
    from tsugiki.models.tokenizer import load_tokenizer

    parity = {}
    if conversion.shape.parameters <= PARITY_PARAMETERS:
        parity = {"transformers_parity": asdict(check_parity(out.root, ids_BT, _PARITY_TOLERANCE))}
    return {
        **parity,
        "model_config": read_json(out.root / CONFIG_FILE),
        "tokenizer": conversion.config.model,
        "tokenizer_sha256": load_tokenizer(out.root).sha256,
    }


def _mean(layers: tuple[LayerMeasures, ...], name: str) -> float | None:
    values = [getattr(layer, name) for layer in layers]
    return None if None in values else sum(values) / len(values)


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in figures.items()}
