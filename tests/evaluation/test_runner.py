"""Items without an answer, and one evaluation by several processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace

import pyarrow.parquet as pq
import pytest

from tsugiki.artifacts.files import write_json
from tsugiki.artifacts.scores import read_scores
from tsugiki.errors import InputError, StageError
from tsugiki.evaluation.backend import Choices, Continuation, Likelihood, Prompt
from tsugiki.evaluation.checking import AnswerError, checked
from tsugiki.evaluation.items import Item
from tsugiki.evaluation.runner import FEWEST_EMPTY, Questions, answer_all, check_rows, plan_units
from tsugiki.evaluation.sharing import JOB, Share, follow, lead, share_of
from tsugiki.evaluation.tasks.base import Measure, base_row


class Model:
    """Answers with the context's length; `bad` contexts have no answer."""

    def __init__(self, bad=(), error="the server is down") -> None:
        self.bad, self.error, self.asked = set(bad), error, []

    def text_likelihoods(self, texts):
        return [self._likelihood(text) for text in texts]

    def choice_likelihoods(self, questions):
        self.asked.append([question.context for question in questions])
        return [tuple(self._likelihood(q.context) for _ in q.options) for q in questions]

    def continuations(self, prompts):
        return [Continuation("", 0, False, error=self.error if p.text in self.bad else None) for p in prompts]

    def _likelihood(self, text):
        if text not in self.bad:
            return Likelihood(float(len(text)), 1)
        return Likelihood(math.nan, 0, error=self.error)


LENGTH = Measure("length", lower_is_better=True)


@dataclass(frozen=True)
class Lengths:
    name: str = "lengths"
    measure: Measure = LENGTH

    def rows(self, backend, items):
        answers = backend.choice_likelihoods([Choices(item.prompt, ("x",)) for item in items])
        return [
            base_row(item) | {"score": options[0].nll_nats, "nll_nats": options[0].nll_nats, "empty": False}
            for item, options in zip(items, answers, strict=True)
        ]


@dataclass(frozen=True)
class Texts(Lengths):
    def rows(self, backend, items):
        answers = backend.continuations([Prompt(item.prompt, 9, 0) for item in items])
        return [
            base_row(item) | {"score": 0.0, "output": a.text, "empty": not a.text}
            for item, a in zip(items, answers, strict=True)
        ]


def asked(count=130, task=None):
    items = tuple(Item("lengths", "set", "en", "d", f"c{n}", f"i{n}", "p" * (n + 1)) for n in range(count))
    return [Questions(task or Lengths(), "set", items)]


def silent(*_):
    pass


def answer(questions, model, directory, **changes):
    units = plan_units(["m"], questions)
    return answer_all(units, {"m": lambda: model}, directory, silent, **changes)


def test_answer_all_one_item_without_answer_is_recorded_and_the_rest_scored(tmp_path):
    questions = asked()
    model = Model(bad={"p" * 70})
    rows = answer(questions, model, tmp_path)
    check_rows(rows, ["m"], questions)
    failed = [row for row in rows if row["error"]]
    assert [(row["item"], row["score"], row["error"]) for row in failed] == [
        ("i69", None, 'model "m": the server is down')
    ]
    assert sum(row["score"] is not None for row in rows) == 129
    assert [len(batch) for batch in model.asked] == [
        64,
        64,
        *[1] * 64,
        2,
    ]  # only the unit at fault, one by one


def test_answer_all_items_without_answer_are_asked_again_by_the_next_run(tmp_path):
    answer(asked(), Model(bad={"p" * 70}), tmp_path)
    mended = Model()
    rows = answer(asked(), mended, tmp_path)
    assert not any(row["error"] for row in rows)
    assert [len(batch) for batch in mended.asked] == [64]


def test_answer_all_too_many_without_answer_fails_and_scores_nothing(tmp_path):
    model = Model(bad={"p" * n for n in range(1, 131)}, error="it says NaN")
    with pytest.raises(StageError, match=r'"m": it says NaN \(64 of 130 items of lengths on "set"'):
        answer(asked(), model, tmp_path)
    assert len(model.asked) == 65  # the first unit shows it; the others are not asked
    rows = answer(asked(), Model(bad={"p" * n for n in range(1, 14)}), tmp_path, maximum_error_share=0.1)
    assert sum(bool(row["error"]) for row in rows) == 13


def test_answer_all_bound_counts_the_whole_task_not_the_unit(tmp_path):
    """One of two items in the last unit is more than 1 % of the unit, not of the task."""
    rows = answer(asked(), Model(bad={"p" * 130}), tmp_path)
    assert sum(bool(row["error"]) for row in rows) == 1


def test_check_rows_a_model_that_writes_nothing_fails(tmp_path):
    questions = asked(FEWEST_EMPTY, Texts())
    rows = answer(questions, Model(), tmp_path)
    with pytest.raises(StageError, match="wrote nothing for any of 20 items"):
        check_rows(rows, ["m"], questions)
    check_rows([rows[0] | {"empty": False}, *rows[1:]], ["m"], questions)


def test_checked_wrong_number_of_options_raises():
    class Short(Model):
        def choice_likelihoods(self, questions):
            return [() for _ in questions]

    with pytest.raises(StageError, match="gave 0 answers to 1 questions"):
        checked(Short(), "m").choice_likelihoods([Choices("a", ("b",))])


def test_checked_infinite_likelihood_or_failed_text_raises():
    class Infinite(Model):
        def _likelihood(self, _):
            return Likelihood(math.inf, 1)

    with pytest.raises(AnswerError, match="log-likelihood of inf"):
        checked(Infinite(), "m").text_likelihoods(["a"])
    with pytest.raises(AnswerError, match="down"):
        checked(Model(bad="a"), "m").continuations([Prompt("a", 1, 0)])


def test_checked_pieces_are_told_where_the_backend_tells_them():
    model = Model()
    assert not hasattr(checked(model, "m"), "pieces")
    model.pieces = lambda texts: [["x"] for _ in texts]
    assert checked(model, "m").pieces(["a"]) == [["x"]]


def test_share_units_of_all_processes_are_all_units_once():
    shares = [Share(rank, 3) for rank in range(3)]
    assert [sum(share.takes(number) for share in shares) for number in range(10)] == [1] * 10


@pytest.mark.parametrize("environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_share_of_nonsense_variables_raises(environment, tmp_path):
    with pytest.raises(InputError, match="RANK"):
        share_of(tmp_path, environment)


def test_share_wait_tells_another_processes_failure(tmp_path):
    mine, other = (Share(rank, 2, tmp_path, "run", patience_s=0.2) for rank in range(2))
    with pytest.raises(StageError, match="1 units of other processes"):
        mine.wait([tmp_path / "unit.parquet"])
    replace(other, run="an older run").fail(InputError("old", hint="h"))
    with pytest.raises(StageError, match="1 units of other processes"):
        mine.wait([tmp_path / "unit.parquet"])
    other.fail(InputError("no weights", hint="fetch them"))
    with pytest.raises(StageError, match="process 1 failed: no weights"):
        mine.wait([tmp_path / "unit.parquet"])
    mine.wait([tmp_path / "failed-1.json"])


def test_follow_takes_the_job_of_its_own_run_and_tells_failures(tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "7"}.items():
        monkeypatch.setenv(name, value)
    share = share_of(tmp_path)
    write_json(tmp_path / JOB, {"run": "another", "x": 1})
    lead(share, {"x": 2})
    seen = []

    def fail(job, share):
        seen.append((job["x"], share.rank))
        raise InputError("broken", hint="h")

    with pytest.raises(InputError):
        follow(tmp_path, fail)
    assert seen == [(2, 1)]
    assert json.loads((tmp_path / "failed-1.json").read_text())["message"] == "broken"


_MAIN = """
import sys
from tsugiki.cli import main
sys.argv = ["tsugiki", *sys.argv[1:]]
main()
"""


def test_evaluate_two_processes_write_the_rows_of_one_byte_for_byte(world, tmp_path):
    """The command itself, as torchrun starts it: two processes, units of both models shared out."""
    options = ["--tasks", "bits-per-byte", "cloze", "--cloze-items", "8", "--context-length", "64"]
    options += ["--heldout", str(world.path("english")), "--bootstrap-draws", "50", "--device", "cpu"]
    options += ["--models", str(world.path("base")), str(world.path("adapted")), "--threads", "1"]

    def start(out, **variables):
        command = [sys.executable, "-c", _MAIN, "evaluate", str(out), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29399"}
    started = [start(tmp_path / "two", RANK=str(rank), **shared) for rank in (1, 0)]
    started.append(start(tmp_path / "one"))
    for process in started:
        said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    one, two = ((tmp_path / name / "scores.parquet").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(read_scores(tmp_path / "two")) > 20
    assert pq.read_table(tmp_path / "one" / "scores.parquet")["error"].null_count == len(
        read_scores(tmp_path / "one")
    )
