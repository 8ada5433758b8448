from __future__ import annotations

import json
import random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.errors import DataError, InputError
from tsugiki.models.byte_level import piece_to_bytes
from tsugiki.models.tokenizer import TextTokenizer, train_byte_level_bpe
from tsugiki.vocabulary.candidates import select
from tsugiki.vocabulary.extend import extend_tokenizer, find_candidates, unreachable_pieces
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.pieces import script_of
from tsugiki.vocabulary.words import segment_words, training_texts

LIMITS = Limits(wanted=200, minimum_count=2, maximum_characters=16, ascii=False)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def texts(corpora):
    return [row["text"] for row in iterate_documents(corpora["japanese"], split="train")]


@pytest.fixture(scope="module")
def extension(base_tokenizer, texts):
    return extend_tokenizer(base_tokenizer, segment_words(base_tokenizer, texts), LIMITS)


def new_contents(extension):
    pieces = extension.tokenizer.pieces[extension.base_size :]
    return [piece_to_bytes(piece) for piece in pieces]


def whole_texts(extension):
    found = []
    for content in new_contents(extension):
        try:
            found.append(content.decode())
        except UnicodeDecodeError:
            continue
    return found


def test_extension_has_exactly_the_wanted_pieces_after_the_old_ones(extension, base_tokenizer):
    assert extension.added == 200
    assert extension.base_size == base_tokenizer.size
    assert extension.tokenizer.size == base_tokenizer.size + 200
    assert extension.tokenizer.pieces[: base_tokenizer.size] == base_tokenizer.pieces
    assert len(set(extension.tokenizer.pieces)) == extension.tokenizer.size
    assert extension.tokenizer.bos_id == base_tokenizer.bos_id


def test_every_new_piece_encodes_to_itself(extension):
    assert unreachable_pieces(extension.tokenizer, extension.base_size) == []
    for text in whole_texts(extension):
        (ids,) = extension.tokenizer.encode_batch([text])
        assert ids.tolist() == [extension.tokenizer.pieces.index(extension.tokenizer.pieces[ids[0]])]
        assert ids[0] >= extension.base_size


def test_fragments_are_needed_by_a_kept_character(extension):
    contents = new_contents(extension)
    fragments = [content for content in contents if content.decode(errors="replace").encode() != content]
    assert len(fragments) == extension.fragments > 0
    characters = {text.encode() for text in whole_texts(extension) if len(text) == 1}
    for fragment in fragments:
        assert any(character.startswith(fragment) for character in characters)


def test_new_pieces_keep_the_rules(extension):
    for text in whole_texts(extension):
        assert len(text) <= 16
        assert not text.isascii()
        assert len({script_of(character) for character in text} - {""}) <= 1


@settings(max_examples=300, deadline=None)
@given(text=UNICODE)
@example(text="春になると、<|end_of_text|>庭師は🌸を\r\n  ")
def test_any_text_survives_and_adds_up_to_its_bytes(extension, text):
    (ids,) = extension.tokenizer.encode_batch([text])
    assert extension.tokenizer.decode(ids) == text
    assert extension.tokenizer.piece_bytes[ids].sum() == len(text.encode())


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(UNICODE, st.text(st.sampled_from("庭師は、the 春\n"), max_size=20)))
def test_text_that_uses_no_new_piece_keeps_its_ids(extension, base_tokenizer, text):
    (ids,) = extension.tokenizer.encode_batch([text])
    assume(ids.max(initial=0) < extension.base_size)
    assert ids.tolist() == base_tokenizer.encode_batch([text])[0].tolist()


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(max_codepoint=127), max_size=60))
def test_ascii_text_keeps_its_ids_where_ascii_pieces_are_dropped(extension, base_tokenizer, text):
    new, old = extension.tokenizer.encode_batch([text]), base_tokenizer.encode_batch([text])
    assert new[0].tolist() == old[0].tolist()


def test_new_pieces_shorten_japanese_to_less_than_half(extension, base_tokenizer, texts):
    before, after = (
        sum(len(ids) for ids in tokenizer.encode_batch(texts))
        for tokenizer in (base_tokenizer, extension.tokenizer)
    )
    assert after < 0.5 * before


def test_components_are_the_bases_own_encoding_of_each_piece(extension, base_tokenizer):
    assert len(extension.components) == 200
    for content, components in zip(new_contents(extension), extension.components, strict=True):
        assert b"".join(piece_to_bytes(base_tokenizer.pieces[number]) for number in components) == content
        try:
            (expected,) = base_tokenizer.encode_batch([content.decode()])
        except UnicodeDecodeError:
            continue
        assert expected.tolist() == list(components)


def test_extending_is_the_same_whatever_the_order_of_documents(extension, base_tokenizer, texts):
    shuffled = random.Random(0).sample(texts, len(texts))
    again = extend_tokenizer(base_tokenizer, segment_words(base_tokenizer, shuffled), LIMITS)
    assert again.tokenizer.to_json() == extension.tokenizer.to_json()
    assert again.components == extension.components


def test_ascii_pieces_are_learnt_where_they_are_kept(base_tokenizer):
    words = segment_words(base_tokenizer, ["Pfropfreis Veredelung Unterlage " * 5])
    assert words.mostly_ascii
    extension = extend_tokenizer(base_tokenizer, words, Limits(24, 2, 16, ascii=True))
    assert {" Veredelung", " Unterlage"} <= set(whole_texts(extension))


def test_piece_spelled_like_an_added_token_is_left_out():
    inner = train_byte_level_bpe(["the graft " * 9], 260).tokenizer
    inner.add_tokens([AddedToken("Veredel", single_word=True)])
    base = TextTokenizer(inner, 0, 1)
    words = segment_words(base, ["Veredelt Veredelung " * 9])
    extension = extend_tokenizer(base, words, Limits(6, 2, 16, ascii=True))
    assert "Veredel" not in whole_texts(extension)
    assert extension.tokenizer.pieces[base.size - 1] == "Veredel"
    assert extension.tokenizer.encode_batch(["Veredel"])[0].tolist() == [base.size - 1]


def test_too_few_pieces_in_the_corpus_is_an_error(base_tokenizer):
    words = segment_words(base_tokenizer, ["庭と庭"])
    with pytest.raises(DataError, match="5000 are wanted"):
        extend_tokenizer(base_tokenizer, words, LIMITS._replace(wanted=5000))


def test_words_of_no_text_is_an_error(base_tokenizer):
    with pytest.raises(DataError, match="no text to learn"):
        segment_words(base_tokenizer, ["", ""])


def test_added_tokens_outside_of_the_models_vocabulary_keep_their_ids(texts):
    """As in Llama 3: special tokens come after all pieces, and words are looked up whole first."""
    inner = train_byte_level_bpe([*texts[:1], "the graft and the tree " * 9], 300).tokenizer
    inner.add_special_tokens([AddedToken("<|start|>", special=True)])
    inner.add_tokens(["<think>"])
    data = json.loads(inner.to_str())
    data["model"]["ignore_merges"] = True
    base = TextTokenizer(Tokenizer.from_str(json.dumps(data)), 300, 1)
    extension = extend_tokenizer(base, segment_words(base, texts), LIMITS._replace(wanted=50))
    tokenizer = extension.tokenizer
    assert tokenizer.tokenizer.token_to_id("<|start|>") == 300
    assert tokenizer.tokenizer.token_to_id("<think>") == 301
    assert tokenizer.special_ids == base.special_ids
    assert tokenizer.encode_batch(["<think>"])[0].tolist() == [301]
    assert extension.base_size == 302
    assert unreachable_pieces(tokenizer, 302) == []
    reloaded = TextTokenizer(Tokenizer.from_str(tokenizer.to_json()), 300, 1)
    assert reloaded.pieces == tokenizer.pieces


def test_piece_that_the_words_pattern_cuts_alone_is_replaced_by_another(texts):
    """A look-ahead may keep a word whole inside of a text and cut it where it stands alone."""
    base = train_byte_level_bpe(["graft"], 258).tokenizer
    base.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"庭師(?!$)|."), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    base = TextTokenizer(base, 0, 1)
    words = segment_words(base, ["庭師は庭師を庭師"] * 4)
    extension = extend_tokenizer(base, words, Limits(6, 2, 16, ascii=False))
    assert "庭師" not in whole_texts(extension)
    assert {"庭", "師", "は"} == set(whole_texts(extension))


def test_last_row_that_no_whole_piece_fits_into_goes_to_a_fragment(base_tokenizer):
    words = segment_words(
        base_tokenizer, ["庭한" * 3]
    )  # two scripts: each character needs two rows, then no more
    extension = extend_tokenizer(base_tokenizer, words, Limits(3, 2, 16, ascii=False))
    assert (extension.added, extension.fragments, len(whole_texts(extension))) == (3, 2, 1)


def test_fragments_do_not_stand_in_for_whole_pieces_that_are_missing(base_tokenizer):
    words = segment_words(base_tokenizer, ["庭한師말花" * 3])
    candidates = find_candidates(base_tokenizer, words, Limits(40, 2, 16, ascii=False), "continued")
    rare = {candidate.number for candidate in candidates if candidate.is_whole}
    assert select(candidates, base_tokenizer.size, 3, rare) == []
    assert len(select(candidates, base_tokenizer.size, 2, rare)) == 2  # what a last whole piece may leave


def test_tokenizer_that_puts_a_space_before_a_text_is_extended_with_whole_pieces(texts):
    """As GPT-2's with add_prefix_space: asked for a piece's own text, it gives a space besides."""
    tokenizer = train_byte_level_bpe(["graft the tree"], 262).tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    base = TextTokenizer(tokenizer, 0, 1)
    assert (
        base.encode_batch(["木"])[0].tolist()
        == base.encode_within([" 木"])[0]
        != base.encode_within(["木"])[0]
    )
    for method in ("continued", "append"):
        extension = extend_tokenizer(base, segment_words(base, texts), LIMITS, method=method)
        assert len(whole_texts(extension)) > 100
        assert unreachable_pieces(extension.tokenizer, base.size) == []
        joined = [b"".join(base.contents[part] for part in parts) for parts in extension.components]
        assert joined == new_contents(extension)


def _word_piece():
    return Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))  # noqa: S106


def _bpe_without_bytes():
    tokenizer = Tokenizer(models.BPE({"<unk>": 0, "▁a": 1}, []))
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def _suffixed_bpe():
    tokenizer = Tokenizer(models.BPE({"a": 0}, [], end_of_word_suffix="</w>"))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_word_piece, "of kind WordPiece"),
        (_bpe_without_bytes, "without bytes to fall back to"),
        (_suffixed_bpe, "prefix or suffix"),
    ],
)
def test_other_kinds_of_tokenizers_are_refused(make, message, texts, base_tokenizer):
    words = segment_words(base_tokenizer, texts[:1])
    with pytest.raises(InputError, match=message) as caught:
        extend_tokenizer(TextTokenizer(make(), None, None), words, LIMITS)
    assert "choose a model with a BPE or Unigram tokenizer" in caught.value.hint


def test_training_texts_samples_evenly_by_id_and_only_the_train_split(corpora, texts):
    assert list(training_texts(corpora["japanese"], 10**9)) == texts
    half = list(training_texts(corpora["japanese"], sum(map(len, texts)) // 2))
    assert 15 < len(half) < 45
    assert [text for text in texts if text in half] == half
