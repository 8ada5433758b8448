"""`tsugiki compare` on real files: alignment, methods, words, JSON and the page."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tsugiki.artifacts.scores import write_scores
from tsugiki.cli import app
from tsugiki.errors import DataError, InputError
from tsugiki.evaluation.comparing.aligning import align, reasons
from tsugiki.evaluation.comparing.tables import read_source

HOSTILE = "<script>alert(1)</script>{{ 7*7 }}"


def items(model, task="jcq", count=120, right=0.5, seed=0, **values):
    generator = np.random.default_rng(seed)
    hard = np.random.default_rng(9).random(count)
    return [
        {"model": model, "task": task, "dataset": task, "language": "ja", "item": f"{i:04}",
         "cluster": f"{i:04}", "prompt_hash": f"h{i}", "prompt": f"問{i} {HOSTILE}", "output": f"答{i}",
         "gold": "金", "score": float(0.5 * hard[i] + 0.5 * generator.random() < right)} | values
        for i in range(count)
    ]  # fmt: skip


def run(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        app(["compare", *map(str, words), "--draws", "200"], exit_on_error=False)
    assert not stopped.value.code
    return capsys.readouterr().out


@pytest.fixture
def two(tmp_path):
    for name, right in (("base", 0.45), ("adapted", 0.46)):
        (tmp_path / name).mkdir()
        write_scores(tmp_path / name / "scores.parquet", items(name, right=right, seed=len(name)))
    return tmp_path


def test_compare_command_says_what_could_be_seen_and_what_is_needed(two, capsys):
    out = run(capsys, two / "base", two / "adapted")
    assert "No difference between adapted and base can be seen in jcq questions" in out
    assert re.search(
        r"with these 120 questions a difference of \d+\.\d points would be found four times", out
    )
    assert re.search(r"and [\d,]+ questions would be needed for 5 points\.", out)
    assert "Not aligned" not in out


def test_compare_command_json_has_methods_and_is_the_same_twice(two, capsys):
    first = run(capsys, two / "base", two / "adapted", "--json")
    assert run(capsys, two / "base", two / "adapted", "--json") == first
    [task] = json.loads(first)["tasks"]
    assert task["by_model"]["base"]["method"] == "Wilson"
    assert task["pairs"][0]["test"] == "mid-p McNemar"
    assert task["pairs"][0]["needed"] > 120


def test_compare_command_options_reach_the_statistics(two, capsys):
    words = ("--confidence", "0.9", "--correction", "bh", "--difference", "20", "--baseline", "adapted")
    found = json.loads(run(capsys, two / "base", two / "adapted", *words, "--json"))
    assert (found["baseline"], found["confidence"], found["level"]) == ("adapted", 0.9, 0.1)
    assert found["correction"] == "benjamini-hochberg"
    assert found["tasks"][0]["pairs"][0]["interest"] == 0.2


def test_compare_command_cluster_column_changes_the_method(tmp_path, capsys):
    rows = [row | {"domain": row["item"][:3]} for name in ("a", "b") for row in items(name, seed=ord(name))]
    write_scores(tmp_path / "scores.parquet", rows)
    task = json.loads(run(capsys, tmp_path, "--cluster", "domain", "--json"))["tasks"][0]
    assert (task["clusters"], task["pairs"][0]["test"]) == (12, "exact clustered McNemar")


def test_compare_command_items_that_do_not_fit_are_said_and_left_out(tmp_path, capsys):
    first = items("a") + items("a", task="only-a")
    second = items("b", seed=3)[5:]
    second[0]["prompt_hash"] = "other"
    second[1]["score"] = None
    for name, rows in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        write_scores(tmp_path / name / "scores.parquet", rows)
    out = run(capsys, tmp_path / "a", tmp_path / "b")
    assert "jcq on jcq: 5 items only a has; 1 item was asked with different prompts" in out
    assert "1 item has no score from some model" in out
    assert "only-a on only-a: no rows of b" in out
    assert "with these 113 questions" in out
    found = json.loads(run(capsys, tmp_path / "a", tmp_path / "b", "--any-prompt", "--json"))
    assert found["tasks"][0]["items"] == 114


def test_compare_command_samples_of_an_item_are_averaged_first(tmp_path, capsys):
    rows = [
        row | {"sample": k, "score": float((int(row["item"]) + k) % 3 == 0 or name == "b")}
        for name in "ab"
        for row in items(name, count=40)
        for k in range(3)
    ]
    write_scores(tmp_path / "scores.parquet", rows)
    task = json.loads(run(capsys, tmp_path, "--json"))["tasks"][0]
    assert (task["items"], task["samples"]) == (40, 3)
    assert task["by_model"]["a"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert task["by_model"]["a"]["method"] == "Wilson, effective items"


def test_compare_command_corpus_metric_comes_from_sums(tmp_path, capsys):
    from tsugiki.artifacts.files import write_json
    from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS

    metric = CORPUS_METRICS["chrf"]
    rows = []
    for name, cut in (("a", 12), ("b", 30)):
        for row in items(name, task="wmt20", count=40):
            gold = f"これは{row['item']}番目の文であり、翻訳の正解として使われます。"
            rows.append(row | {"sums": list(metric.sums(gold[:cut], [gold])), "score": 0.5, "gold": gold})
    write_scores(tmp_path / "scores.parquet", rows)
    facts = {"task": "wmt20", "metric": "chrF", "lower_is_better": False, "chance": None, "corpus": "chrf"}
    write_json(tmp_path / "comparison.json", {"tasks": [facts], "models": ["a", "b"], "baseline": "a"})
    task = json.loads(run(capsys, tmp_path, "--json"))["tasks"][0]
    total = np.sum([row["sums"] for row in rows if row["model"] == "a"], axis=0)
    assert task["by_model"]["a"]["value"] == pytest.approx(float(metric.value(total)), abs=1e-6)
    assert task["pairs"][0]["verdict"] == "better"
    assert task["pairs"][0]["test"] == "paired studentised cluster bootstrap"


def test_compare_command_page_is_escaped_well_formed_and_the_same_twice(tmp_path, capsys):
    rows = [
        row
        for name, right in (("base", 0.4), ("adapted", 0.6))
        for number, task in enumerate(("one", "two", "three", "four", "five", "six", "seven"))
        for row in items(name, task, right=right, seed=number + len(name), other_scores={"published": 0.25})
    ]
    write_scores(tmp_path / "scores.parquet", rows)
    page = tmp_path / "page.html"
    run(capsys, tmp_path, "--baseline", "base", "--html", page)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{ 7*7 }}" in text
    figures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    for figure in figures:
        ET.fromstring(figure)  # noqa: S314 - our own output, and well-formedness is the question
    assert "All tasks at a glance" in text
    assert "All tasks: differences from base" in text
    assert "adapted got better than base in Japanese, 7 tasks" in text
    assert '<th scope="col" class="n">published</th>' in text
    assert re.search(r"Items one by one: \d+ adapted is better, \d+ adapted is worse", text)
    first = page.read_bytes()
    run(capsys, tmp_path, "--baseline", "base", "--html", page)
    assert page.read_bytes() == first


def test_read_source_tables_of_items_and_names(tmp_path):
    csv = tmp_path / "mine.csv"
    csv.write_text("task,item,score\nq,1,0.5\nq,2,\n", encoding="utf-8")
    found = read_source(f"new={csv}")
    assert found.models == ("new",)
    assert [row["score"] for row in found.rows] == [0.5, None]
    jsonl = tmp_path / "theirs.jsonl"
    jsonl.write_text('{"task": "q", "item": 1, "score": 1}\n', encoding="utf-8")
    assert (
        read_source(str(jsonl)).rows[0] | {"model": "theirs", "item": "1", "dataset": "q"}
        == (read_source(str(jsonl)).rows[0])
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "task,item\nq,1\n", "no column score"),
        ("a.csv", "task,item,score\nq,1,good\n", "'good', which is no number"),
        ("a.jsonl", "{", "can't be read as JSON"),
        ("a.jsonl", "[1]", "something else than objects"),
        ("a.jsonl", "", "holds no rows"),
        ("a.parquet", "no", "can't be read as Parquet"),
        ("a.txt", "x", "no table of items"),
    ],
)
def test_read_source_bad_tables_raise(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_source(str(path))


def test_read_source_missing_and_ambiguous_raise(tmp_path):
    with pytest.raises(InputError, match="there is no"):
        read_source(str(tmp_path / "nothing"))
    write_scores(tmp_path / "scores.parquet", items("a") + items("b"))
    with pytest.raises(InputError, match=r"several models \(a, b\)"):
        read_source(f"x={tmp_path}")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), InputError),
        (("base",), InputError),
        (("base", "base"), InputError),
        (("base", "adapted", "--baseline", "x"), InputError),
        (("base", "adapted", "--confidence", "95"), InputError),
        (("base", "adapted", "--difference", "0"), InputError),
        (("base", "adapted", "--cluster", "x"), InputError),
    ],
)
def test_compare_command_bad_arguments_raise(two, words, error):
    named = [str(two / word) if word in {"base", "adapted"} else word for word in words]
    with pytest.raises(error):
        app(["compare", *named], exit_on_error=False)


def test_compare_command_score_outside_of_its_range_raises(tmp_path):
    write_scores(tmp_path / "scores.parquet", items("a", score=42.0) + items("b"))
    with pytest.raises(DataError, match="has the score 42, beyond 0 to 1"):
        app(["compare", str(tmp_path)], exit_on_error=False)


def test_align_nothing_in_common_raises_and_says_why():
    rows = [dict.fromkeys(("prompt_hash", "nll_nats", "sums")) | row for row in items("a", task="x")]
    other = [dict.fromkeys(("prompt_hash", "nll_nats", "sums")) | row for row in items("b", task="y")]
    with pytest.raises(DataError, match=r"x on x: no rows of b; y on y: no rows of a"):
        align([*rows, *other], ("a", "b"))
    kept, [alignment] = align([*rows, *(row | {"model": "b"} for row in rows)], ("a", "b"))
    assert (len(kept), alignment.complete, reasons(alignment)) == (240, True, [])


def test_compare_command_logs_of_lm_eval_are_read_and_named(tmp_path, capsys):
    for name, right in (("first", 3), ("second", 2)):
        place = tmp_path / name / "some__model"
        place.mkdir(parents=True)
        lines = [
            {"doc_id": i, "doc": {}, "target": "4", "arguments": [["q", {}]], "resps": [["4"]],
             "filtered_resps": ["4"], "filter": "none", "metrics": ["exact_match"],
             "exact_match": float(i % right == 0)}
            for i in range(60)
        ]  # fmt: skip
        text = "\n".join(json.dumps(line) for line in lines)
        (place / "samples_gsm8k_2026-01-02T03-04-05.6.jsonl").write_text(text, encoding="utf-8")
    words = (f"a={tmp_path / 'first'}", f"b={tmp_path / 'second'}")
    [task] = json.loads(run(capsys, *words, "--json"))["tasks"]
    assert (task["task"], task["items"]) == ("gsm8k", 60)
    assert task["by_model"]["a"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert task["by_model"]["b"]["value"] == 0.5


def test_compare_command_says_where_clusters_are_unknown_few_or_carry_the_spread(tmp_path, capsys):
    rows = []
    for name in "ab":
        for row in items(name, count=120, seed=ord(name)):
            number = int(row["item"])
            rows.append(row | {"task": "unknown", "cluster": None})
            rows.append(row | {"task": "few", "cluster": f"c{number % 8}"})
            rare = float(number in {3, 4, 5} or (name == "b" and number == 6))
            rows.append(row | {"task": "carried", "cluster": f"c{number // 4}", "score": rare})
            rows.append(row | {"task": "many", "cluster": f"c{number // 4}"})
    write_scores(tmp_path / "scores.parquet", rows)
    found = json.loads(run(capsys, tmp_path, "--json"))
    few, unknown, carried = (next(one for one in found["notes"] if word in one) for word in NOTES)
    assert few.startswith("few on ")
    assert "(8)" in few
    assert unknown.startswith("unknown on ")
    assert carried.startswith("carried on ")
    assert not any("many" in one.split(":")[0] for one in found["notes"])
    out = run(capsys, tmp_path, "--html", str(tmp_path / "page.html"))
    assert "On the intervals:" in out
    assert "taken for independent" in (tmp_path / "page.html").read_text()


NOTES = ("fewer than 20 clusters", "taken for independent", "nearly all of the spread")
