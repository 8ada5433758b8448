"""Scores: the artifact of the evaluate stage, one row an item, so that every statistic can be recomputed.

scores.parquet       the rows
comparison.json      statistics computed from the rows alone (evaluation.comparing)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.files import atomic_path
from tsugiki.errors import InputError

SCORES = "scores.parquet"
COMPARISON = "comparison.json"

SCHEMA = pa.schema(
    [
        pa.field("model", pa.string(), nullable=False),  # the model's name in the recipe
        pa.field("task", pa.string(), nullable=False),  # bits-per-byte, cloze, generation
        pa.field("dataset", pa.string(), nullable=False),  # the documents stage that the item came from
        pa.field("language", pa.string()),
        pa.field("domain", pa.string()),  # the host of the page
        pa.field("item", pa.string(), nullable=False),  # document id, or id of the question
        pa.field("cluster", pa.string()),  # items of one cluster are not independent
        pa.field("prompt_hash", pa.string()),
        pa.field("prompt", pa.large_string()),
        pa.field("output", pa.large_string()),
        pa.field("gold", pa.large_string()),
        pa.field("score", pa.float64()),  # bits per byte; or 1.0 / 0.0
        pa.field("nll_nats", pa.float64()),  # summed over the item's scored tokens
        pa.field("tokens", pa.int64()),
        pa.field("bytes", pa.int64()),  # UTF-8 bytes of the raw target text
        pa.field("characters", pa.int64()),
        pa.field("truncated", pa.bool_()),  # a cap ended the answer, not the model and not a stop
        pa.field("cut_context", pa.bool_()),  # the context did not fit into the window: its left was cut off
        pa.field("empty", pa.bool_()),
        # Of a benchmark's item: other ways to score it, by name ("published"); what a corpus metric
        # adds up over items before it is computed (BLEU counts of n-grams); which of several samples.
        pa.field("other_scores", pa.map_(pa.string(), pa.float64())),
        pa.field("sums", pa.list_(pa.float64())),
        pa.field("sample", pa.int32()),
        pa.field("error", pa.string()),  # why there is no answer, and so no score
    ]
)


def write_scores(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows sorted by model, task, dataset and item; the same rows give the same bytes."""
    ordered = sorted(rows, key=lambda row: (row["model"], row["task"], row["dataset"], row["item"]))
    table = pa.Table.from_pylist(ordered, schema=SCHEMA)
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_scores(directory: Path) -> pa.Table:
    """All rows of a scores artifact; raises InputError where the file is missing.

    A column that the file's version did not have yet is null.
    """
    path = directory / SCORES
    if not path.exists():
        raise InputError(f"{directory} holds no {SCORES}", hint="name an evaluate stage that has finished")
    table = pq.read_table(path)
    for place, column in enumerate(SCHEMA):
        if column.name not in table.column_names:
            table = table.add_column(place, column, pa.nulls(len(table), column.type))
    return table
