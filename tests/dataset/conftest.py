"""Small real documents and a small real tokenizer."""

import random

import pyarrow as pa
import pytest

from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.dataset.tokenise import tokenise
from tsugiki.dataset.tokens import open_tokens
from tsugiki.models.tokenizer import train_byte_level_bpe

WORDS = ["graft", "a", "language", "onto", "an", "open", "model", "日本語", "の", "文章", "と", "données"]


def random_texts(count, seed=0, longest=60):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, longest))) + "." for _ in range(count)]


def write_documents_of(directory, parts, splits=("train",)):
    """parts: lists of texts, one Parquet part each; splits are given out in turn."""
    schema = documents_schema({})
    for number, texts in enumerate(parts):
        rows = [
            dict.fromkeys(schema.names)
            | {"id": f"{number}-{index}", "text": text, "split": splits[index % len(splits)]}
            for index, text in enumerate(texts)
        ]
        table = pa.Table.from_pylist(rows, schema=schema)
        write_documents(directory / "documents" / f"part-{number:05d}.parquet", table)
    return directory


@pytest.fixture(scope="session")
def make_texts():
    return random_texts


@pytest.fixture(scope="session")
def write_parts():
    return write_documents_of


@pytest.fixture(scope="session")
def tokenizer():
    return train_byte_level_bpe(random_texts(50), 300)


@pytest.fixture(scope="session")
def make_source(tmp_path_factory, tokenizer):
    """A token source made by the real tokeniser from `count` random texts in each of `parts` parts."""

    def make(count=40, name="source", seed=0, longest=60, parts=1):
        texts = [random_texts(count, seed + 100 * part, longest) for part in range(parts)]
        directory = write_documents_of(tmp_path_factory.mktemp("source"), texts)
        return open_tokens(name, tokenise(directory, tokenizer, directory / "units"), tokenizer)

    return make
