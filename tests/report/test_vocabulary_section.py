from __future__ import annotations

from types import SimpleNamespace

import pytest

from tsugiki.report.sections.vocabulary import _proofs
from tsugiki.report.sections.vocabulary_curve import savings_curve

CURVE = [
    {"pieces": pieces, "tokens": tokens, "characters": 1000, "bytes": 3000}
    for pieces, tokens in ((0, 2000), (256, 1100), (512, 900))
]


def proofs(**found):
    return {one.what: (str(one.figure), one.held) for one in _proofs(SimpleNamespace(facts=found))}


def test_savings_curve_says_what_each_size_buys():
    figure = savings_curve(SimpleNamespace(facts={"curve": CURVE}, index=3), "m1")
    assert "256 new tokens: 1.100 tokens per character" in str(figure.wide)
    assert figure.wide != figure.narrow


@pytest.mark.parametrize("curve", [[], CURVE[:2], [{"pieces": 1}] * 5, "damaged"])
def test_savings_curve_without_enough_points_is_left_out(curve):
    assert savings_curve(SimpleNamespace(facts={"curve": curve}, index=0), "m1") is None


def test_difference_between_the_two_tokenizer_files_is_a_proof_that_failed():
    what = "SentencePiece with tokenizer.model gives the ids of tokenizer.json"
    assert proofs(sentencepiece={"documents": 9, "differences": 0})[what] == (
        "0 differences in 9 documents",
        True,
    )
    assert proofs(sentencepiece={"documents": 9, "differences": 2})[what][1] is False


def test_round_trip_names_what_the_base_does_not_give_back_either():
    found = proofs(round_trip={"documents": 9, "failures": 0, "altered_by_base": 2})
    assert found["Encoding and decoding gives the text back"] == (
        "0 failures in 9 documents, 2 come back as the base gives them back",
        True,
    )


def test_round_trips_of_a_sample_and_logits_of_some_layers_say_so():
    found = proofs(
        round_trip={"documents": 9, "failures": 0, "all_documents": 40},
        old_text_parity={
            "max_abs_logit_difference": 0.0,
            "tolerance": 0.0,
            "texts": 8,
            "layers": 3,
            "all_layers": 32,
        },
    )
    figures = [figure for figure, _ in found.values()]
    assert figures[0] == "0 failures in 9 documents, 40 there are: an even sample was checked"
    assert figures[1].endswith("on 8 texts (the first 3 of 32 layers, as many as memory held)")


def test_what_a_unigram_tokenizer_does_besides_is_named():
    found = proofs(
        round_trip={"documents": 9, "failures": 0, "unknown": 3},
        sentencepiece={"documents": 9, "differences": 0, "ties": 1},
    )
    figures = [figure for figure, _ in found.values()]
    assert figures[0] == "0 failures in 9 documents, 3 hold characters that the tokenizer has not"
    assert figures[1] == "0 differences in 9 documents, 1 where two ways score the same but for rounding"


@pytest.mark.parametrize(
    ("same", "promised", "held", "words"),
    [
        (9, True, True, ""),
        (8, True, False, ""),
        (2, False, None, ", not promised: all scores were estimated anew"),
    ],
)
def test_old_text_that_is_cut_anew_fails_only_where_the_opposite_was_promised(same, promised, held, words):
    found = proofs(old_ids={"documents": 9, "same": same, "promised": promised})
    assert found == {
        "Text that uses no new token is cut as before the extension": (f"{same} of 9 documents{words}", held)
    }


def test_norms_are_shown_for_both_matrices_and_not_where_damaged():
    quantiles = {"quantiles": [0.5, 1, 2, 3, 4], "old_quantiles": [1, 1, 1.5, 2, 2]}
    found = proofs(new_row_norms=quantiles, new_head_row_norms={"quantiles": ["x", 1, 2]})
    assert list(found) == ["Norm of the new embedding rows: smallest, median, largest"]
    assert "old rows" in next(iter(found.values()))[0]
