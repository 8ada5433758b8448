"""Nothing passes from one document of a row to another: shown at the logits of a real decoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tsugiki.dataset.mixture import Mixture
from tsugiki.dataset.packing import IGNORED
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise

LENGTH = 64


@pytest.fixture(scope="module")
def source(make_source):
    return make_source(count=80, longest=20, seed=11)


def small_decoder(size, positions, **shape):
    model = Decoder(
        replace(
            preset("llama-nano"),
            vocabulary_size=size,
            hidden_size=32,
            intermediate_size=64,
            layers=2,
            heads=4,
            head_dim=8,
            max_positions=positions,
            **({"kv_heads": 2} | shape),
        )
    )
    initialise(model, 0)
    return model.eval()


@pytest.fixture(scope="module")
def decoder(tokenizer):
    return small_decoder(tokenizer.size, LENGTH)


@pytest.fixture(params=["concatenate", "best-fit"])
def batch(source, request):
    mixture = Mixture(
        [source],
        {source.name: 1.0},
        steps=2,
        sequences_per_step=4,
        sequence_length=LENGTH,
        seed=0,
        max_epochs=99,
        packing=request.param,
    )
    return mixture.batch(0)


@torch.no_grad()
def logits_of(decoder, ids_BT, document_ids_BT=None):
    documents = None if document_ids_BT is None else torch.from_numpy(document_ids_BT)
    hidden = decoder.hidden(torch.from_numpy(ids_BT), document_ids_BT=documents)
    return (hidden @ decoder.head_weight_VD.T).float().numpy()


def test_packed_documents_have_the_logits_that_each_has_alone(decoder, batch):
    packed = logits_of(decoder, batch.ids_BT, batch.document_ids_BT)
    compared = 0
    for row in range(len(batch)):
        for number in np.unique(batch.document_ids_BT[row]):
            own = batch.document_ids_BT[row] == number
            alone = logits_of(decoder, batch.ids_BT[row, own][None])
            np.testing.assert_allclose(packed[row, own], alone[0], atol=2e-6)
            compared += 1
    assert compared > 2 * len(batch)


def test_packed_documents_other_tokens_in_one_change_no_bit_in_the_others(decoder, batch):
    before = logits_of(decoder, batch.ids_BT, batch.document_ids_BT)
    first = batch.document_ids_BT == batch.document_ids_BT[:, :1]
    changed = np.where(first, (batch.ids_BT + 1) % 256, batch.ids_BT)
    after = logits_of(decoder, changed, batch.document_ids_BT)
    assert (after[~first] == before[~first]).all()
    assert (after[first] != before[first]).any()
    assert (~first).any()
    # the same change leaks where documents are not kept apart: the test can fail
    leaking = logits_of(decoder, changed) != logits_of(decoder, batch.ids_BT)
    assert leaking[~first].any()


def test_packed_targets_never_belong_to_another_document(source, batch, tokenizer):
    documents = [source.document(number).tolist() for number in range(source.documents)]
    for ids_T, targets_T, numbers_T in zip(
        batch.ids_BT, batch.targets_BT, batch.document_ids_BT, strict=True
    ):
        for number in np.unique(numbers_T):
            counted = (numbers_T == number) & (targets_T != IGNORED)
            text = [*ids_T[counted][:1].tolist(), *targets_T[counted].tolist()]
            if len(text) > 1:
                assert any(_contains(document, text) for document in documents)


LONG = 1600
PATHS = {
    "whole": {},
    "window": {"family": "mistral", "sliding_window": 48},
    "window as long as a document": {"family": "mistral", "sliding_window": 300},
    "grouped queries of qwen": {"family": "qwen3", "kv_heads": 1},
}


@pytest.mark.parametrize(
    ("path", "dtype"),
    [*((path, torch.float32) for path in PATHS), ("whole", torch.bfloat16), ("window", torch.bfloat16)],
)
def test_long_documents_of_every_path_of_attention_are_kept_apart(path, dtype):
    model = small_decoder(300, LONG, **PATHS[path]).to(dtype)
    lengths = [[3, 300, 700, 1, 260, 336], [1100, 40, 260, 200]]
    numbers = np.stack([np.repeat(np.arange(len(row)), row) for row in lengths]).astype(np.int32)
    ids = np.random.default_rng(0).integers(0, 300, numbers.shape)
    before = logits_of(model, ids, numbers)
    for changed in range(max(map(len, lengths))):
        within = numbers == changed
        after = logits_of(model, np.where(within, (ids + 1) % 300, ids), numbers)
        assert (after[~within] == before[~within]).all(), f"a document sees document {changed}"
        assert (after[within] != before[within]).any()
    for row, number in ((0, 1), (0, 2), (1, 0), (1, 3)):
        own = numbers[row] == number
        alone = logits_of(model, ids[row, own][None])
        tolerance = 5e-6 if dtype == torch.float32 else 0.05
        np.testing.assert_allclose(before[row, own], alone[0], atol=tolerance)


def _contains(document, part):
    return any(document[start : start + len(part)] == part for start in range(len(document) - len(part) + 1))
