"""What the evaluate stage asks of benchmarks: references, names, questions."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsugiki.artifacts.contract import ArtifactType, Inputs, Reference
from tsugiki.artifacts.files import sha256_of
from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.benchmark import Benchmark
from tsugiki.evaluation.benchmarks.questions import Question, questions_of, read_material
from tsugiki.evaluation.benchmarks.reading import load_task, settings_of, split_name
from tsugiki.evaluation.benchmarks.schema import Settings, TaskSpec, Variant
from tsugiki.evaluation.benchmarks.scoring import require_scoring
from tsugiki.evaluation.benchmarks.store import SAMPLE, Store, sample_store
from tsugiki.evaluation.items import stable_hash

SAMPLE_WORD = "sample"
"""What a recipe writes as `data` for the items that come with Tsugiki."""


@dataclass(frozen=True)
class Asked:
    """A benchmark with its questions, ready for the runner, and where they come from."""

    benchmark: Benchmark
    dataset: str
    items: tuple[Question, ...]
    sources: tuple[Mapping[str, Any], ...]


def needed_splits(task: TaskSpec, settings: Settings) -> list[str]:
    """The splits whose files are read."""
    shots = settings.shots
    others = shots.count and shots.choice != "written" and not task.parts and shots.split != task.test
    return [task.test, *([shots.split] if others else [])]


def references_of(names: Sequence[str], data: str | None, variant: Variant) -> Iterator[Reference]:
    """The files that the benchmarks read, so that they count by content, and task files of one's own.

    A file that is not there is still named (at its first address), so that planning says that it is missing.
    """
    seen: set[str] = set()
    for word in names:
        name, wanted = split_name(word, variant)
        if name.endswith((".yaml", ".yml")):
            yield Reference("tasks", name, ArtifactType.FILES)
            if not Path(name).is_file():
                continue
        if data is None or data == SAMPLE_WORD:
            continue
        task = load_task(name)
        settings = settings_of(task, wanted)
        store = Store(Path(data).expanduser())
        for split in needed_splits(task, settings):
            for path in store.paths(task, split):
                if path not in seen:
                    seen.add(path)
                    yield Reference(f"data.{path}", f"{data.rstrip('/')}/{path}", ArtifactType.FILES)


def digest_of(names: Sequence[str], data: str | None, variant: Variant) -> dict[str, str]:
    """A hash of each task's settings, and of the sample where that is asked: they decide the result too."""
    digests = {}
    for word in names:
        name, wanted = split_name(word, variant)
        own = name.endswith((".yaml", ".yml"))
        if own and not Path(name).is_file():  # planning says so, with the recipe's line
            continue
        task = load_task(name)
        digests[f"{task.name}@{wanted}"] = stable_hash(
            settings_of(task, wanted).model_dump_json(), task.splits, task.subjects
        )
    if data == SAMPLE_WORD:
        files = sorted(path for path in SAMPLE.rglob("*") if path.is_file())
        digests[SAMPLE_WORD] = stable_hash(*(sha256_of(path) for path in files))
    return digests


UNKNOWN_ITEMS = 1000
"""Items of a task whose size nobody has counted."""
SAMPLE_ITEMS = 5


def known_sizes(names: Sequence[str], data: str | None, variant: Variant) -> list[int]:
    """How many answers each benchmark asks for, for forecasts."""
    sizes = []
    for word in names:
        name, wanted = split_name(word, variant)
        if name.endswith((".yaml", ".yml")) and not Path(name).is_file():
            continue
        task = load_task(name)
        generation = settings_of(task, wanted).generation
        count = SAMPLE_ITEMS if data == SAMPLE_WORD else task.items or UNKNOWN_ITEMS
        sizes.append(count * (generation.samples if generation else 1))
    return sizes


def found_names(names: Sequence[str], inputs: Inputs) -> list[str]:
    """The names with task files where the workflow found them."""
    found = []
    for word in names:
        name, mark, variant = word.partition("@")
        found.append(f"{inputs.path(name)}{mark}{variant}" if name in inputs else word)
    return found


def found_data(data: str | None, inputs: Inputs) -> str | None:
    """The folder, where the workflow found it (a relative path may be beside the recipe)."""
    if data is None or data == SAMPLE_WORD:
        return data
    below = data.rstrip("/") + "/"
    for reference in inputs:
        if reference.startswith(below):
            parts = len(Path(reference.removeprefix(below)).parts)
            return str(inputs.path(reference).parents[parts - 1])
    return data


def ask(
    names: Sequence[str],
    *,
    data: str | None,
    variant: Variant,
    maximum_items: int | None,
    accept_hashes: Sequence[str],
    seed: int,
    log: logging.Logger,
) -> list[Asked]:
    """The questions of all benchmarks.

    Raises InputError for data that is missing, damaged or not the pinned one, DependencyError where what
    scores the answers is not installed.
    """
    asked = []
    for word in names:
        name, wanted = split_name(word, variant)
        task = load_task(name)
        benchmark = Benchmark(task, wanted, settings_of(task, wanted), seed)
        require_scoring(benchmark.settings)
        store = (
            sample_store()
            if data == SAMPLE_WORD
            else Store(_root(task, data), accept=frozenset(accept_hashes))
        )
        material = read_material(task, benchmark.settings, store)
        whole = len(material.test)
        dataset = SAMPLE_WORD if store.sample else str(material.sources[0]["source"])
        items = questions_of(
            task,
            benchmark.settings,
            material,
            name=benchmark.name,
            dataset=dataset,
            most=maximum_items,
            seed=seed,
        )
        sizes = (len(items), whole, dataset, task.licence)
        log.info("%s: %d of %d items (%s; licence: %s)", benchmark.name, *sizes)
        if not store.sample and task.items is not None and whole != task.items:
            log.warning("%s has %d items, the published set has %d", task.name, whole, task.items)
        for source in material.sources:
            if not store.sample and not source["pinned"]:
                log.warning("%s: nobody has pinned the hash of %s", task.name, source["file"])
        asked.append(Asked(benchmark, dataset, tuple(items), material.sources))
    return asked


def _root(task: TaskSpec, data: str | None) -> Path:
    if data is None:
        raise InputError(
            f'the benchmark "{task.name}" needs `data`: a folder with its files, or the word sample',
            hint="`tsugiki evaluate fetch FOLDER` fills one; `data: sample` has a few items to try",
        )
    return Path(data).expanduser()
