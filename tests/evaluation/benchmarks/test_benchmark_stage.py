"""The evaluate stage asks benchmarks: the sample items of all nineteen tasks, with a tiny model, offline."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from tsugiki.artifacts.contract import ArtifactType, Inputs, open_workspace
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.scores import read_scores
from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.names import task_names
from tsugiki.evaluation.benchmarks.store import SAMPLE
from tsugiki.evaluation.stage import Config, estimate, run
from tsugiki.workflow.recipe import load_recipe

QUIET = {"bootstrap_draws": 100, "threads": 1}
# Programs need the sandbox, which has tests of its own; see test_programs.py.
WRITTEN = tuple(name for name in task_names() if "humaneval" not in name)


def evaluate(world, root, **changes):
    workspace = open_workspace(root)
    try:
        return run(Config(**{"models": ("base",), "data": "sample", **QUIET, **changes}), world, workspace)
    finally:
        workspace.metrics.close()
        for handler in workspace.log.handlers:
            handler.close()


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmarks")
    tasks = tuple(name for name in WRITTEN if not name.startswith(("xlsum", "wmt")))
    outcome = evaluate(world, root, models=("base", "adapted"), tasks=(*tasks, "jcommonsenseqa@published"))
    return root, outcome, read_scores(root).to_pylist()


def test_run_sample_of_every_task_gives_a_finite_score_an_item(finished):
    _, outcome, rows = finished
    tasks = {row["task"] for row in rows}
    assert tasks == {name for name in WRITTEN if not name.startswith(("xlsum", "wmt"))} | {
        "jcommonsenseqa@published"
    }
    assert len(rows) == outcome.counts["rows"] == 2 * outcome.counts["items"]
    for row in rows:
        assert row["dataset"] == "sample"
        assert math.isfinite(row["score"])
        assert 0 <= row["score"] <= 1
        assert row["prompt"]


def test_run_same_prompt_gives_published_number_beside_the_corrected_one(finished):
    rows = {(row["model"], row["task"], row["item"]): dict(row["other_scores"]) for row in finished[2]}
    others = {task: values for (_, task, _), values in rows.items()}
    assert {"published_metric", "flexible"} <= set(others["gsm8k"])
    assert {"published", "f1", "no_answer_probability"} <= set(others["squad2"])
    assert {"published", "by_byte"} == set(others["hellaswag"])
    # Where the published run asked something else, its metric on our answer is not its number.
    assert "published" not in others["jcommonsenseqa"]
    assert {"published_metric", "sum", "by_byte"} <= set(others["jcommonsenseqa"])
    assert "published" in others["jcommonsenseqa@published"]


def test_run_published_variant_generates_one_token(finished):
    tokens = [row["tokens"] for row in finished[2] if row["task"] == "jcommonsenseqa@published"]
    assert len(tokens) == 8
    assert max(tokens) <= 1


def test_run_clusters_by_passage_and_subject(finished):
    clusters = {row["item"]: row["cluster"] for row in finished[2] if row["task"] == "squad2"}
    assert clusters["v1"] == clusters["v2"] != clusters["v4"]
    assert {row["cluster"] for row in finished[2] if row["task"] == "mmlu"} == {
        "astronomy",
        "elementary_mathematics",
    }
    comparison = json.loads((finished[0] / "comparison.json").read_text())
    assert {task["task"] for task in comparison["tasks"]} == {row["task"] for row in finished[2]}


def test_run_again_gives_the_same_bytes(finished, world, tmp_path):
    evaluate(world, tmp_path / "a", tasks=("gsm8k", "jemhopqa"), batch_tokens=64)
    evaluate(world, tmp_path / "b", tasks=("gsm8k", "jemhopqa"), batch_tokens=4096)
    rows = [read_scores(tmp_path / name).select(["item", "output", "score"]) for name in "ab"]
    assert rows[0].equals(rows[1])


def test_run_at_most_so_many_items_keeps_the_prompts_of_the_whole(world, tmp_path, finished):
    evaluate(world, tmp_path, tasks=("jsquad", "hellaswag"), maximum_items=2)
    part = read_scores(tmp_path).to_pylist()
    whole = {(row["task"], row["item"]): row["prompt"] for row in finished[2]}
    assert len(part) == 4
    assert all(whole[row["task"], row["item"]] == row["prompt"] for row in part)


def test_config_names_that_are_no_tasks_are_refused_with_the_nearest_one():
    with pytest.raises(ValidationError, match='did you mean "jemhopqa"'):
        Config(models=("m",), tasks=("jemhopka",))
    with pytest.raises(ValidationError, match="there is no task"):
        Config(models=("m",), tasks=("jemhopqa@old",))
    with pytest.raises(ValidationError, match="name documents"):
        Config(models=("m",))


def test_run_without_data_says_where_items_come_from(world, tmp_path):
    with pytest.raises(InputError, match="needs `data`"):
        evaluate(world, tmp_path, tasks=("gsm8k",), data=None)


def test_references_of_a_folder_are_its_files_by_content(tmp_path):
    file = tmp_path / "openai/grade-school-math/grade_school_math/data/test.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes((SAMPLE / file.relative_to(tmp_path)).read_bytes())
    config = Config(models=("m",), tasks=("gsm8k",), data=str(tmp_path))
    files = [reference.name for reference in config.references() if reference.type == ArtifactType.FILES]
    assert files == [str(file), str(file.with_name("train.jsonl"))]  # the missing one too: planning says so


def test_identity_counts_the_variant_and_not_where_data_lies():
    def identity(**changes):
        return identity_of(Config(models=("m",), tasks=("gsm8k", "bbh"), **changes).identity_payload())

    assert identity(data="a") == identity(data="b")
    assert identity(data="a") != identity(data="sample")
    assert identity(data="a") != identity(data="a", variant="published")
    assert identity(data="a") != identity(data="a", maximum_items=3)


def test_estimate_counts_items_and_samples(world):
    config = Config(models=("m",), tasks=("gsm8k", "humaneval"), data="x")
    assert estimate(config, {}).counts["items"] == 1319 + 10 * 164


def test_run_own_task_file_with_its_own_data(world, tmp_path):
    task = tmp_path / "sums.yaml"
    task.write_text(
        """
name: sums
title: Sums
language: en
metric: accuracy
licence: CC0-1.0
redistributable: true
items: null
splits:
  test: [{files: [sums.jsonl], format: gsm8k}]
settings:
  answer: generate
  query: "{question}="
  target: "{answer}"
  shots: {count: 0}
  references: answers
  generation: {stops: ["\\n"], maximum_bytes: 8}
  scores: {score: {metric: last_number_match}}
"""
    )
    data = tmp_path / "sums.jsonl"
    data.write_text('{"question": "1+1", "answer": "#### 2"}\n')
    inputs = Inputs({**world, str(task): (task,), str(data): (data,)})
    evaluate(inputs, tmp_path / "out", tasks=(str(task),), data=str(tmp_path))
    (row,) = read_scores(tmp_path / "out").to_pylist()
    assert (row["task"], row["dataset"], row["prompt"]) == ("sums", "local", "1+1=")


def test_run_texts_gives_bits_per_byte_and_per_character(world, tmp_path):
    (tmp_path / "a.txt").write_text("日本語の文。")
    (tmp_path / "b.jsonl").write_text('{"text": "a model"}\n{"text": "  "}\n{"text": "the page"}\n')
    inputs = Inputs({**world, "texts": (tmp_path / "a.txt", tmp_path / "b.jsonl")})
    evaluate(inputs, tmp_path / "out", tasks=("bits-per-byte",), texts=("texts",))
    rows = read_scores(tmp_path / "out").to_pylist()
    assert sorted(row["bytes"] for row in rows) == [7, 8, 18]
    for row in rows:
        bits = row["score"] * row["bytes"]
        assert dict(row["other_scores"])["bits_per_character"] == pytest.approx(bits / row["characters"])


def test_sample_directory_holds_no_item_of_a_benchmark():
    assert (SAMPLE / "README.md").is_file()
    assert all(path.stat().st_size < 8192 for path in Path(SAMPLE).rglob("*"))


def test_recipe_at_mini_scale_asks_the_sample(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "recipe: r\nlanguage: ja\nstages:\n"
        "  japanese: {kind: corpus, source: crawl, language: ja}\n"
        "  scores: {kind: evaluate, models: [some/model], heldout: [japanese],"
        " tasks: [cloze, gsm8k], data: /data/benchmarks}\n"
    )
    config = load_recipe(recipe, scale="mini").stages["scores"].config
    assert (config.data, config.benchmarks) == ("sample", ("gsm8k",))


def test_run_translations_and_summaries_with_the_models_own_tokens(world, tmp_path):
    pytest.importorskip("MeCab")
    tasks = ("xlsum-ja@published", "wmt20-en-ja", "wmt20-ja-en@published")
    evaluate(world, tmp_path, tasks=tasks)
    rows = read_scores(tmp_path).to_pylist()
    assert len(rows) == 3 + 5 + 5
    for row in rows:
        assert (row["sums"] is not None) == row["task"].startswith("wmt20")
    published = [row for row in rows if row["task"] == "xlsum-ja@published"]
    assert all(0 <= dict(row["other_scores"])["published"] <= 1 for row in published)
