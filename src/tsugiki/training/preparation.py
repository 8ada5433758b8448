"""What a run starts from: model, tokenizer, tokens of every source, the data's schedule, held-out sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tsugiki.artifacts.contract import Inputs, Workspace
from tsugiki.artifacts.documents import HELD_OUT, TRAIN, iterate_documents
from tsugiki.artifacts.files import atomic_directory
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.artifacts.outside import place_of
from tsugiki.artifacts.plain import as_documents
from tsugiki.dataset.mixture import Mixture
from tsugiki.dataset.tokenise import tokenise
from tsugiki.dataset.tokens import TokenSource, open_tokens
from tsugiki.errors import DataError, InputError
from tsugiki.models.config import DecoderConfig
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import (
    load_decoder,
    read_config,
    resolve_model,
    vocabulary_size,
    write_tokenizer,
)
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer, train_byte_level_bpe
from tsugiki.training.balance import convert_coefficient
from tsugiki.training.planning import layout_problems, shape_from, steps_for, tokens_for
from tsugiki.training.precision.products import emulates
from tsugiki.training.precision.recipes import is_float8
from tsugiki.training.routers import Balancing
from tsugiki.training.stage import CODE_VERSION, Config
from tsugiki.training.validation import ValidationSet, language_of, sample_texts, validation_set

if TYPE_CHECKING:
    from tsugiki.training.settings import FromPreset


@dataclass(frozen=True)
class Plan:
    """What does not depend on how many processes train."""

    config: Config
    tokenizer: TextTokenizer
    mixture: Mixture
    validation: list[ValidationSet]
    identity: str


def plan_of(
    config: Config,
    inputs: Inputs,
    tokenizer: TextTokenizer,
    shape: DecoderConfig,
    sources: dict[str, TokenSource],
    *,
    work: Path,
) -> Plan:
    """The data of every step, what is measured, and the name that checkpoints of this run carry.

    work: where a long schedule is remembered for the next start.
    """
    steps = _steps(config, inputs, shape)
    mixture = Mixture(
        list(sources.values()),
        config.weights,
        steps=steps,
        spare_steps=config.spikes.spare_steps(steps),
        sequences_per_step=config.sequences_per_step,
        sequence_length=config.sequence_length,
        seed=config.seed,
        max_epochs=config.max_epochs,
        weight_unit=config.weight_unit,
        packing=config.packing,
        directory=work,
    )
    return Plan(
        config,
        tokenizer,
        mixture,
        _validation_sets(config, inputs, tokenizer, work),
        _run_identity(config, tokenizer, shape, mixture),
    )


def directory_of(model: str, inputs: Inputs) -> Path:
    """The model directory that training starts from: another stage's, or one outside."""
    given = inputs.get(model, ())
    return given[0] if given else resolve_model(model)


def starting_point(config: Config, inputs: Inputs, out: Workspace) -> tuple[TextTokenizer, DecoderConfig]:
    """The tokenizer and the shape that training starts from; raises InputError where they don't fit."""
    if isinstance(config.model, str):
        directory = directory_of(config.model, inputs)
        vocabulary_size(directory)  # raises where tokenizer, rows and config.json are at odds
        tokenizer, shape = load_tokenizer(directory), read_config(directory)
    else:
        tokenizer = trained_tokenizer(config, inputs, out)
        shape = new_shape(config.model, tokenizer)
    if config.sequence_length > shape.max_positions:
        raise InputError(
            f"sequence_length is {config.sequence_length}; the model was made for {shape.max_positions}",
            hint="shorten sequence_length",
        )
    return tokenizer, shape


def starting_decoder(config: Config, inputs: Inputs, shape: DecoderConfig) -> Decoder:
    """The whole decoder that training starts from, in main memory: loaded or drawn."""
    if isinstance(config.model, str):
        return load_decoder(directory_of(config.model, inputs))
    decoder = Decoder(shape)
    initialise(decoder, config.seed)
    return decoder


def new_shape(source: FromPreset, tokenizer: TextTokenizer) -> DecoderConfig:
    """The shape of a new model, its vocabulary being the tokenizer's."""
    return replace(
        shape_from(source),
        vocabulary_size=tokenizer.size,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
    )


def first_new_row(config: Config, inputs: Inputs) -> int | None:
    """Where the rows of new tokens begin, if the recipe wants them to learn first.

    Raises InputError where the model does not come from a vocabulary stage that says so.
    """
    if not config.new_rows_first:
        return None
    facts = facts_of_model(config, inputs)
    if "new_rows" not in facts:
        raise InputError(
            f"new_rows_first is {config.new_rows_first}, but {config.model} does not say which rows are new",
            hint="train on a vocabulary stage, or leave new_rows_first out",
        )
    return int(facts["new_rows"][0])


def facts_of_model(config: Config, inputs: Inputs) -> dict[str, Any]:
    """The facts of the model that training starts from, where a stage made it."""
    paths = inputs.get(config.model, ()) if isinstance(config.model, str) else ()
    return dict(read_manifest(paths[0]).facts) if paths and is_finished(paths[0]) else {}


def balancing_of(config: Config, shape: DecoderConfig) -> Balancing:
    """How the load of experts is kept even.

    The weight of the loss is the recipe's, or that which the model was published with (Hugging Face's
    `router_aux_loss_coef`, converted to the recipe's convention); none where biases do it.
    """
    weight = config.balance_loss
    if weight is None and shape.moe is not None and not config.balance_bias:
        sparse = sum(shape.is_sparse(layer) for layer in range(shape.layers))
        weight = convert_coefficient(
            shape.moe.balance_coefficient,
            "hugging-face",
            config.balance_convention,
            experts_per_token=shape.moe.experts_per_token,
            layers=max(1, sparse),
        )
    return Balancing(weight or 0.0, config.router_z_loss, config.balance_convention, config.balance_bias)


def check_layout(config: Config, shape: DecoderConfig, device: torch.device) -> None:
    """Raise InputError where the degrees of parallelism don't fit the model, the batch or the machine."""
    processes = config.parallel.product
    alone = place_of() is None
    if alone and device.type == "cuda" and processes > max(1, torch.cuda.device_count()):
        raise InputError(
            f"parallel asks for {processes} processes; this machine has {torch.cuda.device_count()} GPUs",
            hint="lower the degrees: there is one process a GPU; or train on several machines: --sbatch",
        )
    problems = list(layout_problems(config, shape))
    wrong = [problem for problem in problems if problem.severity != "warning"]
    if wrong:
        raise InputError(wrong[0].message, hint=wrong[0].hint)
    if is_float8(config.precision):
        emulates(config.float8_products, device)  # raises where the GPU can't


def trained_tokenizer(config: Config, inputs: Inputs, out: Workspace) -> TextTokenizer:
    """Train the tokenizer, or take the one that an earlier attempt finished."""
    wanted = config.tokenizer
    if wanted is None:
        raise InputError("a new model needs a tokenizer", hint="add `tokenizer: {train: DOCUMENTS, size: N}`")
    directory = out.work / "tokenizer"
    if not directory.exists():
        out.progress(0, 1, "tokenizers", f"training a tokenizer of {wanted.size} entries")
        documents = as_documents(wanted.train, inputs[wanted.train], out.work, log=out.log)
        tokenizer = train_byte_level_bpe(_training_texts(documents), wanted.size)
        with atomic_directory(directory) as partial:
            write_tokenizer(tokenizer, partial)
        out.log.info("trained a tokenizer of %d entries on %s", tokenizer.size, wanted.train)
    return load_tokenizer(directory)


def _training_texts(documents: Path) -> Iterator[str]:
    return (row["text"] for row in iterate_documents(documents, split=TRAIN, columns=["text"]))


def token_sources(
    config: Config, inputs: Inputs, tokenizer: TextTokenizer, out: Workspace
) -> dict[str, TokenSource]:
    """The tokens of every source, made now or by an earlier attempt."""
    sources = {}
    for number, name in enumerate(config.source_names):

        def tell(done: int, total: int, name: str = name) -> None:
            out.progress(done, total, "files", f"tokenising {name}")

        place = out.work / f"tokens-{number}"
        documents = as_documents(name, inputs[name], out.work, log=out.log)
        units = tokenise(documents, tokenizer, place, on_unit=tell, log=out.log)
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


def _validation_sets(
    config: Config, inputs: Inputs, tokenizer: TextTokenizer, work: Path
) -> list[ValidationSet]:
    """The held-out sets; plain files that are not trained on are held out as a whole."""
    splits = {name: TRAIN if name in config.source_names else HELD_OUT for name in config.validation}
    sources = {name: as_documents(name, inputs[name], work, split=split) for name, split in splits.items()}
    sets = [
        validation_set(
            name,
            sample_texts(documents, config.validation_bytes),
            tokenizer,
            config.sequence_length,
            language_of(documents),
        )
        for name, documents in sources.items()
    ]
    return [replace(one, domain=config.domains.get(one.name, one.name)) for one in sets]


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
