"""The report of a scan: plain data, and one HTML file in which nothing of a document can act."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from tsugiki.artifacts.plain import Damage
from tsugiki.contamination.effect import Effect
from tsugiki.contamination.scan import Found, Hit
from tsugiki.report.text import visible

EVIDENCE = 200
"""Hits that are shown in the HTML file; the JSON has all of them."""


COUNTS = {
    "items": "items",
    "question": "question found",
    "question_and_answer": "with its answer",
    "documents": "in documents",
    "short": "short questions",
    "short_found": "found whole (weak)",
    "not_searched": "not searched",
}
"""Numbers of a task with their headings."""


def caveats(tasks: Sequence[dict[str, Any]]) -> list[str]:
    """What the counts do not say by themselves, in sentences; none where nothing is to be said."""
    items, short, found, unsearched = (
        sum(int(task[name]) for task in tasks) for name in ("items", "short", "short_found", "not_searched")
    )
    said = []
    if short:
        said.append(
            f"{short:,} of {items:,} items have too few letters for n-grams: they were looked for as a whole "
            f"sentence, and {found:,} were found. That is weak evidence, so they count as untouched."
        )
    if unsearched:
        said.append(f"{unsearched:,} of {items:,} items have fewer than two letters and were not looked for.")
    return said


def summary(found: Found, damage: Damage, effects: Sequence[Effect]) -> dict[str, Any]:
    """Everything as JSON data: counts by task, all hits, the effect on scores."""
    tasks = list(dict.fromkeys(item.task for item in found.items))
    return {
        "documents": found.documents,
        "characters": found.letters,
        "damaged_lines": damage.lines,
        "damage": damage.places,
        "tasks": [_counts(task, found) for task in tasks],
        "hits": [_fact(hit) for hit in found.hits],
        "weak_hits": [_fact(hit) for hit in found.weak],
        "effects": [vars(effect) for effect in effects],
    }


def _counts(task: str, found: Found) -> dict[str, Any]:
    items = [item for item in found.items if item.task == task]
    hits, weak = ([hit for hit in some if hit.item.task == task] for some in (found.hits, found.weak))
    return {
        "task": task,
        "items": len(items),
        "question": len({hit.item.id for hit in hits}),
        "question_and_answer": len({hit.item.id for hit in hits if hit.with_answer}),
        "documents": len({hit.document for hit in hits}),
        "short": sum(item.key in found.short for item in items),
        "short_found": len({hit.item.id for hit in weak}),
        "not_searched": sum(item.key in found.unsearched for item in items),
    }


def _fact(hit: Hit) -> dict[str, Any]:
    return {
        "task": hit.item.task,
        "item": hit.item.id,
        "document": hit.document,
        "share": round(hit.share, 4),
        "with_answer": hit.with_answer,
        "question": hit.item.question,
        "answer": hit.item.answer,
        "excerpt": hit.excerpt,
    }


def page(data: dict[str, Any]) -> str:
    """One HTML file without scripts; texts are escaped, and characters that would act are made visible."""
    counts = [
        [
            task["task"],
            *(f"{task[name]:,}" for name in COUNTS),
        ]
        for task in data["tasks"]
    ]
    head = ["task", *COUNTS.values()]
    read = f"{data['documents']:,} documents of {data['characters']:,} characters"
    parts = [f"<p>{read}, {data['damaged_lines']:,} damaged lines.</p>", _table(head, counts)]
    parts += [f"<p><b>{_text(line)}</b></p>" for line in caveats(data["tasks"])]
    if data["effects"]:
        parts += ["<h2>Scores with and without these items</h2>", _effect_table(data["effects"])]
    shown = data["hits"][:EVIDENCE]
    if shown:
        parts.append(f"<h2>Evidence ({len(shown)} of {len(data['hits'])} hits)</h2>")
        parts += [_evidence(hit) for hit in shown]
    weak = data["weak_hits"][:EVIDENCE]
    if weak:
        parts.append(f"<h2>Weak evidence: short questions ({len(weak)} of {len(data['weak_hits'])})</h2>")
        parts += [_evidence(hit) for hit in weak]
    body = "\n".join(parts)
    return _FRAME.replace("{body}", body)


_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Contamination</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse}
td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:right}
td:first-child,th:first-child{text-align:left}
blockquote{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid #888;padding-left:1em}
</style></head>
<body><h1>Benchmark items in the documents</h1>
{body}
</body></html>
"""


def _text(text: object) -> str:
    return html.escape(visible(str(text)))


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = "".join(f"<th>{_text(name)}</th>" for name in head)
    lines = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _effect_table(effects: Sequence[dict[str, Any]]) -> str:
    rows = []
    for effect in effects:
        against = effect["against"]
        rows.append(
            [
                f"{effect['task']}: {effect['model']}",
                f"{effect['touched']:,} of {effect['items']:,}",
                _number(effect["value"]),
                _number(effect["clean"]),
                _interval(effect["delta"], effect["low"], effect["high"]),
                _interval(*against) if against else "–",
            ]
        )
    return _table(
        ["task and model", "touched", "all", "untouched only", "delta", "delta against the first model"], rows
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    return "–" if value is None else f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def _evidence(hit: dict[str, Any]) -> str:
    answer = "with its answer" if hit["with_answer"] else "question only"
    title = f"{hit['task']} #{hit['item']} in {hit['document']}: {hit['share']:.0%} of the question, {answer}"
    return (
        f"<h3>{_text(title)}</h3><p>{_text(hit['question'])} <b>{_text(hit['answer'])}</b></p>"
        f"<blockquote>{_text(hit['excerpt'])}</blockquote>"
    )
