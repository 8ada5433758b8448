from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.artifacts.files import read_json, sha256_of
from tsugiki.models.directory import EMBEDDING, HEAD, check_parity, load_decoder, vocabulary_size
from tsugiki.models.weights import read_headers, read_tensors
from tsugiki.vocabulary.extend import extend_tokenizer
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.rows import random_rows, row_facts, subtoken_mean, write_extended_model
from tsugiki.vocabulary.words import segment_words


@pytest.fixture(scope="module")
def extension(base_tokenizer, corpora):
    texts = [row["text"] for row in iterate_documents(corpora["japanese"], split="train")]
    return extend_tokenizer(
        base_tokenizer, segment_words(base_tokenizer, texts), Limits(40, 2, 16, ascii=False)
    )


def tensors(directory):
    return {
        name: tensor
        for file in sorted({entry.file for entry in read_headers(directory).values()})
        for name, tensor in read_tensors(file)
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_subtoken_mean_is_the_mean_of_the_rows(components):
    rows_VD = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([rows_VD[numbers].mean(dim=0) for numbers in components])
    torch.testing.assert_close(subtoken_mean(rows_VD, components), expected)


def test_subtoken_mean_of_bfloat16_rows_is_computed_in_float32():
    rows_VD = torch.tensor([[1.0], [2.0**-9]]).bfloat16()
    mean = subtoken_mean(rows_VD, [(0, 1)])
    assert mean.dtype == torch.float32
    assert mean.item() == (1 + 2.0**-9) / 2


def test_random_rows_are_decided_by_seed_and_name():
    rows_VD = torch.zeros(4, 64)
    one = random_rows(rows_VD, 500, 0.02, 3, EMBEDDING)
    assert torch.equal(one, random_rows(rows_VD, 500, 0.02, 3, EMBEDDING))
    assert not torch.equal(one, random_rows(rows_VD, 500, 0.02, 3, HEAD))
    assert one.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tied_embeddings": True},
        {"dtype": torch.bfloat16},
        {"shard_bytes": 60_000},
        {"shard_bytes": 60_000, "tied_embeddings": True, "dtype": torch.bfloat16},
        {"rows": 368},
    ],
    ids=["untied", "tied", "bfloat16", "sharded", "sharded-tied-bfloat16", "padded"],
)
def test_extended_model_keeps_every_old_bit_and_loads_in_transformers(
    options, make_base, extension, tmp_path
):
    base = make_base(**options)
    write_extended_model(base, extension, tmp_path, "subtoken-mean", seed=0)
    old, new = tensors(base), tensors(tmp_path)
    assert old.keys() == new.keys()
    for name, tensor in new.items():
        assert tensor.dtype == old[name].dtype
        if name in (EMBEDDING, HEAD):
            old_rows = old[name][: extension.base_size]
            assert tensor.shape == (extension.tokenizer.size, old_rows.shape[1])
            assert torch.equal(tensor[: extension.base_size], old_rows)
            expected = subtoken_mean(old_rows, extension.components).to(tensor.dtype)
            assert torch.equal(tensor[extension.base_size :], expected)
        else:
            assert torch.equal(tensor, old[name])
    assert vocabulary_size(tmp_path) == extension.tokenizer.size
    assert {**read_json(base / "config.json"), "vocab_size": 400} == read_json(tmp_path / "config.json")
    check_parity(tmp_path, torch.arange(360, 400)[None])
    assert load_decoder(tmp_path).config.vocabulary_size == 400


def test_writing_twice_gives_the_same_bytes_and_keeps_no_file_of_another_base(make_base, extension, tmp_path):
    write_extended_model(make_base(shard_bytes=60_000), extension, tmp_path / "one", "random", seed=1)
    base = make_base()
    for name in ("one", "two"):
        write_extended_model(base, extension, tmp_path / name, "random", seed=1)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert not [f for f in files if sha256_of(tmp_path / "one" / f) != sha256_of(tmp_path / "two" / f)]


def test_row_facts_gives_quantiles_and_counts_equal_new_rows():
    rows_VD = torch.tensor([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    facts = row_facts(rows_VD, 2)
    assert facts["old_quantiles"] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert facts["quantiles"] == [2.0] * 5
    assert facts["identical_new_rows"] == 1
