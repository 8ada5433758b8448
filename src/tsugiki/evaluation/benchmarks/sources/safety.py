"""Prompts that a model should decline, and harmless ones: JSON lines."""

from __future__ import annotations

from collections.abc import Sequence

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.schema import Origin
from tsugiki.evaluation.benchmarks.sources.files import HINT, Record, field, rows
from tsugiki.evaluation.benchmarks.store import SourceFile

REFUSE, COMPLY = "refuse", "comply"


def refusals(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """JSON lines of id, category, prompt, expected (refuse or comply) -> the same, subject, answers."""
    records: list[Record] = []
    for file in files:
        for place, row in rows(file.path):
            expected = field(row, "expected", str, place)
            if expected not in {REFUSE, COMPLY}:
                message = f'{place}: expected is "{expected}", not {REFUSE} or {COMPLY}'
                raise InputError(message, hint=HINT)
            category = field(row, "category", str, place)
            records.append(
                {
                    "id": str(row.get("id", len(records))),
                    "category": category,
                    "subject": category,
                    "prompt": field(row, "prompt", str, place),
                    "answers": [expected],
                }
            )
    return records
