"""Short answers: char_f1 against rapidfuzz and by hand, exact matches, numbers, SQuAD, choices, pass@k."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Indel, LCSseq

from tsugiki.errors import DataError
from tsugiki.evaluation.backend import Likelihood
from tsugiki.evaluation.metrics import matching, passing
from tsugiki.evaluation.metrics.characters import (
    character_f1,
    llmjp_char_f1,
    longest_common_subsequence,
)
from tsugiki.evaluation.metrics.likelihood import bits_per_byte, bits_per_character, choice_scores
from tsugiki.evaluation.metrics.squad import best_exact, squad_score, squad_summary

ANSWERS = st.text(alphabet="aAbé ß1_-.,東京都。「\u3000\nÿĀ", max_size=24)


# --- char_f1 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("東京", "東京", 1.0),
        ("東京都", "東京", 0.8),  # LCS 2 of 3 + 2: 4/5
        ("京都", "東京", 0.5),  # LCS 1: 2/4
        ("", "東京", 0.0),
        ("。", "東京", 0.0),  # nothing is left of it
        ("", "", 1.0),  # equal, though empty
        ("。", "、", 1.0),  # both become empty, so they are equal
        ("YES", "yes", 1.0),
        ("NO", "YES", 0.0),
        ("b a", "a b", 1.0),  # words are sorted
        ("b,a", "a b", 1.0),  # punctuation becomes a space
        ("ab", "a b", 0.8),  # 2 * 2 / 5
        ("caf\u00e9", "caf", 1.0),  # é is code point 233: deleted
        ("caf\u00e9", "cafe\u0301", 0.86),  # é goes, U+0301 becomes a space: "caf", "cafe": 6/7
        ("a_b", "a b", 0.67),  # the underscore is a word character: 4/6
        ("straße", "strae", 1.0),
    ],
)
def test_llmjp_char_f1_of_examples_worked_by_hand(prediction, gold, expected):
    assert llmjp_char_f1(prediction, [gold]) == expected


def test_llmjp_char_f1_rounds_halves_to_even():
    # 16 characters and 1 in common: 2 / 16 = 12.5 hundredths -> 12; 3 * 2 / 16 = 37.5 -> 38.
    assert llmjp_char_f1("abcdefgh", ["axxxxxxx"]) == 0.12
    assert llmjp_char_f1("abcdefgh", ["abcxxxxx"]) == 0.38


def _oracle(first: str, second: str) -> float:
    """token_sort_ratio put together from rapidfuzz's insert-delete similarity (not its own, newer, rules)."""

    def sort(text: str) -> str:
        kept = "".join(one for one in text if not 128 <= ord(one) <= 255)
        return " ".join(
            sorted("".join(one if one.isalnum() or one == "_" else " " for one in kept).lower().split())
        )

    first, second = sort(first), sort(second)
    if first == second:
        return 1.0
    if not first or not second:
        return 0.0
    return round(100 * Indel.normalized_similarity(first, second)) / 100


@given(ANSWERS, ANSWERS)
def test_llmjp_char_f1_equals_rapidfuzz(first, second):
    assert llmjp_char_f1(first, [second]) == _oracle(first, second)


@given(st.text(max_size=70), st.text(max_size=70))
def test_longest_common_subsequence_equals_rapidfuzz(first, second):
    assert longest_common_subsequence(first, second) == LCSseq.similarity(first, second)


def test_longest_common_subsequence_of_long_texts_is_that_of_rapidfuzz():
    first, second = "東京都港区" * 400, "港区東京" * 500
    assert longest_common_subsequence(first, second) == LCSseq.similarity(first, second)


def test_character_f1_differs_from_char_f1_where_order_matters():
    assert character_f1("京東", ["東京"]) == 1.0
    assert llmjp_char_f1("京東", ["東京"]) == 0.5
    assert character_f1("東京都", ["大阪", "東京"]) == 0.8
    assert character_f1("ＡＢＣ 123", ["ABC123"]) == 1.0  # NFKC, no white space
    assert character_f1("aab", ["ab"]) == pytest.approx(0.8)
    assert character_f1("", [""]) == 1.0
    assert character_f1("a", [""]) == 0.0
    assert character_f1("a", []) == 0.0


@given(ANSWERS, ANSWERS)
def test_character_f1_is_symmetric_and_at_least_the_ordered_overlap(first, second):
    assert character_f1(first, [second]) == character_f1(second, [first])
    a, b = ("".join(matching.llmjp_prediction(one).split()) for one in (first, second))
    if a and b:
        assert character_f1(a, [b]) >= 2 * LCSseq.similarity(a, b) / (len(a) + len(b)) - 1e-12


# --- exact match ---------------------------------------------------------------------------------------


def test_llmjp_prediction_keeps_what_precedes_an_empty_line():
    assert matching.llmjp_prediction(" ３ \n\n### 入力") == "3"
    assert matching.llmjp_prediction("\n\n3") == ""  # the published defect: nothing is left
    assert matching.llmjp_prediction("\n3") == "3"


def test_exact_matches_forgive_what_each_rule_says():
    assert matching.llmjp_exact_match("Ａ", ["A"]) == 1.0
    assert matching.llmjp_exact_match("A ", ["A"]) == 0.0
    assert matching.exact_match(" A\n", ["B", "A"]) == 1.0
    assert matching.exact_match("Ａ", ["A"]) == 0.0
    assert matching.squad_exact("The  Denver Broncos!", ["denver broncos"]) == 1.0
    assert matching.squad_exact("theatre", ["atre"]) == 0.0  # articles are whole words
    assert matching.squad_f1("the cat sat", ["a cat", "dog"]) == pytest.approx(2 / 3)
    assert matching.squad_f1("the", [""]) == 1.0
    assert matching.squad_f1("cat", ["the"]) == 0.0


def test_trivia_qa_ignores_case_and_punctuation_of_any_alias_and_nothing_else():
    aliases = ["Dr. No", "Doctor No"]
    assert matching.trivia_qa_match(" dr no", aliases) == 1.0
    assert matching.trivia_qa_match("DOCTOR NO!", aliases) == 1.0
    assert matching.trivia_qa_match("  dr no", aliases) == 0.0  # only one space is taken off
    assert matching.trivia_qa_match("the dr no", aliases) == 0.0
    assert matching.squad_exact("the dr no", aliases) == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("答えは1,234です。", 1234),
        ("3個と4個で7個", 7),
        ("値段は -5", -5),
        ("計算すると 12.", 12),
        ("12.0", 12),
        ("12.5", None),
        ("1.2.3", None),  # the published code ends with an error here
        ("...", None),
        ("-", None),
        ("なし", None),
        ("18 の後は、", 18),
        ("18, 20,", 20),
        ("18 ,", None),  # the last match is the comma alone
    ],
)
def test_last_integer_follows_mgsm_rule(text, expected):
    assert matching.last_integer(text) == expected


def test_mgsm_match_compares_the_numbers():
    assert matching.mgsm_match("答えは1,200です。", ["1200"]) == 1.0
    assert matching.mgsm_match("わからない", ["1200"]) == 0.0
    assert matching.mgsm_match("12.5", ["12.5"]) == 0.0  # no whole number


@pytest.mark.parametrize(
    ("text", "strict", "flexible", "fair"),
    [
        ("so 3 * 4 = 12\n#### 12", 1, 1, 1),
        ("#### 12.", 1, 1, 1),
        ("#### 1,2", 1, 1, 1),  # commas go wherever they are
        ("#### 12.0", 0, 0, 1),
        ("#### $12", 0, 1, 1),
        ("The answer is $12.", 0, 1, 1),
        ("12 apples", 0, 1, 1),
        ("#### 12\nQuestion 7", 1, 0, 1),  # the last number is another one
        ("twelve", 0, 0, 0),
        ("", 0, 0, 0),
        ("the sum is 12 ...", 0, 0, 1),  # the dots look like a number to the published rule
    ],
)
def test_gsm8k_rules_on_forms_of_the_same_answer(text, strict, flexible, fair):
    gold = ["He has 3 * 4 = <<3*4=12>>12 apples.\n#### 12"]
    assert matching.gsm8k_strict(text, gold) == strict
    assert matching.gsm8k_flexible(text, gold) == flexible
    assert matching.last_number_match(text, gold) == fair


def test_last_number_match_without_a_number_in_the_gold_is_never_right():
    assert matching.last_number_match("none", ["none"]) == 0.0


def test_bbh_answer_loses_its_last_letter_without_a_full_stop():
    assert matching.bbh_answer("So the answer is (B).") == "(B)"
    assert matching.bbh_match("So the answer is valid", ["valid"]) == 0.0
    assert matching.bbh_match_fair("So the answer is valid", ["valid"]) == 1.0
    assert matching.bbh_match_fair("So the answer is Valid. ", ["valid"]) == 1.0
    assert matching.bbh_answer("no idea") == matching.INVALID
    assert matching.bbh_match_fair("no idea", ["no idea"]) == 0.0
    assert matching.bbh_answer("the answer is 1.\nthe answer is 2.") == "1"


# --- SQuAD 2.0 -----------------------------------------------------------------------------------------


def test_squad_published_exact_scores_right_abstentions_zero():
    right = squad_score("unanswerable", [])
    assert (right.exact, right.f1, right.published_exact, right.abstained) == (1.0, 1.0, 0.0, True)
    wrong = squad_score("in 1066", [])
    assert (wrong.exact, wrong.published_exact) == (0.0, 0.0)
    silent = squad_score("", [])
    assert (silent.exact, silent.published_exact) == (1.0, 1.0)
    found = squad_score("The 1066", ["1066", "in 1066"])
    assert (found.exact, found.published_exact, found.has_answer) == (1.0, 1.0, True)
    assert squad_score("Unanswerable.", ["1066"]).exact == 0.0


def test_squad_summary_reports_both_halves():
    scores = [
        squad_score("1066", ["1066"]),
        squad_score("1067", ["1066"]),
        squad_score("unanswerable", []),
        squad_score("unanswerable", []),
        squad_score("paris", []),
    ]
    summary = squad_summary(scores, [0.1, 0.2, 0.9, 0.8, 0.7])
    assert summary.has_answer_exact == 0.5
    assert summary.no_answer_exact == pytest.approx(2 / 3)
    assert summary.balanced_exact == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert summary.published_exact == pytest.approx(1 / 5)
    # Answering only the first question: 1 right and 3 abstentions.
    assert (summary.best_exact, summary.best_exact_threshold) == (4 / 5, 0.1)
    only_answers = squad_summary(scores[:2])
    assert (only_answers.no_answer_exact, only_answers.balanced_exact, only_answers.best_exact) == (None,) * 3


@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.floats(0, 1, allow_nan=False)), min_size=1, max_size=9
    )
)
def test_squad_best_exact_equals_the_best_of_all_cuts(questions):
    scores = [squad_score("x" if right else "y", ["x"] if has else []) for has, right, _ in questions]
    probabilities = [p for _, _, p in questions]
    order = sorted(range(len(scores)), key=lambda i: probabilities[i])
    reached = []
    for cut in range(len(scores) + 1):
        answered = set(order[:cut])
        reached.append(
            sum(
                (scores[i].published_exact if i in answered else float(not scores[i].has_answer))
                for i in order
            )
        )
    assert best_exact(scores, probabilities)[0] == max(reached) / len(scores)


def test_squad_refuses_nothing_and_unequal_lengths():
    with pytest.raises(DataError, match="without a question"):
        squad_summary([])
    with pytest.raises(DataError, match="1 SQuAD scores and 2"):
        best_exact([squad_score("a", ["a"])], [0.1, 0.2])


# --- choices, bits, pass@k ------------------------------------------------------------------------------


def test_choice_scores_differ_by_the_length_that_divides():
    options = [" no", " certainly", " 東京都"]
    likelihoods = [Likelihood(3.0, 1), Likelihood(6.0, 4), Likelihood(3.6, 3)]
    found = choice_scores(likelihoods, options, answer=1)
    assert found.picked == {"sum": 0, "by_byte": 2, "by_character": 1, "by_token": 2}
    assert found.scores == {"sum": 0.0, "by_byte": 0.0, "by_character": 1.0, "by_token": 0.0}


def test_choice_scores_of_equal_options_take_the_first():
    assert choice_scores([Likelihood(1.0, 1)] * 3, ["a", "b", "c"], 0).picked["sum"] == 0


@pytest.mark.parametrize(
    ("likelihoods", "answer", "said"),
    [
        ([Likelihood(math.nan, 1), Likelihood(1.0, 1)], 0, "not finite"),
        ([Likelihood(1.0, 1)], 0, "1 likelihoods for 2 options"),
        ([Likelihood(1.0, 1)] * 2, 2, "number 2 is right"),
    ],
)
def test_choice_scores_refuse_what_can_not_be_compared(likelihoods, answer, said):
    with pytest.raises(DataError, match=said):
        choice_scores(likelihoods, ["a", "b"], answer)


def test_bits_of_a_text_of_known_probability():
    assert bits_per_byte(math.log(2) * 24, 6) == pytest.approx(4)
    assert bits_per_character(math.log(2) * 24, 2) == pytest.approx(12)
    with pytest.raises(DataError, match="0 bytes"):
        bits_per_byte(1.0, 0)
    with pytest.raises(DataError, match="nan"):
        bits_per_character(math.nan, 3)


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_equals_enumeration(case):
    samples, passed, k = case
    drawn = list(combinations(range(samples), k))
    expected = sum(any(one < passed for one in draw) for draw in drawn) / len(drawn)
    assert passing.pass_at_k(samples, passed, k) == pytest.approx(expected)


def test_pass_at_k_means_and_refusals():
    assert passing.mean_pass_at_k([[True, False], [False, False]], 1) == 0.25
    assert passing.mean_pass_at_k([[True, False], [False, False]], 2) == 0.5
    assert passing.answered_at_k([["", " x"], ["\n", ""]]) == 0.5
    for call in (
        lambda: passing.pass_at_k(3, 4, 1),
        lambda: passing.pass_at_k(3, 1, 4),
        lambda: passing.mean_pass_at_k([], 1),
        lambda: passing.answered_at_k([]),
    ):
        with pytest.raises(DataError):
            call()
