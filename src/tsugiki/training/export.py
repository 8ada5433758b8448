"""From a checkpoint of a run, still going on or stopped, to a Hugging Face model directory.

A checkpoint holds config.json and the tokenizer beside the weights, so nothing else of the run is needed. One
tensor at a time is put together from the pieces of the processes that wrote it, in any layout; no more than a
file of the result is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from tsugiki.artifacts.files import atomic_directory, write_json
from tsugiki.errors import InputError
from tsugiki.models.config import DecoderConfig
from tsugiki.models.directory import (
    CONFIG_FILE,
    Parity,
    check_parity,
    read_config,
    write_model_directory,
    write_tokenizer,
)
from tsugiki.models.names import export_config, export_tensors
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer
from tsugiki.models.weights import SHARD_BYTES, read_headers, read_tensors
from tsugiki.training.checkpoint import Reader
from tsugiki.training.checkpoint_files import (
    KEPT,
    MODEL,
    STATE,
    Checkpoint,
    checkpoint_directories,
    read_checkpoint,
    step_of,
)
from tsugiki.training.telemetry import write_biases

PARITY_TOLERANCE = 1e-4
"""Largest difference between our logits and those of transformers, both in float32."""
PARITY_SHAPE = (2, 64)
"""Rows and tokens that the parity is measured on."""


def write_model_files(shape: DecoderConfig, tokenizer: TextTokenizer, work: Path) -> None:
    """Leave in `work/model` what every checkpoint takes along: the decoder's shape and the tokenizer."""
    target = work / MODEL
    if target.exists():
        return
    with atomic_directory(target) as partial:
        write_tokenizer(tokenizer, partial)
        write_json(partial / CONFIG_FILE, shape.to_hf())


def find_checkpoint(target: Path, step: int | None = None) -> Path:
    """The directory of a checkpoint: `target` itself, or the newest one (or that of `step`) of a stage.

    Raises InputError where there is none, with the steps that there are.
    """
    if (target / STATE).exists():
        if step not in {None, step_of(target)}:
            raise InputError(
                f"{target} is the checkpoint of step {step_of(target)}, not of {step}",
                hint="name the stage's directory, or leave --step out",
            )
        return target
    found = checkpoints_of(target)
    chosen = found if step is None else [path for path in found if step_of(path) == step]
    if not chosen:
        known = ", ".join(str(step_of(path)) for path in reversed(found)) or "none"
        raise InputError(
            f"{target} has no checkpoint" + ("" if step is None else f" of step {step}"),
            hint=f"checkpoints that there are: {known}; a stage that is done keeps those of keep_every_steps",
        )
    return chosen[0]


def checkpoints_of(target: Path) -> list[Path]:
    """Checkpoints of a stage's directory (or of its `work`, or of its `checkpoints`), newest first."""
    root = target.parent if target.name in {"work", KEPT} else target
    return checkpoint_directories(root / "work")


def export_checkpoint(
    directory: Path,
    out: Path,
    *,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
    check: bool = True,
) -> Parity | None:
    """Write the model of a checkpoint into the new directory `out`, and prove it against transformers.

    Every byte that is read is compared with its SHA-256 first. `out` appears when it is whole. check: hold
    the logits of both in float32 on drawn tokens against each other (the model is in memory then). Biases of
    routers, which the model's files have no place for, are written beside them (`telemetry.BIAS_FILE`).
    Raises InputError for a broken checkpoint or an `out` that exists, StageError where the logits differ.
    """
    if out.exists():
        raise InputError(f"{out} exists already", hint="choose a new directory, or delete it first")
    parity = None
    with atomic_directory(out) as partial:
        with _told_if_deleted(directory):
            checkpoint = read_checkpoint(directory)
            shape, tokenizer = model_of(checkpoint)
            write_model(checkpoint, shape, tokenizer, partial, dtype=dtype, shard_bytes=shard_bytes)
        if checkpoint.counters.get("router_biases"):
            sparse = [layer for layer in range(shape.layers) if shape.is_sparse(layer)]
            write_biases(partial, sparse, checkpoint.counters["router_biases"])
        if check:
            parity = check_parity(partial, _drawn_ids(tokenizer), PARITY_TOLERANCE)
    return parity


def write_model(
    checkpoint: Checkpoint,
    shape: DecoderConfig,
    tokenizer: TextTokenizer,
    directory: Path,
    *,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the files of a model directory, as `models.directory.save_model` does, out of a checkpoint."""
    with Reader(checkpoint) as reader:
        write_model_directory(
            *(export_config(shape), _tensors(reader, shape, dtype), tokenizer, directory),
            dtype=dtype,
            shard_bytes=shard_bytes,
        )


def differing_from(checkpoint: Checkpoint, shape: DecoderConfig, directory: Path) -> list[str]:
    """Names of the tensors that are not, to the bit, in `directory` what the checkpoint holds, sorted.

    One tensor at a time is read of both.
    """
    entries = read_headers(directory)
    different = set(entries)
    with Reader(checkpoint) as reader:
        for name, tensor in _tensors(reader, shape, torch.float32):
            stored = dict(read_tensors(entries[name].file, [name])) if name in entries else {}
            if name in stored and torch.equal(stored[name], tensor):
                different.discard(name)
            else:
                different.add(name)
    return sorted(different)


def model_of(checkpoint: Checkpoint) -> tuple[DecoderConfig, TextTokenizer]:
    """The decoder's shape and the tokenizer; raises InputError where a checkpoint does not hold them."""
    if CONFIG_FILE not in (checkpoint.files or {}):
        raise InputError(
            f"{checkpoint.directory} holds no {CONFIG_FILE}: an older version wrote it",
            hint="go on training for a checkpoint's length: the next one can be exported",
        )
    shape = read_config(checkpoint.directory)
    tokenizer = load_tokenizer(checkpoint.directory)
    return replace(shape, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id), tokenizer


@contextmanager
def _told_if_deleted(directory: Path) -> Iterator[None]:
    """Say so where a run that goes on deletes a checkpoint while it is read."""
    try:
        yield
    except (OSError, SafetensorError, InputError) as error:
        if directory.exists():
            raise
        raise InputError(
            f"{directory} was deleted while it was read: the run goes on and keeps only its newest",
            hint="export again, or let the run keep more (keep_checkpoints, keep_every_steps)",
        ) from error


def _tensors(reader: Reader, shape: DecoderConfig, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """What the files hold, one of the decoder's tensors after the other, in their order."""
    from tsugiki.models.decoder import Decoder

    with torch.device("meta"):
        expected = {name: parameter.shape for name, parameter in Decoder(shape).named_parameters()}
    for name, size in expected.items():
        whole = torch.empty(size)
        reader.read(f"model.{name}", whole)
        yield from export_tensors(shape, {name: whole.to(dtype)}).items()


def _drawn_ids(tokenizer: TextTokenizer) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, tokenizer.size, PARITY_SHAPE, generator=generator)
