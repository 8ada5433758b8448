from __future__ import annotations

import json
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.models.tokenizer import train_byte_level_bpe
from tsugiki.vocabulary.appending import idle_fragments
from tsugiki.vocabulary.extend import extend_tokenizer, unreachable_pieces
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.words import segment_words

LIMITS = Limits(wanted=150, minimum_count=2, maximum_characters=16, ascii=False)
MIXED = st.text(
    st.sampled_from("昨日の夕方、先生は東京の郊外で新しい言葉について theab12\n🌸庭師"), max_size=40
)


@pytest.fixture(scope="module")
def texts(corpora):
    return [row["text"] for row in iterate_documents(corpora["japanese"], split="train")]


@pytest.fixture(scope="module")
def mixed_base(texts, corpora):
    """A base that knows some Japanese already: its merges get in the way of pieces learnt apart."""
    english = [row["text"] for row in iterate_documents(corpora["english"], split="train")]
    return train_byte_level_bpe([*english, *texts[:2]], 450)


@pytest.fixture(scope="module")
def extension(mixed_base, texts):
    return extend_tokenizer(mixed_base, segment_words(mixed_base, texts), LIMITS, method="append")


def test_appended_pieces_are_as_many_as_wanted_and_new(extension, mixed_base):
    assert extension.added == 150
    assert not set(extension.tokenizer.pieces[mixed_base.size :]) & set(mixed_base.pieces)
    assert extension.tokenizer.pieces[: mixed_base.size] == mixed_base.pieces


def test_every_appended_piece_is_reached(extension):
    tokenizer = extension.tokenizer
    assert unreachable_pieces(tokenizer, extension.base_size) == []
    whole, fragments = [], []
    for number in range(extension.base_size, tokenizer.size):
        content = tokenizer.contents[number]
        (whole if content.decode(errors="ignore").encode() == content else fragments).append(
            tokenizer.pieces[number]
        )
    merges = json.loads(tokenizer.tokenizer.to_str())["model"]["merges"]
    assert idle_fragments(merges, whole, fragments) == set()
    assert len(fragments) == extension.fragments


def test_fragment_that_the_merges_go_around_is_idle():
    merges = [["b", "c"], ["a", "bc"], ["a", "b"], ["ab", "c"]]
    assert idle_fragments(merges, ["abc"], ["ab", "bc"]) == {"ab"}


@settings(max_examples=300, deadline=None)
@given(text=MIXED)
def test_text_that_uses_no_appended_piece_keeps_its_ids_and_all_text_survives(extension, mixed_base, text):
    (ids,) = extension.tokenizer.encode_batch([text])
    assert extension.tokenizer.decode(ids) == text
    assume(ids.max(initial=0) < extension.base_size)
    assert ids.tolist() == mixed_base.encode_batch([text])[0].tolist()


def test_appending_is_the_same_whatever_the_order_of_documents(extension, mixed_base, texts):
    shuffled = random.Random(0).sample(texts, len(texts))
    again = extend_tokenizer(mixed_base, segment_words(mixed_base, shuffled), LIMITS, method="append")
    assert again.tokenizer.to_json() == extension.tokenizer.to_json()


def test_continued_pieces_save_at_least_what_appended_ones_do(extension, mixed_base, texts):
    continued = extend_tokenizer(mixed_base, segment_words(mixed_base, texts), LIMITS)
    appended, other = (sum(map(len, one.tokenizer.encode_batch(texts))) for one in (extension, continued))
    assert other <= appended < sum(map(len, mixed_base.encode_batch(texts)))


def test_words_that_are_cut_further_give_no_piece_across_the_cut(mixed_base):
    def cut(text):
        return [place for place, character in enumerate(text) if character == "卵"]

    words = segment_words(mixed_base, ["鶏卵"] * 9, cut=cut)
    for method in ("append", "continued"):
        extension = extend_tokenizer(mixed_base, words, Limits(4, 2, 16, ascii=False), method=method)
        found = {
            content.decode(errors="replace") for content in extension.tokenizer.contents[mixed_base.size :]
        }
        assert "鶏卵" not in found
        assert {"鶏", "卵"} <= found
