"""Texts with a text as gold: summaries (XL-Sum) and translations (WMT)."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.schema import Origin
from tsugiki.evaluation.benchmarks.sources.files import HINT, Record, field, read_text, rows
from tsugiki.evaluation.benchmarks.store import SourceFile


def xlsum(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """XL-Sum's JSON lines or the hub's rows (id, text, summary) -> id, text, summary, answers."""
    records = []
    for file in files:
        for place, row in rows(file.path):
            summary = field(row, "summary", str, place)
            if not summary.strip():
                raise InputError(f"{place}: the item has no gold summary", hint=HINT)
            records.append(
                {
                    "id": str(field(row, "id", (str, int), place)),
                    "text": field(row, "text", str, place),
                    "summary": summary,
                    "answers": [summary],
                }
            )
    return records


_SEGMENT = re.compile(r'<seg\b[^>]*?\bid="?(?P<id>[^"\s>]+)"?[^>]*>(?P<text>.*?)</seg>', re.DOTALL)
_DOCUMENT = re.compile(r'<doc\b[^>]*?\bdocid="(?P<id>[^"]*)"|(?P<segment><seg\b)')


def parallel(files: Sequence[SourceFile], _: Origin) -> list[Record]:
    """Two files of equal length, source and reference: a sentence a line, or WMT's .sgm -> source, answers.

    document: the news article, where .sgm files say so; else the sentence itself.
    """
    if len(files) != 2:  # noqa: PLR2004
        raise InputError(f"{len(files)} files, a source and a reference are expected", hint=HINT)
    (sources, documents), (references, _documents) = (_sentences(file) for file in files)
    if len(sources) != len(references):
        raise InputError(
            f"{files[0].path} has {len(sources)} sentences, {files[1].path} has {len(references)}", hint=HINT
        )
    records = []
    for number, (source, reference) in enumerate(zip(sources, references, strict=True)):
        if not reference.strip():
            raise InputError(f"{files[1].path}, sentence {number + 1}: no gold translation", hint=HINT)
        document = documents[number] or str(number)
        records.append(
            {
                "id": str(number),
                "source": source,
                "reference": reference,
                "answers": [reference],
                "document": document,
            }
        )
    return records


def _sentences(file: SourceFile) -> tuple[list[str], list[str]]:
    """The sentences of a file and the documents that they are of ("" where that is not said)."""
    text = read_text(file.path)
    if file.path.suffix not in {".sgm", ".sgml"}:
        lines = text.removesuffix("\n").split("\n")
        return [line.removesuffix("\r") for line in lines], [""] * len(lines)
    found = [html.unescape(match["text"].strip()) for match in _SEGMENT.finditer(text)]
    documents, current = [], ""
    for match in _DOCUMENT.finditer(text):
        if match["segment"]:
            documents.append(current)
        else:
            current = match["id"]
    if len(documents) != len(found):
        raise InputError(f"{file.path}: {len(documents)} <seg>, {len(found)} of them closed", hint=HINT)
    return found, documents
