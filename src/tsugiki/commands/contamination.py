"""`tsugiki contamination`: benchmark items in training documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tsugiki.commands.terminal import Json, columns, one_line, print_json
from tsugiki.errors import InputError

if TYPE_CHECKING:
    from tsugiki.contamination.effect import Effect
    from tsugiki.contamination.scan import Found

_Several = Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")]


def contamination(
    *documents: Path,
    tasks: _Several,
    data: str,
    scores: Path | None = None,
    share: float = 0.8,
    ngram: int | None = None,
    accept_hash: _Several = (),
    threads: int = 1,
    html: Path | None = None,
    limit: int = 5,
    json: Json = False,
) -> None:
    """Find benchmark items in training documents (the help text is in cli.py).

    Args:
        documents: Corpora (their training split), folders, or files: .jsonl, .parquet, .txt, gzip or zstd.
        tasks: Benchmarks by name.
        data: Folder with the benchmarks' files, or the word sample.
        scores: A finished evaluate stage: what its scores are without the items that were found.
        share: Part of a question's letters that must stand in a document; 0: any n-gram (GPT-3's rule).
        ngram: Letters of an n-gram; by default 20 for languages without spaces between words, else 50.
        accept_hash: First 16 digits of SHA-256 that are taken although another one is pinned.
        threads: Threads that compare documents.
        html: Write the report with its evidence to this file.
        limit: Hits that are printed; the JSON and the file have more.
        json: Print everything as JSON.
    """
    from tsugiki.artifacts.files import write_text
    from tsugiki.artifacts.plain import Damage
    from tsugiki.artifacts.scores import read_scores
    from tsugiki.contamination.documents import iterate_texts
    from tsugiki.contamination.effect import effects
    from tsugiki.contamination.page import page, summary
    from tsugiki.contamination.scan import build_indexes, scan
    from tsugiki.contamination.wanted import wanted_items

    if not documents:
        raise InputError("no documents are named", hint="name a corpus, a folder or files")
    if not 0 <= share <= 1 or threads < 1 or (ngram is not None and ngram < 4):  # noqa: PLR2004
        raise InputError("share lies from 0 to 1, threads from 1, ngram from 4", hint="mend the option")
    damage = Damage()
    items = wanted_items(tasks, data, accept_hash)
    found = scan(
        build_indexes(items, ngram=ngram, share=share), iterate_texts(documents, damage), threads=threads
    )
    touched = frozenset(hit.item.key for hit in found.hits)
    effect = effects(read_scores(scores), touched) if scores is not None else []
    report = summary(found, damage, effect)
    if html is not None:
        write_text(html, page(report))
    if json:
        print_json(report)
        return
    _print(found, report["tasks"], effect, limit)
    if damage.lines:
        print(f"\n{damage.lines:,} damaged lines were passed over: {one_line('; '.join(damage.places[:3]))}")


def _print(found: Found, tasks: list[dict[str, object]], effect: list[Effect], limit: int) -> None:
    from tsugiki.contamination.page import COUNTS, caveats

    print(f"{found.documents:,} documents, {found.letters:,} characters")
    head = ("task", *COUNTS.values())
    rows = [(str(task["task"]), *(f"{task[name]:,}" for name in COUNTS)) for task in tasks]
    for line in columns([head, *rows], right=range(1, len(head))):
        print(line)
    for sentence in caveats(tasks):
        print(sentence)
    for hits, kind in ((found.hits, ""), (found.weak, "short, found whole: weak, ")):
        for hit in hits[:limit]:
            answer = "with its answer" if hit.with_answer else "question only"
            share = "" if kind else f"{hit.share:.0%}, "
            print(f"\n{hit.item.key} in {one_line(hit.document)} ({kind}{share}{answer})")
            print(f"  | {one_line(hit.excerpt)}")
    if effect:
        print()
        table = [("task", "model", "touched", "all", "untouched", "delta", "95 % interval")]
        table += [
            (
                one.task,
                one.model,
                f"{one.touched:,} of {one.items:,}",
                f"{one.value:.4f}",
                "–" if one.clean is None else f"{one.clean:.4f}",
                "–" if one.delta is None else f"{one.delta:+.4f}",
                "–" if one.low is None else f"{one.low:+.4f} to {one.high:+.4f}",
            )
            for one in effect
        ]
        for line in columns(table, right=(2, 3, 4, 5)):
            print(line)
