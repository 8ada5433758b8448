"""SentencePiece-style BPE: models trained here, converted as transformers does, and both files in step."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
from dataclasses import replace

import pytest
import sentencepiece
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import generate_merges

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.errors import InputError
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.directory import save_model
from tsugiki.models.sentencepiece_file import PieceType, _fields, read_sentencepiece
from tsugiki.models.spelling import byte_of
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer
from tsugiki.vocabulary.candidates import excluded_at_first, learn_candidates
from tsugiki.vocabulary.characters import characters_to_add, with_characters
from tsugiki.vocabulary.extend import extend_tokenizer, unreachable_pieces
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.pieces import script_of
from tsugiki.vocabulary.words import segment_words
from tsugiki.vocabulary.writing import _scores_below

NORMALISER, CHARACTER_MAP = 3, 2  # fields of ModelProto and NormalizerSpec
LIMITS = Limits(wanted=160, minimum_count=2, maximum_characters=16, ascii=False)
JAPANESE = "".join(dict.fromkeys("昨日の夕方、先生は東京の郊外で新しい言葉について本を書いた。🌸庭師"))
MIXED = st.text(st.sampled_from(f"{JAPANESE} theab12\n\t▁é한"), max_size=40)
UNICODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0▁"), max_size=40)


def train(texts: list[str], size: int, *, normaliser: str = "identity", **options) -> bytes:
    """A SentencePiece BPE model as Llama 2's: bytes to fall back to, digits split."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=written,
        vocab_size=size,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name=normaliser,
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


def convert(model: bytes, layout: str) -> Tokenizer:
    """tokenizer.json of a model: in Llama 2's layout, in that of newer Mistral models, or in Gemma's."""
    pieces = read_sentencepiece(model).pieces
    vocabulary = {piece.text: number for number, piece in enumerate(pieces)}
    scores = {piece.text: piece.score for piece in pieces if piece.type is PieceType.NORMAL}
    merges = generate_merges(vocabulary, scores.items(), set())
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)  # noqa: S106
    )
    strip = [] if layout == "gemma" else [decoders.Strip(content=" ", left=1)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    if layout == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif layout == "mistral":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def make_base(texts: list[str], size: int, layout: str = "llama", **options) -> TextTokenizer:
    model = train(texts, size, add_dummy_prefix=layout != "gemma", **options)
    return TextTokenizer(convert(model, layout), 1, 2, {"tokenizer.model": model})


@pytest.fixture(scope="module")
def texts(corpora):
    return {
        language: [row["text"] for row in iterate_documents(corpora[language], split="train")]
        for language in corpora
    }


@pytest.fixture(scope="module", params=["llama", "mistral", "gemma"])
def base(request, texts):
    """English, with a little Japanese: as Llama 2's, which has many kana but few words."""
    return make_base([*texts["english"], *texts["japanese"][:1]], 420, request.param)


@pytest.fixture(scope="module")
def extension(base, texts):
    return extend_tokenizer(base, segment_words(base, texts["japanese"]), LIMITS)


@pytest.fixture(scope="module")
def base_model(texts, tmp_path_factory):
    """A model directory as Llama 2's: an added token that tokenizer.model lacks, and padding rows."""
    tokenizer = make_base([*texts["english"], *texts["japanese"][:1]], 420)
    tokenizer.tokenizer.add_special_tokens([AddedToken("<pad>", special=True)])
    tokenizer = TextTokenizer(tokenizer.tokenizer, 1, 2, tokenizer.side_files)
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=424))
    initialise(decoder, 3)
    directory = tmp_path_factory.mktemp("sentencepiece-base")
    save_model(decoder, tokenizer, directory)
    return directory


@pytest.mark.parametrize("method", ["continued", "append"])
def test_stage_keeps_both_files_in_step_and_proves_it(extend, base_model, texts, method):
    outcome, root = extend(base_model, add=100, method=method)
    facts = outcome.facts
    assert (facts["base_size"], facts["size"], facts["new_rows"]) == (421, 528, [421, 528])
    assert facts["sentencepiece"] == {"documents": 68, "differences": 0, "base_differences": 0}
    assert facts["round_trip"] == {"documents": 68, "failures": 0, "altered_by_base": 0}
    assert facts["old_text_parity"]["max_abs_logit_difference"] == 0.0
    assert (facts["unreachable"], facts["padding_rows"], facts["fragments"]) == (0, 0, 0)
    assert outcome.counts["tokens_after"] < 0.6 * outcome.counts["tokens_before"]
    written = load_tokenizer(root)
    pieces = read_sentencepiece((root / "tokenizer.model").read_bytes()).pieces
    assert tuple(piece.text for piece in pieces) == written.pieces
    assert pieces[420] == ("<pad>", 0.0, PieceType.CONTROL)
    peer = AutoTokenizer.from_pretrained(root)
    for text in texts["japanese"][:5]:
        assert peer(text, add_special_tokens=False)["input_ids"] == encode(written, text)


def test_stage_refuses_a_tokenizer_model_of_another_tokenizer(extend, base_model, texts, tmp_path):
    other = tmp_path / "mixed"
    shutil.copytree(base_model, other)
    (other / "tokenizer.model").write_bytes(train(texts["japanese"][:9], 420))
    with pytest.raises(InputError, match="in tokenizer.model and .* in tokenizer.json"):
        extend(other, add=40)


def test_stage_refuses_a_broken_tokenizer_model(extend, base_model, tmp_path):
    other = tmp_path / "broken"
    shutil.copytree(base_model, other)
    (other / "tokenizer.model").write_bytes((base_model / "tokenizer.model").read_bytes()[:-3])
    with pytest.raises(InputError, match="can't be read as a SentencePiece model"):
        extend(other, add=40)


def test_new_piece_that_with_another_gives_an_old_one_is_left_out(texts):
    """Without the rule, SentencePiece would make the old piece of text that the base cuts otherwise."""
    base = TextTokenizer(convert_pieces(["▁", "w", "x", "y", "z", "xy", "wx", "yz", "wxyz"]), 1, 2)
    assert [base.pieces[number] for number in encode(base, "wxyz")][1:] == ["w", "xy", "z"]
    words = segment_words(base, ["\nwxy"] * 9)
    extension = extend_tokenizer(base, words, Limits(0, 2, 16, ascii=True))
    candidates = learn_candidates(base, words, Limits(5, 2, 16, ascii=True))
    assert b"wxy" in {candidate.content for candidate in candidates}
    excluded = excluded_at_first(base, candidates)
    assert [candidate.content for candidate in candidates if candidate.number in excluded] == [b"wxy"]
    assert extension.added == 0


def convert_pieces(pieces):
    """A tokenizer.json whose pieces merge in the order that they are given, longest words last."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {piece: number for number, piece in enumerate(names)}
    merges = [
        (piece[:place], piece[place:])
        for piece in pieces
        for place in range(1, len(piece))
        if piece[:place] in pieces and piece[place:] in pieces
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def test_characters_that_the_normaliser_replaces_are_no_pieces(texts):
    """SentencePiece's default normaliser is NFKC: no text that it gives has a full-width letter."""
    model = train([*texts["english"], *texts["japanese"][:1]], 420, normaliser="nmt_nfkc")
    (rules,) = (value for number, value, _ in _fields(model) if number == NORMALISER)
    (table,) = (value for number, value, _ in _fields(rules) if number == CHARACTER_MAP)
    tokenizer = convert(model, "llama")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(table), tokenizer.normalizer])
    base = TextTokenizer(tokenizer, 1, 2, {"tokenizer.model": model})
    corpus = [f"{text}㍿ＡＢＣの①ｶ" for text in texts["japanese"]]
    words = segment_words(base, corpus)
    assert not set("㍿ＡＢＣ①ｶ") & set(words.new_characters)
    assert set("株式会社") <= set(words.new_characters)
    extension = extend_tokenizer(base, words, LIMITS)
    assert unreachable_pieces(extension.tokenizer, extension.base_size) == []
    peer = sentencepiece.SentencePieceProcessor(model_proto=extension.tokenizer.side_files["tokenizer.model"])
    assert [peer.encode(text) for text in corpus] == [encode(extension.tokenizer, text) for text in corpus]
    # Asked the other way: such a character as a piece is seen to be out of reach.
    assert unreachable_pieces(with_characters(base, ["Ａ", "株"]), base.size) == [base.size]


def test_scores_fall_strictly_even_where_float32_is_coarse():
    """Mistral 7B has pieces of score -1e9: one less is the same float32."""
    for lowest in (-1e9, -31740.0, 0.0):
        scores = [struct.unpack("<f", struct.pack("<f", one))[0] for one in _scores_below(lowest, 9)]
        assert sorted(set(scores), reverse=True) == scores
        assert max(scores) < lowest


def test_digits_stay_apart_where_the_base_splits_them(texts):
    base = make_base(texts["english"], 380)
    words = segment_words(base, ["１２３４、二〇二四年 " * 9, "2024 and 2025 " * 9])
    extension = extend_tokenizer(base, words, Limits(8, 2, 16, ascii=True))
    assert {"１", "２"} <= set(new_texts(extension))
    assert not [text for text in new_texts(extension) if sum(map(str.isdecimal, text)) > 1]


def test_characters_to_add_come_by_what_they_save_and_leave_out_what_is_no_text(base):
    counts = {"鶏": 5, "é": 9, "": 99, " ": 99, "": 99, "a": 99, "稀": 1, "▁": 9}
    assert characters_to_add(base, counts, 2) == ("鶏", "é")


def processor(tokenizer: TextTokenizer) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer.side_files["tokenizer.model"])


def new_texts(extension):
    return [content.decode() for content in extension.tokenizer.contents[extension.base_size :]]


def encode(tokenizer, text):
    return tokenizer.encode_batch([text])[0].tolist()


def test_extension_has_exactly_the_wanted_pieces_after_the_old_ones(extension, base):
    assert extension.added == 160
    assert extension.tokenizer.pieces[: base.size] == base.pieces
    assert len(set(extension.tokenizer.pieces)) == base.size + 160
    assert extension.fragments == 0


def test_every_new_piece_is_reached_within_a_text(extension):
    assert unreachable_pieces(extension.tokenizer, extension.base_size) == []
    for number, text in enumerate(new_texts(extension), start=extension.base_size):
        # A line break is a byte here, which nothing merges with.
        assert encode(extension.tokenizer, f"\n{text}\n")[-2] == number


def test_new_pieces_keep_the_rules(extension):
    found = new_texts(extension)
    assert any(len(text) == 1 for text in found)
    assert any(len(text) > 3 for text in found)
    for text in found:
        assert len(text) <= 16
        assert not text.isascii()
        assert " " not in text.lstrip(" ")
        assert len({script_of(character) for character in text} - {""}) <= 1


def test_new_merges_hold_only_pieces_that_exist(extension):
    merges = json.loads(extension.tokenizer.tokenizer.to_str())["model"]["merges"]
    pieces = set(extension.tokenizer.pieces)
    assert all({left, right, left + right} <= pieces for left, right in merges)


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(UNICODE, MIXED))
@example(text="春になると、</s>庭師は🌸を\r\n  ")
@example(text="  two spaces")
def test_any_text_comes_back_as_with_the_base(extension, base, text):
    ids = encode(extension.tokenizer, text)
    assert extension.tokenizer.decode(ids) == base.decode(encode(base, text))


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(UNICODE, MIXED))
def test_text_that_uses_no_new_piece_keeps_its_ids(extension, base, text):
    ids = encode(extension.tokenizer, text)
    assume(max(ids, default=0) < extension.base_size)
    assert ids == encode(base, text)


def test_new_pieces_shorten_japanese_and_leave_english_alone(extension, base, texts):
    lengths = {
        (language, which): sum(map(len, tokenizer.encode_batch(texts[language])))
        for language in texts
        for which, tokenizer in (("before", base), ("after", extension.tokenizer))
    }
    assert lengths["english", "after"] == lengths["english", "before"]
    assert lengths["japanese", "after"] < 0.5 * lengths["japanese", "before"]


def test_components_are_the_bases_encoding_of_each_piece(extension, base):
    for text, components in zip(new_texts(extension), extension.components, strict=True):
        assert (
            b"".join(
                bytes([byte]) if (byte := byte_of(base.pieces[number])) is not None else base.contents[number]
                for number in components
            )
            == text.encode()
        )
        if "▁" not in text and " " not in text:
            assert encode(base, f"\n{text}")[-len(components) :] == list(components)


def test_extending_is_the_same_whatever_the_order_of_documents(extension, base, texts):
    shuffled = random.Random(0).sample(texts["japanese"], len(texts["japanese"]))
    again = extend_tokenizer(base, segment_words(base, iter(shuffled)), LIMITS)
    assert again.tokenizer.to_json() == extension.tokenizer.to_json()
    assert again.tokenizer.side_files == extension.tokenizer.side_files


@settings(max_examples=300, deadline=None)
@given(text=st.one_of(UNICODE, MIXED))
def test_tokenizer_model_gives_the_ids_of_tokenizer_json(extension, base, text):
    assume(encode(base, text) == processor(base).encode(text))  # where transformers' conversion is exact
    assert encode(extension.tokenizer, text) == processor(extension.tokenizer).encode(text)


def test_tokenizer_model_gives_the_ids_of_tokenizer_json_on_the_corpus(extension, base, texts):
    peer = processor(extension.tokenizer)
    for text in (*texts["japanese"], *texts["english"]):
        assert encode(extension.tokenizer, text) == peer.encode(text)
    assert peer.get_piece_size() == extension.tokenizer.size


def test_tokenizer_model_keeps_old_pieces_and_ranks_new_ones_below(extension, base):
    old, new = (read_sentencepiece(one.side_files["tokenizer.model"]) for one in (base, extension.tokenizer))
    assert new.pieces[: base.size] == old.pieces
    assert tuple(piece.text for piece in new.pieces) == extension.tokenizer.pieces
    added = [piece.score for piece in new.pieces[base.size :]]
    assert max(added) < min(piece.score for piece in old.pieces)
    assert len(set(added)) == len(added)
