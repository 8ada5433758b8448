"""How pieces are spelled, and SentencePiece's file: read and extended without the protobuf library."""

from __future__ import annotations

import contextlib
import io

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.errors import InputError
from tsugiki.models.sentencepiece_file import ModelPiece, PieceType, append_pieces, read_sentencepiece
from tsugiki.models.spelling import TokenizerKind, byte_of, content_of, kind_of, spell


@pytest.fixture(scope="module")
def model() -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the graft and the tree 接ぎ木"] * 20),
        model_writer=written,
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        user_defined_symbols=["<keep>"],
        minloglevel=2,
    )
    return written.getvalue()


def test_pieces_are_those_that_sentencepiece_reads(model):
    peer = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = read_sentencepiece(model)
    assert ours.is_bpe
    assert [piece.text for piece in ours.pieces] == [peer.id_to_piece(n) for n in range(290)]
    assert [piece.score for piece in ours.pieces] == [peer.get_score(n) for n in range(290)]
    for number, piece in enumerate(ours.pieces):
        assert (piece.type is PieceType.BYTE) == peer.is_byte(number)
        assert (piece.type is PieceType.CONTROL) == peer.is_control(number)
        assert (piece.type is PieceType.UNKNOWN) == peer.is_unknown(number)
    assert [piece.text for piece in ours.pieces if piece.type is PieceType.USER_DEFINED] == ["<keep>"]


def test_appended_pieces_are_read_by_sentencepiece_and_the_rest_stays(model):
    added = [ModelPiece("東京" * 40, -1e9, PieceType.NORMAL), ModelPiece("<pad>", 0.0, PieceType.CONTROL)]
    longer = append_pieces(model, added)
    peer = sentencepiece.SentencePieceProcessor(model_proto=longer)
    assert peer.get_piece_size() == 292
    assert (peer.id_to_piece(290), peer.get_score(290), peer.is_control(291)) == ("東京" * 40, -1e9, True)
    assert read_sentencepiece(longer).pieces == (*read_sentencepiece(model).pieces, *added)
    text = "the grafted tree <keep> \n"
    assert peer.encode(text) == sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)


def test_appending_nothing_twice_gives_the_same_bytes(model):
    once = append_pieces(model, [])
    assert append_pieces(once, []) == once
    assert read_sentencepiece(once) == read_sentencepiece(model)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_file_is_read_or_refused_but_never_crashes(model, data):
    place = data.draw(st.integers(0, len(model) - 1))
    damaged = model[:place] + data.draw(st.binary(max_size=4)) + model[place + data.draw(st.integers(0, 9)) :]
    with contextlib.suppress(InputError):
        assert read_sentencepiece(damaged).pieces


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 20, b"\x0a\x7fabc", b"plain text, no model", b"\x0a\x02\x0a\x05"]
)
def test_bytes_that_are_no_model_are_refused(data):
    with pytest.raises(InputError, match="tokenizer.model"):
        read_sentencepiece(data)


@given(content=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), min_size=1))
def test_spelling_and_content_are_inverse(content):
    for kind in (TokenizerKind.BYTE_LEVEL, TokenizerKind.SENTENCE_PIECE):
        piece = spell(kind, content.encode())
        if byte_of(piece) is None or kind is TokenizerKind.BYTE_LEVEL:
            assert content_of(kind, piece) == content.encode()


def test_fallback_pieces_stand_for_their_byte():
    assert content_of(TokenizerKind.SENTENCE_PIECE, "<0xE3>") == b"\xe3"
    assert content_of(TokenizerKind.SENTENCE_PIECE, "▁the") == b" the"
    assert [byte_of(piece) for piece in ("<0x0A>", "<0xe3>", "<0xE30>", "E3")] == [10, None, None, None]
    with pytest.raises(UnicodeDecodeError):
        spell(TokenizerKind.SENTENCE_PIECE, b"\xe3")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"model": {"type": "BPE"}, "decoder": {"type": "ByteLevel"}}, TokenizerKind.BYTE_LEVEL),
        (
            {
                "model": {"type": "BPE", "byte_fallback": True},
                "decoder": {"decoders": [{"decoders": [{"type": "ByteFallback"}]}, {"type": "Fuse"}]},
            },
            TokenizerKind.SENTENCE_PIECE,
        ),
        ({"model": {"type": "Unigram", "byte_fallback": True}, "decoder": None}, TokenizerKind.UNIGRAM),
        ({"model": {"type": "BPE"}, "decoder": {"type": "Metaspace"}}, TokenizerKind.OTHER),
        ({}, TokenizerKind.OTHER),
    ],
)
def test_kind_of_a_tokenizer_is_read_from_model_and_decoder(data, kind):
    assert kind_of(data) is kind
