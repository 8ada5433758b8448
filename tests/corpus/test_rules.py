"""Rules are strict, keep every reason, and are refused where they make no sense."""

import pytest

from tsugiki.corpus.features import compute_features
from tsugiki.corpus.rules import failing, rules_of
from tsugiki.errors import InputError
from tsugiki.languages import load_pack, pack_codes

JA = load_pack("ja")


EN = load_pack("en")


def test_rules_of_fineweb_ask_for_five_sentences_with_or_without_marks_as_its_c4_step_does():
    four, five = ("\n".join(["No mark ends this"] * count) for count in (4, 5))
    rules = [rule for rule in rules_of(EN, rule_set="fineweb") if rule.feature == "c4_open_sentences"]
    assert failing(compute_features(four, EN), rules) == ["c4_open_sentences<5"]
    assert failing(compute_features(five, EN), rules) == []
    assert compute_features(five, EN)["c4_sentences"] == 0


@pytest.mark.parametrize("code", pack_codes())
def test_rules_are_strict_except_below_which_rejects_equality(code):
    pack = load_pack(code)
    for rule_set in (None, *pack.rule_sets):
        for rule in rules_of(pack, rule_set=rule_set):
            inside, outside = (-1e-9, 1e-9) if rule.sign in {">", ">="} else (1e-9, -1e-9)
            assert not rule.rejects({rule.feature: rule.threshold + inside})
            assert rule.rejects({rule.feature: rule.threshold}) == (rule.sign == ">=")
            assert rule.rejects({rule.feature: rule.threshold + outside})


def test_rules_of_ng_share_keep_below_five_in_a_hundred_only():
    (rule,) = [rule for rule in rules_of(JA) if rule.feature == "ng_share"]
    assert rule.reason == "ng_share>=0.05"
    text = "セックス" + "あ" * 76
    assert compute_features(text, JA)["ng_share"] == 0.05
    assert rule.rejects(compute_features(text, JA))
    assert not rule.rejects(compute_features(text + "あ", JA))


def test_rules_of_a_named_set_are_that_sets():
    v2 = {rule.feature for rule in rules_of(JA, rule_set="swallow_v2")}
    v1 = {rule.feature for rule in rules_of(JA)}
    dropped = {"sentence_length_max", *(f"top_{n}gram" for n in range(2, 5))}
    assert v1 - v2 == dropped | {f"repeated_{n}grams" for n in range(5, 11)}
    assert [r.threshold for r in rules_of(JA, {"letters": 7}, "swallow_v2") if r.name == "letters"] == [7]


def test_rules_of_an_unknown_set_suggest_a_known_one():
    with pytest.raises(InputError, match="no set of rules") as caught:
        rules_of(JA, rule_set="swallow_v3")
    assert "swallow_v2" in caught.value.hint


def test_rules_on_unknown_features_are_all_named_at_once():
    bound = JA.rules["letters"]
    pack = JA.model_copy(
        update={
            "rules": {"a": bound.model_copy(update={"feature": "leters"})},
            "rule_sets": {"s": {"b": bound.model_copy(update={"feature": "words"})}},
        }
    )
    with pytest.raises(InputError, match=r'rules\.a reads "leters"; rule_sets\.s\.b reads "words"') as caught:
        rules_of(pack)
    assert '"letters"' in caught.value.hint


def test_failing_keeps_every_reason_in_the_packs_order():
    reasons = failing(compute_features("short", JA), rules_of(JA))
    assert reasons[:4] == ["letters<400", "language_letters<400", "language_share<0.5", "hiragana_share<0.2"]
    assert "sentence_length_mean<20" in reasons


def test_rules_with_two_bounds_have_two_names():
    names = [rule.name for rule in rules_of(JA)]
    assert {"sentence_length_mean.min", "sentence_length_mean.max", "letters"} <= set(names)
    assert len(names) == len(set(names))


def test_rules_overrides_change_thresholds_and_reasons():
    rules = rules_of(JA, {"letters": 10, "sentence_length_mean.max": 120.0})
    assert {"letters<10", "sentence_length_mean>120"} <= {rule.reason for rule in rules}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"leters": 1.0}, "no rule"),
        ({"letters": float("nan")}, "nan"),
        ({"sentence_length_mean": 1.0}, "no rule"),
    ],
)
def test_rules_overrides_that_make_no_sense_are_input_errors(overrides, message):
    with pytest.raises(InputError, match=message):
        rules_of(JA, overrides)


def test_rules_on_a_feature_that_is_not_computed_are_input_errors():
    pack = EN.model_copy(update={"rules": {"x": JA.rules["hiragana_share"]}})
    with pytest.raises(InputError, match="hiragana_share"):
        rules_of(pack)
