"""`--scale mini`: the same graph, small amounts, nothing from afar, and no page shared between corpora."""

from __future__ import annotations

from pathlib import Path

import pytest

from tsugiki.errors import RecipeError
from tsugiki.workflow.graph import build_graph
from tsugiki.workflow.recipe import load_recipe, plain_data

ROOT = Path(__file__).resolve().parents[2]
SWALLOW = ROOT / "recipes" / "swallow-llama2-70b.yaml"


@pytest.fixture(scope="module")
def mini():
    return build_graph(load_recipe(SWALLOW, scale="mini"))


def test_miniature_keeps_the_graph_and_puts_a_base_in_front(mini):
    full = build_graph(load_recipe(SWALLOW))
    assert set(mini.order) == {*full.order, "mini-base"}
    assert set(full.reads["adapted"]) <= set(mini.reads["adapted"])
    assert "mini-base" in mini.reads["vocabulary"]
    assert mini.recipe.stages["scores"].config.models[0] == "mini-base"


def test_miniature_reads_nothing_from_afar(mini):
    assert not any(source.remote for sources in mini.sources.values() for source in sources)


def test_miniature_deals_the_files_out_among_corpora_of_one_language(mini):
    def files(name):
        return {path.name for source in mini.sources[name] for path in source.paths}

    for one, other in (("swallow", "wikipedia"), ("arxiv", "refinedweb")):
        assert files(one)
        assert files(other)
        assert not files(one) & files(other)
    assert len(files("swallow") | files("wikipedia")) == len(
        list((ROOT / "examples" / "crawl").glob("*.warc.gz"))
    )


def test_miniature_shrinks_amounts_and_keeps_the_shape_of_the_schedule(mini):
    adapted = mini.recipe.stages["adapted"].config
    assert adapted.tokens <= 100_000
    assert adapted.parallel.product == 1
    full = load_recipe(SWALLOW).stages["adapted"].config
    assert adapted.min_learning_rate / adapted.learning_rate == pytest.approx(
        full.min_learning_rate / full.learning_rate
    )
    assert adapted.data == full.data


def test_miniature_leaves_the_recipe_itself_alone(mini):
    before = SWALLOW.read_text(encoding="utf-8")
    assert "mini" in mini.recipe.description
    assert "mini" not in plain_data(load_recipe(SWALLOW))["description"]
    assert SWALLOW.read_text(encoding="utf-8") == before


def test_miniature_adds_a_corpus_for_the_base_where_the_recipe_has_only_its_own_language(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "recipe: one\nlanguage: ja\nstages:\n"
        "  text: {kind: corpus, source: s3://bucket/x.warc.gz, language: ja}\n"
        "  more: {kind: train, model: some/model, data: {text: 1}, tokens: 5B}\n"
    )
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    graph = build_graph(load_recipe(recipe, scale="mini"))
    assert graph.recipe.stages["mini-english"].config.language == "en"
    assert graph.reads["mini-base"] == ("mini-english",)


def test_miniature_of_a_large_new_model_is_a_small_one_with_the_same_phases():
    config = build_graph(load_recipe(ROOT / "recipes" / "llm-jp-3-172b.yaml", scale="mini")).recipe.stages
    assert config["model"].config.model.preset == "llama-mini"
    assert config["model"].config.tokenizer.size == 2048
    assert config["model"].config.phases[0].data["ja-web"] == 762.761
    demo = load_recipe(ROOT / "recipes" / "demo-ja.yaml", scale="mini").stages["base"].config
    assert demo.model.preset == "llama-mini"


def test_miniature_reads_english_where_the_sample_has_too_few_pages_of_a_language():
    stages = build_graph(load_recipe(ROOT / "recipes" / "aurora-m.yaml", scale="mini")).recipe.stages
    languages = {name: stage.config.language for name, stage in stages.items() if stage.kind == "corpus"}
    assert languages["finnish"] == "en"
    assert languages["japanese"] == "ja"


def test_miniature_without_the_sample_crawl_says_what_to_do(tmp_path, monkeypatch):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("recipe: one\nlanguage: ja\nstages: {}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="sample crawl"):
        load_recipe(recipe, scale="mini")


def test_miniature_of_a_broken_recipe_still_names_the_mistakes(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "recipe: one\nlanguage: ja\nstages:\n"
        "  a: 5\n"
        "  b: {kind: train, model: m/n, data: {a: 1}, tokens: lots}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, scale="mini")
    assert caught.value.problems
