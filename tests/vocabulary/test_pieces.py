from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from tsugiki.models.byte_level import byte_alphabet, piece_to_bytes
from tsugiki.vocabulary.pieces import (
    MIXED_SCRIPTS,
    Kind,
    Scripts,
    describe_pieces,
    script_of,
)


def describe(*pieces):
    scripts = Scripts()
    return describe_pieces(pieces, len(pieces), scripts), scripts


def test_byte_alphabet_is_that_of_the_tokenizers_library():
    assert set(byte_alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_alphabet().values()) == list(range(256))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_piece_to_bytes_undoes_the_spelling_of_the_tokenizers_library(text):
    spelt = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    assert b"".join(piece_to_bytes(word) or b"" for word, _ in spelt) == text.encode()


def test_piece_to_bytes_of_something_else_is_none():
    assert piece_to_bytes("日本") is None


@pytest.mark.parametrize(
    ("characters", "script"),
    [
        ("日々仮〇漢", "HAN"),
        ("ひらカタカーｱﾞ", "HAN"),
        ("abzéＡ", "LATIN"),
        ("дЖ", "CYRILLIC"),
        ("한글", "HANGUL"),
        ("हन", "DEVANAGARI"),
        ("019１", "NUMBER"),
        ("、。「」!?-＋🌸", "COMMON"),
        (" \n\t\u3000\u0301\u200dि", ""),
    ],
)
def test_script_of_groups_characters_as_sentencepiece_does(characters, script):
    assert {script_of(character) for character in characters} == {script}


def test_describe_whole_pieces():
    table, scripts = describe(
        b" the", "の".encode(), "漢字かな".encode(), "のa".encode(), b"\n", "。".encode()
    )
    assert table.kind_P.tolist() == [Kind.WHOLE] * 6
    assert table.length_P.tolist() == [4, 1, 4, 2, 1, 1]
    assert table.is_ascii_P.tolist() == [True, False, False, False, True, False]
    han = scripts.of_character("の")
    assert table.script_P[1:3].tolist() == [han, han]
    assert table.script_P[3] == MIXED_SCRIPTS
    assert table.script_P[4] == 0


@given(st.characters(min_codepoint=0x80, exclude_categories=["Cs"]), st.data())
def test_describe_parts_of_a_character_hold_its_code_point(character, data):
    content = character.encode()
    cut = data.draw(st.integers(1, len(content) - 1))
    table, _ = describe(content[:cut], content[cut:])
    assert table.kind_P.tolist() == [Kind.LEAD, Kind.CONTINUATION]
    assert table.need_P[0] == table.length_P[1] == len(content) - cut
    assert table.value_P[0] << (6 * (len(content) - cut)) | table.value_P[1] == ord(character)


@pytest.mark.parametrize(
    "piece",
    [None, b"", "の".encode() + b"\xe3", b"\x81a", b"a\xe3", b"\xff", b"\xc0\x80", b"\x80" * 4, b"\xe3\xe3"],
)
def test_describe_special_and_straddling_pieces_are_opaque(piece):
    table, _ = describe(piece)
    assert table.kind_P[0] == Kind.OPAQUE
