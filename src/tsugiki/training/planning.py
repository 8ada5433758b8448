"""What a training run will take, from shapes and sizes alone: no torch, no files, no work.

Formulas and their sources: `planner`, through `layouts.py`, for bytes and for the speed of several processes;
for that of one, `DecoderConfig.training_flops_per_token` for operations and `devices.py` for speeds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tsugiki.artifacts.contract import ArtifactType, Forecast, Forecasts
from tsugiki.artifacts.outside import place_of
from tsugiki.artifacts.processes import usable_cores
from tsugiki.dataset.settings import asked_shares, epoch_limit
from tsugiki.errors import Problem, did_you_mean
from tsugiki.models.config import DecoderConfig, preset, spike_no_more
from tsugiki.training.devices import DEFAULT_ACCELERATOR, DEVICES, GIB, Device
from tsugiki.training.fitting import fit_problems
from tsugiki.training.layouts import busiest_bytes, planned_step_seconds
from tsugiki.training.memory import checkpoint_bytes, held_on_cpu
from tsugiki.training.precision.recipes import float8_problems, is_float8, speed_against_bfloat16
from tsugiki.training.trackers import missing

if TYPE_CHECKING:
    from tsugiki.training.settings import FromPreset
    from tsugiki.training.stage import Config

DEFAULT_MICRO_BATCH_TOKENS = 8192

BYTES_PER_TOKEN = 3.0
"""UTF-8 bytes that a token stands for where nothing better is known: between English (about 4 with a large
vocabulary) and small or foreign vocabularies (2-3)."""


def steps_for(tokens: int, batch_tokens: int) -> int:
    """Whole batches in `tokens`: never more tokens than were asked for."""
    return tokens // batch_tokens


def tokens_for(flops: float, shape: DecoderConfig, sequence_length: int) -> int:
    """Tokens that a model of this shape can be trained on with `flops` operations, rounded down.

    flops is a float64 product: from 2^53 on, dividing it may fall an ulp short of the whole number that it
    was made from, and rounding down would then lose a batch. What is within rounding of it is that number.
    """
    tokens = flops / shape.training_flops_per_token(sequence_length)
    return round(tokens) if math.isclose(tokens, round(tokens), rel_tol=1e-14) else int(tokens)


def warmup_steps(warmup: float, steps: int) -> int:
    """Steps of warm-up: a whole number is steps, a fraction below 1 is a share of all steps (rounded)."""
    if isinstance(warmup, int) or warmup >= 1:
        return int(warmup)
    return round(warmup * steps)


FEW_STEPS = 40
"""Fewer optimizer steps than this are remarked upon: a warm-up and a decay hardly fit in. By judgement."""

PROCESSES_OF_A_MACHINE = 16
"""The most processes that a stage starts itself; machines have 8 accelerators, or 16 at most."""


def micro_batch_rows(config: Config) -> int:
    """Rows that go through one copy of the model at once.

    The most that divide that copy's share of the batch and keep to the limit in tokens. The default limit
    does not look at the machine: how a batch is split decides how its sums round.
    """
    limit = config.micro_batch_tokens or max(config.sequence_length, DEFAULT_MICRO_BATCH_TOKENS)
    rows = max(1, config.sequences_per_step // config.parallel.data)
    filling = max(1, rows // config.parallel.pipeline)  # a pipeline wants a micro-batch a stage at least
    largest = min(filling, limit // config.sequence_length)
    return next(size for size in range(largest, 0, -1) if rows % size == 0)


def forecast(config: Config, inputs: Forecasts) -> Forecast:
    """See `tsugiki.training.stage.estimate`."""
    shape = shape_of(config, inputs)
    tokens, problems = _tokens(config, inputs, shape)
    name, device, device_problems = _device(config)
    problems += [*device_problems, *_data_problems(config, inputs, tokens)]
    problems += [*_unmeasurable(config, inputs), *_tracker_problems(config), *_rewind_problems(config)]
    facts: dict[str, Any] = {
        "tokenizer": tokenizer_name(config, _model_facts(config, inputs)),
        "device": "cpu" if name == "cpu" else "cuda",
        "precision": config.precision,
    }
    if shape is None:
        message = f'the shape of model "{config.model}" is not known yet: memory and time are not estimated'
        problems.append(Problem(message, "name a model that is at hand", "model", "warning"))
        return Forecast(ArtifactType.MODEL, {"tokens": tokens or 0}, facts, problems=tuple(problems))
    problems += [*_shape_problems(config, shape), *layout_problems(config, shape)]
    rows = micro_batch_rows(config)
    memory_bytes = busiest_bytes(shape, config, rows)
    if name == "cpu" and memory_bytes is not None:
        memory_bytes = held_on_cpu(memory_bytes)
    problems += _memory_problems(config, name, device, memory_bytes)
    facts["model_config"] = shape.to_hf()
    counts: dict[str, float] = {
        "parameters": shape.parameters,
        "vocabulary_size": shape.vocabulary_size,
    }
    seconds = None
    if tokens is not None:
        flops = shape.training_flops_per_token(config.sequence_length) * tokens
        counts |= {"tokens": tokens, "steps": tokens // config.batch_tokens, "training_flops": flops}
        seconds = flops / _flops_per_second(config, shape, name, device)
        step = planned_step_seconds(shape, config, rows, name)
        if step is not None:
            seconds = tokens // config.batch_tokens * step / speed_against_bfloat16(config, shape, name)
        if name != "cpu":
            facts["device_hours"] = seconds * config.parallel.product / 3600
    return Forecast(
        ArtifactType.MODEL,
        counts,
        facts,
        seconds=seconds,
        memory_bytes=memory_bytes,
        disk_bytes=_disk_bytes(config, inputs, shape),
        problems=tuple(problems),
    )


def tokenizer_name(config: Config, model_facts: Mapping[str, Any]) -> str:
    """Which tokenizer the model will have: that of the model it starts from, or a new one.

    model_facts: the facts of that model, as far as known.
    """
    if config.tokenizer is not None:
        return f"byte-level BPE of {config.tokenizer.size} entries from {config.tokenizer.train}"
    return str(model_facts.get("tokenizer", config.model))


def shape_from(source: FromPreset) -> DecoderConfig:
    """The shape of a new model, but for its vocabulary.

    Raises InputError for a preset that does not exist or a shape that does not hold together.
    """
    shape = replace(preset(source.preset), **source.overrides())
    return spike_no_more(shape) if source.spike_no_more else shape


def shape_of(config: Config, inputs: Forecasts) -> DecoderConfig | None:
    """The shape that will be trained, or None where it is not known yet.

    Raises InputError for a preset that does not exist or a shape that does not hold together.
    """
    if isinstance(config.model, str):
        data = _model_facts(config, inputs).get("model_config")
        return DecoderConfig.from_hf(data) if isinstance(data, Mapping) else None
    size = config.tokenizer.size if config.tokenizer is not None else None
    shape = shape_from(config.model)
    return shape if size is None else replace(shape, vocabulary_size=size)


def _model_facts(config: Config, inputs: Forecasts) -> Mapping[str, Any]:
    known = inputs.get(config.model) if isinstance(config.model, str) else None
    return {} if known is None else known.facts


def layout_problems(config: Config, shape: DecoderConfig) -> Iterator[Problem]:
    """Every way in which the layout does not fit the model, the batch or the machine."""
    parallel = config.parallel
    if parallel.product > PROCESSES_OF_A_MACHINE and place_of() is None:
        yield Problem(
            f"parallel asks for {parallel.product} processes; one machine starts {PROCESSES_OF_A_MACHINE} "
            "at most",
            "`tsugiki train RECIPE --stage NAME --sbatch` prints a Slurm script that starts them on several",
            "parallel",
            "here",
        )
    yield from fit_problems(config, shape, micro_batch_rows(config))
    yield from float8_problems(config, shape, micro_batch_rows(config))


def _tokens(
    config: Config, inputs: Forecasts, shape: DecoderConfig | None
) -> tuple[int | None, list[Problem]]:
    """Tokens that will be trained on (whole batches), or None where that is not known yet."""
    tokens = config.asked_tokens
    if config.equal_compute is not None:
        flops = inputs[config.equal_compute].counts.get("training_flops")
        if flops is None:
            message = f'equal_compute: it is not known what "{config.equal_compute}" computes'
            return None, [Problem(message, "name a train stage", "equal_compute")]
        if shape is None:
            return None, []
        tokens = tokens_for(flops, shape, config.sequence_length)
    steps = steps_for(tokens or 0, config.batch_tokens)
    if steps < 1:
        message = f"{tokens or 0:,} tokens are fewer than one batch of {config.batch_tokens:,}"
        return 0, [Problem(message, "lower batch_tokens or ask for more tokens", "tokens")]
    return steps * config.batch_tokens, [*_warmup_problems(config, steps), *_few_steps(config, steps)]


def _warmup_problems(config: Config, steps: int) -> Iterator[Problem]:
    warmup = warmup_steps(config.warmup, steps)
    if warmup >= steps:
        reached = config.learning_rate * min(1.0, steps / warmup)
        yield Problem(
            f"the warm-up takes {warmup:,} steps and the whole run {steps:,}: the learning rate ends at "
            f"{reached:.3g} and never falls",
            "shorten the warm-up, or give a share below 1",
            "warmup",
            "warning",
        )


def _few_steps(config: Config, steps: int) -> Iterator[Problem]:
    if steps < FEW_STEPS:
        yield Problem(
            f"{steps} steps of {config.batch_tokens:,} tokens are few for a model to learn in",
            "lower batch_tokens, or ask for more tokens",
            "batch_tokens",
            "warning",
        )


def _shape_problems(config: Config, shape: DecoderConfig) -> Iterator[Problem]:
    if config.sequence_length > shape.max_positions:
        yield Problem(
            f"sequence_length is {config.sequence_length}; the model was made for {shape.max_positions}",
            "shorten sequence_length",
            "sequence_length",
        )


GUESS_FACTOR = 10
"""How far a corpus may exceed the forecast made from its files' sizes; more is surely too much to ask."""


def _data_problems(config: Config, inputs: Forecasts, tokens: int | None) -> Iterator[Problem]:
    """Sources that surely (error) or probably (warning) hold too few tokens for `max_epochs` passes."""
    for name, share in asked_shares(config.weights).items():
        size = _text_size(inputs, name)
        if tokens is None or size is None:
            continue
        documents, text_bytes = size
        limit = epoch_limit(config.max_epochs, name)
        asked = tokens * share
        # A token of text has at least a byte; each document brings two tokens of its own.
        at_most = (text_bytes + 2 * documents) * limit
        likely = (text_bytes / BYTES_PER_TOKEN + 2 * documents) * limit
        guessed = bool(inputs[name].facts.get("estimated"))
        if asked > likely:
            surely = asked > at_most * (GUESS_FACTOR if guessed else 1)
            yield Problem(
                f'"{name}" {"is" if surely else "may be"} too small: {asked:,.0f} tokens are asked of '
                f"{'about ' if guessed else ''}{text_bytes:,.0f} bytes of text in at most "
                f"{limit:g} epochs",
                "ask for fewer tokens, lower the weight, add text, or raise max_epochs",
                f"data.{name}",
                "error" if surely else "warning",
            )


def _unmeasurable(config: Config, inputs: Forecasts) -> Iterator[Problem]:
    for name in config.validation:
        if name in inputs and inputs[name].counts.get("heldout_documents") == 0:
            yield Problem(
                f'"{name}" holds no held-out documents to measure on',
                "raise its held-out share (corpus stage, `heldout`), or take it out of `validation`",
                "validation",
            )


def _tracker_problems(config: Config) -> Iterator[Problem]:
    for name in missing(config.trackers):
        yield Problem(
            f"{name} is not installed here: the run would go on without it",
            f"pip install 'tsugiki[{name}]', or take it out of `trackers`",
            "trackers",
            "warning",
        )


def _text_size(inputs: Forecasts, name: str) -> tuple[float, float] | None:
    """Documents and UTF-8 bytes of a source's training split, or of all of it where the split is not known.

    None for files from outside: those only tell their size on the disk, compressed.
    """
    counts = inputs[name].counts if name in inputs else {}
    for prefix in ("train_", ""):
        if {f"{prefix}documents", f"{prefix}bytes"} <= counts.keys():
            return counts[f"{prefix}documents"], counts[f"{prefix}bytes"]
    return None


def _outside_bytes(inputs: Forecasts, names: Collection[str]) -> float:
    """The size of those sources that are plain files."""
    known = (inputs[name].counts for name in names if name in inputs)
    return sum(counts["bytes"] for counts in known if "files" in counts and "documents" not in counts)


def _device(config: Config) -> tuple[str, Device, list[Problem]]:
    accelerated = config.device == "cuda" or config.parallel.product > 1
    name = config.hardware or (DEFAULT_ACCELERATOR if accelerated else "cpu")
    if name not in DEVICES:
        message = f'hardware "{name}" is not known'
        return "cpu", DEVICES["cpu"], [Problem(message, did_you_mean(name, tuple(DEVICES)), "hardware")]
    return name, DEVICES[name], list(_float8_device_problems(config, name))


def _rewind_problems(config: Config) -> Iterator[Problem]:
    if config.spikes.action == "rewind" and config.keep_checkpoints == 1:
        yield Problem(
            "keep_checkpoints: 1 leaves no way back where that one was made after a spike's harm",
            "keep two at least, or say spikes: {action: stop}",
            "keep_checkpoints",
            "warning",
        )


def _float8_device_problems(config: Config, name: str) -> Iterator[Problem]:
    if not is_float8(config.precision):
        return
    if DEVICES[name].float8:
        if not config.compile:
            yield Problem(
                "the forecast takes what torchao's authors gained with float8 and torch.compile; without it "
                "rounding to float8 costs more",
                "set compile: true",
                "precision",
                "warning",
            )
    elif config.float8_products != "emulated":
        emulated = name == "cpu"
        able = ", ".join(name for name, device in DEVICES.items() if device.float8)
        yield Problem(
            f"{config.precision} on a {'CPU is emulated, and slower than bfloat16' if emulated else name}"
            + ("" if emulated else ": it has no float8 products"),
            f"use precision: bfloat16; float8 is for {able}",
            "precision",
            "warning" if emulated else "error",
        )


def _memory_problems(
    config: Config, name: str, device: Device, memory_bytes: float | None
) -> Iterator[Problem]:
    if memory_bytes is not None and device.memory_bytes is not None and memory_bytes > device.memory_bytes:
        yield Problem(
            f"the busiest device needs about {memory_bytes / GIB:.1f} GiB; "
            f"one {name} has {device.memory_bytes / GIB:.0f} GiB",
            "raise parallel.tensor or parallel.pipeline, or lower micro_batch_tokens",
            "parallel",
            "error" if config.hardware else "warning",
        )


def _flops_per_second(config: Config, shape: DecoderConfig, name: str, device: Device) -> float:
    peak = device.float32_flops if config.precision == "float32" else device.bfloat16_flops
    peak *= speed_against_bfloat16(config, shape, name)
    count = (config.threads or usable_cores()) if name == "cpu" else config.parallel.product
    return peak * device.utilisation * count


def _disk_bytes(config: Config, inputs: Forecasts, shape: DecoderConfig) -> float:
    """The peak: the kept checkpoints and one being written, the token units, and the model itself.

    Plain files are copied into documents' files, and are taken to be compressed to a third, as those are.
    """
    # As dataset.tokenise.token_dtype has it.
    item_bytes = 2 if shape.vocabulary_size <= 2**16 else 4
    sizes = (_text_size(inputs, name) for name in config.source_names)
    text_bytes = sum(size[1] for size in sizes if size is not None)
    copied_bytes = _outside_bytes(inputs, {*config.source_names, *config.validation})
    text_bytes += 3 * _outside_bytes(inputs, config.source_names)
    checkpoints = config.keep_checkpoints + 1
    if config.keep_every_steps is not None and config.asked_tokens is not None:
        checkpoints += steps_for(config.asked_tokens, config.batch_tokens) // config.keep_every_steps
    return (
        checkpoints * checkpoint_bytes(shape)
        + 4.0 * shape.parameters
        + text_bytes / BYTES_PER_TOKEN * item_bytes
        + copied_bytes
    )
