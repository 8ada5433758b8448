"""Alarms: each raised by the fault it is for, and by nothing else."""

from __future__ import annotations

import pytest

from tsugiki.artifacts.scores import SCHEMA
from tsugiki.evaluation.comparing.alarms import (
    alarms_of,
    first_newline,
    loops,
    off_language,
    own_script,
    without_errors,
)

JAPANESE = "東京は日本の首都であり、世界最大の都市圏の一つである。"
ENGLISH = "Tokyo is the capital of Japan and one of the largest cities."


def row(item=0, **values):
    base = dict.fromkeys(SCHEMA.names) | {"model": "m", "task": "t", "dataset": "d", "language": "ja"}
    return base | {"item": str(item), "output": "x", "gold": str(item), "score": 1.0} | values


def raised(rows):
    return "\n".join(alarms_of(rows, [], ("m",)))


def test_alarms_of_sound_outputs_are_none():
    assert raised([row(i, output=f"{JAPANESE}{i}", gold=JAPANESE, score=i % 2) for i in range(40)]) == ""


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"empty": True, "output": ""}, "gave an empty answer to"),
        ({"cut_context": True}, "saw a shortened context in"),
        ({"truncated": True}, "was ended by a cap in"),
        ({"output": "\n大阪"}, "began with an empty line in"),
        ({"output": "ですから、" * 30}, "repeats itself to the end in"),
        ({"output": ENGLISH, "gold": JAPANESE}, "wrote in another script than the language's in"),
        ({"output": "\ufffd"}, "wrote bytes that are not UTF-8 for"),
    ],
)
def test_alarms_fault_in_five_percent_is_counted_and_below_is_not(fault, sentence):
    good = [row(i, output=f"{JAPANESE}{i}", gold=JAPANESE) for i in range(95)]
    assert f"t on d: m {sentence} 5 of 100 items" in raised(good + [row(100 + i) | fault for i in range(5)])
    assert sentence not in raised([*good, *good, *(row(100 + i) | fault for i in range(5))])


def test_alarms_exactly_zero_and_one_answer_to_everything():
    rows = [row(i, output="A", gold="ABCD"[i % 4], score=0.0) for i in range(40)]
    assert 'm gives the same answer, "A", to 40 of 40 items' in raised(rows)
    assert "m has no item right" in raised(rows)
    assert "same answer" not in raised([one | {"gold": "A", "score": 1.0} for one in rows])


def test_alarms_of_a_task_at_chance_and_of_a_corpus_metric_at_zero():
    base = {"task": "t", "dataset": "d", "clusters": 100, "by_byte": False, "corpus": None, "chance": 0.25}
    near = base | {"by_model": {"m": {"value": 0.27, "low": 0.24}, "n": {"value": 0.6, "low": 0.5}}}
    bleu = base | {"corpus": "bleu", "chance": None, "by_model": {"m": {"value": 0.0, "low": 0.0}}}
    assert alarms_of([], [near, bleu], ("m",)) == [
        "t on d: m can't be told from guessing (27.0% right, chance 25.0%)",
        "t on d: m scores exactly zero",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("はい。" * 20, True),
        ("The answer: " + "no no " * 40, True),
        ("a" * 200, True),
        (JAPANESE, False),
        ("短い短い短い", False),  # too short to be a loop
        (ENGLISH * 3, False),  # three times is a habit
        ("繰り返し" * 12 + JAPANESE * 2 + "別の文で終わる。", False),  # it came out of it
        (None, False),
        ("", False),
    ],
)
def test_loops_only_where_an_output_ends_in_one(text, found):
    assert loops(text) is found


@pytest.mark.parametrize(
    ("text", "found"),
    [("\nx", True), ("  \n", True), (" x\n", False), ("x\ny", False), ("", False), (None, False)],
)
def test_first_newline_only_before_any_text(text, found):
    assert first_newline(text) is found


def test_off_language_spares_programs_numbers_and_languages_without_a_pack():
    wrong = {"language": "ja", "output": ENGLISH, "gold": JAPANESE}
    assert off_language(wrong)
    assert off_language({"language": "en", "output": JAPANESE, "gold": ENGLISH})
    assert not off_language(wrong | {"gold": "def capital(): return 'Tokyo'"})
    assert not off_language(wrong | {"output": "42 km"})
    assert not off_language(wrong | {"language": "xx"})
    assert not off_language(wrong | {"output": JAPANESE + " LLM"})
    assert own_script("1234", "ja") is None


def test_items_without_an_answer_are_left_out_for_all_models():
    rows = [row(i) | {"model": model, "error": None} for model in ("m", "n") for i in range(200)]
    assert without_errors(rows, ["m", "n"]) == (rows, [])
    rows[3] |= {"score": None, "error": "timed out"}
    kept, said = without_errors(rows, ["m", "n"])
    assert [one["item"] for one in kept].count(rows[3]["item"]) == 0
    assert len(kept) == 398
    assert said == [
        "t on d: m has no answer to 1 of 200 items (timed out); these items are left out for all models"
    ]
    assert without_errors(rows, ["n"]) == (rows, [])  # what another model lacks does not matter
