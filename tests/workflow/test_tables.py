"""What `tsugiki plan` prints: problems that several stages share, and what could not be reckoned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tsugiki.errors import Problem
from tsugiki.workflow.graph import build_graph
from tsugiki.workflow.planning import make_plan
from tsugiki.workflow.recipe import load_recipe
from tsugiki.workflow.tables import alike_together, print_plan

ROOT = Path(__file__).resolve().parents[2]


def of_stage(name, said, line, hint="do"):
    return Problem(f'stage "{name}": {said}', hint, f"r.yaml:{line}")


def test_problems_alike_become_one_with_all_stages_and_lines():
    problems = [of_stage("a", "far away", 3), of_stage("b", "too small", 5), of_stage("c", "far away", 9)]
    found = [str(problem) for problem in alike_together(problems)]
    assert found == [
        'r.yaml:3, 9: stages "a", "c": far away\n  Hint: do',
        'r.yaml:5: stage "b": too small\n  Hint: do',
    ]


def test_problems_that_differ_in_hint_or_have_no_stage_stay_apart():
    problems = [of_stage("a", "x", 1), of_stage("b", "x", 2, hint="other"), Problem("no disk", "free some")]
    assert alike_together(problems) == problems


def test_plan_tells_memory_of_machine_and_devices_apart_and_what_it_could_not_reckon(tmp_path, capsys):
    plan = make_plan(build_graph(load_recipe(ROOT / "recipes" / "swallow-llama2-7b.yaml")), tmp_path / "run")
    print_plan(plan)
    said = capsys.readouterr().out
    summary = next(line for line in said.splitlines() if line.startswith("To do: 8 stages"))
    assert "8.94 GiB of memory" in summary
    assert "26.5 GiB on each device" in summary
    assert "Not reckoned in: 4 of them" in summary
    assert said.count("its files are not on this machine") == 1


def test_plan_tells_core_hours_in_words_and_as_data(tmp_path, capsys):
    plan = make_plan(build_graph(load_recipe(ROOT / "recipes" / "swallow-llama2-7b.yaml")), tmp_path / "run")
    corpus = next(stage for stage in plan.stages if stage.kind == "corpus")
    forecast = replace(corpus.forecast, facts={**corpus.forecast.facts, "core_hours": 35_054.5})
    stages = tuple(replace(one, forecast=forecast) if one is corpus else one for one in plan.stages)
    print_plan(replace(plan, stages=stages))
    assert "\nCore hours: 35.1k.\n" in capsys.readouterr().out
    found = {stage["name"]: stage for stage in replace(plan, stages=stages).as_dict()["stages"]}
    assert found[corpus.name]["core_hours"] == 35_054.5
    assert found[corpus.name]["device_hours"] is None
