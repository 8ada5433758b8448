"""Items drawn again: the spread of each score is that of its questions, and components move with it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tsugiki.artifacts.scores import SCORES, write_scores
from tsugiki.cli import app
from tsugiki.errors import InputError
from tsugiki.study.factors import principal_components, stability_of_tables
from tsugiki.study.item_noise import drawn_tables, item_findings, items_of
from tsugiki.study.table import read_table

MODELS = tuple("abcdef")


def artifact(directory, items=60, sums=False):
    """Six models of rising skill on three benchmarks; two share what is hard, the third is noise."""
    rng = np.random.default_rng(0)
    rows = []
    for task in ("one", "two", "three"):
        hard = rng.normal(0, 1, items)
        for place, model in enumerate(MODELS):
            skill = (place - 2.5) / 2 if task != "three" else rng.normal(0, 0.5)
            right = rng.random(items) < 1 / (1 + np.exp(hard - skill))
            rows += [
                {"model": model, "task": task, "dataset": task, "item": f"{number:03}", "domain": "",
                 "cluster": f"{number // 2:02}" if task == "two" else None, "language": "ja",
                 "score": float(one), "sums": [1.0] if sums and task == "three" else None}
                for number, one in enumerate(right)
            ]  # fmt: skip
    directory.mkdir()
    write_scores(directory / SCORES, rows)
    return directory


def test_drawn_scores_have_the_spread_of_their_questions_by_clusters(tmp_path) -> None:
    directory = artifact(tmp_path / "scores")
    table = read_table([directory])
    items = items_of([directory], table)
    assert {name: len(one.numerator_CM) for name, one in items.items()} == {"one": 60, "two": 30, "three": 60}
    tables = drawn_tables(table.scores_MB, table, items, 3000, 0)
    assert tables.mean(axis=0) == pytest.approx(table.scores_MB, abs=0.01)
    p = table.column("one")
    spread = tables.std(axis=0)[:, table.benchmarks.index("one")]
    assert spread == pytest.approx(np.sqrt(p * (1 - p) / 60), rel=0.06)
    two = items["two"]
    residual = two.numerator_CM - table.column("two") * two.denominator_CM
    expected = np.sqrt((residual**2).sum(axis=0)) / 60
    assert tables.std(axis=0)[:, table.benchmarks.index("two")] == pytest.approx(expected, rel=0.06)


def test_more_questions_make_components_steadier(tmp_path) -> None:
    ends = []
    for number, items in enumerate((20, 400)):
        directory = artifact(tmp_path / str(number), items)
        table = read_table([directory])
        factors = principal_components(table.scores_MB)
        tables = drawn_tables(table.scores_MB, table, items_of([directory], table), 300, 0)
        found = stability_of_tables(tables, factors, 2)
        ends.append(found.share_high_K[0] - found.share_low_K[0])
        assert found.share_low_K[0] < factors.explained_B[0] < found.share_high_K[0] + 0.05
    assert ends[1] < 0.6 * ends[0]


def test_columns_without_items_stay_and_are_named(tmp_path) -> None:
    directory = artifact(tmp_path / "scores", sums=True)
    other = tmp_path / "more.csv"
    other.write_text("model,board\n" + "".join(f"{m},{0.1 + n / 10}\n" for n, m in enumerate(MODELS)))
    table = read_table([directory, other])
    items = items_of([directory, other], table)
    assert set(items) == {"one", "two"}
    tables = drawn_tables(table.scores_MB, table, items, 20, 0)
    for name in ("three", "board"):
        assert (tables[:, :, table.benchmarks.index(name)] == table.column(name)).all()
    [said] = item_findings(table, items)
    assert "board" in said.message
    assert "three" in said.message


def test_study_resamples_items_of_artifacts_and_refuses_tables_without(capsys, tmp_path) -> None:
    directory = artifact(tmp_path / "scores")
    words = ["study", str(directory), "--resample", "items", "--draws", "50", "--json"]
    with pytest.raises(SystemExit) as ended:
        app(words)
    assert ended.value.code in {0, None}
    found = json.loads(capsys.readouterr().out)
    assert found["draws"]["bootstrap"] == 50
    low, high = found["components"][0]["share_95"]
    assert low < high
    with pytest.raises(InputError, match="no items are known"):
        app(["study", "--example", "--resample", "items", "--draws", "5"])
