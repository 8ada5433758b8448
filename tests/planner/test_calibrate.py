"""Fitted constants: known ones are found again, and the shipped runs are predicted better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tsugiki.errors import InputError
from tsugiki.planner.calibrate import FITTED, calibrate
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.measured import MACHINES, judge, shipped_cells
from tsugiki.planner.speed import Tuning

MEGATRON, GPU = KERNELS["megatron-lm"], "H100 (94GB)"


@pytest.fixture(scope="module")
def cells():
    return [cell for cell in shipped_cells() if cell.gpu == GPU and cell.ran][::3]


def test_calibrate_finds_constants_again_that_made_the_runs(cells) -> None:
    truth = Tuning(products=0.6, links=0.5, ring_bytes=60.0)
    made = [replace(one.cell, tflops=one.predicted) for one in judge(cells, tuning=truth)]
    found = calibrate(made, MACHINES[GPU], MEGATRON)
    assert found.error < 0.01 < found.error_before
    assert found.tuning.products == pytest.approx(0.6, rel=0.03)


def test_calibrate_to_measured_runs_leaves_a_smaller_error_for_sizes_left_out_too(cells) -> None:
    found = calibrate(cells, MACHINES[GPU], MEGATRON)
    assert found.runs == len(cells)
    assert found.error < 0.06 < found.error_before
    assert found.error <= found.error_left_out < 0.07


def test_calibrate_leaves_constants_where_runs_say_nothing(cells) -> None:
    alone = [cell for cell in cells if cell.layout.tensor == 1 or cell.layout.context == 1]
    same = [replace(one.cell, tflops=one.predicted) for one in judge(alone)]
    found = calibrate(same, MACHINES[GPU], MEGATRON)
    for name in FITTED:
        assert getattr(found.tuning, name) == pytest.approx(getattr(Tuning(), name), rel=1e-6)


def test_calibrate_with_one_size_has_no_error_for_others(cells) -> None:
    size = [cell for cell in shipped_cells() if cell.gpu == GPU and cell.ran and cell.gpus == 8][:4]
    assert calibrate(size, MACHINES[GPU], MEGATRON).error_left_out is None


def test_calibrate_with_too_few_runs_is_refused(cells) -> None:
    with pytest.raises(InputError, match="2 runs"):
        calibrate(cells[:2], MACHINES[GPU], MEGATRON)
