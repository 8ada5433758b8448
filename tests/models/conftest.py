"""A tiny model directory, made once for all tests of the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import save_model
from tsugiki.models.tokenizer import TextTokenizer, train_byte_level_bpe

TEXTS = (
    "A graft joins a shoot of one plant to the root of another, so that the two grow on as one.\n",
    "The gardener cuts both on a slant, binds them together with bast, and seals the wound with wax.\n",
    "接ぎ木は、ある植物の枝を別の植物の根に接いで、ひとつの木として育てる方法です。\n",
    "Numbers such as 1, 22, 333 and 4444 are cut into groups; tabs\tand  double  spaces stay as they are.\n",
)


@pytest.fixture(autouse=True)
def _one_thread():
    """Bitwise comparisons should not depend on how work is split over threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    return train_byte_level_bpe(TEXTS, 320)


@pytest.fixture(scope="session")
def nano(tokenizer) -> Decoder:
    """An untied decoder with the tokenizer's size."""
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=tokenizer.size))
    initialise(decoder, 1)
    return decoder


@pytest.fixture
def model_directory(nano, tokenizer, tmp_path) -> Path:
    save_model(nano, tokenizer, tmp_path / "model")
    return tmp_path / "model"
