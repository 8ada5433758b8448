"""Models of transformers as an engine: the same numbers and texts as the model gives itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel

from tsugiki.errors import InputError
from tsugiki.evaluation.backend import Choices, Prompt, Sampling
from tsugiki.evaluation.engines.branches import plan_branches
from tsugiki.evaluation.engines.loading import Engine, is_ours, load_backend, maximum_positions
from tsugiki.evaluation.engines.tokens import Scored, Writing
from tsugiki.models.directory import write_tokenizer
from tsugiki.models.tokenizer import load_tokenizer

WORDS = "page file model data reader the of a".split()  # noqa: SIM905


@pytest.fixture(autouse=True)
def _share_much(monkeypatch):
    """Nano texts are short: every shared token is worth a prefix here."""
    monkeypatch.setattr(plan_branches, "__defaults__", (1,))


@pytest.fixture(scope="module")
def tokenizer(world):
    return load_tokenizer(world.path("base"))


def random_questions(generator):
    """Contexts with a beginning in common, and tails of one to six tokens."""
    shared = generator.integers(0, 380, 12).tolist()
    contexts = [shared + generator.integers(0, 380, 1 + number % 4).tolist() for number in range(9)]
    return [
        Scored(
            np.array(context),
            tuple(generator.integers(0, 380, 1 + (number + t) % 6) for t in range(1 + number % 4)),
        )
        for number, context in enumerate(contexts)
    ]


def writings(generator, sampling):
    """Prompts with a beginning in common, each of them twice."""
    shared = generator.integers(2, 360, 9)
    prompts = [np.concatenate((shared, generator.integers(2, 360, 1 + number % 3))) for number in range(4)]
    return [Writing(prompt, 9, 10**6, seed, sampling) for prompt in prompts for seed in range(2)]


@pytest.fixture(scope="module")
def gpt2(world, tokenizer, tmp_path_factory):
    """A family that our decoder does not know, with the tokenizer of `base`."""
    directory = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    shape = {"vocab_size": 384, "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**shape, initializer_range=0.3)).eval()
    model.save_pretrained(directory)
    write_tokenizer(tokenizer, directory)
    return directory, model


def test_transformers_model_equals_the_model_itself(gpt2, tokenizer, texts):
    directory, model = gpt2
    assert not is_ours(directory)
    assert maximum_positions(directory) == 96
    ours = load_backend(directory, Engine(96, 48, 300))
    questions = [Choices(page[:60], (" a", " the", page[60:80])) for page in texts["english"][:4]]
    for question, options in zip(questions, ours.choice_likelihoods(questions), strict=True):
        context = tokenizer.encode_batch([question.context])[0].tolist()
        for option, answer in zip(question.options, options, strict=True):
            ids = [tokenizer.bos_id, *tokenizer.encode_batch([question.context + option])[0].tolist()]
            with torch.inference_mode():
                logs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            places = range(len(ids) - answer.tokens, len(ids))
            assert answer.tokens >= len(ids) - 1 - len(context)
            assert answer.nll_nats == pytest.approx(
                -sum(logs[p - 1, ids[p]].item() for p in places), rel=1e-5
            )


def test_transformers_model_writes_as_generate_does(gpt2, tokenizer):
    directory, model = gpt2
    prompts = [Prompt(f"The {word}", 10_000, 0, maximum_tokens=8) for word in WORDS]
    ours = load_backend(directory, Engine(96, 48, 300)).continuations(prompts)
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode_batch([prompt.text])[0].tolist()]])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
            suppress_tokens=list(range(tokenizer.size, 384)), eos_token_id=tokenizer.eos_id, pad_token_id=0,
        )  # fmt: skip
        written = [int(t) for t in theirs[0, ids.shape[1] :] if int(t) != tokenizer.eos_id]
        assert answer.text == tokenizer.decode(written).rstrip("\ufffd") or not answer.truncated


def test_transformers_model_computes_shared_beginnings_once(gpt2, tokenizer, monkeypatch):
    """Equal to the same engine without sharing, whose numbers are held against the model's own above."""
    directory, _ = gpt2
    ours = load_backend(directory, Engine(96, 48, 300))
    model = ours._model
    assert model._shares
    tokens = []
    forward = GPT2LMHeadModel.forward

    def counted(self, input_ids=None, **given):
        tokens.append(input_ids.numel())
        return forward(self, input_ids, **given)

    monkeypatch.setattr(GPT2LMHeadModel, "forward", counted)
    found = {}
    for shares in (True, False):
        model._shares = shares
        tokens.clear()
        scores = model.score(random_questions(np.random.default_rng(3)))
        generator = np.random.default_rng(4)
        texts = model.write(writings(generator, None) + writings(generator, Sampling(0.9)))
        found[shares] = scores, texts, sum(tokens)
    for one, two in zip(found[True][0], found[False][0], strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    assert found[True][1] == found[False][1]
    assert found[True][2] < 0.8 * found[False][2]


def test_transformers_model_with_a_window_shares_nothing(tokenizer, tmp_path):
    shape = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    config = Gemma3TextConfig(
        **shape, **heads, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    )
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    write_tokenizer(tokenizer, tmp_path)
    ours = load_backend(tmp_path, Engine(96, 48, 300))
    assert not ours._model._shares
    [[one]] = ours.choice_likelihoods([Choices("The page", (" is",))])
    assert one.tokens > 0


def test_transformers_model_lacking_weights_raises(gpt2, tmp_path):
    from safetensors.torch import load_file, save_file

    directory, _ = gpt2
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("transformer.h.0.mlp.c_fc.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lack 1 tensors"):
        load_backend(tmp_path, Engine(96, 48, 300))


def test_load_backend_model_that_needs_its_own_code_raises(gpt2, tmp_path):
    directory, _ = gpt2
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(
        '{"model_type": "home-made", "auto_map": {"AutoModelForCausalLM": "x.Y"}}'
    )
    (tmp_path / "x.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="neither Tsugiki nor transformers"):
        load_backend(tmp_path, Engine(96, 48, 300))
