"""Metrics rows passed on to TensorBoard, Weights & Biases or trackio, as they are written.

`metrics.jsonl` stays the record; a tracker shows it. A tracker that fails is dropped with one warning: it
never ends a training. A run that goes on continues the same run of the tracker.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from tsugiki.artifacts.metrics import MetricsLog
from tsugiki.errors import DependencyError

TrackerName = Literal["tensorboard", "wandb", "trackio"]

DIRECTORY = "trackers"
"""Below the stage's directory, beside the model; no part of the artifact's content."""

PROJECT = "tsugiki"


class Tracker(Protocol):
    """Takes figures of a step, by names such as `train/loss`."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Show them."""

    def close(self) -> None:
        """Write what is still waiting."""


class TensorBoard:
    """Event files in `directory`; curves of steps that are made again begin anew at the first of them."""

    def __init__(self, directory: Path, _name: str, _identity: str, _config: Mapping[str, Any]) -> None:
        module = _imported("torch.utils.tensorboard", "tensorboard")
        self._writer = module.SummaryWriter(str(directory))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """One scalar a figure."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A run whose id is the training's identity, so it is continued; WANDB_MODE=offline keeps it here."""

    def __init__(self, directory: Path, name: str, identity: str, config: Mapping[str, Any]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._run = _imported("wandb", "wandb").init(
            project=PROJECT,
            name=name,
            id=identity[-32:],
            resume="allow",
            dir=str(directory),
            config=dict(config),
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """One row; steps that are made again are shown at their own place by the figure `step`."""
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackio:
    """A run of trackio, by the name of the stage; `trackio show` shows it."""

    def __init__(self, _directory: Path, name: str, identity: str, config: Mapping[str, Any]) -> None:
        self._module = _imported("trackio", "trackio")
        self._module.init(
            project=PROJECT, name=f"{name}-{identity[-8:]}", resume="allow", config=dict(config)
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """One row."""
        self._module.log(dict(figures), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._module.finish()


_TRACKERS: Mapping[str, Callable[[Path, str, str, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


@contextmanager
def following(
    metrics: MetricsLog,
    names: tuple[TrackerName, ...],
    *,
    root: Path,
    identity: str,
    config: Mapping[str, Any],
    log: logging.Logger,
) -> Iterator[None]:
    """Pass every row that is written inside of the block on to the trackers.

    root: the stage's directory, whose name is the run's. Raises DependencyError where a package is missing.
    """
    if not names:
        yield
        return
    trackers = {name: _TRACKERS[name](root / DIRECTORY / name, root.name, identity, config) for name in names}

    def safely(name: TrackerName, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 (whatever it is, training goes on)
            log.warning("%s is not told any more: %s: %s", name, type(error).__name__, error)
            trackers.pop(name, None)

    def pass_on(row: Mapping[str, Any]) -> None:
        step, figures = figures_of(row)
        if step is None or not figures:
            return
        for name, tracker in list(trackers.items()):
            safely(name, lambda tracker=tracker: tracker.log(figures, step))  # type: ignore[misc]

    metrics.followers.append(pass_on)
    try:
        yield
    finally:
        metrics.followers.remove(pass_on)
        for name, tracker in list(trackers.items()):
            safely(name, tracker.close)


def figures_of(row: Mapping[str, Any]) -> tuple[int | None, dict[str, float]]:
    """The step of a metrics row and its numbers by `group/name`; rows of events are groups of their own."""
    event = row.get("event")
    step = row.get("step", row.get("after_step")) if event is None else row.get("after_step")
    group = "train" if event is None else str(event).replace(" ", "_")
    if "dataset" in row:
        group = f"{group}/{row['dataset']}"
    figures = {
        f"{group}/{name}": float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name not in {"step", "after_step", "time"}
    }
    return step, figures


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DependencyError(
            f"trackers: {package} is not installed",
            hint=f"pip install 'tsugiki[{package}]', or take it out of trackers",
        ) from error
