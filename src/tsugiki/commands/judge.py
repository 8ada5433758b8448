"""`tsugiki judge`: answers about images scored by a judge, after Heron-Bench's protocol."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tsugiki.commands.terminal import Flag, Json, columns, one_line, print_json
from tsugiki.errors import InputError
from tsugiki.report.formatting import fixed

if TYPE_CHECKING:
    from tsugiki.evaluation.judge.scoring import Relative, Summary


def judge(
    questions: Path,
    answers: Path,
    *,
    reference: Path,
    judgments: Path,
    contexts: Path | None = None,
    judge: str = "gpt-4-0125-preview",
    address: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    prompts: Path | None = None,
    swap: Flag = False,
    published: Flag = False,
    against: Path | None = None,
    against_judgments: Path | None = None,
    max_errors: float = 0.05,
    timeout: float = 120.0,
    tries: int = 6,
    workers: int = 4,
    json: Json = False,
) -> None:
    """Score a model's answers about images by a judge, relative to a reference's answers.

    Every review is kept in JUDGMENTS as it comes; the same command goes on where it was, and without
    `--address` it replays what is kept and asks no one.

    Example: `tsugiki judge questions.jsonl model.jsonl --reference gpt4.jsonl --judgments reviews.jsonl`

    Args:
        questions: JSON lines with question_id, category, text, image, and context unless `--contexts` has it.
        answers: JSON lines with question_id and text: the model's answers.
        reference: The reference's answers.
        judgments: The file of reviews, written with `--address` and read without; or the published script's.
        contexts: JSON lines with image and caption: what each image shows.
        judge: The judge's name at its address.
        address: Where the judge is asked (OpenAI's protocol), such as http://127.0.0.1:8000/v1.
        key_variable: The environment variable that holds the key, if the address needs one.
        prompts: A YAML file of other prompts for the judge.
        swap: Ask in both orders; both count, and how often the order decides is shown.
        published: Also show the scores by the published rule, where an answer that can't be read is -1.
        against: Another model's answers: the difference is shown, with an interval.
        against_judgments: The other model's file of reviews.
        max_errors: Share of judgments without a score above which there is no result.
        timeout: Seconds for one try.
        tries: Tries for one question.
        workers: Questions asked at the same time.
        json: Print JSON.
    """
    from tsugiki.evaluation.judge.client import Judge
    from tsugiki.evaluation.judge.judging import judge_all, replay
    from tsugiki.evaluation.judge.questions import read_prompts, read_questions
    from tsugiki.evaluation.judge.scoring import difference, summarise

    if (against is None) != (against_judgments is None):
        raise InputError("--against and --against-judgments belong together", hint="give both or none")
    if workers < 1 or tries < 1 or timeout <= 0 or not 0 <= max_errors <= 1:
        raise InputError(
            f"--workers {workers}, --tries {tries}, --timeout {timeout} or --max-errors {max_errors} is "
            "out of range",
            hint="at least one worker and one try, a positive timeout, a share of errors from 0 to 1",
        )
    told = read_prompts(prompts)
    found = []
    for replies, store in ((answers, judgments), (against, against_judgments)):
        if replies is None or store is None:
            continue
        asked = read_questions(questions, reference, replies, contexts)
        if address is None:
            found.append(replay(asked, told, store, judge, swap=swap))
        else:
            key = os.environ.get(key_variable, "")
            where = Judge(address, judge, key, timeout_seconds=timeout, tries=tries)
            found.append(judge_all(asked, told, where, store, swap=swap, workers=workers))
    summaries = [summarise(one, maximum_errors=max_errors, published=published) for one in found]
    change = difference(*found[::-1]) if against is not None else None
    if json:
        changed = asdict(change) if change else None
        print_json({"summaries": [asdict(one) for one in summaries], "difference": changed})
        return
    for name, summary in zip((answers, against), summaries, strict=False):
        print("\n".join(_lines(name.name if name else "", summary)) + "\n")
    if change:
        print(f"difference (first minus second): {_interval(change)} on {change.questions} questions")


def _lines(name: str, summary: Summary) -> Iterator[str]:
    title = ("score", "95 % interval", "questions", "published rule")
    rows: list[Sequence[str]] = [(one_line(name, 40), *title)]
    for category, score in [*summary.categories.items(), ("total", summary.total)]:
        rule = fixed(summary.published[category], 1) if summary.published else ""
        interval = f"{fixed(score.low, 1)} to {fixed(score.high, 1)}"
        rows.append((one_line(category, 40), fixed(score.value, 1), interval, str(score.questions), rule))
    yield from columns(rows, right=range(1, 5))
    counts = summary.counts
    yield (
        f"judgments: {counts['scored']} scored, {counts['unparsed']} could not be read, "
        f"{counts['failed']} not asked"
    )
    if summary.inconsistent is not None:
        yield f"the order decides who is better on {summary.inconsistent:.0%} of the questions"


def _interval(score: Relative) -> str:
    return f"{fixed(score.value, 1)} ({fixed(score.low, 1)} to {fixed(score.high, 1)})"
