"""One training run, from the stage's inputs to a model directory and the figures of its manifest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from tsugiki.artifacts.contract import Inputs, Outcome, Workspace
from tsugiki.artifacts.files import read_json, write_json
from tsugiki.errors import StageError
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import (
    load_weights,
    read_config,
)
from tsugiki.models.tokenizer import load_tokenizer
from tsugiki.training.checkpoint import newest_checkpoint, restore_weights
from tsugiki.training.checkpointing import retention_of
from tsugiki.training.compute import Compute, choose_device, deterministic, peak_memory_bytes
from tsugiki.training.engine import Alone, Engine
from tsugiki.training.export import write_model_files
from tsugiki.training.launch import PROGRESS, RESULT, run_ranks
from tsugiki.training.loop import Counters, Run, run_steps
from tsugiki.training.optimizer import adamw
from tsugiki.training.outside import check_processes, place_of, train_as_first
from tsugiki.training.planning import micro_batch_rows
from tsugiki.training.preparation import (
    Plan,
    balance_weight,
    check_layout,
    directory_of,
    new_shape,
    plan_of,
    starting_model,
    token_sources,
    trained_tokenizer,
)
from tsugiki.training.ranks import JOB
from tsugiki.training.results import check_reading, check_training, outcome_of, save
from tsugiki.training.routers import routers_of
from tsugiki.training.stage import Config

if TYPE_CHECKING:
    from tsugiki.training.parallel.mesh import World


def train(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Run the stage; see `tsugiki.training.stage.run`."""
    check_processes(config.parallel.product)
    device = choose_device(config.device)
    with deterministic(config.threads, device) as threads:
        tokenizer, decoder = starting_model(config, inputs, out)
        check_layout(config, decoder.config, device)
        sources = token_sources(config, inputs, tokenizer, out)
        plan = plan_of(config, inputs, tokenizer, decoder.config, sources)
        check_reading(plan, inputs)
        write_model_files(decoder.config, tokenizer, out.work)
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
        check_training(config, plan.mixture, counters)
        parity = save(plan, decoder, tokenizer, out.root)
        retention_of(config).close(out.work)
    return outcome_of(
        plan,
        inputs,
        counters,
        out.root,
        parity=parity,
        execution={"device": device.type, "threads": threads, "parallel": config.parallel.text},
    )


def _run_alone(plan: Plan, decoder: Decoder, device: torch.device) -> Run:
    config = plan.config
    decoder.to(device).train()
    compute = Compute(
        device,
        bfloat16=config.precision == "bfloat16",
        document_masking=config.document_masking,
        z_loss=config.z_loss,
        routers=routers_of(decoder, balance=balance_weight(config, decoder.config), z=config.router_z_loss),
    )
    optimizer = _optimizer(config, decoder.named_parameters())
    return _run(plan, Alone(decoder, optimizer, compute, micro_batch_rows(config)))


def _run(plan: Plan, engine: Engine) -> Run:
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


def _train_together(plan: Plan, inputs: Inputs, out: Workspace, decoder: Decoder) -> Counters:
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

    place = place_of()
    if place is None:
        run_ranks(out.work, parallel.product, plan.config.threads, show)
    else:
        train_as_first(place, out.work)
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
        directory = directory_of(config.model, inputs)
        tokenizer, shape = load_tokenizer(directory), read_config(directory)
    else:
        tokenizer = trained_tokenizer(config, inputs, out)
        shape = new_shape(config.model, tokenizer)
    plan = plan_of(config, inputs, tokenizer, shape, token_sources(config, inputs, tokenizer, out))
    engine = Together(
        shape,
        world,
        sequence_length=config.sequence_length,
        rows_at_once=micro_batch_rows(config),
        precision=config.precision,
        document_masking=config.document_masking,
        z_loss=config.z_loss,
        balance_loss=balance_weight(config, shape),
        router_z_loss=config.router_z_loss,
        recompute=config.recompute,
    )
    for part in engine.decoders:
        if directory is None:
            initialise(part, config.seed)
        else:
            load_weights(part, directory)
    engine.optimizer = _optimizer(config, engine.parameters.items())
    return _run(plan, engine)
