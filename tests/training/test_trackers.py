"""Metrics passed on to trackers: all of them, at their steps, and never at the cost of the training."""

import importlib.util
import json
import logging
import sqlite3
import sys

import pytest

from tsugiki.artifacts.manifest import content_files
from tsugiki.artifacts.metrics import MetricsLog, read_metrics
from tsugiki.training import trackers
from tsugiki.training.stage import Config, estimate
from tsugiki.training.trackers import figures_of, following


def test_figures_of_rows_are_grouped_by_event_and_dataset():
    row = {"step": 3, "loss": 2.5, "precision": "float32", "time": 1.0, "none": None, "nan": float("nan")}
    assert figures_of(row) == (3, {"train/loss": 2.5})
    row = {"event": "validation", "dataset": "ja", "after_step": 4, "tokens": 100, "bits_per_byte": 1.5}
    assert figures_of(row) == (4, {"validation/ja/tokens": 100.0, "validation/ja/bits_per_byte": 1.5})
    assert figures_of({"event": "finished", "tokens_per_second": 3.0})[0] is None


def test_tensorboard_holds_what_metrics_jsonl_holds(tmp_path, run_stage, scratch):
    settings = {
        **scratch,
        "tokens": 2048,
        "trackers": ["tensorboard"],
        "validation": ["english"],
        "validation_bytes": 2000,
        "validation_points": 1,
    }
    run_stage(tmp_path / "run", settings)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl", last_by="step")
    shown = shown_by_tensorboard(tmp_path / "run", "train/loss")
    assert shown == [(row["step"], pytest.approx(row["loss"])) for row in rows]
    held_out = read_metrics(tmp_path / "run" / "metrics.jsonl", event="validation")
    shown = shown_by_tensorboard(tmp_path / "run", "validation/english/bits_per_byte")
    assert [value for _, value in shown] == [pytest.approx(row["bits_per_byte"]) for row in held_out]
    assert not any(name.startswith("trackers") for name in content_files(tmp_path / "run"))


def shown_by_tensorboard(directory, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "trackers" / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def write(root, names, rows, log=None):
    metrics = MetricsLog(root / "metrics.jsonl")
    arguments = {"root": root, "identity": "sha256:" + 32 * "ab", "config": {"tokens": 1}}
    with following(metrics, names, **arguments, log=log or logging.getLogger("test")):
        for row in rows:
            metrics.append(**row)
    metrics.close()
    return read_metrics(root / "metrics.jsonl")


def steps(first, last, loss):
    return [{"step": step, "loss": loss} for step in range(first, last + 1)]


def test_tensorboard_shows_a_step_once_after_a_spike_and_after_a_kill(tmp_path):
    validation = {"event": "validation", "dataset": "ja", "after_step": 2, "bits_per_byte": 1.5}
    left_out = {"event": "left out", "after_step": 2, "loss": 9.0}
    first = [*steps(1, 2, 3.0), validation, *steps(3, 5, 9.0), left_out, *steps(3, 6, 2.0)]
    write(tmp_path, ("tensorboard",), first)
    write(tmp_path, ("tensorboard",), steps(5, 7, 1.0))  # the next process, from the checkpoint of step 4
    expected = [(1, 3.0), (2, 3.0), (3, 2.0), (4, 2.0), (5, 1.0), (6, 1.0), (7, 1.0)]
    assert shown_by_tensorboard(tmp_path, "train/loss") == expected
    assert shown_by_tensorboard(tmp_path, "validation/ja/bits_per_byte") == [(2, 1.5)]


class Failing:
    """Fails as a service does: `when` it begins, or when it is told of the second row."""

    when = "log"
    told = 0

    def __init__(self, *_):
        if self.when == "begin":
            raise RuntimeError("nobody is\nlogged in")

    def log(self, *_):
        type(self).told += 1
        if self.told > 1:
            raise ConnectionError("no network")

    def close(self):
        raise AssertionError


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("log", "wandb is not told any more: ConnectionError: no network; metrics.jsonl has every row"),
        ("begin", "wandb is not told: RuntimeError: nobody is logged in; metrics.jsonl has every row"),
    ],
)
def test_tracker_that_fails_is_dropped_with_one_warning_and_the_others_go_on(
    when, said, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(trackers._TRACKERS, "wandb", type("Failing", (Failing,), {"when": when}))
    rows = write(tmp_path, ("wandb", "tensorboard"), steps(1, 4, 1.0))
    assert [record.message for record in caplog.records] == [said]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert len(shown_by_tensorboard(tmp_path, "train/loss")) == 4


def test_training_goes_on_without_a_package_and_says_how_to_install_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "trackio", None)
    rows = write(tmp_path, ("trackio", "trackio"), steps(1, 2, 1.0))
    (said,) = [record.message for record in caplog.records]
    assert said == (
        "trackio is not told: trackio is not installed (pip install 'tsugiki[trackio]', or take it out of "
        "`trackers`); metrics.jsonl has every row"
    )
    assert len(rows) == 2


def test_plan_says_which_packages_are_missing(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "trackio" else find(name, *more)
    )
    config = Config(
        model={"preset": "llama-nano"},
        tokenizer={"train": "a", "size": 320},
        data={"a": 1},
        tokens="1M",
        trackers=["tensorboard", "trackio"],
    )
    (problem,) = (one for one in estimate(config, {}).problems if one.where == "trackers")
    assert problem.severity == "warning"
    assert problem.message == "trackio is not installed here: the run would go on without it"
    assert "tsugiki[trackio]" in problem.hint


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is an extra")
def test_weights_and_biases_offline_keeps_every_row_at_its_step(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path, ("wandb",), [*steps(1, 3, 3.0), *steps(2, 4, 2.0)])
    assert not caplog.records
    (kept,) = (tmp_path / "trackers" / "wandb" / "wandb").glob("offline-run-*/run-*.wandb")
    assert kept.stat().st_size > 0
    assert kept.name == f"run-{16 * 'ab'}.wandb"  # the training's identity: a later process continues it


@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="trackio is an extra")
def test_trackio_keeps_every_row_in_its_own_database(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    write(tmp_path, ("trackio",), steps(1, 3, 3.0))
    assert not caplog.records
    with sqlite3.connect(tmp_path / "trackio" / "tsugiki.db") as database:
        found = database.execute("select step, metrics from metrics order by step").fetchall()
    assert [(step, json.loads(text)) for step, text in found] == [(i, {"train/loss": 3.0}) for i in (1, 2, 3)]
    assert capsys.readouterr().out == ""  # its colours don't get into the log
