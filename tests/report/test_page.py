"""The whole page: same bytes, unfinished runs, hostile text, accessible and self-contained HTML."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tsugiki.artifacts.files import read_json, write_json
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import read_manifest
from tsugiki.errors import InputError
from tsugiki.report import REPORT, render, write_report

HOSTILE = (
    "<script>alert(1)</script></style></title></svg><img src=http://evil.example/x onerror=alert(1)>"
    "{{ 7*7 }}{% raw %} \u202eevil\u2066 \x00\x07\x1b[31m \ufffe \u200b &amp; \"'`]]>-->"
)
# JSON may hold a lone surrogate as an escape; UTF-8 can't
UNENCODABLE = HOSTILE + "\ud800"
SECTIONS = ("graph", "corpus", "vocabulary", "training", "evaluation", "cost", "provenance")
FINISHED_SETS = [
    (),
    ("japanese",),
    ("japanese", "english"),
    ("english", "base"),
    ("japanese", "english", "base", "vocabulary"),
    ("japanese", "english", "base", "vocabulary", "adapted", "control"),
    ("scores",),
]


def poison(value: object) -> object:
    """The same data with hostile text at every string, keys included where they are names of things."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, list):
        return [poison(entry) for entry in value]
    if isinstance(value, dict):
        return {key: poison(entry) for key, entry in value.items()}
    return value


def poison_in_place(document: dict) -> None:
    keep = {key: document.get(key) for key in ("models", "baseline")}
    fresh = poison(document)
    assert isinstance(fresh, dict)
    document.clear()
    document.update(fresh)
    document.update({key: entry for key, entry in keep.items() if entry is not None})


def write_hostile(new_run) -> Path:
    run = new_run(facts=lambda _name, facts: poison_in_place(facts))
    path = run / "scores" / "comparison.json"
    document = read_json(path)
    for row in document["generations"]:
        poison_in_place(row)
        row["outputs"] = dict.fromkeys(("base", "adapted", UNENCODABLE), UNENCODABLE)
    document["alarms"] = [UNENCODABLE]
    document["method"] = UNENCODABLE
    path.write_text(json.dumps(document), encoding="utf-8")
    about = read_json(run / "run.json")
    about.update(recipe=f"demo {HOSTILE}", description=UNENCODABLE, language=UNENCODABLE)
    (run / "run.json").write_text(json.dumps(about), encoding="utf-8")
    (run / "recipe.yaml").write_bytes(b"recipe: \xff\x00" + UNENCODABLE.encode("utf-8", "surrogatepass"))
    return run


def test_report_deleted_and_made_again_has_the_same_bytes(new_run):
    run = new_run()
    first = write_report(run).read_bytes()
    (run / REPORT).unlink()
    assert write_report(run).read_bytes() == first


def test_report_of_a_moved_run_directory_has_the_same_bytes(new_run, tmp_path):
    run = new_run()
    first = render(run)
    moved = tmp_path / "elsewhere" / "demo-ja"
    shutil.copytree(run, moved)
    assert render(moved) == first
    assert str(tmp_path) not in first


def test_report_leaves_no_partial_file(new_run):
    run = new_run()
    path = write_report(run)
    assert path == run / REPORT
    assert not list(run.glob("*.partial"))


def test_report_of_a_finished_run_has_every_section(new_run, parse):
    page = parse(render(new_run()))
    ids = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    assert ids == ["verdict", *SECTIONS]


def test_report_is_self_contained(new_run, parse):
    page = parse(render(new_run()))
    assert not [
        tag for tag, _ in page.tags if tag in {"script", "link", "iframe", "object", "embed", "img", "base"}
    ]
    links = [attributes["href"] for tag, attributes in page.tags if "href" in attributes]
    assert links
    assert all(link.startswith("#") for link in links)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    assert "default-src 'none'" in policy
    style = page.source.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_links_inside_the_page_have_targets(new_run, parse):
    page = parse(render(new_run()))
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for _, attributes in page.tags if "href" in attributes}
    references = {r for _, a in page.tags for r in (a.get("aria-labelledby") or "").split()}
    assert targets | references <= set(ids)


def test_figures_are_well_formed_and_named(new_run, parse):
    page = parse(render(new_run()))
    assert len(page.figures) > 40
    named = 0
    for source in page.figures:
        root = ET.fromstring(source)  # noqa: S314 - our own output, and well-formedness is the question
        if root.get("aria-hidden") == "true":
            continue
        named += 1
        assert root.get("role") == "img"
        assert (root.findtext("title") or "").strip()
        assert (root.findtext("desc") or "").strip()
        numbers = " ".join(value for node in root.iter() for value in node.attrib.values())
        assert not re.search(r"\b(nan|inf)\b", numbers)
    assert named >= 24


def test_tables_have_headers(new_run, parse):
    page = parse(render(new_run()))
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert sum(tag == "thead" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags)


def test_hostile_text_is_inert(new_run, parse):
    source = render(write_hostile(new_run))
    source.encode("utf-8")
    page = parse(source)
    assert not [tag for tag, _ in page.tags if tag in {"script", "img", "iframe", "link", "object"}]
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not re.search(r"javascript:|https?:", attributes.get("href") or attributes.get("src") or "")
    assert "{{ 7*7 }}" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufffe]", source)
    assert "‹U+202E›evil" in page.text
    for figure in page.figures:
        ET.fromstring(figure)  # noqa: S314 - our own output, and well-formedness is the question


def test_language_attributes_take_tags_only(new_run, parse):
    page = parse(render(write_hostile(new_run)))
    tags = {attributes["lang"] for _, attributes in page.tags if "lang" in attributes}
    assert "und" in tags
    assert all(re.fullmatch(r"[A-Za-z-]{2,20}", tag or "") for tag in tags)


@pytest.mark.parametrize("finished", FINISHED_SETS, ids=lambda names: "+".join(names) or "nothing")
def test_unfinished_run_names_what_is_missing(new_run, parse, finished):
    run = new_run(finished=finished)
    page = parse(render(run))
    for name, stage in read_json(run / "run.json")["stages"].items():
        assert (f"{name} ({stage['kind']}): not started" in page.text) == (name not in finished)
    for source in page.figures:
        ET.fromstring(source)  # noqa: S314 - our own output, and well-formedness is the question


def test_failed_stage_shows_its_failure(new_run, parse):
    run = new_run(finished=("japanese",))
    (run / "english").mkdir()
    write_json(run / "english" / "failure.json", {"type": "DataError", "message": "no page", "hint": "more"})
    (run / "base").mkdir()
    page = parse(render(run))
    assert "english (corpus): failed: no page" in page.text
    assert "base (train): started, not finished" in page.text


def test_edited_manifest_is_not_shown_as_a_result(new_run, parse):
    run = new_run()
    path = run / "adapted" / "manifest.json"
    manifest = read_json(path)
    manifest["payload"]["config"]["seed"] = 7
    write_json(path, manifest)
    text = parse(render(run)).text
    assert "adapted (train): adapted/manifest.json was edited" in text


def test_result_made_from_an_earlier_result_is_marked(new_run, parse):
    run = new_run()
    assert "Out of date" not in parse(render(run)).text
    path = run / "adapted" / "manifest.json"
    read, manifest = read_json(path)["identity"], read_json(path)
    manifest["payload"]["config"]["seed"] = 7
    manifest["identity"] = identity_of(manifest["payload"])
    write_json(path, manifest)
    text = parse(render(run)).text
    assert "scores (evaluate): adapted changed after it was read" in text
    assert f"adapted {read}" in text  # provenance shows what was read
    path.unlink()
    assert "scores (evaluate): adapted changed after it was read" in parse(render(run)).text


@pytest.mark.parametrize("name", ["comparison.json", "scores.parquet"])
def test_changed_scores_are_not_shown_as_results(new_run, parse, name):
    run = new_run()
    assert "Page by page" in parse(render(run)).text
    path = run / "scores" / name
    path.write_bytes(path.read_bytes()[:-20] + b" " * 20)
    text = parse(render(run)).text
    assert "Page by page" not in text
    fault = "No comparison: scores/comparison.json was changed after the stage had finished"
    assert (fault in text) == (name == "comparison.json")


def test_metrics_that_are_no_text_cost_their_curves_only(new_run, parse):
    run = new_run()
    (run / "adapted" / "metrics.jsonl").write_bytes(b"\xff\xfe{")
    assert "Training curves" in parse(render(run)).text


def test_missing_comparison_is_reported(new_run, parse):
    run = new_run()
    (run / "scores" / "comparison.json").unlink()
    text = parse(render(run)).text
    assert "No comparison: scores/comparison.json does not exist" in text
    assert "No verdict yet" in text


def test_facts_of_the_wrong_shape_do_not_break_the_page(new_run):
    def spoil(_name: str, facts: dict) -> None:
        shapes = [None, 3, "text", [1, None, "x"], {"a": [1]}, True]
        for index, key in enumerate(list(facts)):
            facts[key] = shapes[index % len(shapes)]

    assert "<h2" in render(new_run(facts=spoil))


def test_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        render(tmp_path)


@pytest.mark.parametrize("about", ["[]", '{"recipe": "x"}', "{"])
def test_broken_run_file_is_refused(tmp_path, about):
    (tmp_path / "run.json").write_text(about, encoding="utf-8")
    with pytest.raises(InputError):
        render(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "..", "a/b", ""])
def test_stage_name_that_leads_elsewhere_is_refused(tmp_path, name):
    write_json(tmp_path / "run.json", {"recipe": "x", "order": [name], "stages": {name: {"kind": "corpus"}}})
    with pytest.raises(InputError, match="not the name of a directory"):
        render(tmp_path)


def test_numbers_shown_are_those_of_the_artifacts(new_run, parse):
    run = new_run()
    text = parse(render(run)).text
    counts = read_manifest(run / "japanese").counts
    assert f"{counts['documents']:,}" in text
    comparison = read_json(run / "scores" / "comparison.json")
    for task in comparison["tasks"]:
        factor, digits = (1, 3) if task["task"] == "bits-per-byte" else (100, 1)
        for score in task["by_model"].values():
            shown = (f"{score[key] * factor:.{digits}f}" for key in ("value", "low", "high"))
            assert all(number in text for number in shown)
    for entry in read_manifest(run / "adapted").files.values():
        assert entry.sha256 in text
    for name in read_json(run / "run.json")["order"]:
        assert read_manifest(run / name).identity in text


def test_resumed_training_draws_the_last_row_of_each_step(new_run, parse):
    text = parse(render(new_run())).text
    # the fixture writes step 146 twice, first with noise, then with exactly 2.150
    assert re.search(r"adapted: from \d\.\d+ to 2\.150 after", text)


def test_samples_take_turns_with_the_target_language_first(new_run, parse):
    def many(document):
        document["generations"] = [
            {
                "dataset": d,
                "language": d,
                "item": f"{n}",
                "prompt": f"prompt-{d}-{n}.",
                "outputs": {"base": "x"},
            }
            for d in ("en", "ja")
            for n in range(3)
        ]

    text = parse(render(new_run(comparison=many))).text
    order = [f"prompt-{d}-{n}." for n in range(3) for d in ("ja", "en")]
    assert [text.index(prompt) for prompt in order] == sorted(text.index(prompt) for prompt in order)
    assert "2 more samples" in text
