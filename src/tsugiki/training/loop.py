"""The steps of a run: batch, forward, backward, clip, AdamW; measured, checkpointed, resumable to the bit."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tsugiki.artifacts.contract import Workspace
from tsugiki.dataset.mixture import Mixture
from tsugiki.training.checkpointing import Checkpoints, resume
from tsugiki.training.counts import Counts, count
from tsugiki.training.engine import Engine, StepResult
from tsugiki.training.meter import Meter
from tsugiki.training.new_rows import decay
from tsugiki.training.norms import epsilon_warning, medians_of, row_of
from tsugiki.training.optimizer import learning_rate
from tsugiki.training.planning import warmup_steps
from tsugiki.training.recovery import hidden_trouble, recover, trouble_of
from tsugiki.training.samples import Prompts
from tsugiki.training.spikes import DataSteps
from tsugiki.training.stage import Config
from tsugiki.training.telemetry import Routed
from tsugiki.training.trackers import following
from tsugiki.training.validation import ValidationSet, bits_per_byte, held_out_notes

RECENT_STEPS = 10
"""The final loss is the mean over so many last steps: single batches are noisy."""

_TERMINATED = 128 + signal.SIGTERM


@dataclass
class Counters:
    """What a run remembers beside weights and moments; part of every checkpoint.

    Losses are mean cross entropies in nats a counted token. Tokens are input positions.
    """

    first_loss: float | None = None
    recent_losses: list[float] = field(default_factory=list)
    tokens_of_source: list[int] = field(default_factory=list)
    bytes_of_source: list[int] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    """What the model wrote after the prompts, at every point of validation."""
    tokens_per_second: float | None = None
    """Median over the steps of the last process that made any."""
    attention: str = ""
    """How the last process attended to packed documents (`packed_attention`); empty on a CPU."""
    precision: str = ""
    """What is in force (`Engine.precision`): bfloat16 after falling back from float8, for good."""
    float8_worst: dict[str, Any] | None = None
    """The operand that float8 kept worst so far: step, matrix, operand, sqnr in dB."""
    window: list[float] = field(default_factory=list)
    """Recent losses that were not high, for `spikes.judge`; high, not_finite: steps in a row that were."""
    high: int = 0
    not_finite: int = 0
    router_biases: list[list[float]] = field(default_factory=list)
    """Of a mixture of experts that is balanced by biases, by sparse layer."""
    expert_tokens: list[list[int]] = field(default_factory=list)
    """Training tokens of each expert by sparse layer, since the last point of validation."""
    routing: dict[str, Any] = field(default_factory=dict)
    """How text was routed at the last point of validation (`telemetry`)."""

    @property
    def final_loss(self) -> float:
        """Mean loss of the last steps."""
        return fmean(self.recent_losses)


@dataclass(frozen=True)
class Run:
    """Everything that the loop works with."""

    config: Config
    engine: Engine
    mixture: Mixture
    validation: Sequence[ValidationSet]
    piece_bytes: NDArray[np.int32]
    identity: str
    meter: Meter | None = None
    prompts: Prompts | None = None
    routed: Routed | None = None
    """The routers of a mixture of experts."""
    attention: str = ""
    """How a GPU attends to packed documents (`packed_attention`)."""
    first_new_row: int | None = None
    """Where the rows of new tokens begin, if the first `config.new_rows_first` steps are theirs."""
    start_over: Callable[[], None] | None = None
    """Puts the weights that training starts from into the engine again; called in every process alike."""

    @property
    def validation_steps(self) -> set[int]:
        """Numbers of finished steps after which the held-out sets are measured."""
        points = self.config.validation_points
        return {round(self.mixture.steps * point / points) for point in range(1, points + 1)}


def run_steps(run: Run, out: Workspace) -> Counters:
    """Train from the newest checkpoint, or from the start, to the last step.

    A metrics row a step; rows of steps that were undone after a loss spike stay, the last row of a step
    counts. Raises StageError where a spike can't be recovered from (see `recovery`), SystemExit(143) after a
    checkpoint where the process was asked to terminate.
    """
    data = DataSteps.read(run.config.spikes, out.work, run.identity)
    step, counters = _resume(run, out, data)
    speeds: list[float] = []
    checkpoints = Checkpoints(run.engine, out.work, run.identity, run.config)
    _start_routers(run, counters)
    with _termination() as terminated, _trackers(run, out):
        if step == 0:
            _validate(run, counters, 0, out)
        while step < run.mixture.steps:
            result, speed = _take_step(run, data, step, counters, out)
            speeds.append(speed)
            trouble = trouble_of(run, counters, result, step)
            leaving = run.engine.in_any(terminated.is_set())
            due = checkpoints.is_due(step + 1, run.mixture.steps, is_high=counters.high > 0) or leaving
            if trouble is None and (due or step + 1 in run.validation_steps):
                trouble = hidden_trouble(run, data, counters, step)
            if trouble is not None:
                place = recover(*(run, data, checkpoints, out), trouble=trouble, counters=counters)
                if place is not None:
                    step, counters = place
                    _start_routers(run, counters)
                    continue
            step += 1
            if step in run.validation_steps:
                _validate(run, counters, step, out)
            if due:
                counters.tokens_per_second = median(speeds)
                checkpoints.begin(counters, step)
            checkpoints.poll()
            if leaving:
                checkpoints.close()
                raise SystemExit(_TERMINATED)
        checkpoints.finish()
    if speeds:
        counters.tokens_per_second = median(speeds)
    counters.attention = run.attention
    return counters


def _start_routers(run: Run, counters: Counters) -> None:
    if run.routed is not None:
        run.routed.start(counters)


def _take_step(
    run: Run, data: DataSteps, step: int, counters: Counters, out: Workspace
) -> tuple[StepResult, float]:
    """Step `step` (0-based) from its data to its row of metrics; its result and tokens a second."""
    begun = time.perf_counter()  # feeding is part of a step
    rate = _set_learning_rate(run, step)
    batch = run.engine.load(run.mixture, data.of(step, run.mixture.steps))
    counts = run.engine.add_up(count(batch, run.piece_bytes, len(run.mixture.shares)))
    if step % run.config.float8_measure_every_steps == 0:
        run.engine.watch_float8()
    result = run.engine.train(batch, run.config.clip, int(counts.targets.sum()))
    speed = float(counts.tokens.sum() / (time.perf_counter() - begun))
    measured: dict[str, float | str] = {
        "learning_rate": rate,
        "tokens_per_second": speed,
        "precision": run.engine.precision,
    }
    if run.meter is not None:
        run.meter.pace.tick(begun, time.perf_counter())
        measured |= run.meter.figures(speed)
    _record(run, counters, counts, result, step=step + 1, out=out, **measured)
    if (step + 1) % run.config.norms_every_steps == 0 and result.is_finite:
        squares, layers = run.engine.squares()
        scale = min(1.0, run.config.clip / (result.gradient_norm + 1e-6))
        medians = medians_of(run.engine.moments(), layers)
        row = {**row_of(squares, layers, scale), "second_moment_over_epsilon": medians}
        out.metrics.append(event="norms", after_step=step + 1, **row)
        if warning := epsilon_warning(medians):
            out.log.warning("step %d: %s", step + 1, warning)
    _tell(run, data, counters, step + 1, result, speed, out)
    return result, speed


def _tell(  # noqa: PLR0917
    run: Run,
    data: DataSteps,
    counters: Counters,
    step: int,
    result: StepResult,
    speed: float,
    out: Workspace,
) -> None:
    left = run.mixture.steps - step
    parts = [run.meter.note(result.loss, speed, left) if run.meter else f"loss {result.loss:.3f}"]
    parts += [*data.notes, *held_out_notes(counters.validation)]
    if run.engine.precision != run.config.precision:
        parts.append(f"{run.engine.precision} in place of {run.config.precision}")
    out.progress(step, run.mixture.steps, "steps", ", ".join(parts))


def _resume(run: Run, out: Workspace, data: DataSteps) -> tuple[int, Counters]:
    found = resume(run.engine, out.work, run.identity, out.log)
    if found is None:
        sources = len(run.mixture.shares)
        return 0, Counters(
            tokens_of_source=[0] * sources, bytes_of_source=[0] * sources, precision=run.engine.precision
        )
    out.log.info("going on after step %d of %d", found.step, run.mixture.steps)
    counters = Counters(**found.counters)
    if (counters.precision == "bfloat16" or data.fell_back) and run.engine.fall_back():
        out.log.warning("going on in bfloat16: this run fell back from %s before", run.config.precision)
    return found.step, counters


def _set_learning_rate(run: Run, step: int) -> float:
    """Set the rate of a step, and what learns in it; gives the rate."""
    steps = run.mixture.steps
    rate = learning_rate(
        step,
        steps=steps,
        peak=run.config.learning_rate,
        minimum=run.config.end_learning_rate,
        warmup_steps=warmup_steps(run.config.warmup, steps),
        schedule=run.config.schedule,
        decay=run.config.decay,
        decay_shape=run.config.decay_shape,
    )
    for group in run.engine.optimizer.param_groups:
        group["lr"] = rate
    run.engine.rows_from = run.first_new_row if step < run.config.new_rows_first else None
    decay(run.engine.optimizer, on=run.engine.rows_from is None)
    return rate


def _record(
    run: Run,
    counters: Counters,
    counts: Counts,
    result: StepResult,
    *,
    step: int,
    out: Workspace,
    **measured: float | str,
) -> None:
    """Write the step's metrics row, and count the batch if the step was taken."""
    tokens = (counters.tokens_of_source + counts.tokens).tolist()
    figures = {
        "loss": result.loss,
        "bits_per_byte": bits_per_byte(result.nats, int(counts.text_bytes.sum())),
        "gradient_norm": result.gradient_norm,
        **result.figures,
    }
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    out.metrics.append(step=step, tokens=sum(tokens), **measured, **finite)
    if not result.is_finite:
        return
    counters.tokens_of_source = tokens
    counters.bytes_of_source = (counters.bytes_of_source + counts.text_bytes).tolist()
    _record_float8(run, counters, result, step, out)
    counters.precision = run.engine.precision
    if run.routed is not None:
        run.routed.after_step(counters)
    counters.first_loss = result.loss if counters.first_loss is None else counters.first_loss
    counters.recent_losses = [*counters.recent_losses, result.loss][-RECENT_STEPS:]


def _record_float8(run: Run, counters: Counters, result: StepResult, step: int, out: Workspace) -> None:
    """Write what was found of float8 in a row of its own, and warn where it keeps numbers badly."""
    report = result.float8
    if report is None:
        return
    row = report.row()
    out.metrics.append(event="float8", after_step=step, **row)
    if warning := report.warning(run.config.float8_min_sqnr):
        out.log.warning("step %d: %s", step, warning)
    worst, before = row["worst"], counters.float8_worst
    if worst is not None and (before is None or worst["sqnr"] < before["sqnr"]):
        counters.float8_worst = {"step": step, **worst}


def _validate(run: Run, counters: Counters, step: int, out: Workspace) -> None:
    watched = []
    for held_out in run.validation:
        value = run.engine.measure(held_out)
        tokens = sum(counters.tokens_of_source)
        known = value if math.isfinite(value) else None
        figures: dict[str, Any] = {"tokens": tokens, "bits_per_byte": known}
        if run.routed is not None:
            watched.append((held_out, run.routed.watched()))
            if run.routed.balances_by_bias and step == run.mixture.steps:
                measure = partial(run.engine.measure, held_out)
                figures["bits_per_byte_without_bias"] = run.routed.without_biases(measure, counters)
        counters.validation.append({"dataset": held_out.name, "step": step, **figures})
        # `after_step`, so that rows with a `step` are the steps themselves.
        out.metrics.append(event="validation", dataset=held_out.name, after_step=step, **figures)
        first = next(row for row in counters.validation if row["dataset"] == held_out.name)["bits_per_byte"]
        change = "" if first is None else f" ({value - first:+.4f} since the start)"
        out.log.info("step %d: %s %.4f bits per byte%s", step, held_out.name, value, change)
    if run.routed is not None:
        run.routed.record(counters, step, watched, out)
    for sample in run.prompts.samples(run.engine) if run.prompts is not None else ():
        counters.samples.append({"step": step, **sample})
        out.metrics.append(event="sample", after_step=step, **sample)


def _trackers(run: Run, out: Workspace) -> AbstractContextManager[None]:
    config = run.config
    return following(
        out.metrics,
        config.trackers if run.engine.rank == 0 else (),
        root=out.root,
        identity=run.identity,
        config=config.model_dump(mode="json"),
        log=out.log,
    )


@contextmanager
def _termination() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that a step is finished and kept before the process ends."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
