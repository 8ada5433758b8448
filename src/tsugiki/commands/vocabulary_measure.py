"""`tsugiki vocabulary measure`: tokens by language, and the curve of tokens saved against pieces added."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tsugiki.commands.terminal import Flag, Json, columns, print_json
from tsugiki.errors import InputError
from tsugiki.report.formatting import exact, fixed, signed_percent

if TYPE_CHECKING:
    from tsugiki.vocabulary.curve import Point
    from tsugiki.vocabulary.sizing import Fertility


def measure(
    model: str,
    corpus: Path,
    *,
    other: Annotated[tuple[Path, ...], Parameter(name="--other", negative="")] = (),
    sizes: str = "1k,2k,4k,8k",
    method: Literal["continued", "append"] = "continued",
    keep_words: Flag = False,
    json: Json = False,
) -> None:
    """Show what a model's tokenizer makes of documents, and what new pieces would save. Nothing is written.

    Pieces are learnt on the train split and tokens counted on the held-out one.

    Example: `tsugiki vocabulary measure base out/japanese --sizes 1k,4k,16k`

    Args:
        model: A model directory or a Hugging Face hub id.
        corpus: Documents in the new language: a directory that the corpus stage made, or plain files (JSON
            lines, Parquet, a Hugging Face dataset on disk).
        other: Further documents to count the tokens of.
        sizes: Numbers of new pieces to try, with commas between; those that the text is too short for are
            left out. 0: none.
        method: How pieces are learnt: see `tsugiki schema vocabulary`.
        keep_words: Keep pieces within words as the language pack's segmenter cuts them.
        json: Print JSON.
    """
    from tsugiki.artifacts.plain import as_documents
    from tsugiki.models.directory import resolve_model
    from tsugiki.models.tokenizer import load_tokenizer
    from tsugiki.vocabulary.sizing import fertility, savings_curve

    wanted = _sizes(sizes)
    tokenizer = load_tokenizer(resolve_model(model))
    with tempfile.TemporaryDirectory() as work:
        documents = [as_documents(path.name, [path], Path(work)) for path in (corpus, *other)]
        names = [path.name for path in (corpus, *other)]
        found = [
            one
            for name, directory in zip(names, documents, strict=True)
            for one in fertility(tokenizer, directory, name)
        ]
        points = []
        if wanted:
            points = savings_curve(tokenizer, documents[0], wanted, method=method, keep_words=keep_words)
    if json:
        print_json(
            {
                "tokenizer": {"kind": tokenizer.kind.value, "pieces": tokenizer.size},
                "documents": [vars(one) for one in found],
                "curve": [vars(point) for point in points],
            }
        )
        return
    print(f"{model}: {tokenizer.kind}, {exact(tokenizer.size)} pieces\n")
    print("\n".join(_documents(found)))
    if points:
        print("\n" + "\n".join(_curve(points)))
        left_out = [size for size in wanted if size > points[-1].pieces]
        if left_out:
            print(f"\nThe text is too short for {', '.join(map(exact, left_out))} pieces.")


def _sizes(text: str) -> list[int]:
    """`1k,2k` -> [1000, 2000], rising; raises InputError for what is no number."""
    from tsugiki.artifacts.contract import parse_count

    try:
        found = {parse_count(part) for part in text.split(",")}
    except ValueError as error:
        raise InputError(f"--sizes {text}: {error}", hint="write --sizes 500,1k,2k") from error
    return sorted(number for number in found if isinstance(number, int) and number > 0)


def _documents(found: Sequence[Fertility]) -> Iterator[str]:
    title = ("documents", "characters", "tokens", "tokens per character", "bytes per token")
    rows: list[Sequence[str]] = [("", *title)]
    rows += [
        (
            f"{one.dataset} ({one.language})" if one.language else one.dataset,
            exact(one.documents),
            exact(one.characters),
            exact(one.tokens),
            fixed(one.tokens / max(one.characters, 1), 3),
            fixed(one.bytes / max(one.tokens, 1), 2),
        )
        for one in found
    ]
    return columns(rows, right=range(1, 6))


def _curve(points: Sequence[Point]) -> Iterator[str]:
    title = ("tokens", "change", "tokens per character", "saved by the last piece, per million characters")
    rows: list[Sequence[str]] = [("new pieces", *title)]
    first, before = points[0], points[0]
    for point in points:
        added = point.pieces - before.pieces
        million = max(point.characters, 1) / 1e6
        rows.append(
            (
                exact(point.pieces),
                exact(point.tokens),
                signed_percent(point.tokens / max(first.tokens, 1) - 1) if added else "",
                fixed(point.tokens / max(point.characters, 1), 3),
                fixed((before.tokens - point.tokens) / added / million, 1) if added else "",
            )
        )
        before = point
    return columns(rows, right=range(5))
