"""comparison.json from made-up rows whose right answers are known."""

from __future__ import annotations

import json
from math import log

import numpy as np
import pyarrow as pa
import pytest

from tsugiki.artifacts.scores import SCHEMA
from tsugiki.errors import DataError, InputError
from tsugiki.evaluation.comparing.comparison import Settings, compare
from tsugiki.evaluation.statistics.estimates import mcnemar_exact, wilson_interval
from tsugiki.evaluation.tasks.base import Measure

MEASURES = {
    "bits-per-byte": Measure("bits per byte", lower_is_better=True, by_byte=True),
    "cloze": Measure("accuracy", lower_is_better=False, chance=0.25),
}


def row(model, item, **values):
    base = dict.fromkeys(SCHEMA.names)
    return base | {
        "model": model,
        "task": "bits-per-byte",
        "dataset": "japanese",
        "language": "ja",
        "domain": "a.example",
        "item": str(item),
        "cluster": str(item),
        "truncated": False,
        "empty": False,
        **values,
    }


def bits_row(model, item, bits, size_bytes, **values):
    nll = bits * log(2)
    return row(model, item, nll_nats=nll, bytes=size_bytes, score=bits / size_bytes, tokens=9, **values)


def cloze_row(model, item, score, **values):
    return row(model, item, task="cloze", score=float(score), output="x", gold="x", bytes=10, **values)


def run(rows, models=("base", "adapted", "control"), **settings):
    settings = Settings(models, settings.pop("baseline", models[0]), settings.pop("draws", 400), **settings)
    return compare(pa.Table.from_pylist(rows, schema=SCHEMA), MEASURES, settings)


@pytest.fixture(scope="module")
def rows():
    """40 pages: adapted needs 20 % fewer bits than base, control as many give or take."""
    generator = np.random.default_rng(0)
    made = []
    for item in range(40):
        size = int(generator.integers(500, 5000))
        bits = size * generator.normal(2, 0.2)
        domain = f"{'abc'[item % 3]}.example"
        for model, factor in (("base", 1.0), ("adapted", 0.8), ("control", 1 + generator.normal(0, 0.01))):
            made.append(bits_row(model, item, bits * factor, size, domain=domain))
            right = generator.random() < (0.9 if model == "adapted" else 0.3)
            made.append(cloze_row(model, item, right))
    return made


def pair_of(task, baseline, model):
    [pair] = [pair for pair in task["pairs"] if (pair["baseline"], pair["model"]) == (baseline, model)]
    return pair


def test_compare_values_are_ratios_of_sums(rows):
    task = run(rows)["tasks"][0]
    for model in ("base", "adapted", "control"):
        own = [r for r in rows if r["model"] == model and r["task"] == "bits-per-byte"]
        value = sum(r["nll_nats"] for r in own) / log(2) / sum(r["bytes"] for r in own)
        assert task["by_model"][model]["value"] == pytest.approx(value, abs=1e-6)
        assert task["by_model"][model]["low"] < value < task["by_model"][model]["high"]
    assert (task["items"], task["clusters"], task["chance"], task["language"]) == (40, 40, None, "ja")


def test_compare_clear_gain_and_none_get_their_verdicts(rows):
    task = run(rows)["tasks"][0]
    assert [(p["baseline"], p["model"]) for p in task["pairs"]] == [
        ("base", "adapted"),
        ("base", "control"),
        ("adapted", "control"),
    ]
    gain = pair_of(task, "base", "adapted")
    assert gain["verdict"] == "better"
    assert gain["relative"] == pytest.approx(-0.2, abs=1e-6)
    assert gain["high"] < 0
    assert gain["p"] < 0.01
    assert "adapted needs 20.0% fewer bits per byte than base" in gain["sentence"]
    assert pair_of(task, "base", "control")["verdict"] == "no difference seen"
    assert pair_of(task, "adapted", "control")["verdict"] == "worse"


def test_compare_independent_answers_use_wilson_and_mcnemar(rows):
    task = run(rows)["tasks"][1]
    score = {
        model: {r["item"]: r["score"] for r in rows if r["model"] == model and r["task"] == "cloze"}
        for model in ("base", "adapted")
    }
    low, high = wilson_interval(int(sum(score["base"].values())), 40)
    assert (task["by_model"]["base"]["low"], task["by_model"]["base"]["high"]) == pytest.approx(
        (low, high), abs=1e-6
    )
    lost = sum(score["base"][i] > score["adapted"][i] for i in score["base"])
    won = sum(score["base"][i] < score["adapted"][i] for i in score["base"])
    assert pair_of(task, "base", "adapted")["p"] == pytest.approx(mcnemar_exact(lost, won), abs=1e-6)
    assert pair_of(task, "base", "adapted")["verdict"] == "better"
    assert (
        "points more cloze questions on japanese right than base"
        in pair_of(task, "base", "adapted")["sentence"]
    )


def test_compare_questions_on_one_page_use_the_cluster_bootstrap(rows):
    clustered = [r | {"cluster": str(int(r["item"]) // 4)} for r in rows if r["task"] == "cloze"]
    [task] = run(clustered)["tasks"]
    assert (task["items"], task["clusters"]) == (40, 10)
    right = sum(r["score"] for r in clustered if r["model"] == "base")
    assert task["by_model"]["base"]["low"] != pytest.approx(wilson_interval(int(right), 40)[0], abs=1e-6)
    assert all(0 <= task["by_model"][m]["low"] <= task["by_model"][m]["high"] <= 1 for m in task["by_model"])


@pytest.mark.parametrize(("right", "low", "high"), [(1.0, 0.61, 1.0), (0.0, 0.0, 0.39)])
def test_compare_all_clustered_answers_alike_still_has_an_interval(right, low, high):
    made = [cloze_row("base", item, right, cluster=str(item // 4)) for item in range(24)]
    [task] = run(made, models=("base",))["tasks"]
    score = task["by_model"]["base"]
    assert (score["low"], score["high"]) == pytest.approx((low, high), abs=0.01)  # Wilson for 6 clusters


def test_compare_adjusts_over_all_pairs_of_all_tasks(rows):
    comparison = run(rows)
    pairs = [pair for task in comparison["tasks"] for pair in task["pairs"]]
    smallest = min(pairs, key=lambda pair: pair["p"])
    assert smallest["p_adjusted"] == pytest.approx(min(1, 6 * smallest["p"]), abs=1e-5)
    assert all(pair["p_adjusted"] >= pair["p"] for pair in pairs)


def test_compare_row_order_and_draw_do_not_matter_for_the_bytes(rows):
    first = json.dumps(run(rows), allow_nan=False)
    assert json.dumps(run(rows[::-1]), allow_nan=False) == first


def test_compare_other_baseline_comes_first_in_every_pair(rows):
    comparison = run(rows, baseline="control")
    assert comparison["baseline"] == "control"
    pairs = [(p["baseline"], p["model"]) for p in comparison["tasks"][0]["pairs"]]
    assert pairs == [("control", "base"), ("control", "adapted"), ("base", "adapted")]


def test_compare_one_model_has_values_and_no_pairs(rows):
    comparison = run([r for r in rows if r["model"] == "base"], models=("base",))
    assert comparison["tasks"][0]["pairs"] == []
    assert comparison["tasks"][0]["by_model"]["base"]["low"] is not None


def test_compare_equal_models_say_so(rows):
    twin = [r | {"model": "twin"} for r in rows if r["model"] == "base"]
    comparison = run([*(r for r in rows if r["model"] == "base"), *twin], models=("base", "twin"))
    [pair] = comparison["tasks"][0]["pairs"]
    assert (pair["difference"], pair["p"], pair["verdict"]) == (0, 1, "no difference seen")
    assert pair["sentence"] == "twin and base have the same score on every item of japanese."


def test_compare_three_clusters_has_no_interval_and_valid_json(rows):
    few = [r for r in rows if int(r["item"]) < 3]
    comparison = run(few)
    json.dumps(comparison, allow_nan=False)
    pair = comparison["tasks"][0]["pairs"][0]
    assert (pair["low"], pair["high"], pair["verdict"]) == (None, None, "no difference seen")
    assert "no interval from so few clusters" in pair["sentence"]


def test_compare_one_page_says_that_it_is_too_few(rows):
    comparison = run([r for r in rows if r["item"] == "0"])
    assert "1 page in 1 cluster are too few to tell" in comparison["tasks"][0]["pairs"][0]["sentence"]


def test_compare_by_domain_sums_within_hosts(rows):
    domains = run(rows)["tasks"][0]["by_domain"]
    assert [(d["domain"], d["items"]) for d in domains] == [
        ("a.example", 14),
        ("b.example", 13),
        ("c.example", 13),
    ]
    own = [
        r
        for r in rows
        if r["task"] == "bits-per-byte" and r["model"] == "base" and r["domain"] == "b.example"
    ]
    value = sum(r["nll_nats"] for r in own) / log(2) / sum(r["bytes"] for r in own)
    assert domains[1]["by_model"]["base"] == pytest.approx(value, abs=1e-6)


def test_compare_datasets_and_tasks_come_in_the_order_of_display(rows):
    both = [*rows, *(r | {"dataset": "english"} for r in rows)]
    order = [(t["task"], t["dataset"]) for t in run(both, datasets=("japanese", "english"))["tasks"]]
    assert order == [
        ("bits-per-byte", "japanese"),
        ("bits-per-byte", "english"),
        ("cloze", "japanese"),
        ("cloze", "english"),
    ]
    assert [t["dataset"] for t in run(both)["tasks"]] == ["english", "japanese"] * 2


def test_compare_generations_stand_side_by_side(rows):
    texts = [
        row(model, item, task="generation", prompt=f"p{item}", gold="g", output=f"{model}{item}", bytes=5)
        for model in ("base", "adapted", "control")
        for item in (1, 0)
    ]
    comparison = run([*rows, *texts])
    assert [entry["item"] for entry in comparison["generations"]] == ["0", "1"]
    assert comparison["generations"][1]["outputs"] == {
        "base": "base1",
        "adapted": "adapted1",
        "control": "control1",
    }
    assert len(comparison["tasks"]) == 2


def test_compare_odd_outputs_raise_alarms(rows):
    odd = [
        row("base", item, task="generation", output="\ufffd", empty=item == 0, bytes=1) for item in range(4)
    ]
    zero = [
        r | {"score": 0.0, "cut_context": True} if r["task"] == "cloze" and r["model"] == "control" else r
        for r in rows
    ]
    alarms = "\n".join(run([*zero, *odd])["alarms"])
    assert "generation on japanese: base gave an empty answer to 1 of 4 items" in alarms
    assert "generation on japanese: base wrote bytes that are not UTF-8 for 4 of 4 items" in alarms
    assert "cloze on japanese: control has no item right" in alarms
    assert "cloze on japanese: control saw a shortened context in 40 of 40 items" in alarms
    assert "cloze on japanese: control can't be told from guessing (0.0% right, chance 25.0%)" in alarms
    assert "adapted can't" not in alarms


def test_compare_few_clusters_raise_an_alarm(rows):
    comparison = run([r for r in rows if int(r["item"]) < 12])
    assert any("only 12 independent clusters" in alarm for alarm in comparison["alarms"])


def test_compare_models_with_other_items_raises(rows):
    lacking = [r for r in rows if not (r["model"] == "adapted" and r["item"] == "7")]
    with pytest.raises(DataError, match=r"did not answer the same items \(39 and 40, 39 in common\)"):
        run(lacking)


def test_compare_other_bytes_for_the_same_page_raises(rows):
    changed = [r | {"bytes": r["bytes"] + (r["model"] == "adapted")} for r in rows]
    with pytest.raises(DataError, match="did not answer the same items"):
        run(changed)


def test_compare_missing_score_raises(rows):
    with pytest.raises(DataError, match="not finite"):
        run([r | {"nll_nats": None} if r["model"] == "adapted" else r for r in rows])


def test_compare_unknown_model_raises(rows):
    with pytest.raises(InputError, match="no scores of nobody; the rows hold adapted, base, control"):
        run(rows, models=("base", "nobody"))


def test_compare_baseline_outside_of_models_raises(rows):
    with pytest.raises(InputError, match="no scores of control"):
        run(rows, models=("base", "adapted"), baseline="control")
