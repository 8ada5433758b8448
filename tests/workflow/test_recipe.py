"""Reading recipes: every problem at once, each with its line and a way to mend it."""

from __future__ import annotations

import textwrap

import pytest

from tsugiki.errors import RecipeError
from tsugiki.workflow.graph import build_graph
from tsugiki.workflow.recipe import load_recipe

GOOD = """
    recipe: small
    language: ja
    stages:
      pages: {kind: corpus, source: pages.jsonl, language: ja}
      base:
        kind: train
        model: {preset: llama-nano}
        tokenizer: {train: pages, size: 300}
        data: {pages: 1.0}
        tokens: 10k
"""


@pytest.fixture
def write(tmp_path):
    (tmp_path / "pages.jsonl").write_text('{"text": "x"}\n')

    def save(text, name="r.yaml"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return save


def problems(path):
    with pytest.raises(RecipeError) as caught:
        build_graph(load_recipe(path))
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_recipe_reads_counts_and_defaults(write):
    recipe = load_recipe(write(GOOD))
    assert list(recipe.stages) == ["pages", "base"]
    assert recipe.stages["base"].config.tokens == 10_000
    assert build_graph(recipe).order == ("pages", "base")


def test_recipe_is_yaml_1_2(write):
    # YAML 1.1 would read `no` as False, 1e-4 as a string and 1_0 as 10
    text = GOOD.replace("tokens: 10k", "tokens: 10k\n        learning_rate: 1e-4")
    recipe = load_recipe(write(text.replace("recipe: small", "recipe: no")))
    assert recipe.name == "no"
    assert recipe.stages["base"].config.learning_rate == 1e-4


def test_recipe_seed_reaches_every_stage_that_sets_none(write):
    text = GOOD.replace("language: ja\n    stages", "language: ja\n    seed: 7\n    stages")
    text = text.replace("tokens: 10k", "tokens: 10k\n        seed: 3")
    recipe = load_recipe(write(text))
    assert (recipe.stages["pages"].config.seed, recipe.stages["base"].config.seed) == (7, 3)


def test_recipe_with_many_mistakes_shows_all_of_them_with_lines(write):
    path = write("""
        recipe: small
        language: ja
        stages:
          pages: {kind: corpsu, source: pages.jsonl, language: ja}
          base:
            kind: train
            model: {preset: llama-nano}
            tokenizer: {train: pages, size: 300}
            data: {pages: 1.0}
            tokens: many
            lerning_rate: 0.1
          other:
            kind: train
            model: base
            tokens: 5k
    """)
    found = {(p.where.rsplit(":", 1)[1], p.message.split(" (seen")[0]): p.hint for p in problems(path)}
    assert found[("5", 'stage "pages" is of the unknown kind "corpsu"')] == 'did you mean "corpus"?'
    assert found[("12", 'stage "base", unknown key "lerning_rate"')] == 'did you mean "learning_rate"?'
    assert any(where == "13" and "either `data` or `phases`" in said for where, said in found)
    (tokens,) = [p for p in problems(path) if "many" in p.message]
    assert tokens.where.endswith(":11")
    assert "1.5M" in tokens.message
    assert len(found) == 4


@pytest.mark.parametrize(
    ("old", "new", "line", "said", "hint"),
    [
        ("data: {pages: 1.0}", "data: {page: 1.0}", 10, 'no stage and no directory "page"', '"pages"'),
        ("train: pages", "train: base", 9, "makes model; documents is needed", "pages"),
        ("pages.jsonl", "absent.jsonl", 5, 'no file matches "absent.jsonl"', "spelling"),
        ("language: ja\n", "language: jp\n", 3, 'no language pack "jp"', "ja"),
        ("recipe: small", "recipe: Small One", 2, "not a recipe name", "lower-case"),
        ("size: 300", "size: [3]", 9, "size", "schema"),
        ("tokens: 10k", "tokens: 0", 11, "greater than 0", "schema"),
        ("tokens: 10k", "tokens: 10k\n        tokens: 20k", 12, "duplicate key", "indentation"),
        ("data: {pages: 1.0}", "data: {pages: 1.0", 11, "not valid YAML", "brackets"),
    ],
)  # fmt: skip
def test_recipe_with_one_mistake_says_where_and_how_to_mend_it(write, old, new, line, said, hint):
    found = problems(write(GOOD.replace(old, new)))
    assert len(found) == 1, [str(problem) for problem in found]
    assert said in found[0].message
    assert hint in found[0].hint
    assert found[0].where.endswith(f"r.yaml:{line}")


def test_recipe_with_a_cycle_names_the_circle(write):
    found = problems(
        write("""
            recipe: round
            language: ja
            stages:
              pages: {kind: corpus, source: pages.jsonl, language: ja}
              one: {kind: train, model: two, data: {pages: 1}, tokens: 5k}
              two: {kind: train, model: one, data: {pages: 1}, tokens: 5k}
        """)
    )
    assert "circle: " in found[0].message
    assert found[0].message.count("one") + found[0].message.count("two") == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "a mapping"), ("- a\n- b", "a mapping"), ("recipe: x\nlanguage: ja\nstages: {}", "no stages")],
)
def test_recipe_that_is_no_recipe_is_refused(write, text, said):
    assert said in problems(write(text))[0].message


def test_recipe_file_absent_lists_what_is_near(tmp_path):
    assert "does not exist" in problems(tmp_path / "absent.yaml")[0].message
    assert "is a directory" in problems(tmp_path)[0].message


def test_recipe_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_bytes("recipe: 日本".encode("cp932"))
    assert "not valid YAML" in problems(tmp_path / "r.yaml")[0].message


def test_recipe_paths_are_found_beside_the_recipe_and_above(tmp_path, write, monkeypatch):
    path = write(GOOD)
    deep = tmp_path / "recipes"
    deep.mkdir()
    (deep / "r.yaml").write_text(path.read_text())
    monkeypatch.chdir("/")
    graph = build_graph(load_recipe(deep / "r.yaml"))
    assert graph.sources["pages"][0].paths == (tmp_path / "pages.jsonl",)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 600 + "]" * 600,
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)),
    ],
    ids=["deep", "aliases"],
)
def test_recipe_that_stands_for_too_much_is_refused_quickly(write, text):
    assert "nested too deeply" in problems(write(text))[0].message


def test_recipe_with_a_stage_called_like_a_file_of_the_run_is_refused(write):
    (found,) = problems(write(GOOD.replace("base:", "run.json:")))
    assert "not a stage name" in found.message
