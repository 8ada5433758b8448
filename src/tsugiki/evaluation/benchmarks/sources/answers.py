"""Questions with a free answer: JEMHopQA, NIILC, (J)SQuAD, TriviaQA, MGSM, GSM8K, BBH, (J)HumanEval.

Records have `question`, `answers` (all golds) and whatever the task's templates name.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.schema import Origin
from tsugiki.evaluation.benchmarks.sources.files import (
    HINT,
    Record,
    elements,
    field,
    read_json,
    read_text,
    rows,
    table,
)
from tsugiki.evaluation.benchmarks.store import SourceFile

UNANSWERABLE = "unanswerable"
"""What stands for "no answer" in the examples of lm-evaluation-harness's SQuAD2."""
MAXIMUM_SOURCE_BYTES = 1 << 20
"""A file of exemplars; Python's parser takes some 100 bytes of memory for each of source."""


def jemhopqa(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """corpus/dev.json -> id, question, answer, answers (1), type (comparison or compositional)."""
    records = []
    for file in files:
        for place, row in rows(file.path):
            answer = _gold(field(row, "answer", str, place), place)
            records.append(
                {
                    "id": str(field(row, "qid", (str, int), place)),
                    "question": field(row, "question", str, place),
                    "answer": answer,
                    "answers": [answer],
                    "type": str(row.get("type", "")),
                }
            )
    return records


def _gold(answer: str, place: str) -> str:
    if not answer.strip():
        raise InputError(
            f"{place}: the item has no gold answer", hint="an item needs gold; fetch the file again"
        )
    return answer


def niilc(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """NIILC-ECQA2015 XML -> id, question, answer (all answers joined with ","), answers (that one), each.

    As llm-jp-eval reads it: questions whose only answer is "-" (nobody knows) are left out; empty answers are
    passed over.
    """
    records: list[Record] = []
    for file in files:
        for line, element in elements(file.path, "question"):
            place = f"{file.path}, line {line}"
            children = element["children"]
            text = next((text for name, text in children if name == "text"), "")
            found = [text for name, text in children if name == "answers/answer" and text]
            if found == ["-"]:
                continue
            if not text:
                raise InputError(f"{place}: the question has no text", hint=HINT)
            answer = _gold(",".join(found), place)
            name = element["attributes"].get("id", str(len(records)))
            records.append(
                {"id": name, "question": text, "answer": answer, "answers": [answer], "each": found}
            )
    return records


def squad(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """SQuAD's nested JSON (JSQuAD's too) -> id, title, context, question, answers, target, paragraph.

    answers: the distinct golds, the first one first; none for a question that can't be answered. target: the
    first answer, or "unanswerable".
    """
    records: list[Record] = []
    for file in files:
        data = read_json(file.path)
        if not isinstance(data, dict):
            raise InputError(f"{file.path}: SQuAD's JSON is an object with `data`", hint=HINT)
        for article in field(data, "data", list, str(file.path)):
            title = str(article.get("title", ""))
            for number, paragraph in enumerate(field(article, "paragraphs", list, f'{file.path}, "{title}"')):
                place = f'{file.path}, "{title}", paragraph {number}'
                context = field(paragraph, "context", str, place)
                for row in field(paragraph, "qas", list, place):
                    answers = field(row, "answers", list, f"{place}, question {row.get('id')}")
                    texts = [field(answer, "text", str, place) for answer in answers]
                    if not texts and not row.get("is_impossible"):
                        raise InputError(
                            f"{place}, question {row.get('id')}: no gold, and not marked as impossible",
                            hint=HINT,
                        )
                    records.append(
                        _reading(
                            row, title, context, answers=texts, paragraph=f"{title}/{number}", place=place
                        )
                    )
    return records


def _reading(
    row: Mapping[str, Any], title: str, context: str, *, answers: Sequence[str], paragraph: str, place: str
) -> Record:
    distinct = list(dict.fromkeys(answers))
    return {
        "id": str(field(row, "id", (str, int), place)),
        "title": title,
        "context": context,
        "question": field(row, "question", str, place),
        "answers": distinct,
        "target": distinct[0] if distinct else UNANSWERABLE,
        "paragraph": paragraph,
    }


def squad_rows(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """The hub's rows (id, title, context, question, answers {text, answer_start}) -> as `squad`."""
    records: list[Record] = []
    paragraphs: dict[tuple[str, str], int] = {}
    for file in files:
        for place, row in rows(file.path):
            title, context = field(row, "title", str, place), field(row, "context", str, place)
            number = paragraphs.setdefault((title, context), len(paragraphs))
            answers = field(field(row, "answers", dict, place), "text", list, place)
            records.append(
                _reading(row, title, context, answers=answers, paragraph=f"{title}/{number}", place=place)
            )
    return records


def triviaqa(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """The hub's rows, or the web site's JSON ({"Data": [...]}) -> id, question, answers (aliases), target."""
    records: list[Record] = []
    for file in files:
        if file.path.suffix == ".json":
            data = read_json(file.path)
            listed = field(data if isinstance(data, dict) else {}, "Data", list, str(file.path))
            pairs = [(f"{file.path}, item {number}", row) for number, row in enumerate(listed, start=1)]
        else:
            pairs = list(rows(file.path))
        for place, row in pairs:
            lower = {name.lower().replace("_", ""): value for name, value in row.items()}
            answer = field(lower, "answer", dict, place)
            aliases = answer.get("aliases") or answer.get("Aliases") or []
            if not aliases:
                raise InputError(f"{place}: the item has no gold answer", hint=HINT)
            records.append(
                {
                    "id": str(field(lower, "questionid", (str, int), place)),
                    "question": field(lower, "question", str, place),
                    "answers": [str(alias) for alias in aliases],
                    "target": str(aliases[0]),
                }
            )
    return records


_QUESTION = "問題："
_STEPS = "ステップごとの答え："


def mgsm(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """mgsm_ja.tsv: question, tab, number -> id, question, answers (the number)."""
    records: list[Record] = []
    for file in files:
        for place, cells in table(file.path, 2, tabs=True):
            records.append(
                {
                    "id": str(len(records)),
                    "question": cells[0].replace(_QUESTION, ""),
                    "answers": [_gold(cells[1].strip(), place)],
                }
            )
    return records


def mgsm_exemplars(files: Sequence[SourceFile], origin: Origin) -> list[Record]:
    """exemplars.py, which is parsed and never executed -> id, question, answer (the steps), answers.

    options: {language: ja}. The marks that the test questions lack are taken off, as the harness does.
    """
    language = origin.options.get("language", "ja")
    records: list[Record] = []
    for file in files:
        found = _literal(file.path, "MGSM_EXEMPLARS").get(language)
        if not isinstance(found, dict):
            raise InputError(f'{file.path} has no exemplars for "{language}"', hint=HINT)
        for name, row in found.items():
            place = f"{file.path}, {language}, {name}"
            answer = field(row, "a", str, place).replace(_STEPS, "")
            records.append(
                {
                    "id": str(name),
                    "question": field(row, "q", str, place).replace(_QUESTION, ""),
                    "answer": answer,
                    "answers": [answer],
                }
            )
    return records


def _literal(path: Path, name: str) -> dict[str, Any]:
    """The dictionary that a Python file assigns to a name, of constants only."""
    text = read_text(path)
    if len(text.encode()) > MAXIMUM_SOURCE_BYTES:
        raise InputError(f"{path} is larger than {MAXIMUM_SOURCE_BYTES} bytes", hint=HINT)
    try:
        for node in ast.parse(text).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                value = ast.literal_eval(node.value)  # type: ignore[attr-defined]
                if isinstance(value, dict):
                    return value
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: {name} is not a dictionary of constants ({error})", hint=HINT) from error
    raise InputError(f"{path} assigns no dictionary to {name}", hint=HINT)


def gsm8k(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """JSON lines or the hub's rows (question, answer with "#### n") -> id, question, answer, answers."""
    records: list[Record] = []
    for file in files:
        for place, row in rows(file.path):
            answer = field(row, "answer", str, place)
            if "#### " not in answer:
                raise InputError(f'{place}: the answer has no "#### " and number', hint=HINT)
            records.append(
                {
                    "id": str(len(records)),
                    "question": field(row, "question", str, place),
                    "answer": answer,
                    "answers": [answer],
                }
            )
    return records


_PROMPT_MARK = "-----\n"


def bbh(files: Sequence[SourceFile], origin: Origin) -> list[Record]:
    """bbh/<subject>.json with cot-prompts/<subject>.txt -> id, subject, question, answers, exemplars.

    The prompt file's first lines are a canary and dashes; description and three worked examples follow.
    options: {prompts: "cot-prompts/{subject}.txt"}, relative to the folder that holds bbh/.
    """
    records = []
    for file in files:
        subject = file.subject or file.path.stem
        data = read_json(file.path)
        name = str(origin.options.get("prompts", "cot-prompts/{subject}.txt")).replace("{subject}", subject)
        prompt = _prompt_path(file.path, name)
        head, mark, exemplars = read_text(prompt).partition(_PROMPT_MARK)
        if not mark:
            raise InputError(f"{prompt} has no line of dashes after its canary: {head[:40]!r}", hint=HINT)
        for number, row in enumerate(field(data, "examples", list, str(file.path))):
            place = f"{file.path}, example {number}"
            records.append(
                {
                    "id": f"{subject}/{number}",
                    "subject": subject,
                    "question": field(row, "input", str, place),
                    "answers": [_gold(field(row, "target", str, place), place)],
                    "exemplars": exemplars.strip("\n"),
                }
            )
    return records


def _prompt_path(path: Path, name: str) -> Path:
    """The prompts of a BBH file: beside its folder as in the repository, or in the same folder."""
    for place in (path.parent.parent / name, path.with_name(Path(name).name)):
        if place.is_file():
            return place
    raise InputError(f"{path.parent.parent / name} is not there", hint="BBH needs the folder cot-prompts too")


def human_eval(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """HumanEval's or JHumanEval's jsonl.gz, or the hub's rows -> id, prompt, test, entry_point, answers."""
    records = []
    for file in files:
        for place, row in rows(file.path):
            entry = field(row, "entry_point", str, place)
            if not entry.isidentifier():
                raise InputError(
                    f'{place}: the entry point "{entry}" is not the name of a function', hint=HINT
                )
            records.append(
                {
                    "id": str(field(row, "task_id", str, place)),
                    "prompt": field(row, "prompt", str, place),
                    "test": _gold(field(row, "test", str, place), place),
                    "entry_point": entry,
                    "answers": [str(row.get("canonical_solution", ""))],
                }
            )
    return records
