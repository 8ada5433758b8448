"""Special tokens that a page spells out are text, also where the model itself would take them for pieces."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from tsugiki.models.blind import blind_to_special_tokens
from tsugiki.models.tokenizer import TextTokenizer

VOCABULARY = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("a", -2.0), ("s", -3.0), ("</", -3.0), (">", -3.0)]


def unigram(**changes) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(VOCABULARY, unk_id=0))
    tokenizer.pre_tokenizer = changes.get("cut", pre_tokenizers.Metaspace(split=False))
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def test_unigram_model_alone_takes_a_spelt_special_token_for_one():
    """What the module is for; where this changes in `tokenizers`, it can go."""
    tokenizer = unigram()
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode("a</s>", add_special_tokens=False).tokens == ["▁", "a", "</s>"]


def test_spelt_special_token_is_text():
    tokenizer = TextTokenizer(unigram(), None, 1)
    ids = tokenizer.encode_batch(["a</s>"])[0].tolist()
    assert [tokenizer.pieces[number] for number in ids] == ["▁", "a", "</", "s", ">"]
    assert tokenizer.encode_within(["</s>"]) == [[5, 4, 6]]
    assert "</s>" in tokenizer.to_json()


def test_other_added_tokens_keep_their_ids():
    tokenizer = unigram()
    tokenizer.add_tokens([AddedToken("aa", special=False)])
    assert TextTokenizer(tokenizer, None, 1).encode_batch(["s aa s"])[0].tolist().count(7) == 1
    assert blind_to_special_tokens(tokenizer).token_to_id("aa") == 7


def test_tokenizer_whose_spaces_reach_the_model_is_left_as_it_is():
    tokenizer = Tokenizer(models.Unigram(VOCABULARY, unk_id=0))
    assert blind_to_special_tokens(tokenizer) is tokenizer
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    assert blind_to_special_tokens(tokenizer) is not tokenizer


@pytest.mark.parametrize("model", [models.BPE({"a": 0}, []), models.WordLevel({"a": 0}, "a")])
def test_other_models_are_left_as_they_are(model):
    tokenizer = Tokenizer(model)
    assert blind_to_special_tokens(tokenizer) is tokenizer
