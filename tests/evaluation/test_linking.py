"""Tasks that ask the same questions: linked by what is known, drawn together, with the right width."""

from __future__ import annotations

import numpy as np
import pytest

from tsugiki.artifacts.scores import SCHEMA
from tsugiki.evaluation.comparing.comparison import Settings, compare
from tsugiki.evaluation.comparing.linking import cluster_keys, shared_items
from tsugiki.evaluation.statistics.averages import average_estimates, joint_task_draws, task_draws
from tsugiki.evaluation.statistics.estimates import ClusterSums
from tsugiki.evaluation.tasks.base import Measure


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        (("gsm8k", "17"), ("mgsm-ja", "17"), True),
        (("gsm8k@published", "17"), ("mgsm-ja", "17"), True),
        (("gsm8k", "17"), ("mgsm-ja", "18"), False),
        (("humaneval", "HumanEval/3"), ("jhumaneval", "JHumanEval/3"), True),
        (("mmlu", "astronomy"), ("jmmlu", "astronomy"), True),
        (("jcommonsenseqa", "17"), ("gsm8k", "17"), False),
        (("jcommonsenseqa", "17"), ("jcommonsenseqa@published", "17"), True),
        (("humaneval", "odd"), ("jhumaneval", "odd"), False),
    ],
)
def test_cluster_keys_are_the_same_where_tasks_share_items(one, another, same):
    first, second = (cluster_keys(task, "d", [cluster])[0] for task, cluster in (one, another))
    assert (first == second) is same


def test_shared_items_name_tasks_that_exist():
    from tsugiki.evaluation.benchmarks import benchmark

    folder = benchmark.__file__.rsplit("/", 1)[0]
    from pathlib import Path

    known = {path.stem for path in Path(folder, "tasks").glob("*.yaml")}
    named = [task for entry in shared_items() for task in entry.tasks]
    assert set(named) <= known
    assert len(named) == len(set(named))


def translated(generator, items, shared):
    """Right answers of one model to `items` questions, and to translations of the first `shared` of them."""
    lean = generator.normal(0, 2, items)
    chances = 1 / (1 + np.exp(-lean))
    luck = generator.random(items)
    first = (luck < chances).astype(float)
    again = np.where(generator.random(shared) < 0.1, generator.random(shared), luck[:shared])
    return first, (again < chances[:shared]).astype(float)


def sums(values):
    return ClusterSums(np.asarray(values, dtype=float)[:, None], np.ones(len(values)))


def test_averages_of_translated_tasks_cover_95_percent_only_when_drawn_together():
    generator = np.random.default_rng(0)
    names = [f"{i:04}" for i in range(200)]
    covered = {"together": 0, "apart": 0}
    repeats = 700
    for repeat in range(repeats):
        first, second = translated(generator, 200, 150)
        pair = [(sums(first), names), (sums(second), names[:150])]
        draws = {
            "together": joint_task_draws(pair, [], draws=200, seed=repeat),
            "apart": [task_draws(one, [], draws=200, seed=2 * repeat + n) for n, (one, _) in enumerate(pair)],
        }
        for name, drawn in draws.items():
            [found] = average_estimates(drawn)
            covered[name] += found.low <= 0.5 <= found.high
    # 0.8 points are the simulation's standard error
    assert covered["together"] / repeats == pytest.approx(0.95, abs=0.02)
    assert covered["apart"] / repeats < 0.9


def test_joint_draws_of_tasks_without_common_clusters_have_the_spread_of_each_alone():
    generator = np.random.default_rng(1)
    first, second = generator.random(80), generator.random(50)
    tasks = [(sums(first), [f"a{i}" for i in range(80)]), (sums(second), [f"b{i}" for i in range(50)])]
    together = joint_task_draws(tasks, [], draws=4000, seed=0)
    for drawn, values in zip(together, (first, second), strict=True):
        assert drawn.value_RN.std() == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.08)
    assert abs(np.corrcoef(together[0].value_RN[:, 0], together[1].value_RN[:, 0])[0, 1]) < 0.06


def test_joint_draws_of_the_same_clusters_go_together_and_few_of_many_do_not_break():
    values = np.random.default_rng(2).random(60)
    names = [f"{i}" for i in range(60)]
    one, other = joint_task_draws([(sums(values), names), (sums(values), names)], [], draws=300, seed=0)
    assert one.value_RN == pytest.approx(other.value_RN)
    rare = joint_task_draws([(sums(values), names), (sums(values[:2]), names[:2])], [], draws=300, seed=0)[1]
    assert np.isfinite(rare.value_RN).all()


def rows(task, items, right):
    empty = dict.fromkeys(SCHEMA.names)
    return [
        empty | {"model": model, "task": task, "dataset": "d", "language": language(task), "item": item,
                 "cluster": item, "score": float(score)}
        for model, scores in right.items()
        for item, score in zip(items, scores, strict=True)
    ]  # fmt: skip


def language(task):
    return "en" if task == "gsm8k" else "ja"


def test_compare_says_which_tasks_were_drawn_together_and_is_wider_for_them():
    import pyarrow as pa

    generator = np.random.default_rng(3)
    items = [str(i) for i in range(150)]
    first = {model: generator.random(150) < 0.5 for model in "ab"}
    every = {}
    for task in ("mgsm-ja", "jemhopqa"):  # the same answers again: linked by their ids, or not
        table = pa.Table.from_pylist([*rows("gsm8k", items, first), *rows(task, items, first)], schema=SCHEMA)
        measures = {name: Measure("accuracy", lower_is_better=False) for name in ("gsm8k", task)}
        found = compare(table, measures, Settings(("a", "b"), "a", draws=1000))
        every[task] = found["averages"][-1]
    assert every["mgsm-ja"]["linked"] == [["gsm8k", "mgsm-ja"]]
    assert every["jemhopqa"]["linked"] == []
    widths = [one["by_model"]["a"]["standard_error"] for one in every.values()]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(2), rel=0.1)
