"""From a model directory to a `Backend`: device, precision, threads and window.

Families that our decoder knows are run by it; any other that `transformers` has a causal model for is run by
that (`tsugiki.evaluation.engines.hugging_face`). Code from a model's directory is never run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.errors import DependencyError, InputError
from tsugiki.evaluation.engines.decoder import DecoderBackend
from tsugiki.evaluation.engines.local import LocalBackend, Reading
from tsugiki.models.config import FAMILIES
from tsugiki.models.directory import CONFIG_FILE, GENERATION_FILE, load_decoder, read_config
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer


@dataclass(frozen=True)
class Engine:
    """How models are run; the same for all of them. Lengths in tokens. boundary, start: see `Reading`."""

    context_length: int
    stride: int
    batch_tokens: int
    precision: str = "float32"
    device: str = "cpu"
    boundary: Literal["joined", "context"] = "joined"
    start: bool = True


def load_backend(directory: Path, engine: Engine) -> LocalBackend:
    """Load weights and tokenizer, once.

    Raises InputError where they can't be read, do not fit each other, or where the window is longer than the
    model's positions; DependencyError where a GPU is asked for and there is none.
    """
    positions = maximum_positions(directory)
    if engine.context_length > positions:
        raise InputError(
            f"the window of {engine.context_length} tokens is longer than the {positions} "
            f"positions of the model in {directory}",
            hint=f"set context_length to {positions} or less",
        )
    tokenizer = load_tokenizer(directory)
    device, dtype = _device(engine.device), getattr(torch, engine.precision)
    reading = Reading(engine.boundary, engine.start)
    ends = end_ids(directory, tokenizer)
    if not is_ours(directory):
        from tsugiki.evaluation.engines.hugging_face import TransformersModel

        model = TransformersModel(
            directory, tokenizer, dtype, device, batch_tokens=engine.batch_tokens, ends=ends
        )
        return LocalBackend(
            model,
            tokenizer,
            context_length=engine.context_length,
            stride=engine.stride,
            reading=reading,
        )
    rows = read_config(directory).vocabulary_size
    if tokenizer.size > rows:
        raise InputError(
            f"the tokenizer in {directory} has {tokenizer.size} pieces, the model {rows} rows",
            hint="the directory mixes files of two models; make it again",
        )
    return DecoderBackend(
        load_decoder(directory, dtype=dtype).to(device).eval(),
        tokenizer,
        context_length=engine.context_length,
        stride=engine.stride,
        batch_tokens=engine.batch_tokens,
        reading=reading,
        ends=ends,
    )


def end_ids(directory: Path, tokenizer: TextTokenizer) -> frozenset[int]:
    """The tokens by which a model ends a text: the tokenizer's own, and those that the directory names.

    `eos_token_id` of generation_config.json, else of config.json, is a number or a list of numbers: Llama 3's
    chat models have <|end_of_text|>, <|eom_id|> and <|eot_id|> there, of which its tokenizer names one only.
    Raises InputError where it is anything else.
    """
    found = set() if tokenizer.eos_id is None else {tokenizer.eos_id}
    for name in (GENERATION_FILE, CONFIG_FILE):
        path = directory / name
        content = read_json(path) if path.exists() else {}
        given = content.get("eos_token_id") if isinstance(content, dict) else str(content)
        if given is None:
            continue
        several = given if isinstance(given, list) else [given]
        if not all(type(number) is int for number in several):
            raise InputError(
                f"eos_token_id of {path} is {given!r:.80}; a token's number, or a list of them, is expected",
                hint="mend the file, or fetch it again",
            )
        found.update(map(int, several))
        break
    return frozenset(found)


def is_ours(directory: Path) -> bool:
    """Whether our decoder computes the model: it knows the family, and every setting in config.json.

    Raises InputError where config.json is missing or broken.
    """
    if read_json(directory / CONFIG_FILE).get("model_type") not in FAMILIES:
        return False
    try:
        read_config(directory)
    except InputError:  # a family of ours with a setting that is not
        return False
    return True


_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
"""Names that families have for the longest sequence (GPT-2, MPT, BLOOM and Falcon, CTRL)."""
_ASSUMED_POSITIONS = 2048


def maximum_positions(directory: Path) -> int:
    """The longest sequence that the model's positions allow; 2048 where config.json does not say."""
    if is_ours(directory):
        return read_config(directory).max_positions
    config = read_json(directory / CONFIG_FILE)
    known = [config[name] for name in _POSITIONS if isinstance(config.get(name), int)]
    return known[0] if known else _ASSUMED_POSITIONS


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DependencyError(
            "a CUDA device was asked for, and PyTorch sees none", hint="set device: auto, or mend the driver"
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted != "cuda":
        return torch.device(wanted)
    # Of several processes on a machine each takes a GPU of its own; torchrun numbers them.
    number = os.environ.get("LOCAL_RANK", "0")
    return torch.device("cuda", int(number) % torch.cuda.device_count() if number.isdecimal() else 0)


def trained_context(directory: Path) -> int:
    """Tokens of context that a model was trained on.

    Positions beyond the training sequences were never seen in training, however many config.json allows; so
    what a train stage's manifest says counts first, and config.json where there is none.
    """
    positions = maximum_positions(directory)
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
