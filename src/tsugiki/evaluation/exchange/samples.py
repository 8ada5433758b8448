"""lm-evaluation-harness's logs (`--log_samples`) as rows of scores.parquet.

The harness writes `<output>/<model>/samples_<task>_<date>.jsonl`, one line an item and filter
(`lm_eval.loggers.evaluation_tracker`, `lm_eval.evaluator`): doc_id, doc, target, arguments, resps,
filtered_resps, filter, metrics and, under the name of each metric, its value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tsugiki.artifacts.scores import SCHEMA
from tsugiki.errors import InputError
from tsugiki.evaluation.exchange.clusters import clusters_of
from tsugiki.evaluation.exchange.tasks import PREFIX
from tsugiki.evaluation.items import byte_length

Row = dict[str, Any]

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
_PREFERRED = ("exact_match", "acc", "f1", "pass@1")
"""Metrics that become `score`, the first that a line has; else its first one. The others stand beside it."""


def read_lm_eval(path: Path) -> list[Row]:
    """The rows of a log, or of every log below a directory: of each model and task the newest one.

    score: the first number among the metrics, in the order of `_PREFERRED`, of the first filter; all other
    numbers are in other_scores, under the metric's name, with `,filter` where that is not the first one.
    cluster: what items share by the data set's own fields (`clusters_of`), None where these don't tell.
    Metrics that are no number of an item (the pairs that BLEU is made of) are left out. Raises InputError
    for a line that is cut off or is none of the harness's.
    """
    if not path.exists():
        raise InputError(f"there is no {path}", hint="give what lm_eval wrote to its --output_path")
    files = _newest(sorted(path.rglob("samples_*.jsonl"))) if path.is_dir() else [path]
    if not files:
        raise InputError(
            f"{path} holds no samples_*.jsonl", hint="run lm_eval with --log_samples and --output_path"
        )
    return [row for file in files for row in _rows(file)]


def _newest(files: Sequence[Path]) -> list[Path]:
    """The last run of each model and task; dates in names sort as text."""
    last: dict[tuple[Path, str], Path] = {}
    for file in files:
        found = _NAME.fullmatch(file.name)
        last[file.parent, found["task"] if found else file.stem] = file
    return list(last.values())


def _rows(file: Path) -> Iterator[Row]:
    found = _NAME.fullmatch(file.name)
    task = found["task"] if found else file.stem.removeprefix("samples_")
    # The harness writes owner__name for owner/name (`sanitize_model_name`).
    model = file.parent.resolve().name.replace("__", "/") or "model"
    items: dict[str, list[Mapping[str, Any]]] = {}
    for line in _lines(file):
        items.setdefault(str(line["doc_id"]), []).append(line)
    clusters = clusters_of([lines[0].get("doc") for lines in items.values()])
    for (item, lines), cluster in zip(items.items(), clusters, strict=True):
        yield _row(model, task, item, lines) | {"cluster": cluster}


def _lines(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding="utf-8", errors="replace") as text:
        for number, line in enumerate(text, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise InputError(
                    f"{file}, line {number} can't be read as JSON: {error}",
                    hint="was the run stopped while it wrote? leave out the file, or the line",
                ) from error
            if not isinstance(found, dict) or "doc_id" not in found:
                raise InputError(
                    f"{file}, line {number} is no sample of lm-evaluation-harness: it has no doc_id",
                    hint="give files that lm_eval --log_samples wrote",
                )
            yield found


def _row(model: str, task: str, item: str, lines: Sequence[Mapping[str, Any]]) -> Row:
    first = lines[0]
    numbers = {name: value for name in _metrics(first) if (value := _number(first.get(name))) is not None}
    chosen = next((name for name in _PREFERRED if name in numbers), next(iter(numbers), None))
    others = {name: value for name, value in numbers.items() if name != chosen}
    for line in lines[1:]:
        for name in _metrics(line):
            value = _number(line.get(name))
            if value is not None:
                others[f"{name},{line.get('filter', 'none')}"] = value
    prompt, options = _asked(first.get("arguments"))
    target = _target(first, options)
    output, nll_nats, empty = _answer(first, options, target)
    gold = _gold(target, options)
    return dict.fromkeys(SCHEMA.names) | {
        "model": model,
        **_place(task, item, first.get("doc")),
        "prompt_hash": str(first.get("prompt_hash") or first.get("doc_hash") or "")[:16] or None,
        "prompt": prompt,
        "output": output,
        "gold": gold,
        "score": numbers.get(chosen) if chosen else None,
        "nll_nats": nll_nats,
        "bytes": None if gold is None or nll_nats is None else byte_length(gold),
        "empty": empty,
        "other_scores": others or None,
    }


def _place(task: str, item: str, document: object) -> Row:
    """Task, dataset and item; those of our own item where the task was exported by us."""
    place = {"task": task, "dataset": task, "item": item}
    if task.startswith(PREFIX) and isinstance(document, dict):
        names = {"task": "task", "dataset": "dataset", "item": "id"}
        place = {column: str(document.get(name, place[column])) for column, name in names.items()}
    return place


def _target(line: Mapping[str, Any], options: Sequence[str]) -> object:
    """What is right: an option's number where there are options and it says one, else what is written.

    Logs hold the number as text. Where all options are one text behind several contexts (Winograd schemas),
    the number of an item that we exported is in the item.
    """
    target, document = line.get("target"), line.get("doc")
    if len(set(options)) == 1 and isinstance(document, dict) and isinstance(document.get("answer"), int):
        return document["answer"]
    if isinstance(target, str) and target not in options and target.isdecimal():
        return int(target) if int(target) < len(options) else target
    return target


def _metrics(line: Mapping[str, Any]) -> list[str]:
    named = line.get("metrics")
    if isinstance(named, list):
        return [name for name in named if isinstance(name, str)]
    return [name for name in _PREFERRED if name in line]  # logs from before the names were written


def _number(value: object) -> float | None:
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


def _asked(arguments: object) -> tuple[str | None, list[str]]:
    """The first context, and the continuations of all requests; a list, or {"gen_args_0": {"arg_0": ...}}."""
    given = list(arguments.values()) if isinstance(arguments, dict) else arguments
    if not isinstance(given, list):
        return None, []
    pairs = [list(one.values()) if isinstance(one, dict) else one for one in given]
    pairs = [pair for pair in pairs if isinstance(pair, list) and pair and isinstance(pair[0], str)]
    options = [pair[1] for pair in pairs if len(pair) > 1 and isinstance(pair[1], str)]
    return (pairs[0][0] if pairs else None), options


def _answer(
    line: Mapping[str, Any], options: Sequence[str], target: object
) -> tuple[str | None, float | None, bool | None]:
    """What was answered: a text, or the option of the largest ln p with the right one's -ln p."""
    said = line.get("filtered_resps")
    if not isinstance(said, list) or not said:
        return None, None, None
    logs = [_log(one) for one in said]
    if options and len(logs) == len(options) and None not in logs:
        values = [log for log in logs if log is not None]
        best = options[values.index(max(values))].strip()
        place = target if isinstance(target, int) and not isinstance(target, bool) else None
        nll = -values[place] if place is not None and 0 <= place < len(values) else None
        return best, nll, None
    text = said[0][0] if isinstance(said[0], list) and said[0] else said[0]
    return (text, None, not text.strip()) if isinstance(text, str) else (None, None, None)


def _log(value: object) -> float | None:
    """Ln p of [ln p, is it greedy]; newer logs write both as text."""
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 (a pair)
        return None
    try:
        return float(value[0])
    except (TypeError, ValueError):
        return None


def _gold(target: object, options: Sequence[str]) -> str | None:
    if isinstance(target, int) and 0 <= target < len(options):
        return options[target].strip()
    if isinstance(target, list):
        return str(target[0]) if target else None
    return None if target is None else str(target)
