"""Items without an answer, and one evaluation by several processes."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.artifacts.files import write_json
from tsugiki.artifacts.scores import read_scores
from tsugiki.errors import InputError, StageError
from tsugiki.evaluation import launching
from tsugiki.evaluation.backend import Choices, Continuation, Likelihood, Prompt
from tsugiki.evaluation.checking import AnswerError, checked
from tsugiki.evaluation.items import Item
from tsugiki.evaluation.runner import FEWEST_EMPTY, Questions, answer_all, check_rows, cost_of, plan_units
from tsugiki.evaluation.sharing import JOB, Share, dealt, follow, share_of
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
    written_bytes: int = 0

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
    with pytest.raises(StageError, match=r'"m": it says NaN \(2 of 130 items of lengths on "set"'):
        answer(asked(), model, tmp_path)
    assert len(model.asked) == 3  # the first unit, and two of its items: that shows it
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


@given(st.lists(st.floats(0, 1e6), max_size=40), st.integers(1, 7))
def test_share_units_of_all_processes_are_all_units_once_and_even(costs, processes):
    parts = [Share(rank, processes).mine(costs) for rank in range(processes)]
    assert sorted(number for part in parts for number in part) == list(range(len(costs)))
    loads = [sum(costs[number] for number in part) for part in parts]
    # The process with most was the one with least before its last unit came.
    assert max(loads) <= sum(costs) / processes + max(costs, default=0) + 1e-6
    assert dealt(costs, processes) == dealt(list(costs), processes)


def test_cost_of_counts_what_is_read_and_four_times_what_is_written():
    [short] = plan_units(["m"], [Questions(Lengths(), "set", (item("a"),))])
    [long] = plan_units(["m"], [Questions(Lengths(), "set", (item("学習"),))])
    [written] = plan_units(["m"], [Questions(Lengths(written_bytes=100), "set", (item("a"),))])
    assert (cost_of(short), cost_of(long), cost_of(written)) == (1, 6, 401)


def test_plan_units_hold_64_items_and_fewer_where_much_is_written():
    for written, sizes in (
        (0, [64, 64, 2]),
        (4096, [64, 64, 2]),
        (30_720, [8] * 16 + [2]),
        (1 << 20, [1] * 130),
    ):
        units = plan_units(["m"], asked(task=Lengths(written_bytes=written)))
        assert [len(unit.items) for unit in units] == sizes
        assert len({unit.name for unit in units}) == len(sizes)


def item(prompt):
    return Item("lengths", "set", "en", "d", "c", "i", prompt)


def test_sharing_process_that_dies_ends_the_wait_with_a_hint(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "_start", lambda *_: _dying())
    with launching.sharing(2, tmp_path, 1) as share, pytest.raises(StageError, match="ended by signal 9"):
        share.wait([tmp_path / "unit.parquet"])


def _dying():
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def test_sharing_inside_of_torchrun_starts_nothing(tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with launching.sharing(2, tmp_path, 1) as share:
        assert (share.rank, share.processes) == (0, 3)
    assert list(tmp_path.iterdir()) == []


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
    write_json(tmp_path / JOB, {"run": share.run, "x": 2})
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


_RECIPE = """
recipe: shared
language: en
stages:
  scores:
    kind: evaluate
    models: [{base}, {adapted}]
    heldout: [{english}]
    tasks: [bits-per-byte, cloze]
    cloze_items: 8
    context_length: 64
    bootstrap_draws: 50
    device: cpu
    threads: 1
"""


def start(directory, *words, **variables):
    directory.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-c", _MAIN, *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=directory, stdout=pipe, stderr=pipe)


@pytest.mark.slow
def test_evaluate_stage_of_a_recipe_by_several_processes_writes_the_bytes_of_one(world, tmp_path):
    """Alone; with `processes: 2`; and as torchrun starts the same command twice."""
    paths = {name: world.path(name) for name in ("base", "adapted", "english")}
    for name, more in (("one", ""), ("two", "    processes: 2\n"), ("torchrun", "")):
        (tmp_path / f"{name}.yaml").write_text(_RECIPE.format(**paths) + more)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = {
        name: ("run", tmp_path / f"{name}.yaml", "--only", "scores") for name in ("one", "two", "torchrun")
    }
    started = [start(tmp_path / "torchrun", *words["torchrun"], RANK=str(rank), **shared) for rank in (1, 0)]
    started += [start(tmp_path / name, *words[name]) for name in ("one", "two")]
    for process in started:
        said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    found = {name: next((tmp_path / name).rglob("scores.parquet")) for name in words}
    assert found["one"].read_bytes() == found["two"].read_bytes() == found["torchrun"].read_bytes()
    rows = read_scores(found["two"].parent)
    assert len(rows) > 20
    assert rows["error"].null_count == len(rows)
    assert (found["two"].parent / "work" / "process-1.txt").exists() or not (
        found["two"].parent / "work"
    ).exists()
