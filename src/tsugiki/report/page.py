"""Putting the page together: read the run, build the sections, fill in the templates."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tsugiki.artifacts.files import write_text
from tsugiki.report import facts, formatting
from tsugiki.report.comparisons import Comparison, read_comparisons
from tsugiki.report.figures.svg import element, marker
from tsugiki.report.languages import language_name
from tsugiki.report.run import Palette, Run, read_run
from tsugiki.report.sections.corpus import corpora
from tsugiki.report.sections.cost import cost
from tsugiki.report.sections.evaluation import evaluations, pair_interval
from tsugiki.report.sections.provenance import provenance
from tsugiki.report.sections.routing import routing
from tsugiki.report.sections.seeds import seeds
from tsugiki.report.sections.summary import graph, missing, outdated, tiles
from tsugiki.report.sections.training import training
from tsugiki.report.sections.upcycling import upcyclings
from tsugiki.report.sections.verdict import verdict
from tsugiki.report.sections.vocabulary import vocabularies
from tsugiki.report.text import language_tag, visible

REPORT: Final = "report.html"


def write_report(run_directory: Path) -> Path:
    """Write `<run>/report.html` atomically and return its path; the same artifacts give the same bytes.

    Raises InputError where `run_directory` is not a run, StorageError where the disk is full or closed to us.
    """
    path = run_directory / REPORT
    write_text(path, render(run_directory))
    return path


def render(run_directory: Path) -> str:
    """The report as HTML text. Raises InputError where `run_directory` is not a run.

    Stages that have not finished, and facts that were not recorded, are named as absent.
    """
    run = read_run(run_directory)
    comparisons = read_comparisons(run)
    palette = assign_colours(run, comparisons)
    return environment().get_template("report.html.j2").render(
        run=run,
        verdict=verdict(run, comparisons, palette),
        tiles=tiles(run, comparisons),
        missing=missing(run),
        outdated=outdated(run),
        graph=graph(run, palette),
        corpora=corpora(run),
        vocabularies=vocabularies(run, palette),
        upcyclings=upcyclings(run, palette),
        training=training(run, palette),
        seeds=seeds(run),
        routing=routing(run, palette),
        evaluations=evaluations(run, comparisons, palette),
        cost=cost(run, palette),
        provenance=provenance(run),
        palette=palette,
        dates=_dates(run),
    )  # fmt: skip


def assign_colours(run: Run, comparisons: list[Comparison]) -> Palette:
    """Colours go to compared models first (the baseline before all), then to the other model stages."""
    names: list[str] = []
    for comparison in comparisons:
        names += [comparison.baseline, *comparison.models]
    trained = [stage.name for stage in run.stages if stage.kind == "train"]
    others = [stage.name for stage in run.stages if stage.kind in {"vocabulary", "upcycle", "merge"}]
    return Palette(tuple(dict.fromkeys(name for name in [*names, *trained, *others] if name)))


def _dates(run: Run) -> str:
    """The day (or days) on which the stages finished, from their manifests."""
    days = sorted({facts.text(stage.provenance, "finished")[:10] for stage in run.stages} - {""})
    return "" if not days else days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def _shown(value: Any) -> Any:
    """Every value that a template prints passes here before it is escaped."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else visible(str(value))


def _legend_mark(css: str) -> Markup:
    """A model's marker for use in running text and tables."""
    return element(
        "svg",
        marker(css, 7, 7, 4.5),
        viewBox="0 0 14 14",
        width=14,
        height=14,
        class_="swatch",
        aria_hidden="true",
        focusable="false",
    )


@cache
def environment() -> Environment:
    """Templates escape everything; a name that a template misspells is an error, not an empty place."""
    environment = Environment(
        loader=PackageLoader("tsugiki.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        exact=formatting.exact,
        count=formatting.count,
        fixed=formatting.fixed,
        signed=formatting.signed,
        percent=formatting.percent,
        signed_percent=formatting.signed_percent,
        scientific=formatting.scientific,
        p_value=formatting.p_value,
        moment=formatting.moment,
        duration=formatting.duration,
        size=formatting.size,
        language_tag=language_tag,
        language_name=language_name,
        mark=_legend_mark,
    )
    environment.globals.update(
        number=facts.number,
        text=facts.text,
        section=facts.section,
        ratio=facts.ratio,
        interval=formatting.interval,
        pair_interval=pair_interval,
    )
    return environment
