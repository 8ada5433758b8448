"""Word lists in texts: left to right, the longest, none overlapping; equal to the plain definition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus.expressions import compile_expressions
from tsugiki.corpus.features import code_points, compute_features
from tsugiki.corpus.oracle import plain_spans
from tsugiki.languages import load_pack


def found(text, entries, *, spaceless=True, whole_words=True):
    compiled = compile_expressions(tuple(entries), spaceless=spaceless, whole_words=whole_words)
    return [text[first:end] for first, end in compiled.spans(code_points(text)).tolist()]


@pytest.mark.parametrize(
    ("text", "entries", "expected"),
    [
        ("", ["あ"], []),
        ("あ", ["あ"], ["あ"]),
        ("いろはにほ", ["いろ", "いろは", "はに"], ["いろは"]),
        ("いろはに", ["いろ", "はに"], ["いろ", "はに"]),
        ("ああああ", ["ああ"], ["ああ", "ああ"]),
        ("いろはに", ["いろはにほ", "ろは"], ["ろは"]),  # the walk goes back after a long attempt
        ("あ\U00020000い", ["\U00020000"], ["\U00020000"]),
        ("\ud800", ["あ"], []),
    ],
)
def test_expressions_are_found_longest_first_without_overlap(text, entries, expected):
    assert found(text, entries) == expected


@pytest.mark.parametrize(
    ("text", "spaceless", "expected"),
    [
        ("class ass, ASS", False, ["ass", "ASS"]),
        ("ass_x xass ass1", False, []),
        ("asse\u0301 ass\u0301", False, []),
        ("日本ass日本", True, ["ass"]),
        ("日本ass日本", False, []),
        ("classのass", True, ["ass"]),
    ],
)
def test_expressions_never_begin_or_end_inside_of_a_word(text, spaceless, expected):
    assert found(text, ["ass"], spaceless=spaceless) == expected


def test_expressions_inside_of_words_are_found_where_asked_for():
    assert found("class", ["ass"], spaceless=False, whole_words=False) == ["ass"]


def test_expressions_are_not_found_inside_of_a_run_of_katakana():
    features = compute_features("ファックスとエッチングの設定です。", load_pack("ja"))
    assert features["ng_expressions"] == 0
    assert compute_features("それはエッチです。", load_pack("ja"))["ng_expressions"] == 1


def test_expressions_of_phrases_may_hold_spaces():
    assert found("a dirty word here", ["dirty word", "dirty"], spaceless=False) == ["dirty word"]


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="aAbé1_ あいアイß\u0301\U00020000", max_size=60),
    entries=st.lists(
        st.text(alphabet="aAbé1_ あいアイß\u0301", min_size=1, max_size=5), min_size=1, max_size=8
    ),
    spaceless=st.booleans(),
    whole_words=st.booleans(),
    runs=st.sampled_from([(), ((0x30A1, 0x30FA),)]),
)
def test_expressions_equal_the_plain_definition(text, entries, spaceless, whole_words, runs):
    given = {"spaceless": spaceless, "whole_words": whole_words, "runs": runs}
    compiled = compile_expressions(tuple(entries), **given)
    expected = plain_spans(text, entries, **given)
    assert [tuple(span) for span in compiled.spans(code_points(text)).tolist()] == expected


def test_expressions_are_compiled_once_for_one_content():
    one = compile_expressions(("あ", "い"), spaceless=True)
    assert compile_expressions(("あ", "い"), spaceless=True) is one
    assert compile_expressions(("あ", "う"), spaceless=True) is not one


def test_expressions_of_a_hostile_text_take_linear_time():
    text = "あ" * 200_000
    entry = "あ" * 20 + "い"
    assert found(text, [entry]) == []


def test_features_count_expressions_and_dating_names():
    text = "無料のセックスと出会い系サイトとパパ活の広告。"
    features = compute_features(text, load_pack("ja"))
    assert features["ng_expressions"] == 1
    assert features["ng_share"] == pytest.approx(4 / features["language_letters"])
    assert features["dating_names"] == 2


def test_features_of_a_manual_hold_no_expression():
    text = "画像を挿入するには、メニューからファイルを選択します。small programs in a ターミナル。"
    assert compute_features(text, load_pack("ja"))["ng_expressions"] == 0
    english = "To kill a process, pass its number; the sucking class of assets is embarrassing."
    assert compute_features(english, load_pack("en"))["ng_expressions"] == 0
