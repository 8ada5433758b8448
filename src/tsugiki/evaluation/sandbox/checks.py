"""Programs in, verdicts out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from threading import Lock
from typing import Literal

from tsugiki.errors import StageError
from tsugiki.evaluation.sandbox.inside import Limits
from tsugiki.evaluation.sandbox.worker import Worker

Outcome = Literal["passed", "failed", "timeout", "memory", "refused"]

_MAXIMUM_SOURCE = 1 << 20  # bytes; a model's context holds less


@dataclass(frozen=True)
class Verdict:
    """How a program ended.

    passed: it ran to its last line. failed: an exception, an exit of its own, or a signal. timeout and
    memory: it hit that limit. refused: it was never run (not UTF-8, or larger than 1 MB): not a wrong answer.
    output: the beginning of what it printed. seconds and cpu_seconds: measured, so they differ between runs.
    """

    outcome: Outcome
    detail: str
    output: str
    seconds: float
    cpu_seconds: float

    @property
    def passed(self) -> bool:
        """Whether the program counts as right."""
        return self.outcome == "passed"


def human_eval_program(prompt: str, completion: str, test: str, entry_point: str) -> str:
    """HumanEval's program: the function, its tests, and the call of `check` (as openai/human-eval has it)."""
    return f"{prompt}{completion}\n{test}\ncheck({entry_point})"


def require_sandbox() -> None:
    """Raise DependencyError where this machine can't isolate programs, before any has been written."""
    Worker().close()


def run_checks(programs: Sequence[str], *, workers: int = 1, limits: Limits | None = None) -> list[Verdict]:
    """Run every program in the sandbox, `workers` at a time; verdicts come in the order of the programs.

    Raises DependencyError where this machine can't isolate programs (none has run then), StageError where the
    sandbox stops working in between.
    """
    limits = limits or Limits()
    verdicts: list[Verdict | None] = [_unfit(program) for program in programs]
    waiting = [index for index, verdict in enumerate(verdicts) if verdict is None]
    if not waiting:
        return [verdict for verdict in verdicts if verdict is not None]
    turn, lock = count(), Lock()

    def mine() -> Iterator[int]:
        while True:
            with lock:
                place = next(turn)
            if place >= len(waiting):
                return
            yield waiting[place]

    def work() -> None:
        worker = Worker()
        try:
            for index in mine():
                verdicts[index] = _verdict(worker.run(programs[index], limits))
        finally:
            worker.close()

    with ThreadPoolExecutor(max(1, min(workers, len(waiting)))) as pool:
        for future in [pool.submit(work) for _ in range(max(1, min(workers, len(waiting))))]:
            future.result()
    return [verdict for verdict in verdicts if verdict is not None]


def _unfit(program: str) -> Verdict | None:
    """A verdict on what is no program at all, None for all others."""
    try:
        size = len(program.encode("utf-8"))
    except UnicodeEncodeError as error:
        return Verdict("refused", f"not UTF-8: {error.reason}", "", 0.0, 0.0)
    if size > _MAXIMUM_SOURCE:
        return Verdict("refused", f"{size} bytes are more than {_MAXIMUM_SOURCE}", "", 0.0, 0.0)
    return None


def _verdict(reply: dict) -> Verdict:
    if reply["outcome"] == "refused":
        raise StageError(
            f"the sandbox could not run a program: {reply['detail']}",
            hint="the machine may be short of memory or processes: take fewer workers and run it again",
        )
    return Verdict(**reply)
