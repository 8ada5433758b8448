"""`tsugiki corpus sweep`: what other thresholds would keep, from the stored columns, in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tsugiki.commands.terminal import Flag, Json, block, columns, one_line, print_json
from tsugiki.report.formatting import exact, percent, signed_percent

if TYPE_CHECKING:
    from tsugiki.corpus.inspection.artifact import Corpus
    from tsugiki.corpus.inspection.quantiles import Quantiles
    from tsugiki.corpus.inspection.sweep import Amount, Step, Sweep

_SAMPLE_CHARACTERS = 280


def sweep(
    corpus: Path,
    *,
    set: Annotated[list[str] | None, Parameter(name="--set", negative="")] = None,  # noqa: A002
    grid: Flag = False,
    rule_set: Annotated[list[str] | None, Parameter(name="--rule-set", negative="")] = None,
    samples: int = 0,
    json: Json = False,
) -> None:
    """Show what other thresholds of the rules would keep of a finished corpus, in seconds.

    Answers come from the stored columns; no text is read. Without options: what each rule decides alone.

    Example: `tsugiki corpus sweep runs/demo-ja/japanese --set hiragana_share=0.15,0.2,0.25`

    Args:
        corpus: Directory of a finished corpus stage.
        set: A rule and the thresholds to try: hiragana_share=0.15,0.2 or 0.1:0.3:0.05 or off. 'letters>5000'
            (quoted) tries a rule that rejects where this holds. A feature's name alone shows its quantiles.
        grid: Try all combinations of several --set, not one after the other.
        rule_set: Try another set of rules as a whole: pack, none, or one that the language pack names.
        samples: Show so many documents a step whose fate changes, those nearest to the threshold.
        json: Print JSON.
    """
    from tsugiki.corpus.inspection import scenarios as ask
    from tsugiki.corpus.inspection.artifact import open_corpus
    from tsugiki.corpus.inspection.quantiles import quantiles
    from tsugiki.corpus.inspection.sweep import sweep as run_sweep

    opened = open_corpus(corpus)
    parsed = [ask.parse_setting(text, opened) for text in set or []]
    settings = [one for one in parsed if not isinstance(one, str)]
    tables = [quantiles(opened, one) for one in parsed if isinstance(one, str)]
    tried = ask.scenarios_of(settings, grid=grid) if settings else []
    tried += [ask.rule_set_scenario(name, opened) for name in rule_set or []]
    per_rule = not tried and not tables
    tried = tried or (ask.without_each_rule(opened) if per_rule else [])
    result = run_sweep(opened, tried, samples) if tried or per_rule else None
    if json:
        print_json(_as_data(opened, result, tables))
        return
    for table in tables:
        print("\n".join(_quantile_lines(table)) + "\n")
    if result is not None:
        print("\n".join(_lines(opened, result, per_rule=per_rule)))


def _as_data(corpus: Corpus, result: Sweep | None, tables: Sequence[Quantiles]) -> dict[str, Any]:
    data: dict[str, Any] = {"corpus": str(corpus.directory), "rules": [cut.reason for cut in corpus.cuts]}
    if tables:
        data["quantiles"] = [table.as_dict() for table in tables]
    if result is not None:
        data |= {name: vars(getattr(result, name)) for name in _AMOUNTS}
        data["stale_documents"] = result.stale
        data["steps"] = [{**step.as_dict(), "samples": _samples(step)} for step in result.steps]
    return data


_AMOUNTS = ("now", "rejected", "by_rules", "near_duplicates")


def _samples(step: Step) -> list[dict[str, Any]]:
    from tsugiki.corpus.inspection.rows import Place
    from tsugiki.corpus.inspection.show import samples_of

    rows = samples_of([Place(one.file, one.row) for one in step.samples])
    return [{**row, "passes": one.passes} for one, row in zip(step.samples, rows, strict=True)]


def _lines(corpus: Corpus, result: Sweep, *, per_rule: bool) -> Iterator[str]:
    now = result.now
    yield f"{corpus.directory}: {exact(now.documents)} documents kept, {exact(now.characters)} characters"
    yield (
        f"{exact(result.rejected.documents)} rejected: {exact(result.by_rules.documents)} by rules alone, "
        f"{exact(result.near_duplicates.documents)} as near-duplicates alone"
    )
    if not result.steps:
        yield "No rule of this corpus has a threshold to sweep."
        return
    yield ""
    yield from _per_rule(corpus, result) if per_rule else _steps(result)
    for step in result.steps:
        yield from _sample_lines(step)
    yield ""
    yield from _notes(result)


def _steps(result: Sweep) -> Iterator[str]:
    title = ("documents", "", "characters", "", "newly passing", "newly rejected", "rule rejects", "it alone")
    rows: list[Sequence[str]] = [("", *title)]
    rows += [_step_cells(step, result) for step in result.steps]
    return columns(rows, right=range(1, 9))


def _step_cells(step: Step, result: Sweep) -> Sequence[str]:
    unchanged = {(c.feature, c.sign, c.value) for c in step.scenario.removed} == {
        (c.feature, c.sign, c.value) for c in step.scenario.added
    }
    return (
        step.scenario.title + (" (now)" if unchanged else ""),
        *_change(step.kept, result.now),
        exact(step.newly_passing.documents),
        exact(step.newly_rejected.documents),
        exact(step.rejected.documents),
        exact(step.alone.documents),
    )


def _change(kept: Amount, now: Amount) -> Iterator[str]:
    for size, before in ((kept.documents, now.documents), (kept.characters, now.characters)):
        yield exact(size)
        yield signed_percent(size / before - 1) if before else ""


def _per_rule(corpus: Corpus, result: Sweep) -> Iterator[str]:
    """Each rule taken away: what would newly pass is what it alone rejects."""
    rows: list[Sequence[str]] = [("rule", "rejects where", "alone", "of the kept", "characters")]
    for cut, step in zip(corpus.cuts, result.steps, strict=True):
        gained = step.newly_passing
        share = percent(gained.documents / result.now.documents) if result.now.documents else ""
        where = f"{cut.feature} {cut.sign} {cut.value:g}"
        rows.append((cut.name, where, exact(gained.documents), share, exact(gained.characters)))
    yield from columns(rows, right=(2, 3, 4))
    yield ""
    yield "alone: documents against which nothing else speaks; without the rule they would have gone on."


def _sample_lines(step: Step) -> Iterator[str]:
    for sample in _samples(step):
        change = "newly passing" if sample["passes"] else "newly rejected"
        yield ""
        yield f"{step.scenario.title}: {change}, {sample['id']}  {one_line(sample['url'])}"
        yield block(sample["text"], _SAMPLE_CHARACTERS)


def _notes(result: Sweep) -> Iterator[str]:
    if any(step.newly_passing.documents for step in result.steps):
        yield (
            "Newly passing documents count before near-duplicates: they were not compared with others yet, "
            "nor cleaned, nor seen by the host filter."
        )
    yield "Near-duplicates stay rejected here; documents that newly pass can change clusters."
    lost = max((step.clusters for step in result.steps), default=0)
    if lost:
        yield (
            f"Up to {exact(lost)} of the newly rejected are survivors of clusters: another document of the "
            "cluster would take their place if it passes."
        )
    if result.stale:
        yield (
            f"Note: of {exact(result.stale)} documents the rules of today say something else than what is "
            "stored; the language pack, or the rules, changed after this corpus was made."
        )


def _quantile_lines(table: Quantiles) -> Iterator[str]:
    from tsugiki.corpus.inspection.quantiles import LEVELS

    rules = ", ".join(cut.reason for cut in table.cuts) or "no rule reads it"
    yield f"{table.feature} ({rules})"
    rows: list[Sequence[str]] = [("quantile", *(f"{100 * level:g} %" for level in LEVELS), "documents")]
    for part, values in table.values.items():
        cells = [f"{value:.4g}" for value in values] or ["–"] * len(LEVELS)
        rows.append((part, *cells, exact(table.documents[part])))
    yield from columns(rows, right=range(1, len(LEVELS) + 2), indent="  ")
    if table.every > 1:
        yield f"  Every {table.every}th document was looked at."
