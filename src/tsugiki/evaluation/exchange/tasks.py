"""Our benchmarks as tasks of lm-evaluation-harness: `lm_eval --include_path FOLDER --tasks tsugiki-...`.

A task is a YAML file and a file of its items, with the prompts as we put them, shots included: so the harness
asks the same to the letter, whatever it would draw itself. What it computes is its own: accuracy for options,
and for texts the exact match with a reference. Its logs come back with `read_lm_eval`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from tsugiki.artifacts.files import write_text
from tsugiki.errors import InputError

if TYPE_CHECKING:
    from tsugiki.evaluation.benchmarks.asking import Asked
    from tsugiki.evaluation.benchmarks.questions import Question
    from tsugiki.evaluation.benchmarks.schema import Settings

_BYTES_OF_TOKEN = 3
"""Where only a cap in bytes is known: the harness caps in tokens, and about so many bytes are one token of
English with a vocabulary of 32,000, and of Japanese with one made for it."""


PREFIX = "tsugiki-"
"""What the names of exported tasks begin with, so that their logs are known again."""


def export_tasks(asked: Sequence[Asked], folder: Path) -> list[Path]:
    """Write NAME.yaml and NAME.jsonl for each benchmark; returns the YAML files.

    Raises InputError for a benchmark whose answers are programs: the harness would run them here.
    """
    written = []
    for one in asked:
        settings = one.benchmark.settings
        if settings.answer == "code":
            raise InputError(
                f"{one.benchmark.name} runs programs, which lm-evaluation-harness does outside of a sandbox",
                hint="leave it out; `tsugiki evaluate` runs it in one",
            )
        name = f"{PREFIX}{one.benchmark.name.replace('@', '-')}"
        data = folder / f"{name}.jsonl"
        same = {"task": one.benchmark.name, "dataset": one.dataset}
        documents = [same | _document(item, settings) for item in one.items]
        lines = [json.dumps(document, ensure_ascii=False) for document in documents]
        write_text(data, "".join(f"{line}\n" for line in lines))
        path = folder / f"{name}.yaml"
        write_text(path, _yaml(_task(name, data, one)))
        written.append(path)
    return written


def _document(item: Question, settings: Settings) -> dict[str, Any]:
    same = {"id": item.id, "cluster": item.cluster}
    if settings.answer == "choose":
        return same | {"prompt": item.prompt, "choices": list(item.choices), "answer": item.answer}
    if settings.answer == "contexts":
        return same | {
            "contexts": list(item.contexts),
            "answer": item.answer,
            "continuation": item.choices[0],
        }
    return same | {"prompt": item.prompt, "references": list(item.references) or [""]}


def _task(name: str, data: Path, asked: Asked) -> Mapping[str, Any]:
    """The task as the harness reads it (its docs/task_guide.md); columns are named, nothing is rendered."""
    settings = asked.benchmark.settings
    task: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data.resolve())}},
        "test_split": "test",
        "num_fewshot": 0,
        "target_delimiter": "",
        "metadata": {"version": 1.0, "licence": asked.benchmark.task.licence},
    }
    accuracy = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    if settings.answer == "choose":
        columns = {"doc_to_text": "prompt", "doc_to_choice": "choices", "doc_to_target": "answer"}
        return {**task, "output_type": "multiple_choice", **columns, "metric_list": accuracy}
    if settings.answer == "contexts":
        columns = {"doc_to_text": "answer", "doc_to_choice": "contexts", "doc_to_target": "continuation"}
        return {**task, "output_type": "multiple_choice", **columns, "metric_list": accuracy}
    return {
        **task,
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "references",
        "generation_kwargs": _generation(settings),
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": False,
                "ignore_punctuation": False,
            }
        ],
    }


def _generation(settings: Settings) -> dict[str, Any]:
    how = settings.generation
    assert how is not None  # noqa: S101 (the schema asks for it where text is generated)
    tokens = how.maximum_tokens if isinstance(how.maximum_tokens, int) else None
    kwargs: dict[str, Any] = {
        "until": list(how.stops),
        "max_gen_toks": tokens or max(1, how.maximum_bytes // _BYTES_OF_TOKEN),
        "do_sample": how.temperature is not None,
    }
    if how.temperature is not None:
        kwargs |= {"temperature": how.temperature, "top_p": how.top_p}
        kwargs |= {"top_k": how.top_k} if how.top_k else {}
    return kwargs


def _yaml(value: Mapping[str, Any]) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue()
