"""Questions, contexts and answers from JSON lines, and the prompt that a judge gets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tsugiki.errors import DataError, InputError

_PARTS = ("context", "question", "first", "second", "task")


@dataclass(frozen=True)
class Question:
    """A question about an image, with the description of the image that the judge reads in its place."""

    id: str
    category: str
    text: str
    context: str
    image: str
    reference: str
    answer: str


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; raises InputError with the line of the first fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}", hint="give a JSON-lines file in UTF-8") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}", hint="one JSON object a line") from error
        if not isinstance(value, dict):
            raise InputError(f"line {number} of {path} is no object", hint="one JSON object a line")
        found.append(value)
    return found


def read_questions(
    questions: Path, reference: Path, answers: Path, contexts: Path | None = None
) -> list[Question]:
    """Join questions with their contexts and with the reference's and the model's answers, by id.

    Heron-Bench's fields: question_id (or id), category, text, image; answers: question_id, text; contexts:
    image, and the description in caption or context. A question may carry its `context`. Raises InputError
    for fields or answers that are missing, DataError for no question.
    """
    described = {str(one.get("image")): one for one in read_lines(contexts)} if contexts else {}
    given, replies = _answers(reference), _answers(answers)
    found = []
    for line in read_lines(questions):
        name, image = _id(line, questions), str(line.get("image", ""))
        context = line.get("context") or _description(described.get(image, {}))
        needed = {"category": line.get("category"), "text": line.get("text"), "context": context}
        for field, value in needed.items():
            if not isinstance(value, str) or not value.strip():
                raise InputError(
                    f"question {name} of {questions} has no {field}",
                    hint="give category and text with each question, and its context or a file of contexts",
                )
        for path, side in ((reference, given), (answers, replies)):
            if name not in side:
                raise InputError(f"{path} holds no answer to question {name}", hint="answer every question")
        found.append(
            Question(name, line["category"], line["text"], context, image or name, given[name], replies[name])
        )
    if not found:
        raise DataError(f"{questions} holds no question", hint="give at least one")
    if len({one.id for one in found}) < len(found):
        raise InputError(f"{questions} holds a question id twice", hint="each question needs its own id")
    return found


def _id(line: Mapping[str, Any], path: Path) -> str:
    name = line.get("question_id", line.get("id"))
    if name is None:
        raise InputError(f"a line of {path} has neither question_id nor id", hint="name every question")
    return str(name)


def _description(line: Mapping[str, Any]) -> Any:
    return line.get("caption") or line.get("context")


def _answers(path: Path) -> dict[str, str]:
    """Question's id -> answer; an empty answer is one, a missing text is not."""
    found = {}
    for line in read_lines(path):
        text = line.get("text", line.get("answer"))
        if not isinstance(text, str):
            raise InputError(f"an answer in {path} has no text", hint="give each answer as `text`")
        found[_id(line, path)] = text
    return found


@dataclass(frozen=True)
class Prompts:
    """What a judge is told: a system message, a body with places to fill, and a task for each category."""

    system: str
    body: str
    tasks: Mapping[str, str]


def read_prompts(path: Path | None = None) -> Prompts:
    """Tsugiki's prompts, or those of a YAML file with the same keys. Raises InputError for missing ones."""
    text = path.read_text(encoding="utf-8") if path else _own_prompts()
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe").load(text)
        made = Prompts(str(value["system"]), str(value["body"]), dict(value["tasks"]))
        made.tasks["default"]
    except (YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path or 'prompts.yaml'} is no file of judge prompts: {error}",
            hint="it needs system, body and tasks, with a task named default",
        ) from error
    missing = [part for part in _PARTS if "{" + part + "}" not in made.body]
    if missing:
        raise InputError(
            f"the body of {path or 'prompts.yaml'} has no place for {', '.join(missing)}",
            hint="write {" + missing[0] + "} where it belongs",
        )
    return made


@cache
def _own_prompts() -> str:
    return files("tsugiki.evaluation.judge").joinpath("prompts.yaml").read_text(encoding="utf-8")


def messages(prompts: Prompts, question: Question, *, swapped: bool) -> list[dict[str, str]]:
    """What is sent for a question. swapped: the model's answer comes first, else the reference's."""
    sides = (question.answer, question.reference) if swapped else (question.reference, question.answer)
    task = prompts.tasks.get(question.category, prompts.tasks["default"])
    values = dict(zip(_PARTS, (question.context, question.text, *sides, task), strict=True))
    return [
        {"role": "system", "content": prompts.system},
        {"role": "user", "content": _filled(prompts.body, values)},
    ]


def _filled(body: str, values: Mapping[str, str]) -> str:
    """Put the values into their places, in one pass: an answer that holds "{first}" stays as it is."""
    import re

    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda match: values[match[1]], body)


def hash_of(sent: Sequence[Mapping[str, str]], judge: str) -> str:
    """The identity of a request: of judge and messages."""
    data = json.dumps([judge, list(sent)], ensure_ascii=True, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]
