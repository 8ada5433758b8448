"""`tsugiki corpus show`: documents with their reasons, and how close every rule was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsugiki.commands.terminal import Flag, Json, block, columns, one_line, print_json
from tsugiki.errors import InputError
from tsugiki.report.formatting import exact, percent

if TYPE_CHECKING:
    from tsugiki.corpus.inspection.artifact import Corpus
    from tsugiki.corpus.inspection.show import Answer, Reading, Shown

_TEXT_CHARACTERS = 400
_LINE = "─" * 78
_FEATURES_A_ROW = 3


def show(
    corpus: Path,
    *,
    id: str | None = None,  # noqa: A002 - the word that the command line has
    url: str | None = None,
    host: str | None = None,
    reason: str | None = None,
    contains: str | None = None,
    kept: Flag = False,
    rejected: Flag = False,
    random: int | None = None,
    limit: int = 5,
    full: Flag = False,
    cluster: Flag = False,
    diff: Flag = False,
    json: Json = False,
) -> None:
    """Show documents of a finished corpus: why each was kept or rejected, and how close it was.

    Several conditions must hold together. Control characters of the texts are made visible.

    Example: `tsugiki corpus show runs/demo-ja/japanese --reason near_duplicate --diff --limit 1`

    Args:
        corpus: Directory of a finished corpus stage.
        id: Id of a document, or its beginning.
        url: A part of the URL, in any case.
        host: A host; its sub-domains count too.
        reason: A reason of rejection, or its beginning: hiragana_share, near_duplicate, url:
        contains: A part of the text.
        kept: Kept documents only.
        rejected: Rejected documents only.
        random: Choose at random, with this seed; the same seed chooses the same documents.
        limit: Show at most so many.
        full: Show the whole text.
        cluster: List the other documents of the near-duplicate cluster.
        diff: Show in what a near-duplicate differs from the one that was kept.
        json: Print the documents as JSON.
    """
    from tsugiki.corpus.inspection.artifact import open_corpus
    from tsugiki.corpus.inspection.rows import Selection
    from tsugiki.corpus.inspection.show import show as find_documents

    if kept and rejected:
        raise InputError(
            "--kept and --rejected exclude each other", hint="give one of them, or none for both"
        )
    if limit < 1:
        raise InputError(f"--limit is {limit}", hint="show at least one document")
    part = "documents" if kept else "rejected" if rejected else None
    selection = Selection(id=id, url=url, host=host, reason=reason, part=part, contains=contains)
    opened = open_corpus(corpus)
    answer = find_documents(opened, selection, limit=limit, seed=random, cluster=cluster)
    if json:
        print_json(_as_data(answer, diff=diff))
    else:
        print("\n".join(_lines(opened, answer, full=full, diff=diff)))


def _as_data(answer: Answer, *, diff: bool) -> dict[str, Any]:
    documents = []
    for one in answer.documents:
        differs = {"difference": _difference(one)} if diff and one.survivor else {}
        documents.append({**one.as_dict(), **differs})
    return {"matching": answer.matching, "documents": documents}


def _difference(one: Shown) -> list[str]:
    from tsugiki.corpus.inspection.compare import readable_difference

    return readable_difference(str((one.survivor or {}).get("text") or ""), str(one.row["text"]))


def _lines(corpus: Corpus, answer: Answer, *, full: bool, diff: bool) -> Iterator[str]:
    for one in answer.documents:
        yield _LINE
        yield from _head(one)
        yield from _reasons(one)
        yield from _cluster(one)
        yield from _features(one)
        yield block(one.row["text"], None if full else _TEXT_CHARACTERS)
        if diff:
            yield from _difference_lines(one)
    if answer.documents:
        yield _LINE
    shown = "none" if not answer.documents else exact(len(answer.documents))
    yield f"{exact(answer.matching)} documents of {corpus.directory} match; {shown} shown."


def _head(one: Shown) -> Iterator[str]:
    row = one.row
    split = f", {row['split']}" if row.get("split") else ""
    yield f"{'KEPT' + split if one.kept else 'REJECTED'}  {row['id']}"
    yield f"  url     {one_line(row.get('url'))}"
    yield f"  title   {one_line(row.get('title'), 120)}"
    source = row.get("source") or {}
    offset = exact(source.get("offset"))
    yield f"  source  {one_line(source.get('file'))}, offset {offset}, {one_line(row.get('date'), 40)}"
    score = row.get("language_score")
    sure = f" ({score:.3f})" if score is not None else ""
    yield f"  language {one_line(row.get('language'), 12)}{sure}"


def _reasons(one: Shown) -> Iterator[str]:
    if one.other_reasons:
        yield "  rejected by  " + ", ".join(one_line(reason, 80) for reason in one.other_reasons)
    rows = [_reading(reading, "fails") for reading in one.failing]
    rows += [_reading(reading, "passes") for reading in one.near_misses]
    if rows:
        yield "  rules, failing ones and the closest of the others:"
        yield from columns(rows, right=(2, 4), indent="    ")


def _reading(reading: Reading, verdict: str) -> Sequence[str]:
    value = f"{reading.value:,}" if isinstance(reading.value, int) else f"{reading.value:.4g}"
    limit = f"rejects {reading.sign} {reading.threshold:g}"
    return verdict, reading.rule, value, limit, f"{percent(abs(reading.margin), 0)} {_side(reading)}"


def _side(reading: Reading) -> str:
    return "past it" if reading.fails else "away"


def _cluster(one: Shown) -> Iterator[str]:
    size = one.row.get("cluster_size")
    if size is None or size < 2:  # noqa: PLR2004 - a document alone is no cluster
        return
    role = "this is the survivor" if one.row.get("survivor") else f"survivor {one.row['cluster']}"
    yield f"  cluster of {exact(size)} near-duplicates; {role}"
    if one.survivor:
        when = one_line(one.survivor.get("date"), 40)
        yield f"    kept instead: {one_line(one.survivor.get('url'))}, {when}"
    for member in one.members:
        mark = "survivor" if member.survivor else "rejected"
        yield f"    {mark}  {member.id}  {one_line(member.url)}"


def _features(one: Shown) -> Iterator[str]:
    known = [(name, _number(value)) for name, value in one.features.items() if value is not None]
    if not known:
        yield "  features were not computed"
        return
    yield "  features:"
    cells = [part for pair in known for part in pair]
    width = 2 * _FEATURES_A_ROW
    cells += [""] * (-len(cells) % width)
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    yield from columns(rows, right=range(1, width, 2), indent="    ")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _difference_lines(one: Shown) -> Iterator[str]:
    if not one.survivor:
        yield "  no difference to show: this document is not rejected as a near-duplicate"
        return
    yield "  difference from the survivor to this document, [-taken away-] {+put in+}:"
    yield from (block(line, indent="  : ") for line in _difference(one))
