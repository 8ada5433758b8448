"""The sections on routing and on seeds: what they show, and what damage they live with."""

from __future__ import annotations

import pytest

from tsugiki.report.page import render
from tsugiki.report.run import Palette, read_run
from tsugiki.report.sections.routing import routing
from tsugiki.report.sections.seeds import seed_groups, seeds

LOAD = [[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.5, 0.0]]


def routed(load=LOAD):
    row = {"load": load, "load_entropy": [0.9, 0.8], "router_entropy": [0.7, 0.6], "dead_experts": [0, 1]}
    return {
        "layers": [1, 3],
        "experts": 4,
        "experts_per_token": 2,
        "training": row,
        "sets": {"japanese": {"language": "ja", **row}, "english": {"language": "en", **row}},
        "specialisation": [
            {"step": 0, "by_dataset": [0.0, 0.1], "by_language": [0.0, 0.1]},
            {"step": 9, "by_dataset": [0.2, 0.5], "by_language": [0.2, 0.4], "by_domain": [0.1, 0.3]},
        ],
    }


BIAS = {
    "moved_share": 0.125,
    "without": [{"dataset": "japanese", "bits_per_byte": 2.5, "bits_per_byte_without_bias": 2.75}],
}


def run_with(write, recorded, bias=None):
    def facts(name, found):
        if name == "adapted":
            found["routing"] = recorded
            if bias is not None:
                found["router_bias"] = bias

    return write(facts=facts)


def test_routing_is_drawn_with_its_dead_expert_and_the_layer_that_tells_sets_apart(new_run):
    directory = run_with(new_run, routed(), BIAS)
    page = render(directory)
    assert 'id="routing"' in page
    assert "layer 3, e3: −1.00; 0.0% of the choices" in page or "layer 3, e3: −1.00" in page
    assert "Shares of the choices in layer 3" in page
    assert "12.5" in page
    assert "2.7500" in page
    (view,) = routing(read_run(directory), Palette(("adapted",))).stages
    assert view.by_dataset == pytest.approx(0.35)
    assert "by language 0.300, by domain 0.200" in page
    assert [one.dead for one in view.sets] == [1, 1]
    assert view.sets[0].shares == tuple(LOAD[1])
    assert [figure.panel for figure in view.figures] == [False, True, True]


@pytest.mark.parametrize(
    "recorded",
    [
        "text",
        {"layers": "many", "experts": 4},
        {**routed(), "training": None, "specialisation": "none"},
        routed(load=[[0.5, 0.5]]),
        routed(load=[["a"] * 4] * 2),
        {**routed(), "sets": {"japanese": {}}},
    ],
)
def test_damaged_routing_never_costs_the_page(new_run, recorded):
    assert "</html>" in render(run_with(new_run, recorded))


def test_runs_without_mixtures_and_seeds_have_neither_section(new_run):
    page = render(new_run())
    assert 'id="routing"' not in page
    assert 'id="seeds"' not in page


GRAPH = {
    "japanese": ("corpus", ()),
    "english": ("corpus", ()),
    **{f"{arm}-{seed}": ("train", ("english",)) for arm in ("dense", "drop") for seed in (0, 1, 2)},
}


def with_seeds(write, values):
    """A run of two arms with three seeds; values: bits per byte by arm, of seeds 0 to 2."""

    def facts(name, found):
        arm, _, seed = name.rpartition("-")
        if arm:
            found["validation"] = [
                {"dataset": "japanese", "tokens": tokens, "bits_per_byte": values[arm][int(seed)] + start}
                for tokens, start in ((0, 1.0), (100, 0.0))
            ]

    directory = write(graph=GRAPH, finished=tuple(GRAPH), facts=facts)
    run = read_run(directory)
    for stage in run.stages:  # the fixture writes the same seed everywhere
        if stage.kind == "train" and stage.manifest is not None:
            stage.manifest.config["seed"] = int(stage.name[-1])
    return run


def test_seeds_of_an_arm_are_taken_together_with_students_interval(new_run):
    values = {"dense": (2.0, 2.1, 2.2), "drop": (1.8, 1.8, 1.8)}
    run = with_seeds(new_run, values)
    assert {name: len(group) for name, group in seed_groups(run.of_kind("train")).items()} == {
        "dense": 3,
        "drop": 3,
    }
    (view,) = seeds(run)
    figure = view.figure
    low, high = view.ends
    assert (low.name, low.mean, low.difference, low.difference_ends) == ("drop", 1.8, None, None)
    # seed by seed 0.2, 0.3, 0.4: the same interval about 0.3
    assert (high.name, high.seeds, high.difference) == ("dense", 3, pytest.approx(0.3))
    assert high.difference_ends == pytest.approx((0.3 - 0.2484, 0.3 + 0.2484), abs=1e-4)
    # 2.1 with 4.303 · 0.1 / sqrt(3) = 0.248 on both sides
    assert "dense: 2.100 at the end" in str(figure.wide)
    assert "1.852" in str(figure.wide)
    assert "2.348" in str(figure.wide)


def test_stages_with_the_same_seed_are_no_group(new_run):
    stages = read_run(new_run(graph=GRAPH, finished=tuple(GRAPH))).of_kind("train")
    assert len(stages) == 6
    assert seed_groups(stages) == {}
