"""Small dense models, and what reads back what was made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import save_model
from tsugiki.models.tokenizer import train_byte_level_bpe
from tsugiki.models.weights import read_tensors, weight_files
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.convert import convert

TEXTS = ["A graft joins a shoot of one plant to the root of another, so that the two grow on as one.\n"]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_dense(tmp_path_factory):
    """Write a dense model; keyword arguments change the shape. Its directory."""
    tokenizer = train_byte_level_bpe(TEXTS, 272)

    def make(preset_name="llama-nano", *, dtype=torch.bfloat16, seed=7, shard_bytes=10**9, **changes) -> Path:
        shape = replace(preset(preset_name), vocabulary_size=tokenizer.size, **changes)
        decoder = Decoder(shape)
        initialise(decoder, seed)
        directory = tmp_path_factory.mktemp("dense") / "model"
        save_model(decoder.to(dtype), tokenizer, directory, shard_bytes=shard_bytes)
        return directory

    return make


@pytest.fixture(scope="session")
def dense(make_dense) -> Path:
    """Llama in bfloat16, in several files."""
    return make_dense(shard_bytes=100_000)


@pytest.fixture(scope="session")
def qwen(make_dense) -> Path:
    return make_dense("qwen3-nano", dtype=torch.float32, intermediate_size=192)


@pytest.fixture(scope="session")
def upcycle_into():
    """Convert models to a directory. Options are those of Config, and `shard_bytes`."""

    def run(out: Path, *models: Path, shard_bytes=10**9, **options) -> Path:
        others = tuple(f"model-{number}" for number in range(1, len(models)))
        config = Config(model="dense", models=others, **options)
        convert(models, out, config, shard_bytes=shard_bytes)
        return out

    return run


@pytest.fixture
def upcycle(tmp_path, upcycle_into):
    """As `upcycle_into`, to a new directory if none is named; gives the directory."""
    made = iter(range(1000))

    def run(*models: Path, out: Path | None = None, **options) -> Path:
        return upcycle_into(out or tmp_path / f"sparse-{next(made)}", *models, **options)

    return run


@pytest.fixture(scope="session")
def tensors():
    """All tensors of a model directory, by name."""

    def read(directory: Path) -> dict[str, torch.Tensor]:
        return {name: tensor for file in weight_files(directory) for name, tensor in read_tensors(file)}

    return read
