"""The corpus section: every fact is shown where it is recorded, and nothing is said where it is not."""

from __future__ import annotations

import pytest

from tsugiki.corpus.features import feature_types
from tsugiki.languages import load_pack, pack_codes
from tsugiki.report import render
from tsugiki.report.sections.corpus_duplicates import detection_probability
from tsugiki.report.sections.corpus_features import meaning

DETAILS = ("histograms", "host_filter", "decoding", "extraction", "cleaning", "contamination", "prefilter")
SHOWN = {
    "histograms": ["What the rules look at", "<\u00a00.2: 170 rejected, 12 alone", "rules reject no page"],
    "host_filter": ["1 of 31 sites were blocked, with 27 pages", "with NG expressions > 0.5",
                    "blocked.example", "9 (33.33", "会員登録", "季節の便り"],
    "decoding": ["What told the encoding", "http header", "In no known encoding"],
    "extraction": ["Main text taken out by", "trafilatura", "Nested too deep"],
    "cleaning": ["Documents changed", "footer lines", "Too short afterwards"],
    "contamination": ["Benchmark items found in pages", "12,000", "quiz/17"],
    "prefilter": ["Pages looked at", "1,412 (49.4"],
}  # fmt: skip


def drop(*names):
    def change(_stage, facts):
        for name in names:
            facts.pop(name, None)

    return change


@pytest.mark.parametrize("name", DETAILS)
def test_each_fact_is_shown_where_it_is_recorded_and_only_there(new_run, parse, tmp_path, name):
    whole = parse(render(new_run(finished=("japanese",)))).text
    without = parse(render(new_run(finished=("japanese",), facts=drop(name)))).text
    for words in SHOWN[name]:
        assert words.replace("\u00a0", " ") in whole.replace("\u00a0", " ")
    assert SHOWN[name][0] not in without


def test_manifest_of_an_older_version_still_gives_a_section(new_run, parse):
    text = parse(render(new_run(finished=("japanese",), facts=drop(*DETAILS, "near_duplicates")))).text
    assert "pages kept" in text
    assert "Sites with most pages kept" in text
    assert "which pairs are detected" not in text


def test_funnel_has_shares_of_all_and_of_the_step_before(new_run, parse):
    text = parse(render(new_run(finished=("japanese",)))).text.replace("\u202f", "").replace(" ", "")
    # 871 of 3,120 records, of 1,032 in the language, and 742 of those
    assert "passedtherules87127.9%84.4%1.92M84.4%" in text
    assert "near-duplicatesremoved74223.8%85.2%1.64M85.2%" in text


def test_histograms_stand_in_the_order_of_what_they_reject(new_run, parse):
    source = render(new_run(finished=("japanese",)))
    section = source[source.index("What the rules look at") :]
    places = [section.index(f"<b>{name}</b>") for name in ("hiragana_share", "letters", "kanji_share")]
    assert places == sorted(places)
    assert "<details><summary>1 more" in section


def test_only_measured_columns_are_in_the_table_of_sites(new_run, parse):
    def with_dating(_stage, facts):
        facts["hosts"][0]["dating_documents"] = 3

    plain = parse(render(new_run(finished=("japanese",), facts=drop("host_filter")))).text
    measured = parse(render(new_run(finished=("japanese",), facts=with_dating))).text
    assert "with dating sites' names" not in plain
    assert "3 (1.00" in measured


def test_many_hosts_samples_and_bins_are_capped(new_run):
    def flood(_stage, facts):
        blocked = facts["host_filter"]["blocked"]
        appeal = [{"url": "u" * 3000, "matched": "m" * 3000, "text": "あ" * 3000}] * 9
        facts["host_filter"]["blocked"] = [{**blocked[0], "appeal": appeal}] * 200
        facts["histograms"] = [facts["histograms"][0]] * 500
        facts["contamination"]["hits"] *= 5000
        facts["decoding"]["chosen_by"] = {f"name {n}": n for n in range(5000)}
        facts["near_duplicates"]["sizes"] *= 500

    assert len(render(new_run(finished=("japanese",), facts=flood)).encode()) < 1_500_000


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [(0.6, 0.001), (0.7, 0.031), (0.75, 0.119), (0.8, 0.371), (0.85, 0.794), (0.9, 0.994)],
)
def test_detection_curve_is_that_of_the_reference(similarity, expected):
    assert detection_probability(similarity, bands=40, rows=20) == pytest.approx(expected, abs=6e-4)


def test_features_are_explained_and_unknown_ones_are_not():
    assert meaning("repeated_7grams") == "share of runs of 7 characters that occur again"
    assert meaning("sentence_duplicates") == "share of sentences that repeat another"
    assert meaning("language_share") == "share of characters of the language's own script"
    assert meaning("something_else") == ""


def test_meaning_is_known_of_every_feature_that_a_rule_may_read():
    features = {name for code in pack_codes() for name in feature_types(load_pack(code))}
    assert not [name for name in sorted(features) if not meaning(name)]
    assert (
        meaning("short_line_share") == "share of lines of 30 characters or fewer"
    )  # not "that is short line"


def test_pages_alone_are_no_cluster_and_the_largest_size_is_open(new_run, parse):
    def endless(_stage, facts):
        facts["near_duplicates"]["sizes"].append(
            {"from": 1000, "to": 2**62, "clusters": 1, "documents": 2000}
        )

    text = parse(render(new_run(finished=("japanese",), facts=endless))).text
    assert "clusters of 2: 70 with 140 pages; clusters of 3 to 4: 18 with 77 pages" in text
    assert "clusters of 1,000 or more: 1 with 2,000 pages" in text
    assert "clusters of 1:" not in text
