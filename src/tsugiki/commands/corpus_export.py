"""`tsugiki corpus export`: kept documents as JSONL or Parquet, for the rest of the world."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Literal

from tsugiki.commands.terminal import Flag, Json, print_json
from tsugiki.report.formatting import exact, size

_SECONDS_BETWEEN = 1.0


def export(
    corpus: Path,
    out: Path,
    *,
    split: Literal["train", "heldout"] | None = None,
    repeat_by_weight: Flag = False,
    features: Flag = False,
    format: Literal["jsonl", "parquet"] | None = None,  # noqa: A002 - the word that the command line has
    overwrite: Flag = False,
    json: Json = False,
) -> None:
    """Write the kept documents of a corpus as rows of `id`, `text` and `metadata`.

    The file appears when it is whole. The name says the format: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.

    Example: `tsugiki corpus export runs/demo-ja/japanese train.jsonl.zst --split train`

    Args:
        corpus: Directory of a finished corpus stage.
        out: The file to write.
        split: Training or held-out documents only.
        repeat_by_weight: Write each document as often as its re-hydration weight says.
        features: Put the quality features into the metadata.
        format: jsonl or parquet, where the name does not say it.
        overwrite: Replace a file that is there.
        json: Print what was written as JSON.
    """
    from tsugiki.corpus.inspection.artifact import open_corpus
    from tsugiki.corpus.inspection.export import export_documents

    line = _Line(silent=json or not sys.stderr.isatty())
    count = export_documents(
        open_corpus(corpus),
        out,
        format=format,
        split=split,
        repeat_by_weight=repeat_by_weight,
        features=features,
        overwrite=overwrite,
        progress=line,
    )
    line.clear()
    size_bytes = out.stat().st_size
    if json:
        print_json({"file": str(out), "documents": count, "bytes": size_bytes})
    else:
        print(f"{out}: {exact(count)} documents, {size(size_bytes)}")


class _Line:
    """A line on the terminal that says how far the export is, about once a second."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._next = time.monotonic() + _SECONDS_BETWEEN
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        if self._silent or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _SECONDS_BETWEEN
        self._shown = True
        sys.stderr.write(f"\r\x1b[K{done:,} of {total:,} documents ({done / total:.0%})")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
