"""One training run, from the stage's inputs to a model directory and the figures of its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tsugiki.artifacts.contract import Inputs, Outcome, Workspace
from tsugiki.artifacts.documents import TRAIN, iterate_documents
from tsugiki.artifacts.files import atomic_directory
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
    read_config,
    resolve_model,
    save_model,
    vocabulary_size,
    write_tokenizer,
)
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer, train_byte_level_bpe
from tsugiki.training.compute import Compute, choose_device, deterministic, peak_memory_bytes
from tsugiki.training.loop import Counters, Run, run_steps
from tsugiki.training.optimizer import adamw
from tsugiki.training.planning import steps_for, tokenizer_name, tokens_for
from tsugiki.training.stage import CODE_VERSION, Config
from tsugiki.training.validation import ValidationSet, sample_texts, validation_set

if TYPE_CHECKING:
    from tsugiki.training.settings import FromPreset

PARITY_TOLERANCE = 1e-4
"""Largest difference between our logits and those of transformers, both in float32."""

PARITY_SHAPE = (2, 64)
"""Rows and tokens of real training data that the parity is measured on."""

FALLING_STEPS = 10
"""From so many steps on, a model trained from scratch must end with a lower loss than its first."""


def train(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Run the stage; see `tsugiki.training.stage.run`."""
    if config.parallel.product > 1:
        raise InputError(
            f"parallel asks for {config.parallel.product} processes; training runs in one process so far",
            hint="remove `parallel` (or set it all to 1); `tsugiki plan` checks and reckons with any layout",
        )
    device = choose_device(config.device)
    with deterministic(config.threads, device) as threads:
        tokenizer, decoder = _model(config, inputs, out)
        sources = _sources(config, inputs, tokenizer, out)
        run = _prepare(config, inputs, tokenizer=tokenizer, decoder=decoder, sources=sources, device=device)
        _check_reading(run, inputs)
        out.log.info(
            "%d steps of %d tokens on %s, %d threads",
            run.mixture.steps,
            config.batch_tokens,
            device,
            threads,
        )
        counters = run_steps(run, out)
        out.metrics.append(
            event="finished",
            tokens_per_second=counters.tokens_per_second,
            peak_memory_bytes=peak_memory_bytes(device),
        )
        _check_training(config, run.mixture, counters)
        parity = _save(run, tokenizer, out.root)
    return _outcome(
        run,
        inputs,
        counters,
        out.root,
        tokenizer_sha256=tokenizer.sha256,
        parity=parity,
        threads=threads,
    )


def _model(config: Config, inputs: Inputs, out: Workspace) -> tuple[TextTokenizer, Decoder]:
    """The tokenizer and the decoder that training starts from; raises InputError where they don't fit."""
    if isinstance(config.model, str):
        given = inputs.get(config.model, ())
        directory = given[0] if given else resolve_model(config.model)
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

        units = tokenise(inputs.path(name), tokenizer, out.work / f"tokens-{number}", on_unit=tell)
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


def _prepare(
    config: Config,
    inputs: Inputs,
    *,
    tokenizer: TextTokenizer,
    decoder: Decoder,
    sources: dict[str, TokenSource],
    device: torch.device,
) -> Run:
    mixture = Mixture(
        list(sources.values()),
        config.weights,
        steps=_steps(config, inputs, decoder.config),
        sequences_per_step=config.sequences_per_step,
        sequence_length=config.sequence_length,
        seed=config.seed,
        max_epochs=config.max_epochs,
        weight_unit=config.weight_unit,
        packing=config.packing,
    )
    decoder.to(device).train()
    optimizer = adamw(
        decoder,
        learning_rate=config.learning_rate,
        betas=config.betas,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        decay_embeddings=config.decay_embeddings,
    )
    return Run(
        config=config,
        decoder=decoder,
        optimizer=optimizer,
        mixture=mixture,
        validation=_validation_sets(config, inputs, tokenizer),
        piece_bytes=tokenizer.piece_bytes,
        compute=Compute(
            device,
            bfloat16=config.precision == "bfloat16",
            document_masking=config.document_masking,
            z_loss=config.z_loss,
        ),
        identity=_run_identity(config, tokenizer, decoder.config, mixture),
    )


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


def _check_reading(run: Run, inputs: Inputs) -> None:
    """Prove before any work that a model from outside is read as transformers reads it.

    The check at the end can't: it sees what we wrote, in our understanding of it. A model of another stage
    was proved there.
    """
    name = run.config.model
    if isinstance(name, str):
        directory = inputs[name][0] if inputs.get(name) else resolve_model(name)
        if not is_finished(directory):
            check_parity(directory, _parity_ids(run), PARITY_TOLERANCE)


def _parity_ids(run: Run) -> torch.Tensor:
    count, length = PARITY_SHAPE
    return torch.from_numpy(run.mixture.batch(0).ids_BT[:count, :length].copy())


def _save(run: Run, tokenizer: TextTokenizer, root: Path) -> Parity:
    """Write the model directory and prove it: vocabulary, weights, and logits on real training data."""
    decoder = run.decoder.to("cpu").eval()
    save_model(decoder, tokenizer, root)
    rows = vocabulary_size(root)
    if (
        rows != run.decoder.config.vocabulary_size
        or read_config(root).parameters != decoder.config.parameters
    ):
        raise StageError(
            f"{root} holds {rows} rows where {run.decoder.config.vocabulary_size} were trained",
            hint="this is a fault in Tsugiki; please report it with the log",
        )
    different = differing_tensors(decoder, root)
    if different:
        raise StageError(
            f"the weights in {root} are not those that were trained: {', '.join(different[:3])} differ",
            hint="this is a fault in Tsugiki or of the disk; run the stage again, and report it if it stays",
        )
    return check_parity(root, _parity_ids(run), PARITY_TOLERANCE)


def _outcome(
    run: Run,
    inputs: Inputs,
    counters: Counters,
    root: Path,
    *,
    tokenizer_sha256: str,
    parity: Parity,
    threads: int,
) -> Outcome:
    shape = read_config(root)
    tokens = sum(counters.tokens_of_source)
    shares = run.mixture.shares
    counts = {
        "tokens": tokens,
        "steps": run.mixture.steps,
        "parameters": shape.parameters,
        "vocabulary_size": shape.vocabulary_size,
        "training_flops": shape.training_flops_per_token(run.config.sequence_length) * tokens,
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
        "tokenizer": tokenizer_name(run.config, _facts_of_model(run.config, inputs)),
        "tokenizer_sha256": tokenizer_sha256,
        "sources": sources,
        "parity": {"max_abs_difference": parity.max_abs_difference, "tolerance": parity.tolerance},
        "first_loss": counters.first_loss,
        "final_loss": counters.final_loss,
        "validation": counters.validation,
        "precision": run.config.precision,
        "device": run.compute.device.type,
        "threads": threads,
    }
    return Outcome(counts, facts)


def _facts_of_model(config: Config, inputs: Inputs) -> dict[str, Any]:
    """The facts of the model that training started from, where a stage made it."""
    paths = inputs.get(config.model, ()) if isinstance(config.model, str) else ()
    return dict(read_manifest(paths[0]).facts) if paths and is_finished(paths[0]) else {}
