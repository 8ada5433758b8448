"""One training run, from the stage's inputs to a model directory and the figures of its manifest."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from tsugiki.artifacts.contract import Inputs, Outcome, Workspace
from tsugiki.artifacts.files import read_json, write_json
from tsugiki.artifacts.outside import place_of
from tsugiki.errors import StageError
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import (
    load_weights,
)
from tsugiki.training.checkpoint_files import Checkpoint, newest_checkpoint
from tsugiki.training.checkpointing import retention_of
from tsugiki.training.compiling import compile_layers
from tsugiki.training.compute import Compute, choose_device, deterministic, peak_memory_bytes
from tsugiki.training.engine import Alone, Engine
from tsugiki.training.export import write_model_files
from tsugiki.training.launch import PROGRESS, RESULT, run_ranks
from tsugiki.training.loop import Counters, Run, run_steps
from tsugiki.training.meter import meter_of
from tsugiki.training.optimizer import adamw
from tsugiki.training.outside import check_processes, train_as_first
from tsugiki.training.packed_attention import attention_of
from tsugiki.training.planning import micro_batch_rows
from tsugiki.training.precision.products import manner, use_float8
from tsugiki.training.precision.recipes import is_float8
from tsugiki.training.preparation import (
    Plan,
    balancing_of,
    check_layout,
    directory_of,
    first_new_row,
    plan_of,
    starting_decoder,
    starting_point,
    token_sources,
)
from tsugiki.training.ranks import JOB
from tsugiki.training.results import (
    check_reading,
    check_training,
    outcome_of,
    save,
    save_checkpointed,
)
from tsugiki.training.routers import Routers, routers_of
from tsugiki.training.samples import Prompts
from tsugiki.training.spikes import DataSteps
from tsugiki.training.stage import Config
from tsugiki.training.telemetry import Routed, read_biases, write_biases

if TYPE_CHECKING:
    from tsugiki.models.config import DecoderConfig
    from tsugiki.training.parallel.mesh import World
    from tsugiki.training.parallel.together import Together


def train(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Run the stage; see `tsugiki.training.stage.run`."""
    check_processes(config.parallel.product)
    device = choose_device(config.device)
    with deterministic(config.threads, device) as threads:
        tokenizer, shape = starting_point(config, inputs, out)
        check_layout(config, shape, device)
        sources = token_sources(config, inputs, tokenizer, out)
        plan = plan_of(config, inputs, tokenizer, shape, sources, work=out.work)
        check_reading(plan, inputs)
        write_model_files(shape, tokenizer, out.work)
        out.log.info(
            "%d steps of %d tokens on %s, %s, %d threads",
            *(plan.mixture.steps, config.batch_tokens, device, config.parallel.text, threads),
        )
        if is_float8(config.precision):
            out.log.info("%s, products %s", config.precision, manner(config.float8_products, device))
        if config.parallel.product > 1:
            counters, trained = _train_together(plan, inputs, out)
            if counters.attention:  # the processes' own words are in files of theirs
                out.log.info("attention over packed documents: %s", counters.attention)
            finish = partial(save_checkpointed, plan, trained, out.root)
        else:
            decoder = starting_decoder(config, inputs, shape)
            counters = run_steps(_run_alone(plan, decoder, device, inputs, out), out)
            finish = partial(save, plan, decoder, tokenizer, out.root)
        out.metrics.append(
            event="finished",
            tokens_per_second=counters.tokens_per_second,
            peak_memory_bytes=peak_memory_bytes(device),
        )
        data = DataSteps.read(config.spikes, out.work, plan.identity)
        check_training(config, plan.mixture, counters, data)
        parity = finish()
        if counters.router_biases:
            write_biases(out.root, counters.routing["layers"], counters.router_biases)
            out.log.warning("the files hold no router biases: see router_bias in the manifest")
        retention_of(config).close(out.work)
    return outcome_of(
        plan,
        inputs,
        counters,
        out.root,
        parity=parity,
        data=data,
        execution={"device": device.type, "threads": threads, "parallel": config.parallel.text},
    )


def _run_alone(plan: Plan, decoder: Decoder, device: torch.device, inputs: Inputs, out: Workspace) -> Run:
    config = plan.config
    decoder.to(device).train()
    compute = Compute(
        device,
        bfloat16=config.precision != "float32",
        document_masking=config.document_masking,
        z_loss=config.z_loss,
        routers=routers_of(decoder, balancing_of(config, decoder.config)),
    )
    optimizer = optimizer_of(config, decoder.named_parameters())
    float8 = use_float8(config, decoder.config, [decoder], device)
    engine = Alone(decoder, optimizer, compute, micro_batch_rows(config), float8)
    found = [] if compute.routers is None else [compute.routers]
    routed = _routed(plan, inputs, decoder.config, found)
    return replace(
        _run(plan, engine, decoder.config, device, inputs),
        routed=routed,
        attention=_set_up_layers(config, [decoder], engine, device, out),
        start_over=partial(_fill_first, config, inputs, [decoder]),
    )


def _run(plan: Plan, engine: Engine, shape: DecoderConfig, device: torch.device, inputs: Inputs) -> Run:
    config = plan.config
    return Run(
        config=config,
        engine=engine,
        mixture=plan.mixture,
        validation=plan.validation,
        piece_bytes=plan.tokenizer.piece_bytes,
        identity=plan.identity,
        meter=meter_of(
            *(shape, config.sequence_length, device),
            processes=config.parallel.product,
            precision=config.precision,
            hardware=config.hardware,
        ),
        first_new_row=first_new_row(config, inputs),
        prompts=Prompts(config.prompts, config.prompt_tokens, plan.tokenizer) if config.prompts else None,
    )


def _routed(
    plan: Plan,
    inputs: Inputs,
    shape: DecoderConfig,
    routers: list[Routers],
    add_up: Callable[[torch.Tensor], Any] | None = None,
) -> Routed | None:
    """The routers with the biases that they start from: those beside the model, if there are any."""
    if not routers:
        return None
    name, first = plan.config.model, None
    if isinstance(name, str) and plan.config.balance_bias:
        first = read_biases(directory_of(name, inputs), shape)
    return Routed(routers, add_up, first)


def optimizer_of(config: Config, parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> torch.optim.AdamW:
    """AdamW as the recipe wants it."""
    return adamw(
        parameters,
        learning_rate=config.learning_rate,
        betas=config.betas,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        decay_embeddings=config.decay_embeddings,
    )


def _train_together(plan: Plan, inputs: Inputs, out: Workspace) -> tuple[Counters, Checkpoint]:
    """Train in several processes; the result is in the last checkpoint, and never whole in this process."""
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
        train_as_first(place, out.work, out.end, out.progress)
    found = newest_checkpoint(out.work, plan.identity, out.log)
    if found is None or found.step != plan.mixture.steps:
        raise StageError(
            f"the last checkpoint is {found and found.step}, not {plan.mixture.steps}",
            hint="run the same command again: it goes on from there",
        )
    return Counters(**read_json(out.work / RESULT)), found


def run_of_rank(config: Config, inputs: Inputs, out: Workspace, world: World) -> Run:
    """What one of several processes works with; its part of the model is loaded or drawn."""
    tokenizer, shape = starting_point(config, inputs, out)
    sources = token_sources(config, inputs, tokenizer, out)
    plan = plan_of(config, inputs, tokenizer, shape, sources, work=out.work)
    engine = engine_of(config, shape, world)
    start = partial(_fill_first, config, inputs, engine.decoders)
    start()
    engine.optimizer = optimizer_of(config, engine.parameters.items())
    routed = _routed(plan, inputs, shape, engine.routers, torch.distributed.all_reduce)
    return replace(
        _run(plan, engine, shape, world.device, inputs),
        routed=routed,
        attention=_set_up_layers(config, engine.decoders, engine, world.device, out),
        start_over=start,
    )


def _set_up_layers(
    config: Config, decoders: Sequence[Decoder], engine: Engine, device: torch.device, out: Workspace
) -> str:
    """Choose how layers attend, and compile them where that is asked for; gives what was chosen, in words."""
    attention = attention_of(config, decoders, engine, device, out.log)
    if config.compile:
        compile_layers(decoders, device)
    return attention


def _fill_first(config: Config, inputs: Inputs, decoders: Iterable[Decoder]) -> None:
    """Put the weights that training starts from into decoders or parts of one, in place: loaded or drawn."""
    for part in decoders:
        if isinstance(config.model, str):
            load_weights(part, directory_of(config.model, inputs))
        else:
            initialise(part, config.seed)


def engine_of(config: Config, shape: DecoderConfig, world: World) -> Together:
    """The engine of one of several processes, without weights and optimizer."""
    from tsugiki.training.parallel.together import Together

    return Together(
        shape,
        world,
        sequence_length=config.sequence_length,
        rows_at_once=micro_batch_rows(config),
        precision=config.precision,
        float8=lambda parts: use_float8(config, shape, parts, world.device),
        document_masking=config.document_masking,
        z_loss=config.z_loss,
        balancing=balancing_of(config, shape),
        recompute=config.recompute,
    )
