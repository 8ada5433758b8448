"""What is shipped beside the code: recipes, README, generated reference, and no private names anywhere."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tsugiki.cli import app
from tsugiki.workflow.graph import build_graph
from tsugiki.workflow.planning import make_plan
from tsugiki.workflow.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def plan(path, tmp_path, scale=None):
    return make_plan(build_graph(load_recipe(path, scale=scale)), tmp_path / "run")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", [None, "mini"])
def test_recipe_shipped_passes_its_plan(path, scale, tmp_path):
    found = plan(path, tmp_path, scale)
    assert [str(problem) for problem in found.problems] == []
    if scale == "mini":
        assert [str(problem) for problem in found.here] == []
        assert not any(source.remote for sources in found.graph.sources.values() for source in sources)
        assert sum(stage.forecast.seconds or 0 for stage in found.stages) < 1800


# Published: batch 1024 x 4096 tokens and 25,000 steps (ryokotalab/Megatron-Llama2 job scripts); final
# vocabulary 43,176 (Swallow's site); devices TP x PP x DP.
@pytest.mark.parametrize(("size", "devices"), [("7b", 32), ("13b", 64), ("70b", 256)])
def test_recipe_of_swallow_has_the_published_figures(size, devices, tmp_path):
    found = plan(ROOT / "recipes" / f"swallow-llama2-{size}.yaml", tmp_path)
    adapted = found.graph.recipe.stages["adapted"].config
    assert adapted.tokens == 25_000 * 1024 * 4096
    assert adapted.parallel.tensor * adapted.parallel.pipeline * adapted.parallel.data == devices
    assert found.stage("vocabulary").forecast.counts["vocabulary_size"] == 43_176
    assert found.stage("adapted").forecast.counts["vocabulary_size"] == 43_176
    assert found.stage("nve").forecast.counts["vocabulary_size"] == 32_000


# Published: 292,812 steps of 1728 x 4096 tokens on 64 x 8 H100, of these sources (llm-jp/scripts,
# v3-172b-exp2-sakura); 169,947,181,056 parameters without embeddings (model card of llm-jp-3-172b-instruct3).
def test_recipe_of_llm_jp_172b_has_the_published_figures(tmp_path):
    found = plan(ROOT / "recipes" / "llm-jp-3-172b.yaml", tmp_path)
    config = found.graph.recipe.stages["model"].config
    forecast = found.stage("model").forecast
    assert forecast.counts["steps"] == 292_812
    assert forecast.counts["tokens"] == config.asked_tokens == 292_812 * 1728 * 4096
    assert sum(config.phases[0].data.values()) == pytest.approx(2072.488, abs=2e-3)
    embeddings = 2 * 99_584 * 12_288
    assert forecast.counts["parameters"] - embeddings == 169_947_181_056
    assert config.parallel.product == 64 * 8
    assert config.epsilon == 1e-8


# Published: 90,000 steps of 2048 x 2048 tokens, 435 B in all (model card); 1e-4 to 1e-5 at step 120,000.
def test_recipe_of_aurora_m_has_two_phases_and_ends_where_the_run_stopped(tmp_path):
    config = plan(ROOT / "recipes" / "aurora-m.yaml", tmp_path).graph.recipe.stages["adapted"].config
    assert [round(phase.tokens / 1e9) for phase in config.phases] == [377, 58]
    assert config.phases[0].tokens == 90_000 * 2048 * 2048
    share = (config.asked_tokens / config.batch_tokens - 2000) / (120_000 - 2000)
    stopped_at = 1e-5 + 0.5 * (1e-4 - 1e-5) * (1 + math.cos(math.pi * share))
    assert config.min_learning_rate == pytest.approx(stopped_at, rel=0.02)


# Published: about 100 B tokens, no new pieces (the team's site); 25,000 steps of 512 x 8192 (llm-recipes).
@pytest.mark.parametrize("size", ["8b", "70b"])
def test_recipe_of_llama_3_swallow_keeps_the_vocabulary(size, tmp_path):
    found = plan(ROOT / "recipes" / f"llama-3-swallow-{size}.yaml", tmp_path)
    assert found.stage("adapted").forecast.counts["vocabulary_size"] == 128_256
    assert found.stage("adapted").forecast.counts["steps"] == 25_000
    assert found.graph.recipe.stages["adapted"].config.tokens == 25_000 * 512 * 8192


def test_recipe_with_a_layout_that_does_not_divide_is_refused(tmp_path):
    text = (ROOT / "recipes" / "swallow-llama2-7b.yaml").read_text()
    (tmp_path / "r.yaml").write_text(text.replace("tensor: 2, pipeline: 2", "tensor: 3, pipeline: 5"))
    said = [str(problem) for problem in plan(tmp_path / "r.yaml", tmp_path).problems]
    assert any("tensor" in line for line in said)
    assert any("pipeline" in line for line in said)


def test_recipe_asking_for_more_tokens_than_its_corpus_holds_is_refused(tmp_path):
    text = (ROOT / "recipes" / "demo-ja.yaml").read_text().replace("tokens: ", "tokens: 9000M #", 1)
    (tmp_path / "r.yaml").write_text(text.replace("examples/", f"{ROOT}/examples/"))
    said = [str(problem) for problem in plan(tmp_path / "r.yaml", tmp_path).problems]
    assert any("epoch" in line for line in said), said


def test_readme_begins_with_the_two_commands():
    first = re.search(r"```sh\n(.*?)```", PAGES[0].read_text(), re.DOTALL)[1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make demo", "make test"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_docs_commands_exist_with_their_options(page):
    for line in re.findall(r"`?(tsugiki [a-z][^`\n#]*)", page.read_text()):
        words = line.split()
        if words[1] not in {str(name) for name in app}:
            assert words[1] == "corpus|vocabulary|train|evaluate" or not words[1].isalpha(), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_docs_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_recipe_is_a_recipe(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", PAGES[0].read_text(), re.DOTALL)[1]
    (tmp_path / "r.yaml").write_text(text.replace("examples/", f"{ROOT}/examples/"))
    assert not plan(tmp_path / "r.yaml", tmp_path).problems


def test_readme_recipe_commands_in_the_makefile_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"\bmake ([a-z]+)\b`", page.read_text())) <= targets


def test_reference_pages_are_what_the_code_says():
    done = subprocess.run(
        [sys.executable, "scripts/make_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_repository_is_small_and_names_no_private_place():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name]
    assert sum(path.stat().st_size for path in files if path.exists()) < 40e6
    private = re.compile(rb"/work/(main|shared)|/root/|/tmp/bash_jobs|artifactory|index-url")
    for path in files:
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".txt", ".csv", ".j2", ""} and path.is_file():
            found = private.search(path.read_bytes())
            assert found is None or path == Path(__file__), f"{path}: {found}"
