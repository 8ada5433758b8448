"""Metrics rows passed on to TensorBoard, Weights & Biases or trackio, as they are written.

`metrics.jsonl` stays the record; a tracker shows it. A tracker whose package is missing, that does not begin
(nobody is logged in, no network) or that fails later is dropped with one warning: it never ends a training.
A run that goes on continues the same run of the tracker.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from tsugiki.artifacts.metrics import MetricsLog
from tsugiki.errors import DependencyError

TrackerName = Literal["tensorboard", "wandb", "trackio"]

DIRECTORY = "trackers"
"""Below the stage's directory, beside the model; no part of the artifact's content."""

PROJECT = "tsugiki"

STEPS = "train"
"""The group of the figures of optimizer steps."""


class Tracker(Protocol):
    """Takes figures of a step, by names such as `train/loss`."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Show them."""

    def close(self) -> None:
        """Write what is still waiting."""


class TensorBoard:
    """Event files in `directory`; steps that are made again (a kill, a spike) replace the older ones."""

    def __init__(self, directory: Path, _name: str, _identity: str, _config: Mapping[str, Any]) -> None:
        self._module = _imported("torch.utils.tensorboard", "tensorboard")
        self._directory = directory
        self._writer: Any = None
        self._last = 0

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """One scalar a figure.

        A file that begins with a step tells TensorBoard to forget what older ones have of that step and those
        after it: so a new one is begun by a process's first row, and by a step that was there before.
        """
        is_step = any(name.startswith(f"{STEPS}/") for name in figures)
        if self._writer is None or (is_step and step <= self._last):
            self.close()
            self._writer = self._module.SummaryWriter(str(self._directory), purge_step=step)
        if is_step:
            self._last = step
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
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
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """One row, drawn over the figure `step`: W&B's own counter only goes up, steps may be made again."""
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class Trackio:
    """A run of trackio, by the name of the stage; `trackio show --project tsugiki` shows it.

    It has no way to take a row back: steps that are made again are there twice. What it prints (in colours)
    is kept out of the log.
    """

    def __init__(self, _directory: Path, name: str, identity: str, config: Mapping[str, Any]) -> None:
        self._module = _imported("trackio", "trackio")
        with contextlib.redirect_stdout(io.StringIO()):
            self._module.init(
                project=PROJECT, name=f"{name}-{identity[-8:]}", resume="allow", config=dict(config)
            )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """One row."""
        self._module.log(dict(figures), step=step)

    def close(self) -> None:
        """Finish the run."""
        with contextlib.redirect_stdout(io.StringIO()):
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

    root: the stage's directory, whose name is the run's.
    """
    trackers: dict[TrackerName, Tracker] = {}

    def safely(name: TrackerName, act: Callable[[], None], said: str = "is not told any more") -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 (whatever it is, training goes on)
            log.warning("%s %s: %s; metrics.jsonl has every row", name, said, _in_a_line(error))
            trackers.pop(name, None)

    def begin(name: TrackerName) -> None:
        trackers[name] = _TRACKERS[name](root / DIRECTORY / name, root.name, identity, config)

    for name in dict.fromkeys(names):
        safely(name, lambda name=name: begin(name), "is not told")  # type: ignore[misc]
    if not trackers:
        yield
        return

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
    group = STEPS if event is None else str(event).replace(" ", "_")
    if "dataset" in row:
        group = f"{group}/{row['dataset']}"
    figures = {
        f"{group}/{name}": float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if name not in {"step", "after_step", "time"}
    }
    return step, figures


def missing(names: Iterable[TrackerName]) -> list[TrackerName]:
    """Those whose package is not installed here; nothing is imported."""
    return [name for name in dict.fromkeys(names) if importlib.util.find_spec(name) is None]


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DependencyError(
            f"{package} is not installed",
            hint=f"pip install 'tsugiki[{package}]', or take it out of `trackers`",
        ) from error


def _in_a_line(error: Exception) -> str:
    if isinstance(error, DependencyError):
        return f"{error.message} ({error.hint})"
    return " ".join(f"{type(error).__name__}: {error}".split())
