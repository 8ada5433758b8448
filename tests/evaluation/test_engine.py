"""Shared prefixes, packed rows and texts written side by side: the same numbers as one at a time."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.errors import InputError
from tsugiki.evaluation.backend import Choices, Prompt, Sampling
from tsugiki.evaluation.engines import branches
from tsugiki.evaluation.engines.branches import plan_branches
from tsugiki.evaluation.engines.choosing import BROKEN, choose, draw
from tsugiki.evaluation.engines.decoder import DecoderBackend, DecoderModel
from tsugiki.evaluation.engines.loading import Engine, end_ids, load_backend
from tsugiki.evaluation.engines.prefix import attention_part, merged
from tsugiki.evaluation.engines.tokens import Scored, Writing
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.generation import generate
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer

WORDS = "page file model data reader the of a".split()  # noqa: SIM905


@pytest.fixture(autouse=True)
def _share_much(monkeypatch):
    """Nano texts are short: every shared token is worth a prefix here."""
    monkeypatch.setattr(branches, "MINIMUM_SAVING", 1)
    monkeypatch.setattr(branches.plan_branches, "__defaults__", (1,))


@pytest.fixture(scope="module")
def tokenizer(world):
    return load_tokenizer(world.path("base"))


@pytest.fixture(scope="module", params=["llama", "mistral window", "qwen2 window"])
def decoder(request):
    """The llama-nano shape, and families whose layers see the last 7 tokens only."""
    family = request.param.split()[0]
    shape = replace(preset("llama-nano"), vocabulary_size=384, max_positions=128, initializer_std=0.15)
    if "window" in request.param:
        shape = replace(shape, family=family, sliding_window=7)
    made = Decoder(shape)
    initialise(made, 3)
    return made.eval()


def naive_nll(decoder, context, tail) -> float:
    ids = torch.tensor([[*map(int, context), *map(int, tail)]])
    with torch.inference_mode():
        logs = decoder(ids)[0].double().log_softmax(-1)
    places = torch.arange(len(context) - 1, len(context) + len(tail) - 1)
    return -logs[places, ids[0, len(context) :]].sum().item()


def random_questions(generator, count=9):
    """Contexts with beginnings in common on two levels, and tails of one to six tokens."""
    shared = generator.integers(0, 380, 12).tolist()
    inner = [shared + generator.integers(0, 380, 5).tolist() for _ in range(2)]
    asked = []
    for number in range(count):
        start = inner[number % 2] if number % 3 else shared[: number + 2]
        context = np.array(start + generator.integers(0, 380, 1 + number % 4).tolist())
        tails = tuple(generator.integers(0, 380, 1 + (number + t) % 6) for t in range(1 + number % 4))
        asked.append(Scored(context, tails))
    return asked


@pytest.mark.parametrize("batch_tokens", [1, 37, 4096])
def test_score_shared_prefixes_and_packed_tails_equal_one_by_one(decoder, tokenizer, batch_tokens):
    asked = random_questions(np.random.default_rng(0))
    found = DecoderModel(decoder, tokenizer, batch_tokens=batch_tokens).score(asked)
    for question, nlls in zip(asked, found, strict=True):
        for tail, nll in zip(question.tails, nlls, strict=True):
            assert nll == pytest.approx(naive_nll(decoder, question.context_T, tail), abs=1e-4, rel=1e-5)


def test_score_batch_of_one_against_many_gives_same_values_and_argmax(decoder, tokenizer):
    asked = random_questions(np.random.default_rng(1), 16)
    model = DecoderModel(decoder, tokenizer, batch_tokens=4096)
    together = model.score(asked)
    for question, nlls in zip(asked, together, strict=True):
        [alone] = DecoderModel(decoder, tokenizer, batch_tokens=4096).score([question])
        assert nlls == pytest.approx(alone, rel=1e-5)
        assert np.argmin(nlls) == np.argmin(alone)


def test_score_kept_prefix_gives_the_same_bits(decoder, tokenizer):
    """A second unit finds the first one's prefix; a resumed run does not. Their bytes have to be equal."""
    asked = random_questions(np.random.default_rng(2))
    warm = DecoderModel(decoder, tokenizer, batch_tokens=64)
    warm.score(asked)
    assert warm.score(asked) == DecoderModel(decoder, tokenizer, batch_tokens=64).score(asked)


def test_score_computes_a_shared_prefix_once(decoder, tokenizer, monkeypatch):
    tokens = []
    embed = Decoder.embed
    monkeypatch.setattr(Decoder, "embed", lambda self, ids: tokens.append(ids.numel()) or embed(self, ids))
    prefix = list(range(60))
    asked = [
        Scored(np.array([*prefix, 100 + n, 7]), (np.array([1]), np.array([2]), np.array([3])))
        for n in range(10)
    ]
    DecoderModel(decoder, tokenizer, batch_tokens=4096).score(asked)
    assert sum(tokens) == 60 + 10 * 2  # options of one token need no token of their own


def test_prefixes_memory_is_bounded(decoder, tokenizer, monkeypatch):
    monkeypatch.setattr("tsugiki.evaluation.engines.decoder._KEPT_BYTES", 0)
    model = DecoderModel(decoder, tokenizer, batch_tokens=64)
    asked = random_questions(np.random.default_rng(2))
    assert model.score(asked) == DecoderModel(decoder, tokenizer, batch_tokens=64).score(asked)
    assert not model._prefixes


def writings(count=9, **changes):
    generator = np.random.default_rng(5)
    shared = generator.integers(2, 360, 9)
    return [
        Writing(
            np.concatenate((shared[: 9 - n % 2], generator.integers(2, 360, 1 + n))),
            **{"maximum_tokens": 5 + 3 * n, "maximum_bytes": 10**6, "seed": n} | changes,
        )
        for n in range(count)
    ]


def test_write_greedy_equals_one_sequence_at_a_time(decoder, tokenizer):
    """Nine texts of different lengths in four places: every place is taken by several texts in turn."""
    jobs = writings()
    model = DecoderModel(decoder, tokenizer, batch_tokens=10)  # 160 keys: four rows at most
    for job, found in zip(jobs, model.write(jobs), strict=True):
        expected = generate(
            decoder,
            job.prompt_T,
            job.maximum_tokens,
            tokenizer.eos_id,
            pieces=tokenizer.size,
        )
        assert found.ids == expected
        assert found.ended == (len(expected) < job.maximum_tokens)


def test_write_samples_of_several_items_are_written_side_by_side(decoder, tokenizer, monkeypatch):
    """Three items with four samples each: prompts are computed once, and all twelve texts step together."""
    generator = np.random.default_rng(6)
    prompts = [generator.integers(2, 360, 30) for _ in range(3)]
    jobs = [Writing(p, 20, 10**6, seed, Sampling(0.9)) for p in prompts for seed in range(4)]
    alone = [DecoderModel(decoder, tokenizer, batch_tokens=4096).write([job])[0] for job in jobs]
    shapes = []
    embed = Decoder.embed
    monkeypatch.setattr(
        Decoder, "embed", lambda self, ids: shapes.append(tuple(ids.shape)) or embed(self, ids)
    )
    assert DecoderModel(decoder, tokenizer, batch_tokens=4096).write(jobs) == alone
    assert [shape for shape in shapes if shape[1] > 1] == [(1, 29)] * 3
    assert max(shape[0] for shape in shapes) == 12


def test_write_ends_at_any_of_several_end_tokens(decoder, tokenizer):
    jobs = writings(maximum_tokens=40)
    whole = DecoderModel(decoder, tokenizer, batch_tokens=64).write(jobs)
    ends = frozenset({tokenizer.eos_id, whole[0].ids[2], whole[4].ids[3]})
    found = DecoderModel(decoder, tokenizer, batch_tokens=64, ends=ends).write(jobs)
    for one, before in zip(found, whole, strict=True):
        places = [place for place, token in enumerate(before.ids) if token in ends]
        assert one.ids == before.ids[: places[0] if places else len(before.ids)]
        assert one.ended == (bool(places) or before.ended)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, {2}),
        ({"config.json": {"eos_token_id": 7}}, {2, 7}),
        ({"config.json": {"eos_token_id": 7}, "generation_config.json": {"eos_token_id": [8, 9]}}, {2, 8, 9}),
        ({"config.json": {"eos_token_id": [5, 6]}, "generation_config.json": {"top_p": 0.9}}, {2, 5, 6}),
    ],
)
def test_end_ids_are_the_tokenizers_and_those_of_the_generation_config(tmp_path, tokenizer, files, expected):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    ended = TextTokenizer(tokenizer.tokenizer, 1, 2)
    assert end_ids(tmp_path, ended) == expected


@pytest.mark.parametrize("content", ["[3]", '{"eos_token_id": "</s>"}', '{"eos_token_id": [1, true]}'])
def test_end_ids_that_are_no_numbers_raise(tmp_path, tokenizer, content):
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(InputError, match="eos_token_id"):
        end_ids(tmp_path, tokenizer)


@pytest.mark.parametrize("sampling", [Sampling(0.9), Sampling(0.7, 20), Sampling(1.0, 0, 0.8)])
def test_write_sampled_is_the_same_alone_and_among_others(decoder, tokenizer, sampling):
    jobs = writings(sampling=sampling)
    together = DecoderModel(decoder, tokenizer, batch_tokens=4096).write(jobs)
    alone = [DecoderModel(decoder, tokenizer, batch_tokens=7).write([job])[0] for job in jobs]
    assert together == alone
    other = DecoderModel(decoder, tokenizer, batch_tokens=4096).write(writings(sampling=sampling, seed=99))
    assert [one.ids for one in other] != [one.ids for one in together]


def test_write_broken_weights_are_reported_not_decoded(decoder, tokenizer):
    broken = Decoder(decoder.config)  # NaN
    found = DecoderModel(broken, tokenizer, batch_tokens=64).write(writings(2))
    assert [(one.broken, one.ids) for one in found] == [(True, []), (True, [])]


def backend(world, **changes):
    return load_backend(
        world.path("base"), Engine(**{"context_length": 128, "stride": 64, "batch_tokens": 512} | changes)
    )


def test_continuations_stop_ends_the_text_before_it(world):
    ours = backend(world)
    prompts = [Prompt(f"The {word}", 90, n, Sampling(0.8, 40), stops=("",)) for n, word in enumerate(WORDS)]
    plain = ours.continuations(prompts)
    long = [(p, a) for p, a in zip(prompts, plain, strict=True) if len(a.text) > 9]
    assert len(long) > 4
    for prompt, answer in long:
        stop = answer.text[4:6]
        [cut] = ours.continuations([replace(prompt, stops=("never seen", stop))])
        assert cut.text == answer.text[: answer.text.index(stop)]
        assert (cut.stop, cut.truncated) == (stop, False)
        assert cut.tokens <= answer.tokens


def test_continuations_token_cap_counts_tokens(world):
    prompts = [Prompt(f"The {w}", 10_000, n, Sampling(), maximum_tokens=3) for n, w in enumerate(WORDS)]
    answers = backend(world).continuations(prompts)
    assert {(a.tokens, a.truncated) for a in answers if a.truncated} == {(3, True)}
    assert all(answer.tokens < 3 for answer in answers if not answer.truncated)


def test_continuations_window_that_is_full_still_gives_all_tokens_of_the_cap(world, texts):
    """A prompt that was cut for an answer of five tokens gets five; no position is beyond the window."""
    prompts = [Prompt(texts["english"][0], 10_000, n, Sampling(), maximum_tokens=5) for n in range(6)]
    answers = backend(world, context_length=64, stride=32).continuations(prompts)
    assert {answer.tokens for answer in answers if answer.truncated} == {5}
    assert all(answer.cut_context for answer in answers)


def test_continuations_prompt_may_fill_the_window_but_for_the_answer(world, texts, tokenizer):
    ours = backend(world, context_length=64, stride=32)
    whole = tokenizer.encode_batch([texts["english"][0]])[0]
    text = tokenizer.decode(whole[:58])
    fits, cut = ours.continuations([Prompt(text, 5, 0), Prompt(texts["english"][0], 5, 0)])
    assert (fits.cut_context, cut.cut_context) == (False, True)


def test_continuations_special_piece_in_a_prompt_is_text(world):
    a, b = backend(world).continuations([Prompt("x<|end_of_text|>", 30, 0), Prompt("x", 30, 0)])
    assert a.text != b.text


@pytest.mark.parametrize("context", ["The page ", "The page", "the rea", "A\n", "日本 "])
def test_boundary_context_is_the_harness_rule(world, tokenizer, context):
    """lm-evaluation-harness 0.4.13, api/model.py `_encode_pair`, computed by hand."""
    decoder = backend(world)._model._decoder
    options = ("der of", " a", "学習")
    [found] = backend(world, boundary="context").choice_likelihoods([Choices(context, options)])
    alone = tokenizer.encode_batch([context.rstrip()])[0].tolist()
    for option, answer in zip(options, found, strict=True):
        tail = tokenizer.encode_batch([context + option])[0].tolist()[len(alone) :]
        assert answer.tokens == len(tail)
        expected = naive_nll(decoder, [tokenizer.bos_id, *alone], tail)
        assert answer.nll_nats == pytest.approx(expected, rel=1e-4)


def test_start_left_out_begins_with_the_context(world, tokenizer):
    ours = backend(world, start=False)
    ids = tokenizer.encode_batch(["The page", "The page is"])
    [[answer]] = ours.choice_likelihoods([Choices("The page", (" is",))])
    expected = naive_nll(ours._model._decoder, ids[0], ids[1][len(ids[0]) :].astype(int))
    assert answer.nll_nats == pytest.approx(expected, rel=1e-4)
    [[empty]] = ours.choice_likelihoods([Choices("", ("The page",))])
    assert empty.tokens == len(ids[0])


@given(st.lists(st.lists(st.integers(0, 2), max_size=8), max_size=12), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_plan_branches_every_sequence_stands_once_behind_its_own_beginning(sequences, saving):
    arrays = [np.array(sequence, dtype=np.int64) for sequence in sequences]
    seen = []

    def look(branch, parent):
        assert branch.start == parent
        for row in branch.rows:
            seen.append(row)
            assert sequences[row][: branch.length] == sequences[branch.example][: branch.length]
        for child in branch.children:
            assert child.length > branch.length
            assert sequences[child.example][: branch.length] == sequences[branch.example][: branch.length]
            look(child, branch.length)

    look(plan_branches(arrays, saving), 0)
    assert sorted(seen) == list(range(len(sequences)))


def test_plan_branches_nested_beginnings_without_end_stay_shallow():
    arrays = [np.ones(length, dtype=np.int64) for length in range(600)]
    branch = plan_branches(arrays, 10**9)
    assert len(branch.rows) == 600
    assert plan_branches(arrays, 1).children


def test_attention_part_merges_to_the_whole():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 9, 8, generator=generator) for heads in (4, 2, 2))
    wide_k, wide_v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    whole = torch.nn.functional.scaled_dot_product_attention(q, wide_k, wide_v)
    parts = [attention_part(q, k[:, :, part], v[:, :, part]) for part in (slice(0, 4), slice(4, 9))]
    torch.testing.assert_close(merged(*parts), whole)


def test_attention_part_other_devices_compute_the_same(monkeypatch):
    """The path of devices without the CPU's kernel, run on the CPU; blocks of one query."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 6, 8, generator=generator) for heads in (4, 2, 2))
    mask = torch.zeros(2, 1, 6, 6).masked_fill(torch.ones(6, 6).triu(2).bool(), -torch.inf)
    expected = [attention_part(q, k, v, mask), attention_part(q, k, v, causal=True)]
    monkeypatch.setattr("tsugiki.evaluation.engines.prefix._SCORES_BYTES", 1)
    monkeypatch.setattr("tsugiki.evaluation.engines.prefix.HAS_KERNEL", frozenset())
    for ours, theirs in zip(
        [attention_part(q, k, v, mask), attention_part(q, k, v, causal=True)], expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [(Sampling(1.0), 8), (Sampling(1.0, 3), 3), (Sampling(1.0, 0, 0.5), 2), (Sampling(0.1, 0, 1e-9), 1)],
)
def test_draw_follows_the_distribution_within_the_bounds(sampling, allowed):
    shares = torch.tensor([0.05, 0.3, 0.02, 0.25, 0.13, 0.15, 0.06, 0.04]).double()
    uniforms = (torch.arange(20_000).double() + 0.5) / 20_000
    drawn = draw(shares.log().expand(20_000, -1), sampling, uniforms)
    counts = torch.bincount(drawn, minlength=8).double() / 20_000
    kept = shares.argsort(descending=True)[:allowed]
    expected = torch.zeros(8).double()
    expected[kept] = shares[kept] / shares[kept].sum()
    torch.testing.assert_close(counts, expected, atol=1e-3, rtol=0)


def test_choose_marks_rows_that_are_no_numbers():
    logits = torch.tensor([[0.0, 2.0], [torch.nan, 1.0], [1.0, torch.inf], [3.0, -torch.inf]])
    assert choose(logits, [None] * 4, [torch.Generator()] * 4) == [1, BROKEN, BROKEN, 0]


def test_decoder_backend_pieces_are_the_tokenizers(world, tokenizer):
    ours = backend(world)
    assert isinstance(ours, DecoderBackend)
    [pieces] = ours.pieces(["The page"])
    assert [tokenizer.pieces.index(p) for p in pieces] == tokenizer.encode_batch(["The page"])[0].tolist()
