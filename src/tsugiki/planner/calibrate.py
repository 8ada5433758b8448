"""A few constants fitted to a user's own runs, with the error that they leave.

What is fitted is what `Tuning` leaves open: which shares of the products', memory's, links' and network's
speed are reached, and what a further step of ring attention costs. Each is pulled towards its default, so
that a constant which the runs say nothing of stays where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import InputError
from tsugiki.planner.devices import Accelerator
from tsugiki.planner.kernels import Kernels
from tsugiki.planner.measured import Cell
from tsugiki.planner.speed import Tuning, model_flops, step_time

FITTED = ("products", "memory", "links", "network", "ring_bytes")
LEAST_RUNS = 3

PULL = 0.15
"""How strongly a default holds: a factor e of it costs as much as an error of 15 % in one run."""

_ROUNDS = 30
_STEP = 1e-3
_CONVERGED = 1e-6
_FURTHEST = 3.0

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What a fit found.

    tuning: the constants. error_before, error: mean of |predicted / measured - 1| with the defaults and with
    the fit. error_left_out: of each group of runs with the same GPU count, predicted by a fit on all others;
    what to expect of a new size. None where all runs have the same.
    """

    tuning: Tuning
    runs: int
    error_before: float
    error: float
    error_left_out: float | None


def calibrate(cells: Sequence[Cell], device: Accelerator, kernels: Kernels) -> Calibration:
    """Fit `FITTED` to the runs that gave a number.

    Gauss-Newton on log(predicted / measured), over the logarithms of the constants. Raises InputError for
    fewer than three runs.
    """
    runs = [cell for cell in cells if cell.tflops is not None]
    if len(runs) < LEAST_RUNS:
        raise InputError(
            f"{len(runs)} runs with a speed are too few to fit constants to",
            hint=f"give at least {LEAST_RUNS}, better ten: layouts that differ in tensor, context and nodes",
        )
    tuning = _fit(runs, device, kernels)
    left_out = _left_out(runs, device, kernels)
    return Calibration(
        tuning,
        len(runs),
        _mean_error(runs, device, kernels, Tuning()),
        _mean_error(runs, device, kernels, tuning),
        left_out,
    )


def _left_out(runs: Sequence[Cell], device: Accelerator, kernels: Kernels) -> float | None:
    sizes = sorted({cell.gpus for cell in runs})
    errors: list[float] = []
    for size in sizes:
        others = [cell for cell in runs if cell.gpus != size]
        if len(others) < LEAST_RUNS:
            continue
        tuning = _fit(others, device, kernels)
        errors += _errors([cell for cell in runs if cell.gpus == size], device, kernels, tuning)
    return fmean(errors) if errors else None


def _fit(runs: Sequence[Cell], device: Accelerator, kernels: Kernels) -> Tuning:
    start = np.array([np.log(getattr(Tuning(), name)) for name in FITTED])

    def residuals(position: Vector) -> Vector:
        tuning = _tuning(position)
        logs = [np.log(_tflops(cell, device, kernels, tuning) / (cell.tflops or 1.0)) for cell in runs]
        return np.concatenate([np.array(logs), PULL * (position - start)])

    position = start
    found = residuals(position)
    damping = 1e-3
    for _ in range(_ROUNDS):
        jacobian = np.stack(
            [(residuals(position + _STEP * unit) - found) / _STEP for unit in np.eye(len(FITTED))], axis=1
        )
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(normal.diagonal()), -jacobian.T @ found)
        proposed = np.clip(position + step, start - _FURTHEST, start + _FURTHEST)
        after = residuals(proposed)
        if after @ after < found @ found:
            moved = float(np.abs(proposed - position).max())
            position, found, damping = proposed, after, damping / 3
            if moved < _CONVERGED:
                break
        else:
            damping *= 10
    return _tuning(position)


def _tuning(position: Vector) -> Tuning:
    values = np.exp(position)
    return replace(Tuning(), **{name: float(value) for name, value in zip(FITTED, values, strict=True)})


def _tflops(cell: Cell, device: Accelerator, kernels: Kernels, tuning: Tuning) -> float:
    seconds = step_time(cell.workload, cell.layout, kernels, device, tuning).seconds
    return model_flops(cell.workload, legacy=True) / seconds / cell.gpus / 1e12


def _errors(runs: Sequence[Cell], device: Accelerator, kernels: Kernels, tuning: Tuning) -> list[float]:
    return [abs(_tflops(cell, device, kernels, tuning) / (cell.tflops or 1.0) - 1) for cell in runs]


def _mean_error(runs: Sequence[Cell], device: Accelerator, kernels: Kernels, tuning: Tuning) -> float:
    return fmean(_errors(runs, device, kernels, tuning))
