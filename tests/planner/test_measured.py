"""The planner against measured runs: nothing here is fitted to them."""

from __future__ import annotations

from statistics import fmean

import pytest

from tsugiki.errors import InputError
from tsugiki.models.config import preset
from tsugiki.planner.measured import COLUMNS, choices, classification, judge, read_cells, shipped_cells


@pytest.fixture(scope="module")
def judged():
    return judge(shipped_cells())


def test_shipped_cells_are_all_there() -> None:
    cells = shipped_cells()
    assert len(cells) == 191
    assert sum(cell.ran for cell in cells) == 122
    assert {cell.gpu for cell in cells} == {"A100 (40GB)", "H100 (94GB)"}
    assert all(cell.layout.world == cell.gpus for cell in cells)


def test_no_layout_that_failed_on_h100_is_called_safe(judged) -> None:
    failed = [one for one in judged if "H100" in one.cell.gpu and not one.cell.ran]
    assert len(failed) == 26
    assert {one.verdict for one in failed} <= {"probe", "refuse"}


def test_classification_at_the_best_threshold_is_right_for_95_percent(judged) -> None:
    found = classification(judged)
    assert found.correct >= 0.95
    right = sum((one.share <= found.threshold) == one.cell.ran for one in judged)
    assert found.correct == right / 191


def test_layouts_that_ran_are_never_refused(judged) -> None:
    assert not classification(judged).refused_ran


def test_choice_costs_at_most_one_and_a_half_percent_on_average_and_eleven_anywhere(judged) -> None:
    found = choices(judged)
    assert len(found) == 11
    costs = [one.cost(one.chosen) for one in found]
    assert fmean(costs) <= 0.015
    assert max(costs) <= 0.11
    among = [one.cost(one.among) for one in found]
    assert fmean(among) <= 0.01
    assert max(among) <= 0.034


def test_predicted_speed_is_within_a_quarter_of_the_measured_one(judged) -> None:
    errors = [one.predicted / one.cell.tflops - 1 for one in judged if one.cell.tflops]
    assert fmean(map(abs, errors)) < 0.15


def test_cost_of_a_choice_that_did_not_run_is_everything(judged) -> None:
    choice = choices(judged)[0]
    failed = next(one for one in judged if not one.cell.ran)
    assert choice.cost(failed) == choice.cost(None) == 1.0
    assert choice.cost(choice.best) == 0.0


ROW = "H100 (94GB),8192,2,1,1,1,8,443.45,ran"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu,tp\n", "no column seq_len"),
        (",".join(COLUMNS) + "\n", "no rows"),
        (",".join(COLUMNS) + "\n" + ROW.replace("443.45", "fast"), "line 2"),
        (",".join(COLUMNS) + "\n" + ROW.replace("443.45", "nan"), "tflops_per_gpu is nan"),
        (",".join(COLUMNS) + "\n" + ROW + "\n" + ROW.replace("ran", "fine"), 'line 3: status is "fine"'),
        (",".join(COLUMNS) + "\n" + ROW.replace(",8,", ",7,"), "2 x 1 x 1 does not divide 7 GPUs"),
        (",".join(COLUMNS) + "\n" + ROW.replace("2,1,1,1", "0,1,1,1"), "1 or more"),
        (",".join(COLUMNS) + "\n" + "H100 (94GB),8192", "line 2"),
    ],
)
def test_read_cells_of_a_broken_file_names_the_line(tmp_path, text, message) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_cells(path, preset("llama-3.1-8b"), 1024)
    assert message in error.value.message


def test_read_cells_reads_what_a_spreadsheet_writes(tmp_path) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(("\ufeff" + ",".join(COLUMNS) + "\r\n" + ROW + "\r\n").encode())
    (cell,) = read_cells(path, preset("llama-3.1-8b"), 1024)
    assert (cell.layout.tensor, cell.layout.data, cell.tflops) == (2, 4, 443.45)


def test_read_cells_of_a_missing_file_is_an_input_error(tmp_path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_cells(tmp_path / "none.csv", preset("llama-3.1-8b"), 1024)
