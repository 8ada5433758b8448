"""From a model directory to a `Backend`: device, precision, threads and window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.errors import DependencyError, InputError
from tsugiki.evaluation.decoder import DecoderBackend
from tsugiki.models.directory import load_decoder, read_config
from tsugiki.models.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Engine:
    """How models are run; the same for all of them. Lengths in tokens."""

    context_length: int
    stride: int
    batch_tokens: int
    precision: str = "float32"
    device: str = "cpu"


def load_backend(directory: Path, engine: Engine) -> DecoderBackend:
    """Load weights and tokenizer, once.

    Raises InputError where they can't be read, do not fit each other, or where the window is longer than the
    model's positions; DependencyError where a GPU is asked for and there is none.
    """
    config = read_config(directory)
    if engine.context_length > config.max_positions:
        raise InputError(
            f"the window of {engine.context_length} tokens is longer than the {config.max_positions} "
            f"positions of the model in {directory}",
            hint=f"set context_length to {config.max_positions} or less",
        )
    tokenizer = load_tokenizer(directory)
    if tokenizer.size > config.vocabulary_size:
        raise InputError(
            f"the tokenizer in {directory} has {tokenizer.size} pieces, "
            f"the model {config.vocabulary_size} rows",
            hint="the directory mixes files of two models; make it again",
        )
    decoder = load_decoder(directory, dtype=getattr(torch, engine.precision)).to(_device(engine.device))
    return DecoderBackend(
        decoder.eval(),
        tokenizer,
        context_length=engine.context_length,
        stride=engine.stride,
        batch_tokens=engine.batch_tokens,
    )


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DependencyError(
            "a CUDA device was asked for, and PyTorch sees none", hint="set device: auto, or mend the driver"
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def trained_context(directory: Path) -> int:
    """Tokens of context that a model was trained on.

    Positions beyond the training sequences were never seen in training, however many config.json allows; so
    what a train stage's manifest says counts first, and config.json where there is none.
    """
    positions = read_config(directory).max_positions
    if not is_finished(directory):
        return positions
    manifest = read_manifest(directory)
    trained = manifest.facts.get("sequence_length", manifest.config.get("sequence_length"))
    return min(positions, trained) if isinstance(trained, int) else positions


@contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Run with this many CPU threads, and put the number back afterwards; None leaves it as it is."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
