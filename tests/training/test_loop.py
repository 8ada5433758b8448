import numpy as np
import pytest
import torch

from tsugiki.dataset.mixture import Mixture
from tsugiki.dataset.tokenise import tokenise
from tsugiki.dataset.tokens import open_tokens
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.tokenizer import train_byte_level_bpe
from tsugiki.training.compute import Compute
from tsugiki.training.engine import optimizer_step
from tsugiki.training.optimizer import adamw

CPU = Compute(torch.device("cpu"))


@pytest.fixture(scope="module")
def batch(tmp_path_factory, corpora):
    """A batch of real packed documents: 8 rows of 48 tokens."""
    tokenizer = train_byte_level_bpe(["graft language onto open model tree"], 262)
    units = tokenise(corpora["english"], tokenizer, tmp_path_factory.mktemp("units"))
    mixture = Mixture(
        [open_tokens("english", units, tokenizer)],
        {"english": 1.0},
        steps=2,
        sequences_per_step=8,
        sequence_length=48,
        seed=0,
        max_epochs=4,
    )
    batch = mixture.batch(0)
    assert batch.several_documents
    return batch


def make_model(seed=0):
    decoder = Decoder(preset("llama-nano"))
    initialise(decoder, seed)
    optimizer = adamw(
        decoder.named_parameters(),
        learning_rate=1e-2,
        betas=(0.9, 0.95),
        epsilon=1e-8,
        weight_decay=0.1,
        decay_embeddings=False,
    )
    return decoder, optimizer


def counted(batch):
    return int((batch.targets_BT >= 0).sum())


def step_with(batch, rows_at_once, compute=CPU, clip=1.0):
    decoder, optimizer = make_model()
    result = optimizer_step(
        decoder,
        optimizer,
        batch,
        compute=compute,
        rows_at_once=rows_at_once,
        clip=clip,
        counted=counted(batch),
    )
    return result, decoder


@pytest.mark.parametrize("rows_at_once", [1, 2, 4])
def test_accumulation_of_micro_batches_equals_one_big_batch(batch, rows_at_once):
    # Rows hold different numbers of counted targets, so a mean of means would differ.
    assert len({int((row >= 0).sum()) for row in batch.targets_BT}) > 1
    whole, big = step_with(batch, 8)
    parts, small = step_with(batch, rows_at_once)
    assert parts.counted == whole.counted
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-5)
    # Gradients, not weights: AdamW's first step is the gradient's sign, which rounding turns where it is 0.
    for one, two in zip(big.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-7)


def test_loss_of_a_packed_batch_is_that_of_its_documents_alone(batch):
    decoder, _ = make_model()
    nats, counted = 0.0, 0
    with torch.no_grad():
        for ids, targets, numbers in zip(batch.ids_BT, batch.targets_BT, batch.document_ids_BT, strict=True):
            for number in np.unique(numbers):
                here = numbers == number
                logits = decoder(torch.from_numpy(ids[here])[None])[0]
                nats += float(
                    torch.nn.functional.cross_entropy(
                        logits, torch.from_numpy(targets[here]), reduction="sum"
                    )
                )
                counted += int((targets[here] >= 0).sum())
        packed = CPU.loss(decoder, batch)
    assert counted == (batch.targets_BT >= 0).sum()
    assert float(packed.cross_entropy) == pytest.approx(nats, rel=1e-5)


def test_logits_of_a_packed_batch_ignore_the_other_documents(batch):
    decoder, _ = make_model()
    row = int(np.argmax(batch.document_ids_BT[:, -1]))
    numbers = torch.from_numpy(batch.document_ids_BT[row : row + 1])
    ids = torch.from_numpy(batch.ids_BT[row : row + 1])
    others = torch.where(numbers == 1, ids, (ids + 7) % 200)
    with torch.no_grad():
        before, after = (decoder(x, document_ids_BT=numbers)[numbers == 1] for x in (ids, others))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def test_without_document_masking_the_loss_sees_across_documents(batch):
    decoder, _ = make_model()
    with torch.no_grad():
        masked = float(CPU.loss(decoder, batch).cross_entropy)
        open_ = float(Compute(torch.device("cpu"), document_masking=False).loss(decoder, batch).cross_entropy)
    assert abs(masked - open_) > 1e-3


def test_clipping_bounds_the_gradient_but_reports_its_norm(batch):
    result, decoder = step_with(batch, 8, clip=0.01)
    norm = torch.stack([parameter.grad.norm() for parameter in decoder.parameters()]).norm()
    assert result.gradient_norm > 0.01
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


def test_z_loss_changes_the_gradient_but_not_the_reported_loss(batch):
    plain, _ = step_with(batch, 8)
    with_z, _ = step_with(batch, 8, Compute(torch.device("cpu"), z_loss=1e-2))
    assert with_z.loss == plain.loss
    assert with_z.gradient_norm != plain.gradient_norm


def test_bfloat16_step_is_near_the_float32_step(batch):
    exact, _ = step_with(batch, 8)
    rough, decoder = step_with(batch, 8, Compute(torch.device("cpu"), bfloat16=True))
    assert rough.loss == pytest.approx(exact.loss, rel=5e-3)
    assert rough.gradient_norm == pytest.approx(exact.gradient_norm, rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in decoder.parameters())


def test_a_loss_that_is_not_finite_leaves_the_weights_alone(batch):
    decoder, optimizer = make_model()
    with torch.no_grad():
        decoder.lm_head.weight[3, 0] = torch.inf
    before = [parameter.detach().clone() for parameter in decoder.parameters()]
    result = optimizer_step(
        decoder, optimizer, batch, compute=CPU, rows_at_once=8, clip=1.0, counted=counted(batch)
    )
    assert not np.isfinite(result.loss)
    assert all(torch.equal(one, two) for one, two in zip(before, decoder.parameters(), strict=True))
