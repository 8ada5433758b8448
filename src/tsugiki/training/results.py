"""What a run leaves: proofs before and after it, the model directory, the figures of the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tsugiki.artifacts.contract import Inputs, Outcome
from tsugiki.artifacts.manifest import is_finished
from tsugiki.dataset.mixture import Mixture, Share
from tsugiki.errors import StageError
from tsugiki.models.config import DecoderConfig
from tsugiki.models.decoder import Decoder
from tsugiki.models.directory import (
    Parity,
    check_parity,
    differing_tensors,
    read_config,
    save_model,
    vocabulary_size,
)
from tsugiki.models.names import export_config
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.training.checkpoint_files import Checkpoint
from tsugiki.training.export import (
    PARITY_SHAPE,
    PARITY_TOLERANCE,
    differing_from,
    model_of,
    write_model,
)
from tsugiki.training.loop import Counters
from tsugiki.training.planning import tokenizer_name
from tsugiki.training.precision.products import manner
from tsugiki.training.precision.recipes import is_float8, selection
from tsugiki.training.preparation import Plan, directory_of, facts_of_model
from tsugiki.training.spikes import DataSteps
from tsugiki.training.stage import Config
from tsugiki.training.telemetry import bias_facts

FALLING_STEPS = 10
"""From so many steps on, a model trained from scratch must end with a lower loss than its first."""


def check_training(config: Config, mixture: Mixture, counters: Counters, data: DataSteps) -> None:
    """Post-conditions of the loop: exact token accounting, and a loss that fell."""
    added = (data.added_sequences(mixture) * mixture.sequence_length).tolist()
    expected = [share.tokens + more for share, more in zip(mixture.shares, added, strict=True)]
    if counters.tokens_of_source != expected:
        raise StageError(
            f"trained on {counters.tokens_of_source} tokens of the sources; the schedule says {expected}",
            hint="this is a fault in Tsugiki; please report it with the log",
        )
    first = counters.first_loss
    from_scratch = not isinstance(config.model, str)
    if from_scratch and mixture.steps >= FALLING_STEPS and first is not None and counters.final_loss >= first:
        raise StageError(
            f"the loss did not fall: {first:.4f} at the first step, {counters.final_loss:.4f} at the end",
            hint="lower learning_rate, or train on more tokens",
        )


def check_reading(plan: Plan, inputs: Inputs) -> None:
    """Prove before any work that a model from outside is read as transformers reads it.

    The check at the end can't: it sees what we wrote, in our understanding of it. A model of another stage
    was proved there.
    """
    name = plan.config.model
    if isinstance(name, str):
        directory = directory_of(name, inputs)
        if not is_finished(directory):
            check_parity(directory, _parity_ids(plan), PARITY_TOLERANCE)


def _parity_ids(plan: Plan) -> torch.Tensor:
    count, length = PARITY_SHAPE
    return torch.from_numpy(plan.mixture.batch(0).ids_BT[:count, :length].copy())


def save(plan: Plan, decoder: Decoder, tokenizer: TextTokenizer, root: Path) -> Parity:
    """Write the model directory and prove it: vocabulary, weights, and logits on real training data."""
    decoder.to("cpu").eval()
    save_model(decoder, tokenizer, root)
    return _proved(plan, decoder.config, root, differing_tensors(decoder, root))


def save_checkpointed(plan: Plan, checkpoint: Checkpoint, root: Path) -> Parity:
    """As `save`, of the model that several processes trained: tensor by tensor out of their checkpoint."""
    shape, tokenizer = model_of(checkpoint)
    write_model(checkpoint, shape, tokenizer, root)
    return _proved(plan, shape, root, differing_from(checkpoint, shape, root))


def _proved(plan: Plan, shape: DecoderConfig, root: Path, different: list[str]) -> Parity:
    rows = vocabulary_size(root)
    if rows != shape.vocabulary_size or read_config(root).parameters != export_config(shape).parameters:
        raise StageError(
            f"{root} holds {rows} rows where {shape.vocabulary_size} were trained",
            hint="this is a fault in Tsugiki; please report it with the log",
        )
    if different:
        raise StageError(
            f"the weights in {root} are not those that were trained: {', '.join(different[:3])} differ",
            hint="this is a fault in Tsugiki or of the disk; run the stage again, and report it if it stays",
        )
    return check_parity(root, _parity_ids(plan), PARITY_TOLERANCE)


def outcome_of(
    plan: Plan,
    inputs: Inputs,
    counters: Counters,
    root: Path,
    *,
    parity: Parity,
    data: DataSteps,
    execution: Mapping[str, Any],
) -> Outcome:
    """The manifest's counts and facts of the trained model in `root`."""
    shape = read_config(root)
    tokens = sum(counters.tokens_of_source)
    counts = {
        "tokens": tokens,
        "steps": plan.mixture.steps,
        "parameters": shape.parameters,
        "vocabulary_size": shape.vocabulary_size,
        "training_flops": shape.training_flops_per_token(plan.config.sequence_length) * tokens,
        "tokens_per_second": round(counters.tokens_per_second or 0.0, 1),
        "documents": sum(share.available_documents for share in plan.mixture.shares),
    }
    facts: dict[str, Any] = {
        "model_config": shape.to_hf(),
        "tokenizer": tokenizer_name(plan.config, facts_of_model(plan.config, inputs)),
        "tokenizer_sha256": plan.tokenizer.sha256,
        "sources": _sources(plan.mixture.shares, counters),
        "parity": asdict(parity),
        "first_loss": counters.first_loss,
        "final_loss": counters.final_loss,
        "validation": counters.validation,
        "samples": counters.samples,
        "left_out": [asdict(one) for one in data.left_out],
        "precision": plan.config.precision,
        "precision_at_end": counters.precision,
        **execution,
    }
    if counters.attention:
        facts["document_attention"] = counters.attention
    if counters.routing:
        facts["routing"] = counters.routing
    if counters.router_biases:
        facts["router_bias"] = bias_facts(counters, plan.config.balance_bias)
    if is_float8(plan.config.precision):
        device = torch.device(execution["device"])
        facts["float8"] = _float8_facts(plan.config, shape, counters, device)
    return Outcome(counts, facts)


def _sources(shares: Sequence[Share], counters: Counters) -> list[dict[str, Any]]:
    """What was trained on of each source, and what there was."""
    return [
        {
            "dataset": share.name,
            "weight": share.weight,
            "tokens": trained,
            "bytes": text_bytes,
            "epochs": share.epochs,
            "available_tokens": share.available_tokens,
            "padding": share.padding,
        }
        for share, trained, text_bytes in zip(
            shares, counters.tokens_of_source, counters.bytes_of_source, strict=True
        )
    ]


def _float8_facts(
    config: Config, shape: DecoderConfig, counters: Counters, device: torch.device
) -> dict[str, Any]:
    """How many matrices were in float8, how they were multiplied, and how badly the worst one was kept."""
    chosen = selection(config, shape)
    return {
        "products": manner(config.float8_products, device),
        "matrices": len(chosen.float8),
        "high": len(chosen.high),
        "small": len(chosen.small),
        "share": chosen.share,
        "worst": counters.float8_worst,
    }
