"""One training run, from the stage's inputs to a model directory and the figures of its manifest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tsugiki.artifacts.contract import Inputs, Outcome, Workspace
from tsugiki.artifacts.documents import TRAIN, iterate_documents
from tsugiki.artifacts.files import atomic_directory, read_json, write_json
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.dataset.mixture import Mixture
from tsugiki.dataset.tokenise import tokenise
from tsugiki.dataset.tokens import TokenSource, open_tokens
from tsugiki.errors import DataError, InputError, StageError
from tsugiki.models.config import DecoderConfig, preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import (
    Parity,
    check_parity,
    differing_tensors,
    load_decoder,
    load_weights,
    read_config,
    resolve_model,
    save_model,
    vocabulary_size,
    write_tokenizer,
)
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer, train_byte_level_bpe
from tsugiki.training.checkpoint import newest_checkpoint, restore_weights
from tsugiki.training.compute import Compute, choose_device, deterministic, peak_memory_bytes
from tsugiki.training.engine import Alone, Engine
from tsugiki.training.launch import PROGRESS, RESULT, run_ranks
from tsugiki.training.loop import Counters, Run, run_steps
from tsugiki.training.optimizer import adamw
from tsugiki.training.planning import layout_problems, micro_batch_rows, steps_for, tokenizer_name, tokens_for
from tsugiki.training.ranks import JOB
from tsugiki.training.stage import CODE_VERSION, Config
from tsugiki.training.validation import ValidationSet, sample_texts, validation_set

if TYPE_CHECKING:
    from tsugiki.training.parallel.mesh import World
    from tsugiki.training.settings import FromPreset

PARITY_TOLERANCE = 1e-4
"""Largest difference between our logits and those of transformers, both in float32."""

PARITY_SHAPE = (2, 64)
"""Rows and tokens of real training data that the parity is measured on."""

FALLING_STEPS = 10
"""From so many steps on, a model trained from scratch must end with a lower loss than its first."""


def train(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Run the stage; see `tsugiki.training.stage.run`."""
    device = choose_device(config.device)
    with deterministic(config.threads, device) as threads:
        tokenizer, decoder = _model(config, inputs, out)
        _check_layout(config, decoder.config, device)
        sources = _sources(config, inputs, tokenizer, out)
        plan = _plan(config, inputs, tokenizer, decoder.config, sources)
        _check_reading(plan, inputs)
        out.log.info(
            "%d steps of %d tokens on %s, %s, %d threads",
            *(plan.mixture.steps, config.batch_tokens, device, config.parallel.text, threads),
        )
        if config.parallel.product > 1:
            counters = _train_together(plan, inputs, out, decoder)
        else:
            counters = run_steps(_run_alone(plan, decoder, device), out)
        out.metrics.append(
            event="finished",
            tokens_per_second=counters.tokens_per_second,
            peak_memory_bytes=peak_memory_bytes(device),
        )
        _check_training(config, plan.mixture, counters)
        parity = _save(plan, decoder, tokenizer, out.root)
    return _outcome(
        plan,
        inputs,
        counters,
        out.root,
        parity=parity,
        execution={"device": device.type, "threads": threads, "parallel": config.parallel.text},
    )


@dataclass(frozen=True)
class _Plan:
    """What does not depend on how many processes train."""

    config: Config
    tokenizer: TextTokenizer
    mixture: Mixture
    validation: list[ValidationSet]
    identity: str


def _plan(
    config: Config,
    inputs: Inputs,
    tokenizer: TextTokenizer,
    shape: DecoderConfig,
    sources: dict[str, TokenSource],
) -> _Plan:
    mixture = Mixture(
        list(sources.values()),
        config.weights,
        steps=_steps(config, inputs, shape),
        sequences_per_step=config.sequences_per_step,
        sequence_length=config.sequence_length,
        seed=config.seed,
        max_epochs=config.max_epochs,
        weight_unit=config.weight_unit,
        packing=config.packing,
    )
    return _Plan(
        config,
        tokenizer,
        mixture,
        _validation_sets(config, inputs, tokenizer),
        _run_identity(config, tokenizer, shape, mixture),
    )


def _run_alone(plan: _Plan, decoder: Decoder, device: torch.device) -> Run:
    config = plan.config
    decoder.to(device).train()
    compute = Compute(
        device,
        bfloat16=config.precision == "bfloat16",
        document_masking=config.document_masking,
        z_loss=config.z_loss,
    )
    optimizer = _optimizer(config, decoder.named_parameters())
    return _run(plan, Alone(decoder, optimizer, compute, micro_batch_rows(config)))


def _run(plan: _Plan, engine: Engine) -> Run:
    return Run(
        config=plan.config,
        engine=engine,
        mixture=plan.mixture,
        validation=plan.validation,
        piece_bytes=plan.tokenizer.piece_bytes,
        identity=plan.identity,
    )


def _optimizer(config: Config, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> torch.optim.AdamW:
    return adamw(
        parameters,
        learning_rate=config.learning_rate,
        betas=config.betas,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        decay_embeddings=config.decay_embeddings,
    )


def _train_together(plan: _Plan, inputs: Inputs, out: Workspace, decoder: Decoder) -> Counters:
    """Train in several processes; afterwards `decoder` holds the result."""
    parallel = plan.config.parallel
    job = {
        "config": plan.config.model_dump(mode="json"),
        "inputs": {name: [str(path) for path in paths] for name, paths in inputs.items()},
    }
    write_json(out.work / JOB, job)
    (out.work / RESULT).unlink(missing_ok=True)

    def show() -> None:
        with contextlib.suppress(OSError, ValueError):
            out.progress(*json.loads((out.work / PROGRESS).read_text()))

    run_ranks(out.work, parallel.product, plan.config.threads, show)
    found = newest_checkpoint(out.work, plan.identity, out.log)
    if found is None or found.step != plan.mixture.steps:
        raise StageError(
            f"the last checkpoint is {found and found.step}, not {plan.mixture.steps}",
            hint="run the same command again: it goes on from there",
        )
    restore_weights(found, dict(decoder.named_parameters()))
    return Counters(**read_json(out.work / RESULT))


def run_of_rank(config: Config, inputs: Inputs, out: Workspace, world: World) -> Run:
    """What one of several processes works with; its part of the model is loaded or drawn."""
    from tsugiki.training.parallel.together import Together

    directory = None
    if isinstance(config.model, str):
        directory = _directory_of(config.model, inputs)
        tokenizer, shape = load_tokenizer(directory), read_config(directory)
    else:
        tokenizer = _trained_tokenizer(config, inputs, out)
        shape = new_shape(config.model, tokenizer)
    plan = _plan(config, inputs, tokenizer, shape, _sources(config, inputs, tokenizer, out))
    engine = Together(
        shape,
        world,
        sequence_length=config.sequence_length,
        rows_at_once=micro_batch_rows(config),
        precision=config.precision,
        document_masking=config.document_masking,
        z_loss=config.z_loss,
        recompute=config.recompute,
    )
    for part in engine.decoders:
        if directory is None:
            initialise(part, config.seed)
        else:
            load_weights(part, directory)
    engine.optimizer = _optimizer(config, engine.parameters.items())
    return _run(plan, engine)


def _directory_of(model: str, inputs: Inputs) -> Path:
    """The model directory that training starts from: another stage's, or one outside."""
    given = inputs.get(model, ())
    return given[0] if given else resolve_model(model)


def _model(config: Config, inputs: Inputs, out: Workspace) -> tuple[TextTokenizer, Decoder]:
    """The tokenizer and the decoder that training starts from; raises InputError where they don't fit."""
    if isinstance(config.model, str):
        directory = _directory_of(config.model, inputs)
        vocabulary_size(directory)  # raises where tokenizer, rows and config.json are at odds
        tokenizer, decoder = load_tokenizer(directory), load_decoder(directory)
    else:
        tokenizer = _trained_tokenizer(config, inputs, out)
        decoder = Decoder(new_shape(config.model, tokenizer))
        initialise(decoder, config.seed)
    if config.sequence_length > decoder.config.max_positions:
        raise InputError(
            f"sequence_length is {config.sequence_length}; "
            f"the model was made for {decoder.config.max_positions}",
            hint="shorten sequence_length",
        )
    return tokenizer, decoder


def new_shape(source: FromPreset, tokenizer: TextTokenizer) -> DecoderConfig:
    """The shape of a new model, its vocabulary being the tokenizer's."""
    return replace(
        preset(source.preset),
        **source.overrides(),
        vocabulary_size=tokenizer.size,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
    )


def _check_layout(config: Config, shape: DecoderConfig, device: torch.device) -> None:
    """Raise InputError where the degrees of parallelism don't fit the model, the batch or the machine."""
    processes = config.parallel.product
    if device.type == "cuda" and processes > max(1, torch.cuda.device_count()):
        raise InputError(
            f"parallel asks for {processes} processes; this machine has {torch.cuda.device_count()} GPUs",
            hint="lower the degrees: there is one process a GPU",
        )
    wrong = [problem for problem in layout_problems(config, shape) if problem.severity != "warning"]
    if wrong:
        raise InputError(wrong[0].message, hint=wrong[0].hint)


def _trained_tokenizer(config: Config, inputs: Inputs, out: Workspace) -> TextTokenizer:
    """Train the tokenizer, or take the one that an earlier attempt finished."""
    wanted = config.tokenizer
    if wanted is None:
        raise InputError("a new model needs a tokenizer", hint="add `tokenizer: {train: DOCUMENTS, size: N}`")
    directory = out.work / "tokenizer"
    if not directory.exists():
        out.progress(0, 1, "tokenizers", f"training a tokenizer of {wanted.size} entries")
        tokenizer = train_byte_level_bpe(_training_texts(inputs.path(wanted.train)), wanted.size)
        with atomic_directory(directory) as partial:
            write_tokenizer(tokenizer, partial)
        out.log.info("trained a tokenizer of %d entries on %s", tokenizer.size, wanted.train)
    return load_tokenizer(directory)


def _training_texts(documents: Path) -> Iterator[str]:
    return (row["text"] for row in iterate_documents(documents, split=TRAIN, columns=["text"]))


def _sources(
    config: Config, inputs: Inputs, tokenizer: TextTokenizer, out: Workspace
) -> dict[str, TokenSource]:
    sources = {}
    for number, name in enumerate(config.source_names):

        def tell(done: int, total: int, name: str = name) -> None:
            out.progress(done, total, "files", f"tokenising {name}")

        place = out.work / f"tokens-{number}"
        units = tokenise(inputs.path(name), tokenizer, place, on_unit=tell, log=out.log)
        sources[name] = open_tokens(name, units, tokenizer)
        out.log.info(
            "%s: %d documents, %d tokens, %d bytes of text",
            name,
            sources[name].documents,
            sources[name].tokens,
            sources[name].text_bytes,
        )
    return sources


def _steps(config: Config, inputs: Inputs, shape: DecoderConfig) -> int:
    tokens = config.asked_tokens
    if config.equal_compute is not None:
        counts = read_manifest(inputs.path(config.equal_compute)).counts
        flops = counts.get("training_flops")
        if not flops:
            raise InputError(
                f'equal_compute: "{config.equal_compute}" has no training_flops in its manifest',
                hint="name a train stage",
            )
        tokens = tokens_for(flops, shape, config.sequence_length)
    steps = steps_for(tokens or 0, config.batch_tokens)
    if steps < 1:
        raise DataError(
            f"{tokens:,} tokens are fewer than one batch of {config.batch_tokens:,}",
            hint="lower batch_tokens or ask for more tokens",
        )
    return steps


def _validation_sets(config: Config, inputs: Inputs, tokenizer: TextTokenizer) -> list[ValidationSet]:
    return [
        validation_set(
            name,
            sample_texts(inputs.path(name), config.validation_bytes),
            tokenizer,
            config.sequence_length,
        )
        for name in config.validation
    ]


def _run_identity(config: Config, tokenizer: TextTokenizer, shape: DecoderConfig, mixture: Mixture) -> str:
    """What a checkpoint of this run belongs to."""
    return identity_of(
        {
            "code_version": CODE_VERSION,
            "config": config.identity_payload(),
            "tokenizer": tokenizer.sha256,
            "shape": shape.to_hf(),
            "steps": mixture.steps,
            "available": [share.available_tokens for share in mixture.shares],
        }
    )


def _check_training(config: Config, mixture: Mixture, counters: Counters) -> None:
    """Post-conditions of the loop: exact token accounting, and a loss that fell."""
    expected = [share.tokens for share in mixture.shares]
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


def _check_reading(plan: _Plan, inputs: Inputs) -> None:
    """Prove before any work that a model from outside is read as transformers reads it.

    The check at the end can't: it sees what we wrote, in our understanding of it. A model of another stage
    was proved there.
    """
    name = plan.config.model
    if isinstance(name, str):
        directory = _directory_of(name, inputs)
        if not is_finished(directory):
            check_parity(directory, _parity_ids(plan), PARITY_TOLERANCE)


def _parity_ids(plan: _Plan) -> torch.Tensor:
    count, length = PARITY_SHAPE
    return torch.from_numpy(plan.mixture.batch(0).ids_BT[:count, :length].copy())


def _save(plan: _Plan, decoder: Decoder, tokenizer: TextTokenizer, root: Path) -> Parity:
    """Write the model directory and prove it: vocabulary, weights, and logits on real training data."""
    decoder.to("cpu").eval()
    save_model(decoder, tokenizer, root)
    rows = vocabulary_size(root)
    if rows != decoder.config.vocabulary_size or read_config(root).parameters != decoder.config.parameters:
        raise StageError(
            f"{root} holds {rows} rows where {decoder.config.vocabulary_size} were trained",
            hint="this is a fault in Tsugiki; please report it with the log",
        )
    different = differing_tensors(decoder, root)
    if different:
        raise StageError(
            f"the weights in {root} are not those that were trained: {', '.join(different[:3])} differ",
            hint="this is a fault in Tsugiki or of the disk; run the stage again, and report it if it stays",
        )
    return check_parity(root, _parity_ids(plan), PARITY_TOLERANCE)


def _outcome(
    plan: _Plan,
    inputs: Inputs,
    counters: Counters,
    root: Path,
    *,
    parity: Parity,
    execution: Mapping[str, Any],
) -> Outcome:
    shape = read_config(root)
    tokens = sum(counters.tokens_of_source)
    shares = plan.mixture.shares
    counts = {
        "tokens": tokens,
        "steps": plan.mixture.steps,
        "parameters": shape.parameters,
        "vocabulary_size": shape.vocabulary_size,
        "training_flops": shape.training_flops_per_token(plan.config.sequence_length) * tokens,
        "tokens_per_second": round(counters.tokens_per_second or 0.0, 1),
        "documents": sum(share.available_documents for share in shares),
    }
    sources = [
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
    facts: dict[str, Any] = {
        "model_config": shape.to_hf(),
        "tokenizer": tokenizer_name(plan.config, _facts_of_model(plan.config, inputs)),
        "tokenizer_sha256": plan.tokenizer.sha256,
        "sources": sources,
        "parity": {"max_abs_difference": parity.max_abs_difference, "tolerance": parity.tolerance},
        "first_loss": counters.first_loss,
        "final_loss": counters.final_loss,
        "validation": counters.validation,
        "precision": plan.config.precision,
        **execution,
    }
    return Outcome(counts, facts)


def _facts_of_model(config: Config, inputs: Inputs) -> dict[str, Any]:
    """The facts of the model that training started from, where a stage made it."""
    paths = inputs.get(config.model, ()) if isinstance(config.model, str) else ()
    return dict(read_manifest(paths[0]).facts) if paths and is_finished(paths[0]) else {}
