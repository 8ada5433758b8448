"""Log-likelihoods against transformers, and what must not change them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from tsugiki.errors import DependencyError, InputError
from tsugiki.evaluation.backend import Choices, Prompt, Sampling
from tsugiki.evaluation.engines.loading import Engine, load_backend, trained_context
from tsugiki.evaluation.items import byte_length
from tsugiki.models.tokenizer import load_tokenizer


def backend(world, name="base", *, context_length=128, stride=64, batch_tokens=512, **changes):
    engine = Engine(context_length, stride, batch_tokens, **changes)
    return load_backend(world.path(name), engine)


@pytest.fixture(scope="module")
def theirs(world):
    transformers_logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(world.path("base"), local_files_only=True).float().eval()


@pytest.fixture(scope="module")
def tokenizer(world):
    return load_tokenizer(world.path("base"))


def log_probabilities(model, ids: list[int]) -> torch.Tensor:
    """Log-probabilities of x_1 .. x_n given what stands before each, without any window."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, :-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].double()


def test_text_likelihoods_short_texts_equal_transformers(world, theirs, tokenizer, texts):
    pages = [page[:150] for page in texts["english"]] + [page[:30] for page in texts["japanese"]]
    for page, ours in zip(pages, backend(world).text_likelihoods(pages), strict=True):
        ids = [tokenizer.bos_id, *tokenizer.encode_batch([page])[0].tolist()]
        assert len(ids) <= 128
        assert ours.tokens == len(ids) - 1
        assert ours.nll_nats == pytest.approx(-log_probabilities(theirs, ids).sum().item(), rel=1e-5)


def test_text_likelihoods_long_text_equals_windows_cut_by_hand(world, theirs, tokenizer, texts):
    page = texts["english"][0] * 2
    ids = [tokenizer.bos_id, *tokenizer.encode_batch([page])[0].tolist()]
    context, stride = 64, 48
    expected = -log_probabilities(theirs, ids[: context + 1]).sum().item()
    end = context
    while end < len(ids) - 1:
        new = min(stride, len(ids) - 1 - end)
        end += new
        expected -= log_probabilities(theirs, ids[end - context : end + 1])[-new:].sum().item()
    [ours] = backend(world, context_length=context, stride=stride).text_likelihoods([page])
    assert ours.tokens == len(ids) - 1
    assert ours.nll_nats == pytest.approx(expected, rel=1e-5)


def test_choice_likelihoods_options_equal_transformers(world, theirs, tokenizer):
    context, options = (
        "The reader opens a file.",
        (" The page is new.", " A model of data writes the small page."),
    )
    [ours] = backend(world).choice_likelihoods([Choices(context, options)])
    before = len(tokenizer.encode_batch([context])[0])
    for option, answer in zip(options, ours, strict=True):
        ids = [tokenizer.bos_id, *tokenizer.encode_batch([context + option])[0].tolist()]
        assert answer.nll_nats == pytest.approx(
            -log_probabilities(theirs, ids)[before:].sum().item(), rel=1e-5
        )
        assert answer.tokens == len(ids) - 1 - before
        assert not answer.cut_context


def test_choice_likelihoods_merged_boundary_charges_all_options_alike(world, tokenizer):
    """Half a word ends otherwise than the whole: both options are scored from the last token in common on."""
    context, options = "the rea", ("der", "son")
    [ours] = backend(world).choice_likelihoods([Choices(context, options)])
    joined = tokenizer.encode_batch([context + option for option in options])
    alone = tokenizer.encode_batch([context])[0]
    shared = min(
        next((i for i, (a, b) in enumerate(zip(ids, alone, strict=False)) if a != b), len(alone))
        for ids in joined
    )
    assert shared < len(alone)
    assert [answer.tokens for answer in ours] == [len(ids) - shared for ids in joined]


def test_choice_likelihoods_context_beyond_window_is_cut_alike_for_all_options(
    world, theirs, tokenizer, texts
):
    context, options = texts["english"][0], (" The end.", " A new page of data.")
    [answers] = backend(world, context_length=32, stride=24).choice_likelihoods([Choices(context, options)])
    before = tokenizer.encode_batch([context])[0].tolist()
    tails = [tokenizer.encode_batch([context + option])[0].tolist()[len(before) :] for option in options]
    room = 32 - (max(map(len, tails)) - 1)
    for tail, answer in zip(tails, answers, strict=True):
        expected = -log_probabilities(theirs, before[-room:] + tail)[room - 1 :].sum().item()
        assert answer.nll_nats == pytest.approx(expected, rel=1e-5)
        assert answer.cut_context


def test_choice_likelihoods_option_longer_than_window_goes_through_windows(world, theirs, tokenizer, texts):
    context, option = "The page.", texts["english"][0]
    [[answer]] = backend(world, context_length=32, stride=24).choice_likelihoods(
        [Choices(context, (option,))]
    )
    before = len(tokenizer.encode_batch([context])[0])
    ids = [tokenizer.bos_id, *tokenizer.encode_batch([context + option])[0].tolist()]
    assert answer.tokens == len(ids) - 1 - before
    exact = -log_probabilities(theirs, ids[:128])[before:].mean().item()
    assert answer.nll_nats / answer.tokens == pytest.approx(exact, rel=0.2)


def test_choice_likelihoods_options_of_one_token_need_no_second_pass(world, theirs, tokenizer):
    [answers] = backend(world).choice_likelihoods([Choices("The page", (" a", " the"))])
    assert [answer.tokens for answer in answers] == [1, 1]
    ids = [tokenizer.bos_id, *tokenizer.encode_batch(["The page a"])[0].tolist()]
    assert answers[0].nll_nats == pytest.approx(-log_probabilities(theirs, ids)[-1].item(), rel=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_likelihoods_any_batch_size_gives_the_same_values(world, texts, batch_tokens):
    pages = [*texts["english"][:5], *texts["japanese"][:3], "A"]
    questions = [Choices(page[:200], (page[200:240], "the", " 学習する")) for page in texts["english"][:4]]
    reference = backend(world, context_length=64, stride=40, batch_tokens=700)
    other = backend(world, context_length=64, stride=40, batch_tokens=batch_tokens)
    for one, two in zip(reference.text_likelihoods(pages), other.text_likelihoods(pages), strict=True):
        assert one.nll_nats == pytest.approx(two.nll_nats, rel=1e-6)
    for left, right in zip(
        reference.choice_likelihoods(questions), other.choice_likelihoods(questions), strict=True
    ):
        assert [a.nll_nats for a in left] == pytest.approx([a.nll_nats for a in right], rel=1e-6)


def test_likelihoods_logits_in_blocks_give_the_same_values(world, texts, monkeypatch):
    whole = backend(world).text_likelihoods(texts["english"][:3])
    monkeypatch.setattr("tsugiki.evaluation.engines.decoder._LOGITS_BYTES", 384 * 4 * 7)
    blocks = backend(world).text_likelihoods(texts["english"][:3])
    assert [a.nll_nats for a in blocks] == pytest.approx([a.nll_nats for a in whole], rel=1e-6)


def test_likelihoods_no_questions_gives_no_answers(world):
    ours = backend(world)
    assert (ours.text_likelihoods([]), ours.choice_likelihoods([]), ours.continuations([])) == ([], [], [])


def test_continuations_same_seed_repeats_whatever_its_neighbours(world):
    prompts = [Prompt("The page", 60, seed, Sampling(0.8, 40)) for seed in (1, 2**64 - 1)]
    ours = backend(world)
    both = ours.continuations(prompts)
    assert ours.continuations(prompts[1:]) == both[1:]
    assert both[0] != both[1]


def test_continuations_random_bytes_stay_valid_text_within_the_cap(world):
    """An untrained model writes any bytes: broken UTF-8 is replaced, half a character at the end dropped."""
    for seed in range(12):
        [answer] = backend(world).continuations([Prompt("学習", 31, seed, Sampling(0.8, 40))])
        assert byte_length(answer.text) <= 31
        answer.text.encode("utf-8")
        assert not (answer.truncated and answer.text.endswith("\ufffd"))


def test_continuations_prompt_longer_than_window_keeps_its_end(world, texts):
    [answer] = backend(world, context_length=48, stride=24).continuations(
        [Prompt(texts["english"][0], 500, 0, Sampling(0.8, 40))]
    )
    assert (answer.truncated, answer.cut_context) == (True, True)
    assert answer.tokens == 24  # half of the window; the start token takes the place of the last one


def test_load_backend_window_beyond_positions_raises(world):
    with pytest.raises(InputError, match="longer than the 128 positions"):
        backend(world, context_length=129)


@pytest.mark.parametrize("stride", [0, 129])
def test_load_backend_stride_beyond_window_raises(world, stride):
    with pytest.raises(InputError, match="stride"):
        backend(world, stride=stride)


def test_load_backend_missing_gpu_raises(world, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DependencyError, match="CUDA"):
        backend(world, device="cuda")


def test_load_backend_tokenizer_of_a_larger_model_raises(world, tmp_path):
    for file in world.path("other").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 350}))
    with pytest.raises(InputError, match="360 pieces, the model 350 rows"):
        load_backend(tmp_path, Engine(64, 32, 512))


def test_load_backend_bfloat16_is_close_to_float32(world, texts):
    [exact] = backend(world).text_likelihoods([texts["english"][0]])
    [rough] = backend(world, precision="bfloat16").text_likelihoods([texts["english"][0]])
    assert rough.nll_nats == pytest.approx(exact.nll_nats, rel=0.02)
    assert not np.isclose(rough.nll_nats, exact.nll_nats, rtol=1e-9)


def test_trained_context_plain_directory_is_config_json(world):
    assert trained_context(world.path("base")) == 128
