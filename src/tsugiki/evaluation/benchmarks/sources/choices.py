"""Questions with options: JCommonsenseQA, OpenBookQA, HellaSwag, (J)MMLU, XWINO.

Records have `question` (or `query`), `choices`, and `label`: the number of the right one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.schema import Origin
from tsugiki.evaluation.benchmarks.sources.files import HINT, Record, field, rows, table
from tsugiki.evaluation.benchmarks.store import SourceFile

LETTERS = "ABCDEFGH"


def jcommonsenseqa(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """JGLUE's JSON lines -> id, question, choices (5), label."""
    records = []
    for file in files:
        for place, row in rows(file.path):
            choices = [field(row, f"choice{number}", str, place) for number in range(5)]
            records.append(
                {
                    "id": str(field(row, "q_id", (int, str), place)),
                    "question": field(row, "question", str, place),
                    "choices": choices,
                    "label": (label := _label(field(row, "label", int, place), choices, place)),
                    "right": choices[label],
                }
            )
    return records


def _label(label: int, choices: Sequence[str], place: str) -> int:
    if not 0 <= label < len(choices):
        raise InputError(
            f"{place}: the gold label is {label}, there are {len(choices)} options", hint="an item needs gold"
        )
    return label


def mmlu(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """Lines of `question,A,B,C,D,letter`, no header, one file a subject -> subject_name (spaces) too."""
    records = []
    for file in files:
        for number, (place, cells) in enumerate(table(file.path, 6)):
            letter = cells[5].strip()
            if letter not in LETTERS[:4] or not letter:
                raise InputError(f'{place}: the answer is "{letter}", A to D are expected', hint=HINT)
            records.append(
                {
                    "id": f"{file.subject or file.path.stem}/{number}",
                    "subject": file.subject or file.path.stem,
                    "subject_name": (file.subject or file.path.stem).replace("_", " "),
                    "question": cells[0],
                    "question_stripped": cells[0].strip(),
                    "choices": cells[1:5],
                    "label": LETTERS.index(letter),
                    "letter": letter,
                    "right": cells[1 + LETTERS.index(letter)],
                }
            )
    return records


def mmlu_rows(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """The hub's rows (question, subject, choices, answer as a number) -> as `mmlu`."""
    records = []
    count: dict[str, int] = {}
    for file in files:
        for place, row in rows(file.path):
            subject = row.get("subject") or file.subject
            choices = field(row, "choices", list, place)
            number = count[subject] = count.get(subject, -1) + 1
            label = _label(field(row, "answer", int, place), choices, place)
            records.append(
                {
                    "id": f"{subject}/{number}",
                    "subject": subject,
                    "subject_name": subject.replace("_", " "),
                    "question": field(row, "question", str, place),
                    "question_stripped": field(row, "question", str, place).strip(),
                    "choices": choices,
                    "label": label,
                    "letter": LETTERS[label],
                    "right": choices[label],
                }
            )
    return records


_WRAPPED = re.compile(
    r"Please choose the correct answer to the question: (?P<question>.*?)\s*\n\n(?P<answers>Answer1: .*?)"
    r"\n\nAnswer format: .*",
    re.DOTALL,
)
_ANSWER = re.compile(r"Answer(\d+): ")


def openbookqa_wrapped(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """LLM-Adapters' instruction format, un-wrapped -> id, question, choices (4), label, right.

    "Please choose the correct answer to the question: Q", an empty line, "Answer1: a Answer2: b ...", an
    empty line, "Answer format: ...".
    """
    records: list[Record] = []
    for file in files:
        for place, row in rows(file.path):
            match = _WRAPPED.fullmatch(field(row, "instruction", str, place).strip())
            gold = re.fullmatch(r"answer(\d+)", field(row, "answer", str, place).strip())
            if match is None or gold is None:
                raise InputError(f"{place}: not an OpenBookQA question in LLM-Adapters' words", hint=HINT)
            parts = _ANSWER.split(match["answers"])
            choices = [text.strip() for text in parts[2::2]]
            label = _label(int(gold[1]) - 1, choices, place)
            name, right = str(len(records)), choices[label]
            question = match["question"]
            records.append(
                {"id": name, "question": question, "choices": choices, "label": label, "right": right}
            )
    return records


def openbookqa(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """The hub's rows (id, question_stem, choices {text, label}, answerKey) -> as `openbookqa_wrapped`."""
    records = []
    for file in files:
        for place, row in rows(file.path):
            choices = field(row, "choices", dict, place)
            texts, labels = field(choices, "text", list, place), field(choices, "label", list, place)
            key = field(row, "answerKey", str, place).strip()
            if key not in labels:
                raise InputError(f'{place}: the answer is "{key}", the options are {labels}', hint=HINT)
            records.append(
                {
                    "id": str(field(row, "id", (str, int), place)),
                    "question": field(row, "question_stem", str, place),
                    "choices": texts,
                    "label": labels.index(key),
                    "right": texts[labels.index(key)],
                }
            )
    return records


def hellaswag(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """rowanz/hellaswag's JSON lines, or the hub's rows -> id, query, choices, label, right, activity.

    As lm-evaluation-harness prepares them: `activity: ctx_a Ctx_b`, where WikiHow's marks become ". " or go.
    """
    records: list[Record] = []
    for file in files:
        for place, row in rows(file.path):
            activity = field(row, "activity_label", str, place)
            context = f"{field(row, 'ctx_a', str, place)} {field(row, 'ctx_b', str, place).capitalize()}"
            choices = [_without_marks(text) for text in field(row, "endings", list, place)]
            label = field(row, "label", (int, str), place)
            if not str(label).isdigit():
                raise InputError(f"{place}: the item has no gold label ({label!r})", hint=HINT)
            records.append(
                {
                    "id": str(len(records)),
                    "activity": activity,
                    "source": str(row.get("source_id", len(records))),
                    "query": _without_marks(f"{activity}: {context}"),
                    "choices": choices,
                    "label": _label(int(label), choices, place),
                    "right": choices[int(label)],
                }
            )
    return records


def _without_marks(text: str) -> str:
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def xwino(files: Sequence[SourceFile], origin: Origin) -> list[Record]:
    """crosslingual_winograd's dataset.tsv -> id, before, after, choices (2), label, right.

    options: {language: en}. Columns: language, origin, ?, sentence, tokens (JSON), pronoun [text, [first,
    last], tokens], candidates
    [[text, span, tokens, is it right], ...]. The pronoun's place in the sentence is found by walking over the
    tokens, since the sentence may hold the same word elsewhere.
    """
    language = origin.options.get("language", "en")
    records: list[Record] = []
    for file in files:
        for place, cells in table(file.path, 7, tabs=True):
            if cells[0] != language:
                continue
            sentence = cells[3]
            try:
                tokens, pronoun, candidates = (json.loads(cell) for cell in cells[4:7])
                first, last = pronoun[1]
                start, end = _span(sentence, tokens, first, last)
                choices = [candidate[0] for candidate in candidates]
                right = [number for number, candidate in enumerate(candidates) if candidate[3] is True]
            except (ValueError, TypeError, IndexError, KeyError) as error:
                raise InputError(f"{place}: not a line of XWINO ({error})", hint=HINT) from error
            if len(choices) != 2 or len(right) != 1:  # noqa: PLR2004 (a Winograd schema has two candidates)
                raise InputError(f"{place}: {len(choices)} candidates, {len(right)} right", hint=HINT)
            gap = f"{sentence[:start]}_{sentence[end:]}"
            records.append(_gap_record(f"{language}/{len(records)}", gap, choices, right[0], start))
    return records


_QUOTES = ("``", "''")
"""How the Penn Treebank's tokenizer spells opening and closing double quotes."""


def _span(sentence: str, tokens: Sequence[str], first: int, last: int) -> tuple[int, int]:
    """Where tokens first..last-1 stand in the sentence; raises ValueError where one is not there."""
    position, starts, ends = 0, [], []
    for token in tokens:
        spellings = (token, '"') if token in _QUOTES else (token,)
        places = [(sentence.find(spelling, position), len(spelling)) for spelling in spellings]
        place, length = min(((at, size) for at, size in places if at >= 0), default=(-1, 0))
        if place < 0:
            message = f'the token "{token}" does not stand in the sentence'
            raise ValueError(message)
        starts.append(place)
        position = place + length
        ends.append(position)
    return starts[first], ends[last - 1]


def xwinograd_rows(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """Muennighoff/xwinograd's rows (sentence with a `_`, option1, option2, answer 1 or 2) -> as `xwino`."""
    records: list[Record] = []
    for file in files:
        for place, row in rows(file.path):
            sentence = field(row, "sentence", str, place)
            answer = str(field(row, "answer", (str, int), place))
            if "_" not in sentence or answer not in {"1", "2"}:
                raise InputError(f"{place}: a sentence with _ and an answer 1 or 2 are expected", hint=HINT)
            options = [field(row, name, str, place) for name in ("option1", "option2")]
            records.append(
                _gap_record(str(len(records)), sentence, options, int(answer) - 1, sentence.index("_"))
            )
    return records


def _gap_record(name: str, sentence: str, choices: list[str], label: int, gap: int) -> dict[str, Any]:
    return {
        "id": name,
        "sentence": sentence,
        "before": sentence[:gap],
        "after": sentence[gap + 1 :].strip(),
        "choices": choices,
        "label": label,
        "right": choices[label],
    }
