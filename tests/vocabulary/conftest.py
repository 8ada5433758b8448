"""Small corpora in two languages, and a base model that knows only English."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import save_model
from tsugiki.models.tokenizer import train_byte_level_bpe
from tsugiki.vocabulary import stage

PLACES = ("庭", "山のふもと", "川の近く", "古い寺", "東京の郊外", "図書館の裏", "港町", "果樹園")
PERSONS = ("庭師", "先生", "子供たち", "研究者", "私の祖父", "隣の農家", "旅人", "学生")
THINGS = (
    "接ぎ木の方法",
    "新しい言葉",
    "柿の木",
    "プログラム",
    "コンピュータの歴史",
    "美味しいお茶",
    "手紙",
    "🌸の写真",
)
ACTS = (
    "を学びました。",
    "を丁寧に説明しています。",
    "を毎朝見に行きます。",
    "について本を書いた。",
    "を、静かに待っている。",
)
TIMES = ("春になると、", "昨日の夕方、", "二〇二四年の秋に、", "「いつか」と思いながら、", "雨の日でも、")

PLANTS = ("graft", "tree", "garden", "letter", "program", "river", "library", "history")
PEOPLE = ("gardener", "teacher", "children", "farmer", "traveller", "student", "writer", "engineer")
WAYS = ("slowly", "with care", "every morning", "in the old town", "near the harbour", "for 25 years")


def japanese_texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    parts = (TIMES, PERSONS, PLACES, THINGS, ACTS)

    def sentence() -> str:
        time, person, place, thing, act = (draw.choice(options) for options in parts)
        return f"{time}{person}は{place}で{thing}{act}"

    return ["\n".join("".join(sentence() for _ in range(3)) for _ in range(4)) + "\n" for _ in range(count)]


def english_texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)

    def sentence() -> str:
        return f"The {draw.choice(PEOPLE)} looks at the {draw.choice(PLANTS)} {draw.choice(WAYS)}. "

    return ["\n".join("".join(sentence() for _ in range(3)) for _ in range(4)) + "\n" for _ in range(count)]


def write_corpus(directory: Path, language: str, texts: dict[str, list[str]]) -> Path:
    """texts: split -> texts; hosts take turns."""
    hosts = itertools.cycle([f"one.{language}.example", f"two.{language}.example"])
    rows = [
        {"id": f"{split}-{number}", "host": next(hosts), "text": text, "language": language, "split": split}
        for split, documents in texts.items()
        for number, text in enumerate(documents)
    ]
    table = pa.Table.from_pylist(rows, schema=documents_schema({}))
    write_documents(directory / "documents" / "part-00000.parquet", table)
    return directory


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("corpora")
    japanese = {"train": japanese_texts(1, 60), "heldout": japanese_texts(2, 8)}
    english = {"train": english_texts(1, 60), "heldout": english_texts(2, 8)}
    return {
        "japanese": write_corpus(root / "ja", "ja", japanese),
        "english": write_corpus(root / "en", "en", english),
    }


@pytest.fixture(scope="session")
def base_tokenizer():
    return train_byte_level_bpe(english_texts(1, 60), 360)


@pytest.fixture(scope="session")
def make_base(base_tokenizer, tmp_path_factory):
    """Write a base model; keyword arguments change the shape, `dtype` and `shard_bytes` how it is stored."""

    def make(*, dtype=torch.float32, shard_bytes=10**9, rows=None, **changes) -> Path:
        shape = replace(preset("llama-nano"), vocabulary_size=rows or base_tokenizer.size, **changes)
        decoder = Decoder(shape)
        initialise(decoder, 7)
        directory = tmp_path_factory.mktemp("base")
        save_model(decoder.to(dtype), base_tokenizer, directory, shard_bytes=shard_bytes)
        return directory

    return make


@pytest.fixture(scope="session")
def base(make_base) -> Path:
    return make_base()


@pytest.fixture
def extend(corpora, tmp_path):
    """Run the stage; returns its outcome and its directory."""

    def run(base: Path, root: Path | None = None, *, read=None, **options):
        root = root or tmp_path / "extended"
        settings = {"model": "base", "corpus": "japanese", "add": 200, **options}
        paths = {"base": (base,), **{name: (path,) for name, path in {**corpora, **(read or {})}.items()}}
        out = open_workspace(root)
        try:
            outcome = stage.run(stage.Config(**settings), Inputs(paths), out)
        finally:
            out.metrics.close()
        json.dumps([dict(outcome.counts), dict(outcome.facts)], allow_nan=False)  # fit for a manifest
        return outcome, root

    return run


@pytest.fixture
def make_corpus(tmp_path):
    """A corpus of so many Japanese (and English) documents by split."""

    def make(language: str, japanese: dict[str, int], english: dict[str, int] | None = None) -> Path:
        texts = {split: japanese_texts(3, count) for split, count in japanese.items()}
        texts |= {split: english_texts(3, count) for split, count in (english or {}).items()}
        return write_corpus(tmp_path / "corpus", language, texts)

    return make
