"""The corpus stage: files of a crawl in, documents out.

work/units/*                   each a file or a part of one: documents with features, reasons and signatures
documents/part-*.parquet       kept documents
rejected/part-*.parquet        rejected ones with every reason, near-duplicates among them
hosts.parquet                  the hosts of the corpus, and which ones are blocked
index/                         band keys for later corpora, where that was asked for
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsugiki.artifacts.contract import ArtifactType, Forecast, Forecasts, Inputs, Outcome, Workspace
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.processes import usable_cores
from tsugiki.corpus.config import Config
from tsugiki.errors import DataError, InputError

if TYPE_CHECKING:
    from tsugiki.corpus.engine import Engine
    from tsugiki.corpus.histograms import Histograms
    from tsugiki.corpus.resources import Resources
    from tsugiki.corpus.segments import Segment
    from tsugiki.corpus.statistics import UnitStatistics
    from tsugiki.corpus.toolbox import Toolbox

__all__ = ["CODE_VERSION", "KIND", "PRODUCES", "Config", "estimate", "run"]

KIND = "corpus"
PRODUCES = ArtifactType.DOCUMENTS
CODE_VERSION = 6

_SMALL_BYTES = 24 << 20
"""Below this, starting processes takes longer than a second core saves."""


def estimate(config: Config, inputs: Forecasts) -> Forecast:
    """What the stage will give and cost, from the sizes of the files and the ratios of a sample."""
    from tsugiki.corpus.forecast import forecast

    return forecast(config, inputs)


def run(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Make the documents.

    Raises InputError where files are missing or of an unknown kind, DataError where the crawl holds no page,
    none of the language, or none that passes, StageError where the split can't be proven.
    """
    from tsugiki.corpus.engine import give_memory_back, quick_switches, wait_for_others

    give_memory_back()
    start = time.perf_counter()
    with quick_switches():
        outcome = _made(config, inputs, out, start)
    wait_for_others()
    seconds = time.perf_counter() - start
    out.metrics.append(step="all", documents=outcome.counts["documents"], seconds=round(seconds, 3))
    return outcome


def _made(config: Config, inputs: Inputs, out: Workspace, start: float) -> Outcome:
    resources = _resources(config, inputs, out)
    files = input_files(config, inputs)
    engine = _engine(config, files)
    if engine.name != "local":
        _toolbox(config, resources)  # says now what is wrong in a list or a model; here the first unit does
    units = _make_units(config, files, resources, engine, out)
    from tsugiki.corpus.assemble import Material, assemble  # loading them would keep the workers waiting

    toolbox = _toolbox(config, resources)
    statistics, histograms, segments = _gather(units, toolbox)
    _note(out, statistics, files, time.perf_counter() - start)
    _check(config, statistics, len(files))
    older = tuple(inputs.path(name) for name in config.near_duplicates.against)
    return assemble(Material(config, toolbox.pack, segments, statistics, histograms, older, engine), out)


@dataclass(frozen=True)
class InputFile:
    """One file to read: its path or address, its name, and its size if known."""

    address: str
    name: str
    bytes: int | None

    @property
    def key(self) -> str:
        """What tells the file from another one of the same name."""
        return f"{self.name}\n{self.bytes}"


def input_files(config: Config, inputs: Inputs) -> list[InputFile]:
    """The files to read, by base name.

    Raises InputError where a source stands for no file, a file is missing or of an unknown kind, or two files
    have one name (a document's id is made from it).
    """
    from tsugiki.corpus.formats import SUFFIXES, kind_of

    files: dict[str, InputFile] = {}
    for name in config.sources:
        found = _files_of(name, inputs)
        if not found:
            raise InputError(
                f'source: no file matches "{name}"', hint="check the path; a glob is relative to the recipe"
            )
        for file in found:
            if kind_of(file.name) is None:
                raise InputError(
                    f"source: {file.name} is of an unknown kind", hint="known: " + ", ".join(SUFFIXES)
                )
            known = files.setdefault(file.name, file)
            if not _same(known.address, file.address):
                raise InputError(
                    f"source: two files are named {file.name}: {known.address} and {file.address}",
                    hint="rename one: the ids of documents are made from file names",
                )
    return [files[name] for name in sorted(files)]


def _files_of(name: str, inputs: Inputs) -> list[InputFile]:
    from tsugiki.corpus.remote import LISTINGS, expand, is_local
    from tsugiki.corpus.transfer import Transfer

    paths = inputs.get(name, ())
    if is_local(name) and not name.endswith(LISTINGS):
        for path in paths:
            if not path.is_file():
                raise InputError(f"source: {path} is missing or is no file", hint="check the path")
        return [InputFile(str(path), path.name, path.stat().st_size) for path in paths]
    with Transfer() as transfer:
        places = [str(path) for path in paths] or [name]
        found = [file for place in places for file in expand(place, transfer)]
    return [InputFile(file.address, file.name, file.bytes) for file in found]


def _same(left: str, right: str) -> bool:
    return left == right or ("://" not in left + right and Path(left).resolve() == Path(right).resolve())


def _resources(config: Config, inputs: Inputs, out: Workspace) -> Resources:
    """Where the configuration's files are; block lists are read once here and saved for the workers."""
    from tsugiki.corpus.resources import Resources

    lists = None
    if config.hosts.lists is not None:
        from tsugiki.corpus.toolbox import save_host_lists

        target = out.work / "host-lists.safetensors"
        save_host_lists(inputs[config.hosts.lists], config.hosts.categories, target)
        lists = str(target)
    names = config.decontaminate.items if config.decontaminate else ()
    items = [str(path) for name in names for path in inputs[name]]
    model = str(inputs.path(config.classifier.model)) if config.classifier else None
    return Resources(lists, tuple(items), model)


def _toolbox(config: Config, resources: Resources) -> Toolbox:
    """The one that units in this process have loaded, if there were any."""
    from tsugiki.corpus.toolbox import toolbox_of

    return toolbox_of(
        json.dumps({"config": config.model_dump(mode="json"), "resources": resources.as_dict()})
    )


def _engine(config: Config, files: Sequence[InputFile]) -> Engine:
    from tsugiki.corpus.engine import Engine

    sizes = [file.bytes for file in files]
    small = None not in sizes and sum(size or 0 for size in sizes) < _SMALL_BYTES
    cores = 1 if small and config.engine == "local" else usable_cores()
    return Engine(config.engine, config.workers or cores, config.ray_address)


def _make_units(
    config: Config, files: Sequence[InputFile], resources: Resources, engine: Engine, out: Workspace
) -> list[Path]:
    """Make the units that are not there yet; the paths of all, in the order of `files`."""
    from tsugiki.corpus import spans, units
    from tsugiki.corpus.compiling import compile_loops

    directory = out.work / "units"
    directory.mkdir(exist_ok=True)
    if engine.name != "ray":  # there the loops run on other machines
        compile_loops(
            lambda done, of: out.progress(done, of, "groups of loops", "compiling, once on a machine")
        )
    version = identity_of({"config": config.identity_payload(), "code_version": CODE_VERSION})
    job: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "resources": resources.as_dict(),
        "downloads": str(out.work / "downloads"),
    }
    making = units.Making(directory, version, job, engine, out)
    return units.make_units(files, making, spans.UNIT_BYTES)


def _gather(units: Sequence[Path], toolbox: Any) -> tuple[UnitStatistics, Histograms, list[Segment]]:
    from tsugiki.artifacts.files import read_json
    from tsugiki.corpus.histograms import Histograms
    from tsugiki.corpus.segments import Segment
    from tsugiki.corpus.statistics import UnitStatistics

    statistics, histograms = UnitStatistics(), Histograms(toolbox.pack, toolbox.rules)
    segments: list[Segment] = []
    for unit in units:
        data = read_json(unit.with_suffix(".json"))
        statistics.add(UnitStatistics.from_dict(data["statistics"]))
        histograms.merge(histograms.restored(data["histograms"]))
        # the run may have been moved since the unit was made: only names count
        segments += [
            Segment(**{**one, "stem": str(unit.parent / Path(one["stem"]).name)}) for one in data["segments"]
        ]
    return statistics, histograms, segments


def _note(out: Workspace, statistics: UnitStatistics, files: Sequence[InputFile], seconds: float) -> None:
    """Into metrics.jsonl what forecasts of larger corpora need, into the log what a person looks for."""
    from tsugiki.corpus.formats import fault_in_words

    out.metrics.append(
        step="units",
        files=len(files),
        records=statistics.records,
        pages=statistics.documents["pages"],
        input_bytes=statistics.input_bytes,
        cpu_seconds=round(statistics.cpu_seconds, 3),
        seconds=round(seconds, 3),
    )
    out.log.info("read %d records of %d files in %.1f s", statistics.records, len(files), seconds)
    for warning in statistics.warnings:
        out.log.warning("%s", fault_in_words(warning))
    if statistics.warned > len(statistics.warnings):
        out.log.warning("and %d more", statistics.warned - len(statistics.warnings))


def _check(config: Config, statistics: UnitStatistics, files: int) -> None:
    """No page, no page of the language, none that passes: each with what was seen instead."""
    from tsugiki.corpus.formats import fault_in_words

    reached = statistics.documents
    if not reached["pages"]:
        seen = (
            ", ".join(f"{count} {reason}" for reason, count in statistics.skipped.most_common(6)) or "nothing"
        )
        raise DataError(
            f"the crawl holds no page: {statistics.records} records in {files} files ({seen})",
            hint="; ".join(
                [
                    "check that the files are the right ones and whole",
                    *(f"the first fault: {fault_in_words(warning)}" for warning in statistics.warnings[:1]),
                ]
            ),
        )
    if not reached["language identified"]:
        seen = ", ".join(f"{label} ({count})" for label, count in statistics.languages.most_common(5))
        raise DataError(
            f'no page of the language "{config.language}" among {reached["pages"]} pages '
            f"(candidates: {reached['candidate language']}; languages found in them: {seen or 'none'})",
            hint="check the stage's language, or give a crawl that has such pages",
        )
    if not reached["passed rules"]:
        top = ", ".join(f"{reason} ({count})" for reason, count in statistics.reasons.most_common(5))
        raise DataError(
            f"all {reached['language identified']} pages of the language were rejected by the quality rules; "
            f"most often by {top}",
            hint="relax thresholds with rule_overrides, or set rules: none",
        )
