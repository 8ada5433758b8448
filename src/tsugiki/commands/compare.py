"""`tsugiki compare`: which differences between models are real, from the scores of their items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from tsugiki.commands.terminal import Flag, Json, columns, one_line, print_json
from tsugiki.errors import InputError, did_you_mean
from tsugiki.report.formatting import exact, fixed, p_value, signed

if TYPE_CHECKING:
    from tsugiki.evaluation.comparing.aligning import Alignment
    from tsugiki.evaluation.comparing.judging import Settings
    from tsugiki.evaluation.comparing.tables import Source


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to compare."""

    baseline: Annotated[str | None, Parameter(help="The model to compare with; else the first.")] = None
    confidence: Annotated[float, Parameter(help="Of the intervals.")] = 0.95
    alpha: Annotated[float | None, Parameter(help="Level of the tests; else 1 - confidence.")] = None
    correction: Annotated[
        Literal["holm", "bh"], Parameter(help="For many tests: holm, or bh (Benjamini and Hochberg).")
    ] = "holm"
    power: Annotated[float, Parameter(help="Chance to find the difference that matters.")] = 0.8
    difference: Annotated[
        float, Parameter(help="The difference that matters, in points of 100 (1 % for bits per byte).")
    ] = 5.0
    margin: Annotated[
        float, Parameter(help='Points by which "not worse" may be worse (1 % for bits per byte).')
    ] = 2.0
    cluster: Annotated[
        str, Parameter(help="Column of what items share: cluster, domain, language, or none.")
    ] = "cluster"
    draws: Annotated[int, Parameter(help="Draws of the bootstrap.")] = 10_000
    seed: Annotated[int, Parameter(help="Of the draws.")] = 0
    any_prompt: Annotated[
        bool, Parameter(negative="", show_default=False, help="Also items that were asked differently.")
    ] = False


def compare(
    *scores: str,
    method: Annotated[Method | None, Parameter(name="*")] = None,
    html: Path | None = None,
    sentences: Flag = False,
    json: Json = False,
) -> None:
    """Compare models item by item: intervals, paired tests, what could have been seen, verdicts in words.

    Items are aligned by task, dataset, item and prompt; what can't be aligned is said and left out.

    Example: `tsugiki compare runs/demo-ja/scores`

    Example: `tsugiki compare old=runs/a/scores new=other.jsonl --correction bh --html compared.html`

    Args:
        scores: Evaluate stages, scores.parquet files, tables of items (.csv, .jsonl with task, item, score)
            or logs of lm-evaluation-harness; NAME=PATH renames the model of a table.
        method: How to compare.
        html: Write a page with figures and items to this file.
        sentences: Print the verdict of every pair, not only of those with the baseline.
        json: Print JSON.
    """
    from tsugiki.artifacts.scores import SCHEMA
    from tsugiki.evaluation.comparing.aligning import align, said
    from tsugiki.evaluation.comparing.comparison import compare as compare_rows
    from tsugiki.evaluation.comparing.tables import measures_for, read_source

    method = method or Method()
    if not scores:
        raise InputError("nothing was named to compare", hint="tsugiki compare runs/demo-ja/scores")
    sources = [read_source(word) for word in scores]
    models = _models(sources)
    settings = _settings(method, models)
    rows = [_clustered(row, method.cluster) for one in sources for row in one.rows]
    kept, alignments = align(rows, settings.models, same_prompt=not method.any_prompt)
    measures = measures_for(kept, {task: m for one in sources for task, m in one.measures.items()})
    import pyarrow as pa

    found = compare_rows(pa.Table.from_pylist(kept, schema=SCHEMA), measures, settings)
    found["alignment"] = [one.as_dict() | {"said": said(one)} for one in alignments]
    if html is not None:
        from tsugiki.report.compared import write_comparison_page

        write_comparison_page(html, found, kept)
    if json:
        print_json(found)
        return
    print("\n".join(_lines(found, alignments, every=sentences)))
    if html is not None:
        print(f"\nPage: {html}")


def _models(sources: Sequence[Source]) -> tuple[str, ...]:
    """All models; raises InputError where two tables hold one of the same name, or there is only one."""
    names = [name for one in sources for name in one.models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"several tables hold a model called {', '.join(twice)}", hint="rename one: NAME=PATH"
        )
    if len(names) < 2:  # noqa: PLR2004 (one model can't be compared)
        raise InputError(
            f"there is one model only, {names[0]}: nothing to compare it with", hint="name another table too"
        )
    return tuple(names)


def _settings(method: Method, models: tuple[str, ...]) -> Settings:
    from tsugiki.evaluation.comparing.judging import Settings

    baseline = method.baseline or models[0]
    if baseline not in models:
        raise InputError(f'there is no model "{baseline}"', hint=did_you_mean(baseline, list(models)))
    for name in ("confidence", "alpha", "power"):
        value = getattr(method, name)
        if value is not None and not 0 < value < 1:
            raise InputError(f"--{name} {value} is not between 0 and 1", hint="write 0.95 for 95 %")
    for name, good in (("difference", method.difference > 0), ("margin", method.margin >= 0)):
        if not good:
            raise InputError(
                f"--{name} {getattr(method, name):g} is too small",
                hint=f"write points of 100, such as --{name} 5",
            )
    if method.draws < 1:
        raise InputError(f"--draws {method.draws} is too small", hint="give 1 or more")
    return Settings(
        models=models,
        baseline=baseline,
        draws=method.draws,
        confidence=method.confidence,
        seed=method.seed,
        correction="benjamini-hochberg" if method.correction == "bh" else "holm",
        level=method.alpha,
        power=method.power,
        difference=method.difference / 100,
        margin=method.margin / 100,
    )


def _clustered(row: dict[str, Any], column: str) -> dict[str, Any]:
    if column == "cluster":
        return row
    if column == "none":
        return row | {"cluster": row["item"]}
    if column not in row:
        raise InputError(f'there is no column "{column}"', hint="cluster, domain, language or none")
    return row | {"cluster": None if row[column] is None else str(row[column])}


def _lines(found: Mapping[str, Any], alignments: Sequence[Alignment], *, every: bool) -> Iterator[str]:
    from tsugiki.evaluation.comparing.aligning import said

    base = found["baseline"]
    yield from columns(_table(found), right=range(1, 2 + 3 * len(found["models"])))
    averaged = found["averages"]
    if averaged:
        yield ""
        yield from columns(_averages(found), right=range(1, 1 + len(found["models"])))
    yield ""
    for task in found["tasks"]:
        for pair in task["pairs"]:
            if every or pair["baseline"] == base:
                yield one_line(pair["sentence"], 2000)
    regressions = [one["sentence"] for one in found["regressions"]]
    if regressions:
        yield "\nHas a language got worse?"
        yield from (f"  {one_line(sentence, 2000)}" for sentence in regressions)
    left_out = [one for one in alignments if not one.complete]
    if left_out:
        yield "\nNot aligned, and left out:"
        yield from (f"  {one_line(said(one), 2000)}" for one in left_out)
    if found["notes"]:
        yield "\nOn the intervals:"
        yield from (f"  {one_line(note, 2000)}" for note in found["notes"])
    if found["alarms"]:
        yield "\nAlarms:"
        yield from (f"  {one_line(alarm, 2000)}" for alarm in found["alarms"])
    yield f"\n{found['method']}"


def _table(found: Mapping[str, Any]) -> list[list[str]]:
    """A row a task: items, then the baseline's score and each other model's with difference and p."""
    base = found["baseline"]
    others = [name for name in found["models"] if name != base]
    title = ["task", "items", base]
    for name in others:
        title += [name, "difference", "p, adjusted"]
    rows = [title]
    for task in found["tasks"]:
        factor, digits = (1, 3) if task["lower_is_better"] else (100, 1)
        name = task["task"] if task["task"] == task["dataset"] else f"{task['task']}, {task['dataset']}"
        row = [one_line(name, 40), exact(task["items"]), _score(task["by_model"][base], factor, digits)]
        for other in others:
            pair = next(p for p in task["pairs"] if (p["baseline"], p["model"]) == (base, other))
            row += [
                _score(task["by_model"][other], factor, digits),
                _difference(pair, factor, digits),
                p_value(pair["p_adjusted"]),
            ]
        rows.append(row)
    return rows


def _averages(found: Mapping[str, Any]) -> list[list[str]]:
    rows = [["average", *found["models"]]]
    for entry in found["averages"]:
        name = f"{entry['language'] or 'all'} ({len(entry['tasks'])} tasks)"
        rows.append([name, *(_score(entry["by_model"][model], 100, 1) for model in found["models"])])
    return rows


def _score(score: Mapping[str, Any], factor: int, digits: int) -> str:
    value = fixed(score["value"] * factor, digits)
    if score["low"] is None:
        return value
    return f"{value} [{fixed(score['low'] * factor, digits)}, {fixed(score['high'] * factor, digits)}]"


def _difference(pair: Mapping[str, Any], factor: int, digits: int) -> str:
    value = signed(pair["difference"] * factor, digits)
    if pair["low"] is None:
        return value
    return f"{value} [{signed(pair['low'] * factor, digits)}, {signed(pair['high'] * factor, digits)}]"
