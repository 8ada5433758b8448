from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.artifacts.files import read_json, sha256_of
from tsugiki.models.directory import (
    EMBEDDING,
    HEAD,
    check_parity,
    load_decoder,
    save_model,
    vocabulary_size,
)
from tsugiki.models.tokenizer import load_tokenizer
from tsugiki.models.weights import read_headers, read_tensors, weight_files, write_shard
from tsugiki.vocabulary.extend import extend_tokenizer
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.rows import Knowledge, random_rows, row_facts, subtoken_mean, write_extended_model
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


@pytest.mark.parametrize("method", ["random", "distillation"])
def test_tied_rows_that_are_stored_under_both_names_stay_tied(make_base, extension, tmp_path, method):
    """Where they differ, transformers does not tie them, and the model is another one than ours."""
    base = tmp_path / "base"
    shutil.copytree(make_base(tied_embeddings=True), base)
    (file,) = weight_files(base)
    stored = tensors(base)
    write_shard(file, {**stored, HEAD: stored[EMBEDDING].clone()})
    learnt = {EMBEDDING: torch.randn(extension.added, stored[EMBEDDING].shape[1])}
    write_extended_model(
        base, extension, tmp_path / "new", method, seed=1, knowledge=Knowledge(learnt=learnt)
    )
    new = tensors(tmp_path / "new")
    assert torch.equal(new[HEAD], new[EMBEDDING])
    check_parity(tmp_path / "new", torch.arange(360, 400)[None])


def test_chat_template_and_generation_settings_survive_the_extension_and_saving_after_it(
    make_base, corpora, tmp_path
):
    """Llama 3's chat models end an answer with one of two tokens; generation_config.json alone names both."""
    base = tmp_path / "base"
    shutil.copytree(make_base(), base)
    kept = {
        "chat_template.jinja": "{% for m in messages %}{{ m.content }}{% endfor %}",
        "generation_config.json": json.dumps({"eos_token_id": [1, 5], "temperature": 0.6}),
    }
    for name, text in kept.items():
        (base / name).write_text(text)
    tokenizer = load_tokenizer(base)
    texts = [row["text"] for row in iterate_documents(corpora["japanese"], split="train")]
    words = segment_words(tokenizer, texts)
    extension = extend_tokenizer(tokenizer, words, Limits(40, 2, 16, ascii=False))
    write_extended_model(base, extension, tmp_path / "new", "subtoken-mean", seed=0)
    decoder = load_decoder(tmp_path / "new")  # as training does
    save_model(decoder, load_tokenizer(tmp_path / "new"), tmp_path / "trained")
    for directory in ("new", "trained"):
        assert {name: (tmp_path / directory / name).read_text() for name in kept} == kept
    settings = GenerationConfig.from_pretrained(tmp_path / "trained")
    assert (settings.eos_token_id, settings.temperature) == ([1, 5], 0.6)


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
