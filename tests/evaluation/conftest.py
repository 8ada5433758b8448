"""Two nano models that share a tokenizer, a third with another one, and held-out pages in two languages."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tsugiki.artifacts.contract import Inputs
from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import save_model
from tsugiki.models.tokenizer import train_byte_level_bpe

ENGLISH_WORDS = tuple(
    "the a model of page data file reader writes holds opens new old first small large and".split()  # noqa: SIM905
)
JAPANESE_WORDS = tuple(
    "私 言語 モデル 日本 学習 する です 文書 を が は 評価 語彙 追加 設定 画面".split()  # noqa: SIM905
)


def english_page(generator: random.Random, sentences: int = 12) -> str:
    made = []
    for _ in range(sentences):
        words = [generator.choice(ENGLISH_WORDS) for _ in range(generator.randint(8, 16))]
        made.append(" ".join(words).capitalize() + ".")
    return " ".join(made[: sentences // 2]) + "\n\n" + " ".join(made[sentences // 2 :])


def japanese_page(generator: random.Random, sentences: int = 12) -> str:
    made = [
        "".join(generator.choice(JAPANESE_WORDS) for _ in range(generator.randint(8, 16))) + "。"
        for _ in range(sentences)
    ]
    return "".join(made)


def document(number: int, text: str, language: str, **changes) -> dict:
    row = dict.fromkeys(documents_schema({}).names)
    return row | {
        "id": f"{language}-{number:03d}",
        "host": f"host{number % 3}.example",
        "text": text,
        "language": language,
        "rejected_by": [],
        "cluster": f"{language}-{number // 2 * 2 if number < 4 else number:03d}",
        "split": "heldout",
        **changes,
    }


def write_pages(directory: Path, rows: list[dict]) -> Path:
    table = pa.Table.from_pylist(rows, schema=documents_schema({}))
    write_documents(directory / "documents" / "part-00000.parquet", table)
    return directory


@pytest.fixture(scope="session")
def make_documents():
    """A function of (directory, texts, language, **changes): a documents artifact, one page a text."""

    def make(directory: Path, texts: list[str], language: str, **changes) -> Path:
        return write_pages(
            directory, [document(n, text, language, **changes) for n, text in enumerate(texts)]
        )

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def texts() -> dict[str, list[str]]:
    generator = random.Random(0)
    return {
        "english": [english_page(generator) for _ in range(12)],
        "japanese": [japanese_page(generator) for _ in range(12)],
    }


@pytest.fixture(scope="session")
def world(tmp_path_factory, texts) -> Inputs:
    """Directories by reference: models base, adapted, other; documents english, japanese."""
    root = tmp_path_factory.mktemp("world")
    paths = {}
    for dataset, language in (("english", "en"), ("japanese", "ja")):
        rows = [document(number, text, language) for number, text in enumerate(texts[dataset])]
        rows.append(document(99, "This page is trained on.", language, split="train"))
        paths[dataset] = (write_pages(root / dataset, rows),)
    shared = train_byte_level_bpe(texts["english"], 300)
    other = train_byte_level_bpe([*texts["english"], *texts["japanese"]], 360)
    for number, (name, tokenizer) in enumerate([("base", shared), ("adapted", shared), ("other", other)]):
        shape = replace(preset("llama-nano"), vocabulary_size=384, max_positions=128, initializer_std=0.15)
        decoder = Decoder(shape)
        initialise(decoder, number)
        (root / name).mkdir()
        save_model(decoder, tokenizer, root / name)
        paths[name] = (root / name,)
    return Inputs(paths)
