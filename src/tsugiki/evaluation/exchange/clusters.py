"""Which items of a log of lm-evaluation-harness share a source: it keeps the item, not the cluster.

Questions on one passage stand or fall together, and intervals that take them for independent are too narrow.
The data sets say in their own fields what an item was made from; which field that is differs from task to
task, so the fields are tried in order, from the finest to the coarsest, and the first that groups items is
taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

FIELDS: Final = (
    "cluster",  # items that Tsugiki exported
    "passage_id", "paragraph_id", "story_id", "document_id", "article_id", "pair_id",
    "passage", "context", "paragraph", "story", "article", "document",
    "title",  # SQuAD, JSQuAD: the article
    "url", "source_url",
    "subject", "category", "topic",  # MMLU and its kin
)  # fmt: skip
"""Names of fields in the data sets that the harness's tasks read (its lm_eval/tasks), finest first."""
_SHORT: Final = 80
"""Longer values are passages: their hash names the cluster."""


def clusters_of(documents: Sequence[object]) -> list[str | None]:
    """The cluster of each item of one task; None for all where no field groups them.

    A field groups items where every item has it, two or more values occur, and some value occurs twice. One
    value for all (a log of a single subject) tells nothing: it would leave one cluster, and no interval.
    """
    found = [one for one in documents if isinstance(one, Mapping)]
    if len(found) < len(documents) or not found:
        return [None] * len(documents)
    for field in FIELDS:
        values = [_value(one, field) for one in found]
        if None not in values and 1 < len(set(values)) < len(values):
            return values
    return [None] * len(documents)


def _value(document: Mapping[str, Any], field: str) -> str | None:
    value = document.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    text = str(value)
    if len(text) <= _SHORT:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
