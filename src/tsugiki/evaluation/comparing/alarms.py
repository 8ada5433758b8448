"""What a reader has to know before believing the scores: a harness fault often looks like a bad model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from tsugiki.evaluation.tasks.base import Row
from tsugiki.languages import load_pack, pack_codes

RATE: Final = 0.05
"""Share of empty, broken or cut items from which an alarm is raised."""
FEW_CLUSTERS: Final = 20
"""Below this, intervals are rough whatever the method (tests/evaluation measures their coverage)."""
SAME_ANSWER: Final = 0.9
"""Share of one and the same answer from which a model does not look at the question."""
_MANY: Final = 20
_LETTERS: Final = 12
"""Letters that an output must have before its language is judged by its script."""
_LOOP_CHARACTERS: Final = 40
_LOOP_TIMES: Final = 4
_LOOP_TAIL: Final = 600


def alarms_of(rows: Sequence[Row], tasks: Sequence[Mapping[str, Any]], models: Sequence[str]) -> list[str]:
    """Sentences, in a fixed order; empty where nothing is odd."""
    return [*_row_alarms(rows, models), *_task_alarms(tasks)]


def without_errors(rows: Sequence[Row], models: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows of the items that every one of `models` answered, and a sentence for each gap.

    An item that has no answer (`error`: a server that timed out, logits that are not finite) counts neither
    as wrong nor for one model only. How many may be missing was decided when they were asked
    (`runner.answer_all`).
    """
    failed = {
        (row["task"], row["dataset"], row["item"]) for row in rows if row["error"] and row["model"] in models
    }
    if not failed:
        return list(rows), []
    said = []
    for (task, dataset, model), part in _parts(rows).items():
        errors = [row["error"] for row in part if row["error"]]
        if errors and model in models:
            said.append(
                f"{task} on {dataset}: {model} has no answer to {len(errors)} of {len(part)} items "
                f"({errors[0]}); these items are left out for all models"
            )
    kept = [row for row in rows if (row["task"], row["dataset"], row["item"]) not in failed]
    return kept, said


def _parts(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    parts: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["task"], row["dataset"], row["model"]), []).append(row)
    return dict(sorted(parts.items()))


def _row_alarms(rows: Sequence[Row], models: Sequence[str]) -> list[str]:
    alarms = []
    for (task, dataset, model), part in _parts(rows).items():
        if model not in models:
            continue
        place = f"{task} on {dataset}: {model}"
        scored = any(row["score"] is not None for row in part)
        alarms += [
            f"{place} {what} {count} of {len(part)} items"
            for what, odd in _KINDS
            if (count := sum(odd(row) for row in part)) >= RATE * len(part) > 0
            and (scored or what not in _TRUNCATED)
        ]
        alarms += _same_answer(place, part) if scored else []
        if scored and part[0]["output"] is not None and not any(row["score"] for row in part):
            alarms.append(f"{place} has no item right: look at the outputs before believing it")
    return alarms


def _same_answer(place: str, part: Sequence[Row]) -> list[str]:
    """One answer to nearly everything, where the right answers differ."""
    outputs = Counter(row["output"].strip() for row in part if row["output"] and row["output"].strip())
    golds = {row["gold"] for row in part}
    if len(part) < _MANY or not outputs or len(golds) < 2:  # noqa: PLR2004
        return []
    answer, count = outputs.most_common(1)[0]
    right = Counter(row["gold"] for row in part).most_common(1)[0][1]
    if count < SAME_ANSWER * len(part) or right >= SAME_ANSWER * len(part):
        return []
    shown = answer if len(answer) <= _LOOP_CHARACTERS else answer[:_LOOP_CHARACTERS] + "…"
    return [f'{place} gives the same answer, "{shown}", to {count} of {len(part)} items']


def first_newline(text: str | None) -> bool:
    """Whether an output begins with an empty line: cut at the first line break, nothing is left."""
    written = text or ""
    return "\n" in written[: len(written) - len(written.lstrip())]


def loops(text: str | None) -> bool:
    """Whether an output ends in a loop: one unit, four times or more, over 40 characters and half of it.

    The tail's smallest period comes from the prefix function of the reversed tail (Knuth, Morris, Pratt,
    1977).
    """
    tail = (text or "")[-_LOOP_TAIL:].rstrip()[::-1]
    if len(tail) < _LOOP_CHARACTERS or tail.count(tail[:8]) < 2:  # noqa: PLR2004 (a cheap look first)
        return False
    border = [0] * len(tail)
    matched = 0
    for place in range(1, len(tail)):
        while matched and tail[place] != tail[matched]:
            matched = border[matched - 1]
        matched += tail[place] == tail[matched]
        border[place] = matched
        length = place + 1
        if (
            length >= _LOOP_CHARACTERS
            and length >= _LOOP_TIMES * (length - matched)
            and 2 * length >= len(tail)
        ):
            return True
    return False


@cache
def _letters_of(language: str) -> tuple[tuple[int, int], ...]:
    """The code points of a language's own letters, from its pack; empty without a pack."""
    if language not in pack_codes():
        return ()
    return tuple(span for ranges in load_pack(language).script.classes.values() for span in ranges)


def own_script(text: str, language: str) -> float | None:
    """The share of an output's letters that belong to the language's script; None where too few to judge."""
    spans = _letters_of(language)
    letters = [ord(one) for one in text if one.isalpha()]
    if not spans or len(letters) < _LETTERS:
        return None
    return sum(any(first <= one <= last for first, last in spans) for one in letters) / len(letters)


def off_language(row: Row) -> bool:
    """Whether an output is mostly in another script than its language's, and the right answer is not.

    A program, a formula or a name in Latin letters is right where the gold is one too.
    """
    language, output, gold = row["language"], row["output"], row["gold"]
    if not language or not output:
        return False
    share = own_script(output, language)
    if share is None or share >= 0.5:  # noqa: PLR2004 (mostly)
        return False
    if not gold:
        return True
    spans = _letters_of(language)
    letters = [ord(one) for one in gold if one.isalpha()]
    own = sum(any(first <= one <= last for first, last in spans) for one in letters)
    return bool(letters) and own >= 0.5 * len(letters)


_SHORTENED: Final = "saw a shortened context in"
_CUT: Final = "was ended by a cap in"
_TRUNCATED: Final = frozenset({_SHORTENED, _CUT})
_KINDS: Final[tuple[tuple[str, Callable[[Row], bool]], ...]] = (
    ("gave an empty answer to", lambda row: bool(row["empty"])),
    ("wrote bytes that are not UTF-8 for", lambda row: "\ufffd" in (row["output"] or "")),
    (_SHORTENED, lambda row: bool(row["cut_context"])),
    (_CUT, lambda row: bool(row["truncated"])),
    ("began with an empty line in", lambda row: first_newline(row["output"])),
    ("repeats itself to the end in", lambda row: loops(row["output"])),
    ("wrote in another script than the language's in", off_language),
)


def _task_alarms(tasks: Sequence[Mapping[str, Any]]) -> list[str]:
    alarms = []
    for task in tasks:
        place = f"{task['task']} on {task['dataset']}"
        if task["clusters"] < FEW_CLUSTERS:
            kind = "clusters of pages" if task["by_byte"] else "clusters"
            alarms.append(f"{place}: only {task['clusters']} independent {kind}; intervals are rough")
        alarms += [
            f"{place}: {model} scores exactly zero"
            for model, score in task["by_model"].items()
            if score["value"] == 0 and task["corpus"]
        ]
        if task["chance"] is None:
            continue
        for model, score in task["by_model"].items():
            low = score["low"]
            if low is None or low <= task["chance"]:
                alarms.append(
                    f"{place}: {model} can't be told from guessing ({score['value']:.1%} right, chance "
                    f"{task['chance']:.1%})"
                )
    return alarms
