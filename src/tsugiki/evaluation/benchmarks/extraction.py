"""The answer in a text, by the steps that a task's file names."""

from __future__ import annotations

import re
import unicodedata

from tsugiki.evaluation.benchmarks.schema import Extract


def extract(steps: Extract, text: str) -> str:
    """What is left of the text after the steps of `steps`, in their order."""
    if steps.before is not None:
        text = text.split(steps.before, maxsplit=1)[0]
    if steps.strip:
        text = text.strip()
    if steps.nfkc:
        text = unicodedata.normalize("NFKC", text)
    if steps.pattern is not None:
        found = list(re.finditer(steps.pattern, text))
        if not found:
            return steps.fallback
        match = found[0 if steps.take == "first" else -1]
        text = next((group for group in match.groups() if group), match[0])
    return text
