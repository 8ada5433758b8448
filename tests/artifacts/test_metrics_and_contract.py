"""Metrics logs, counts, and the fields that stay out of an identity."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tsugiki.artifacts.contract import EXECUTION, Inputs, StageConfig, open_workspace, parse_count
from tsugiki.artifacts.metrics import MetricsLog, read_metrics
from tsugiki.errors import InputError


def test_metrics_after_a_kill_in_mid_line_go_on_with_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.append(step=1, loss=2.0)
    log.close()
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    log = MetricsLog(path)
    log.append(step=2, loss=1.0)
    log.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 2.0), (2, 1.0)]


def test_metrics_of_a_repeated_step_keep_the_last(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    for step, loss in ((1, 3.0), (2, 9.0), (2, 2.0), (3, 1.0)):
        log.append(step=step, loss=loss, kind="train")
    log.append(step=1, kind="validation")
    log.close()
    rows = read_metrics(tmp_path / "m.jsonl", last_by="step", kind="train")
    assert [row["loss"] for row in rows] == [3.0, 2.0, 1.0]


def test_metrics_of_an_absent_file_are_none(tmp_path):
    assert read_metrics(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize(
    ("text", "value"), [("1.5M", 1_500_000), ("4096", 4096), ("200k", 200_000), ("104.86B", 104_860_000_000)]
)
def test_parse_count_of_suffixes(text, value):
    assert parse_count(text) == value


@given(st.integers(min_value=0, max_value=10**15))
def test_parse_count_of_plain_numbers_is_the_number(number):
    assert parse_count(str(number)) == number
    assert parse_count(number) == number


@pytest.mark.parametrize("text", ["", "many", "1.5m", "-3", "1e6", "5 MB"])
def test_parse_count_refuses_other_texts(text):
    with pytest.raises(ValueError, match="not a count"):
        parse_count(text)


class Inner(BaseModel):
    degree: int = 1
    host: Annotated[str, EXECUTION] = "a"


class Outer(StageConfig):
    tokens: int
    workers: Annotated[int, EXECUTION] = 2
    inner: Inner = Inner()


def test_identity_payload_leaves_execution_out_at_any_depth():
    payload = Outer(tokens=5, workers=9, inner=Inner(host="b")).identity_payload()
    assert payload == {"seed": 0, "tokens": 5, "inner": {"degree": 1}}


def test_inputs_path_refuses_none_and_several(tmp_path):
    inputs = Inputs({"one": (tmp_path,), "two": (tmp_path, tmp_path)})
    assert inputs.path("one") == tmp_path
    for name in ("two", "absent"):
        with pytest.raises(InputError, match="paths where one is needed"):
            inputs.path(name)


def test_open_workspace_twice_does_not_write_log_lines_twice(tmp_path):
    open_workspace(tmp_path).metrics.close()
    workspace = open_workspace(tmp_path)
    workspace.log.info("once")
    workspace.metrics.close()
    assert (tmp_path / "log.txt").read_text().count("once") == 1
