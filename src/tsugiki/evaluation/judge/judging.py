"""Every question before the judge, kept line by line: a killed run goes on, a stored one is replayed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tsugiki.errors import DataError, storage_errors
from tsugiki.evaluation.judge.client import Judge, ask
from tsugiki.evaluation.judge.questions import Prompts, Question, hash_of, messages, read_lines

Outcome = Literal["scored", "unparsed", "failed"]
LOWEST, HIGHEST = 1.0, 10.0
_FIRST_LINE = re.compile(r"\s*(-?\d+(?:\.\d+)?)(?:\s*,\s*|\s+)(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Judgment:
    """What the judge said of a question in one order.

    scores: of the reference's answer and of the model's, whichever came first; None unless outcome is
    "scored". unparsed: the judge wrote something else; failed: it could not be asked.
    """

    question: str
    category: str
    image: str
    swapped: bool
    outcome: Outcome
    scores: tuple[float, float] | None
    review: str
    detail: str
    request: str


def parse_scores(review: str) -> tuple[float, float] | None:
    """The two numbers on the first line of a review, None where it is not exactly that.

    A comma may stand between them. Numbers outside 1 to 10 are none: a judge that writes 0 or 95 has another
    scale in mind.
    """
    found = _FIRST_LINE.fullmatch(review.split("\n", maxsplit=1)[0])
    if not found:
        return None
    first, second = float(found[1]), float(found[2])
    if not (LOWEST <= first <= HIGHEST and LOWEST <= second <= HIGHEST):
        return None
    return first, second


def parse_scores_as_published(review: str) -> tuple[float, float]:
    """Heron-Bench's rule: any two numbers on the first line, (-1, -1) for everything else."""
    try:
        first, second = map(float, review.split("\n", maxsplit=1)[0].replace(",", " ").split())
    except ValueError:
        return -1.0, -1.0
    return first, second


def read_judgment(
    question: Question, *, swapped: bool, review: str | None, error: str, request: str
) -> Judgment:
    """Make a judgment of what the judge wrote."""
    scores = parse_scores(review) if review is not None else None
    if scores and swapped:
        scores = scores[1], scores[0]
    outcome: Outcome = "failed" if review is None else "scored" if scores else "unparsed"
    detail = error if review is None else "" if scores else "no two numbers from 1 to 10 on the first line"
    place = (question.id, question.category, question.image, swapped)
    return Judgment(*place, outcome, scores, review or "", detail, request)


def judge_all(
    questions: Sequence[Question],
    prompts: Prompts,
    judge: Judge,
    store: Path,
    *,
    swap: bool = False,
    workers: int = 4,
) -> list[Judgment]:
    """Ask for every question that `store` does not answer yet, `workers` at a time, and keep each at once.

    What a request failed on is asked again next time; an answer that could not be read is not: the judge is
    asked at temperature 0. Returns all judgments in the order of the questions, then of the two orders.
    """
    known = _stored(store, judge.model)
    jobs = []
    for question in questions:
        for swapped in (False, True)[: 1 + swap]:
            sent = messages(prompts, question, swapped=swapped)
            request = hash_of(sent, judge.model)
            if request not in known:
                jobs.append((question, swapped, sent, request))
    client = judge.client(workers)
    with storage_errors(store):
        store.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(workers) as threads, store.open("a", encoding="utf-8") as file:
            waiting = {threads.submit(ask, judge, job[2], client): job for job in jobs}
            try:
                for future in as_completed(waiting):
                    question, swapped, _, request = waiting[future]
                    reply = future.result()
                    made = read_judgment(
                        question, swapped=swapped, review=reply.text, error=reply.error, request=request
                    )
                    file.write(json.dumps(asdict(made) | {"judge": judge.model}) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
    return replay(questions, prompts, store, judge.model, swap=swap)


def replay(
    questions: Sequence[Question], prompts: Prompts, store: Path, model: str, *, swap: bool = False
) -> list[Judgment]:
    """The judgments of these questions out of a file; no one is asked, and reviews are read anew.

    Also takes the published script's files (question_id, content), whose requests are not known. Raises
    DataError where a judgment is missing: of other answers, prompts or another judge.
    """
    lines = read_lines(store)
    latest: dict[str, dict[str, Any]] = {}
    for line in lines:
        if "request" in line:
            latest[str(line["request"])] = line
        elif "question_id" in line and "content" in line:
            latest[f"published {line['question_id']}"] = line
    found, missing = [], []
    for question in questions:
        for swapped in (False, True)[: 1 + swap]:
            request = hash_of(messages(prompts, question, swapped=swapped), model)
            line = latest.get(request, {}) or ({} if swapped else latest.get(f"published {question.id}", {}))
            if not line:
                missing.append(question.id)
                continue
            failed = line.get("outcome") == "failed"
            review = None if failed else str(line.get("review", line.get("content", "")))
            found.append(
                read_judgment(
                    question,
                    swapped=swapped,
                    review=review,
                    error=str(line.get("detail", "")),
                    request=request,
                )
            )
    if missing:
        raise DataError(
            f"{store} holds no judgment of {len(missing)} requests, the first of question {missing[0]}",
            hint="the answers, prompts or the judge are others than when it was written: give --address",
        )
    return found


def _stored(store: Path, model: str) -> set[str]:
    """Requests that need not be made again. A line that a killed run left half is cut off first."""
    if not store.exists():
        return set()
    data = store.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with store.open("r+b") as file:
            file.truncate(whole)
    return {
        str(line.get("request"))
        for line in read_lines(store)
        if line.get("judge") == model and line.get("outcome") != "failed"
    }


def failures(judgments: Iterable[Judgment]) -> dict[str, int]:
    """How many judgments ended in each way."""
    counts = {"scored": 0, "unparsed": 0, "failed": 0}
    for one in judgments:
        counts[one.outcome] += 1
    return counts
