from __future__ import annotations

from pathlib import Path

import pytest

from tsugiki.workflow.graph import build_graph
from tsugiki.workflow.planning import make_plan
from tsugiki.workflow.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]


# Published: conversions/configs and scripts/pretrain of Drop-Upcycling at 481747d.
@pytest.mark.parametrize(
    ("size", "parameters", "active", "steps", "devices"),
    [
        ("152m", 416_608_768, 190_116_352, 238_419, 8),
        ("1.5b", 8_957_429_760, 2_615_642_112, 119_210, 32),
        ("3.7b", 18_581_105_664, 5_897_530_368, 119_210, 64),
    ],
)
def test_recipe_of_drop_upcycling_has_the_published_figures(
    size, parameters, active, steps, devices, tmp_path
):
    recipe = load_recipe(ROOT / "recipes" / f"drop-upcycling-8x{size}.yaml")
    plan = make_plan(build_graph(recipe), tmp_path)
    assert not plan.problems
    made, trained = plan.stage("experts").forecast, plan.stage("adapted").forecast
    assert (made.counts["parameters"], made.counts["active_parameters"]) == (parameters, active)
    assert trained.counts["parameters"] == parameters
    assert trained.counts["steps"] == steps
    assert trained.counts["tokens"] == pytest.approx(500e9, rel=1e-3)
    config = recipe.stages["adapted"].config
    assert config.parallel.data == devices
    assert made.memory_bytes < 3e9  # whatever the size of the model
    assert made.disk_bytes == 2 * parameters


def test_recipe_with_a_shared_expert_meets_as_many_neurons_for_a_token_as_the_dense_model(tmp_path):
    recipe = load_recipe(ROOT / "recipes" / "shared-expert-qwen2.5-7b.yaml")
    plan = make_plan(build_graph(recipe), tmp_path)
    assert not [problem for problem in plan.problems if problem.severity == "error"]
    made, trained = plan.stage("experts").forecast, plan.stage("adapted").forecast
    assert (made.counts["parameters"], made.counts["active_parameters"]) == (46_118_370_816, 7_621_737_984)
    router_and_gate = 28 * 3584 * (60 + 1)
    assert made.counts["active_parameters"] - router_and_gate == 7_615_616_512
    assert trained.counts["parameters"] == 46_118_370_816
    assert made.disk_bytes == 2 * 46_118_370_816
    assert made.memory_bytes < 4e9
