"""Metrics passed on to trackers: all of them, at their steps, and never at the cost of the training."""

import logging

import pytest

from tsugiki.artifacts.manifest import content_files
from tsugiki.artifacts.metrics import MetricsLog, read_metrics
from tsugiki.errors import DependencyError
from tsugiki.training import trackers
from tsugiki.training.trackers import figures_of, following


def test_figures_of_rows_are_grouped_by_event_and_dataset():
    row = {"step": 3, "loss": 2.5, "precision": "float32", "time": 1.0, "none": None, "nan": float("nan")}
    assert figures_of(row) == (3, {"train/loss": 2.5})
    row = {"event": "validation", "dataset": "ja", "after_step": 4, "tokens": 100, "bits_per_byte": 1.5}
    assert figures_of(row) == (4, {"validation/ja/tokens": 100.0, "validation/ja/bits_per_byte": 1.5})
    assert figures_of({"event": "finished", "tokens_per_second": 3.0})[0] is None


def test_tensorboard_holds_what_metrics_jsonl_holds(tmp_path, run_stage, scratch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = {
        **scratch,
        "tokens": 2048,
        "trackers": ["tensorboard"],
        "validation": ["english"],
        "validation_bytes": 2000,
        "validation_points": 1,
    }
    run_stage(tmp_path / "run", settings)
    events = EventAccumulator(str(tmp_path / "run" / "trackers" / "tensorboard"))
    events.Reload()
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl", last_by="step")
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(row["step"], pytest.approx(row["loss"])) for row in rows]
    held_out = read_metrics(tmp_path / "run" / "metrics.jsonl", event="validation")
    shown = [event.value for event in events.Scalars("validation/english/bits_per_byte")]
    assert shown == [pytest.approx(row["bits_per_byte"]) for row in held_out]
    assert not any(name.startswith("trackers") for name in content_files(tmp_path / "run"))


def test_tracker_that_fails_is_dropped_with_one_warning(tmp_path, monkeypatch, caplog):
    class Failing:
        def __init__(self, *_):
            pass

        def log(self, *_):
            raise ConnectionError("no network")

        def close(self):
            raise AssertionError

    monkeypatch.setitem(trackers._TRACKERS, "wandb", Failing)
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    arguments = {"root": tmp_path, "identity": "x", "config": {}, "log": logging.getLogger("test")}
    with following(metrics, ("wandb",), **arguments):
        for step in range(1, 4):
            metrics.append(step=step, loss=1.0)
    metrics.append(step=4, loss=1.0)
    metrics.close()
    assert [record.message for record in caplog.records] == [
        "wandb is not told any more: ConnectionError: no network"
    ]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 4


def test_missing_package_is_named_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trackio", None)
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    arguments = {"root": tmp_path, "identity": "x", "config": {}, "log": logging.getLogger("test")}
    follower = following(metrics, ("trackio",), **arguments)
    with pytest.raises(DependencyError, match="trackio is not installed") as caught, follower:
        pass
    metrics.close()
    assert "tsugiki[trackio]" in caught.value.hint
