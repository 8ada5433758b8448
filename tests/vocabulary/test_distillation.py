from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.models.directory import EMBEDDING, HEAD, load_decoder
from tsugiki.vocabulary.distillation import (
    Settings,
    _cross_entropy,
    _difference,
    distil_head_rows,
    distil_input_rows,
)
from tsugiki.vocabulary.extend import extend_tokenizer
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.rows import subtoken_mean
from tsugiki.vocabulary.snippets import Snippet, collect_snippets, collect_windows, in_base
from tsugiki.vocabulary.words import segment_words


@pytest.fixture(scope="module")
def texts(corpora):
    return [row["text"] for row in iterate_documents(corpora["japanese"], split="train")]


@pytest.fixture(scope="module")
def extension(base_tokenizer, texts):
    return extend_tokenizer(
        base_tokenizer, segment_words(base_tokenizer, texts), Limits(40, 2, 16, ascii=False)
    )


@pytest.fixture(scope="module")
def decoder(base):
    return load_decoder(base).requires_grad_(requires_grad=False)


def rows(decoder, extension, name):
    table_VD = dict(decoder.state_dict())[name][: extension.base_size]
    return subtoken_mean(table_VD, extension.components)


def test_snippets_spell_the_text_around_each_piece(extension, base_tokenizer, texts):
    snippets = collect_snippets(extension, texts, per_piece=3, tokens=30)
    counts = torch.bincount(torch.tensor([one.piece for one in snippets]), minlength=40)
    assert counts.max() == 3
    for one in snippets:
        assert one.parts == extension.components[one.piece]
        assert one.before[0] == base_tokenizer.bos_id
        assert len(one.before) + len(one.parts) + len(one.after) <= 30
        if one.parts[0] < base_tokenizer.size:
            spelt = base_tokenizer.decode([*one.before, *one.parts, *one.after]).strip("\ufffd")
            assert any(spelt in text for text in texts)


def test_windows_label_what_the_extended_tokenizer_says_comes_next(extension, texts):
    windows = collect_windows(extension, texts, count=5, tokens=20)
    assert len(windows) == 5
    for one in windows:
        assert len(one.ends) == len(one.labels) == 20
        assert max(one.labels) >= extension.base_size
        for end, next_end, label in zip(one.ends, one.ends[1:], one.labels, strict=False):
            assert list(one.ids[end + 1 : next_end + 1]) == in_base(extension, [label])


def test_row_of_a_piece_of_one_part_is_already_distilled(decoder):
    """A piece that is one old token: its row differs in nothing, at every place and beside padding."""
    batch = [Snippet(0, (0, 5, 9), (7,), (3, 4)), Snippet(1, (0,), (11,), (2, 8, 9, 10))]
    leaf_BD = decoder.model.embed_tokens.weight.detach()[[7, 11]]
    assert _difference(decoder, leaf_BD, batch).item() < 1e-12


def test_distilled_rows_come_closer_to_what_the_base_made_of_the_parts(decoder, extension, texts):
    start_RD = rows(decoder, extension, EMBEDDING)
    snippets = collect_snippets(extension, texts, per_piece=12, tokens=24)
    unseen = collect_snippets(extension, texts[::-1], per_piece=4, tokens=24)
    kept = start_RD.clone()
    settings = Settings(extension.base_size, learning_rate=3e-3)
    done = distil_input_rows(decoder, start_RD, snippets, settings, seed=0)
    assert torch.equal(start_RD, kept)
    assert done.loss_after < done.loss_before

    def error(rows_RD):
        return _difference(decoder, rows_RD[[one.piece for one in unseen]], unseen).item()

    assert error(done.rows_RD) < 0.9 * error(start_RD)
    again = distil_input_rows(decoder, start_RD, snippets, settings, seed=0)
    assert torch.equal(again.rows_RD, done.rows_RD)


def test_pieces_without_snippets_keep_their_rows(decoder, extension):
    start_RD = rows(decoder, extension, EMBEDDING)
    snippet = Snippet(5, (0, 4), extension.components[5], (3,))
    done = distil_input_rows(decoder, start_RD, [snippet], Settings(extension.base_size), seed=0)
    changed = (done.rows_RD != start_RD).any(dim=1).nonzero().flatten().tolist()
    assert changed == [5]


def test_head_rows_predict_better_what_comes_next(decoder, extension, texts):
    start_RD = rows(decoder, extension, HEAD)
    windows = collect_windows(extension, texts, count=120, tokens=24)
    settings = Settings(extension.base_size, learning_rate=1e-2, epochs=2)
    done = distil_head_rows(decoder, start_RD, windows, settings, seed=0)
    assert done.loss_after < done.loss_before - 0.1


def test_cross_entropy_of_old_and_new_logits_is_that_of_both_together():
    generator = torch.Generator().manual_seed(1)
    old_NV, new_NR = (torch.randn(6, size, generator=generator) for size in (7, 3))
    new_NR.requires_grad_()
    labels_N = torch.tensor([0, 6, 7, 9, 3, 8])
    loss = _cross_entropy(old_NV, new_NR, labels_N)
    expected = F.cross_entropy(torch.cat((old_NV, new_NR), dim=1), labels_N)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(one, new_NR, retain_graph=True)[0] for one in (loss, expected)]
    torch.testing.assert_close(*gradients)
