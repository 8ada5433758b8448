import math

import numpy as np
import pytest
import torch

from tsugiki.dataset.packing import IGNORED
from tsugiki.errors import DataError
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.tokenizer import train_byte_level_bpe
from tsugiki.training.compute import Compute
from tsugiki.training.validation import (
    bits_per_byte,
    held_out_notes,
    measure,
    sample_texts,
    validation_set,
)

TEXTS = ["graft a branch", "木に竹を接ぐ", "open model " * 30]


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_level_bpe(TEXTS, 262)


@pytest.fixture(scope="module")
def decoder():
    decoder = Decoder(preset("llama-nano"))
    initialise(decoder, 1)
    return decoder


@pytest.mark.parametrize("length", [16, 50, 500])
def test_validation_set_counts_every_byte_of_the_texts_once(tokenizer, length):
    held_out = validation_set("x", TEXTS, tokenizer, length)
    assert held_out.target_bytes == sum(len(text.encode()) for text in TEXTS)
    tokens = sum(len(ids) for ids in tokenizer.encode_batch(TEXTS))  # no eos: it stands for no text
    # A target that opens a row has its predecessor in the row before, so none is lost to the cuts.
    assert (held_out.rows.targets_BT != IGNORED).sum() == tokens


def test_measure_is_the_cross_entropy_of_each_document_by_itself(tokenizer, decoder):
    held_out = validation_set("x", TEXTS, tokenizer, 500)
    nats = 0.0
    with torch.no_grad():
        for ids in tokenizer.encode_batch(TEXTS):
            whole = torch.tensor([[tokenizer.bos_id, *ids.tolist()]])
            logits = decoder(whole[:, :-1])
            nats += float(torch.nn.functional.cross_entropy(logits[0], whole[0, 1:], reduction="sum"))
    expected = nats / math.log(2) / sum(len(text.encode()) for text in TEXTS)
    got = measure(decoder, held_out, rows_at_once=2, compute=Compute(torch.device("cpu")))
    assert got == pytest.approx(expected, rel=1e-5)


def test_measure_of_a_model_that_knows_nothing_is_the_size_of_its_vocabulary(tokenizer):
    decoder = Decoder(preset("llama-nano"))
    initialise(decoder, 0)
    torch.nn.init.zeros_(decoder.lm_head.weight)
    held_out = validation_set("x", TEXTS, tokenizer, 64)
    counted = int((held_out.rows.targets_BT != IGNORED).sum())
    got = measure(decoder, held_out, rows_at_once=3, compute=Compute(torch.device("cpu")))
    assert got == pytest.approx(math.log2(512) * counted / held_out.target_bytes, rel=1e-5)


def test_sample_texts_keeps_to_the_bytes_and_to_whole_characters(corpora):
    texts = sample_texts(corpora["japanese"], 1000)
    assert 998 <= sum(len(text.encode()) for text in texts) <= 1000
    assert texts == sample_texts(corpora["japanese"], 1000)
    longer = sample_texts(corpora["japanese"], 2000)
    assert longer[: len(texts) - 1] == texts[:-1]
    assert longer[len(texts) - 1].startswith(texts[-1])


def test_sample_texts_without_held_out_documents_raises(tmp_path, corpora):
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from tsugiki.artifacts.documents import write_documents

    part = pq.read_table(corpora["english"] / "documents" / "part-00000.parquet")
    write_documents(
        tmp_path / "documents" / "part-00000.parquet", part.filter(pc.equal(part["split"], "train"))
    )
    with pytest.raises(DataError, match="no held-out documents"):
        sample_texts(tmp_path, 1000)


def test_bits_per_byte_of_no_bytes_does_not_divide_by_zero():
    assert bits_per_byte(math.log(2) * 6, 3) == 2
    assert np.isfinite(bits_per_byte(1.0, 0))


def test_progress_says_what_each_set_has_and_how_it_changed():
    assert held_out_notes([]) == []
    rows = [
        {"dataset": name, "step": step, "bits_per_byte": value}
        for step, values in ((0, (3.5294, 2.5055)), (4, (2.9677, 2.7089)), (9, (2.7960, 2.7491)))
        for name, value in zip(("runs/x/japanese", "english"), values, strict=True)
    ]
    assert held_out_notes(rows[:2]) == ["bits per byte: japanese 3.529 (+0.000), english 2.506 (+0.000)"]
    assert held_out_notes(rows) == ["bits per byte: japanese 2.796 (-0.733), english 2.749 (+0.244)"]


def test_progress_says_where_a_set_could_not_be_measured():
    rows = [{"dataset": "a", "bits_per_byte": value} for value in (2.5, None)]
    assert held_out_notes(rows) == ["bits per byte: a not finite"]
    rows = [{"dataset": "a", "bits_per_byte": value} for value in (None, 2.5)]
    assert held_out_notes(rows) == ["bits per byte: a 2.500"]
