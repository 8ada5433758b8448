from __future__ import annotations

import json
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.errors import DataError
from tsugiki.models.tokenizer import train_byte_level_bpe
from tsugiki.vocabulary.appending import idle_fragments
from tsugiki.vocabulary.extend import extend_tokenizer, unreachable_pieces, with_candidates
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


@pytest.mark.parametrize("method", ["append", "continued"])
def test_more_is_learnt_while_too_few_can_be_reached_and_text_holds_more(mixed_base, texts, method):
    """GPT-2's merges straddle characters: more than the spare pieces were unreachable there."""
    words, learnt = segment_words(mixed_base, texts), []

    def use(candidates):
        learnt.append(len(candidates))
        raise DataError("too few", hint="")

    with pytest.raises(DataError, match="too few"):
        with_candidates(use, mixed_base, words, LIMITS._replace(wanted=20), method)
    assert learnt[0] < learnt[-2] == learnt[-1]  # until the text holds no more
    assert learnt == sorted(learnt)
    grown = with_candidates(
        lambda candidates: use(candidates) if len(candidates) == learnt[0] else len(candidates),
        mixed_base,
        words,
        LIMITS._replace(wanted=20),
        method,
    )
    assert grown == learnt[1]


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


@pytest.mark.parametrize("method", ["continued", "append"])
def test_no_piece_lies_across_a_cut_even_where_a_token_of_the_base_does(method):
    """The base joins くの; 多くの would be built on that, though 多く is a word and の another."""
    base = train_byte_level_bpe(["くの" * 9], 264)
    assert len(base.encode_batch(["くの"])[0]) == 1
    words = segment_words(base, ["多くの花"] * 9, cut=lambda _: [0, 2, 3])
    extension = extend_tokenizer(base, words, LIMITS._replace(wanted=4), method=method)
    new = [extension.tokenizer.contents[number] for number in range(base.size, extension.tokenizer.size)]
    assert not [content for content in new if "くの".encode() in content]
    assert {"多".encode(), "花".encode()} <= set(new)
