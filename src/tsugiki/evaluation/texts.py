"""Any text set for bits per byte: plain text, JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tsugiki.errors import DataError
from tsugiki.evaluation.benchmarks.sources.files import field, read_text, rows
from tsugiki.evaluation.items import Page, cut_bytes, stable_integer


def read_texts(
    paths: Sequence[Path], *, dataset: str, maximum_documents: int, document_bytes: int, seed: int
) -> list[Page]:
    """At most `maximum_documents` texts, chosen by hash, each cut at `document_bytes` bytes of UTF-8.

    .jsonl, .jsonl.gz, .json and .parquet: one text a row, in `text`, with `id` and `language` if there are
    any; other files are one text each. Nothing is normalised: the same bytes for every model. Texts of white
    space only are passed over. Raises DataError where no text is left, InputError for a damaged file.
    """
    found: list[tuple[int, Page]] = []
    for path in sorted(paths, key=lambda path: (path.name, str(path))):
        for name, language, text in _texts(path):
            cut = cut_bytes(text, document_bytes)
            if cut.strip():
                page = Page(dataset, name, language, "", name, cut)
                found.append((stable_integer(seed, name, cut), page))
    if not found:
        raise DataError(f'"{dataset}" holds no text', hint="name .txt, .jsonl or .parquet files with texts")
    found.sort(key=lambda entry: (entry[0], entry[1].id))
    return [page for _, page in found[:maximum_documents]]


def _texts(path: Path) -> Iterator[tuple[str, str, str]]:
    """(id, language, text); the id names file and row, so that no two texts share one."""
    kind = path.suffixes[-2:-1] if path.suffix == ".gz" else [path.suffix]
    if not {".jsonl", ".json", ".parquet"} & set(kind):
        yield path.name, "", read_text(path)
        return
    for number, (place, row) in enumerate(rows(path), start=1):
        language = row.get("language")
        yield (
            f"{path.name}:{row.get('id', '')}:{number}",
            language if isinstance(language, str) else "",
            field(row, "text", str, place),
        )
