"""The verdict's wording follows the paired comparison, whichever way it went."""

from __future__ import annotations

from dataclasses import replace

from tsugiki.artifacts.files import read_json, write_json
from tsugiki.report import render
from tsugiki.report.comparisons import read_comparisons
from tsugiki.report.page import assign_colours
from tsugiki.report.run import read_run
from tsugiki.report.sections.summary import tiles
from tsugiki.report.sections.verdict import deciding, roles, verdict


def sentences(directory):
    run = read_run(directory)
    comparisons = read_comparisons(run)
    return verdict(run, comparisons, assign_colours(run, comparisons))


def set_pair(document, dataset, models, difference, half, word):
    task = next(t for t in document["tasks"] if (t["task"], t["dataset"]) == ("bits-per-byte", dataset))
    pair = next(p for p in task["pairs"] if (p["baseline"], p["model"]) == models)
    base = task["by_model"][models[0]]["value"]
    pair.update(difference=difference, low=difference - half, high=difference + half, verdict=word)
    pair.update(relative=difference / base, detectable=half * 1.43)
    task["by_model"][models[1]]["value"] = base + difference


def test_verdict_adaptation_wins(new_run):
    first = sentences(new_run())[0]
    assert first.tone == "better"
    assert first.text == (
        "adapted predicts held-out Japanese text better than base: 2.087 bits per byte instead of 3.412, "
        "38.8\u202f% less (difference −1.325, 95\u202f% interval −1.366 to −1.284; 74 pages)."
    )


def test_verdict_adaptation_loses(new_run):
    def lose(document):
        set_pair(document, "japanese", ("base", "adapted"), 0.2, 0.05, "worse")

    first = sentences(new_run(comparison=lose))[0]
    assert first.tone == "worse"
    assert "worse than base: 3.612 bits per byte instead of 3.412, 5.9\u202f% more" in first.text
    assert "interval +0.150 to +0.250" in first.text


def test_verdict_inconclusive_says_what_could_have_been_seen(new_run):
    def draw(document):
        set_pair(document, "japanese", ("base", "adapted"), -0.01, 0.05, "no difference seen")

    first = sentences(new_run(comparison=draw))[0]
    assert first.tone == "level"
    assert first.text.startswith("No difference between adapted and base was seen on held-out Japanese text")
    assert "which includes zero" in first.text
    assert "would show a difference of 0.071 four times in five" in first.text


def test_verdict_of_a_baseline_of_zero_has_no_relative_change(new_run):
    def nothing(document):
        for task in document["tasks"]:
            task["by_model"] = dict.fromkeys(task["by_model"], 0.0)
            for pair in task["pairs"]:
                del pair["relative"]

    run = new_run(comparison=nothing)
    assert "0.000 bits per byte instead of 0.000, –" in sentences(run)[0].text
    assert render(run)


def test_verdict_not_seen_after_adjustment_does_not_claim_that_zero_is_inside(new_run):
    def adjusted(document):
        set_pair(document, "japanese", ("base", "adapted"), -0.06, 0.05, "no difference seen")

    first = sentences(new_run(comparison=adjusted))[0]
    assert first.tone == "level"
    assert first.text.startswith("No clear difference")
    assert "includes zero" not in first.text
    assert "alone excludes zero; adjusted for all comparisons of the run, p = 0.002" in first.text
    assert "four times in five" not in first.text


def test_second_sentence_reports_the_other_language(new_run):
    second = sentences(new_run())[1]
    assert (second.label, second.tone) == ("English", "worse")
    assert "held-out English text worse than base" in second.text


def test_third_sentence_extension_helped_is_turned_the_right_way(new_run):
    # stored as control minus adapted = +0.077, worse
    third = sentences(new_run())[2]
    assert third.tone == "better"
    assert third.text.startswith(
        "Extending the vocabulary helped with Japanese at this size: adapted against"
    )
    assert "2.087 bits per byte instead of 2.164, 3.6\u202f% less (difference −0.077" in third.text
    assert "interval −0.099 to −0.055" in third.text


def test_third_sentence_extension_did_not_help(new_run):
    def lose(document):
        set_pair(document, "japanese", ("adapted", "control"), -0.05, 0.02, "better")

    third = sentences(new_run(comparison=lose))[2]
    assert third.tone == "worse"
    assert "Extending the vocabulary hurt" in third.text


def test_third_sentence_extension_no_difference(new_run):
    def draw(document):
        set_pair(document, "japanese", ("adapted", "control"), 0.004, 0.02, "no difference seen")

    third = sentences(new_run(comparison=draw))[2]
    assert third.tone == "level"
    assert "made no difference that was seen" in third.text


def test_third_sentence_without_control_says_so(new_run):
    def only_two(document):
        document["models"] = ["base", "adapted"]

    assert "no control arm" in sentences(new_run(comparison=only_two))[2].text


def test_control_that_reads_the_adapted_stage_for_its_budget_is_no_heir_of_the_vocabulary(new_run):
    directory = new_run()
    run = read_run(directory)
    assert "adapted" in run.stage("control").inputs
    assert run.lineage("control") == {"control", "base"}
    assert run.lineage("adapted") == {"adapted", "vocabulary", "base"}
    found = roles(run, read_comparisons(run)[0])
    assert (found.baseline, found.adapted, found.control) == ("base", "adapted", "control")


def test_lineage_ends_at_a_cycle(new_run):
    directory = new_run(finished=())
    about = read_json(directory / "run.json")
    about["stages"]["base"]["inputs"] = ["adapted"]
    write_json(directory / "run.json", about)
    assert {"base", "adapted"} <= read_run(directory).lineage("base")
    assert "<svg" in render(directory)


def test_without_target_language_pair_there_is_no_verdict(new_run):
    def other(document):
        document["tasks"] = [task for task in document["tasks"] if task["language"] == "en"]

    assert sentences(new_run(comparison=other)) == []


def test_colours_stay_with_the_models(new_run):
    run = read_run(new_run())
    palette = assign_colours(run, read_comparisons(run))
    assert [palette.css(name) for name in ("base", "adapted", "control", "vocabulary")] == [
        "m0",
        "m1",
        "m2",
        "m3",
    ]
    assert palette.css("unknown") == "m5"


def test_key_figures_are_of_the_comparison_that_the_verdict_reads(new_run):
    run = read_run(new_run())
    whole = read_comparisons(run)[0]
    english = replace(whole, tasks=tuple(task for task in whole.tasks if task.language == "en"))
    assert deciding(run, [english, whole]) is whole
    assert tiles(run, [english, whole])[0].label == "Japanese, held out"
    assert deciding(run, [english]) is None
    assert tiles(run, [english])[0].label == "English, held out"
