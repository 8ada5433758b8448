"""The contract between the workflow and the stages.

Each stage package has one door, `stage.py`, with four names:

    KIND: str                      the word that a recipe writes after `kind:`
    PRODUCES: ArtifactType         what the stage's directory is afterwards
    CODE_VERSION: int              raised when the same configuration would give other content
    class Config(StageConfig)      typed and frozen; `references()` names what it reads
    def estimate(config, inputs: Forecasts) -> Forecast      no work is done; nothing may exist yet
    def run(config, inputs: Inputs, out: Workspace) -> Outcome

Everything else in a stage package is a plain library that knows nothing of recipes.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tsugiki.artifacts.metrics import MetricsLog
from tsugiki.errors import InputError, Problem, TsugikiError


class ArtifactType(StrEnum):
    """What may flow between stages."""

    DOCUMENTS = "documents"
    MODEL = "model"
    SCORES = "scores"
    FILES = "files"
    """Plain files outside of the run: a crawl, a dump."""


class _Execution:
    """Marks a field of a Config that says how to run, not what comes out: it stays out of the identity."""


EXECUTION: Any = _Execution()

_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kMBT]?)")


def parse_count(value: object) -> object:
    """`1.5M` -> 1500000; k, M, B and T mean 10^3, 10^6, 10^9 and 10^12. Other types pass through."""
    if not isinstance(value, str):
        return value
    match = _COUNT.fullmatch(value.strip())
    if match is None:
        message = f'"{value}" is not a count; write a whole number, or one with k, M, B or T such as 1.5M'
        raise ValueError(message)
    return round(float(match[1]) * _SUFFIXES[match[2]])


Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
"""A positive whole number that may be written as `4096`, `200k`, `1.5M`, `104.86B`."""


@dataclass(frozen=True)
class Reference:
    """Something that a stage reads: another stage's name, or a path outside of the run.

    `field` is the dotted place in the configuration (for messages). `type` is what is expected there.
    A reference of type FILES is a glob or path and never a stage.
    """

    field: str
    name: str
    type: ArtifactType


class StageConfig(BaseModel):
    """Base of every stage's Config: unknown keys are errors, instances are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int = Field(default=0, ge=0, description="Seed of everything random in the stage.")

    def references(self) -> tuple[Reference, ...]:
        """Everything that this configuration reads."""
        raise NotImplementedError

    def identity_payload(self) -> dict[str, Any]:
        """The configuration as JSON data without the fields marked EXECUTION, at any depth."""
        return _without_execution(self)


def _without_execution(model: BaseModel) -> dict[str, Any]:
    payload: dict[str, Any] = {}
    dumped = model.model_dump(mode="json")
    for name, info in type(model).model_fields.items():
        if EXECUTION in info.metadata:
            continue
        value = getattr(model, name)
        payload[name] = _without_execution(value) if isinstance(value, BaseModel) else dumped[name]
    return payload


class Inputs(Mapping[str, tuple[Path, ...]]):
    """What a stage reads, by the reference's name: directories of artifacts, or lists of files."""

    def __init__(self, paths: Mapping[str, tuple[Path, ...]]) -> None:
        self._paths = dict(paths)

    def __getitem__(self, name: str) -> tuple[Path, ...]:
        return self._paths[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, name: str) -> Path:
        """The one path behind `name`; raises InputError where there are none or several."""
        paths = self._paths.get(name, ())
        if len(paths) != 1:
            raise InputError(
                f'"{name}" stands for {len(paths)} paths where one is needed',
                hint="name a stage, or one existing directory",
            )
        return paths[0]


@dataclass(frozen=True)
class Forecast:
    """What is known of a stage's result before (or after) it exists, and what making it will cost.

    counts: documents, characters, bytes, tokens, vocabulary_size, parameters (as far as known).
    facts:  plain data that later stages need to plan, e.g. `model_config` (a Hugging Face config.json
            as a dict) and `tokenizer` (the name of the stage or model that defined the tokenizer).
    memory_bytes is the peak of the busiest device or, on a CPU, of the process.
    """

    type: ArtifactType
    counts: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    memory_bytes: float | None = None
    disk_bytes: float | None = None
    problems: tuple[Problem, ...] = ()


Forecasts = Mapping[str, Forecast]

ProgressCallback = Callable[[float, float, str, str], None]


def _no_progress(_done: float, _total: float, _unit: str, _note: str) -> None:
    """For use outside of a workflow: nobody is looking."""


EndCallback = Callable[[TsugikiError], NoReturn]


def end_process(error: TsugikiError) -> NoReturn:
    """Say the error and end this process at once, whatever its other threads do."""
    sys.stderr.write(f"\nError: {error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)


@dataclass(frozen=True)
class Workspace:
    """Where a stage writes.

    root: the stage's directory; final files go here, each written atomically.
    work: root/work, for checkpoints and finished units; deleted when the stage is done.
    end: ends the stage's process with an error, from any thread: for when the main one waits for something
    that will not come, in code that can't be broken off.
    """

    root: Path
    metrics: MetricsLog
    log: logging.Logger
    on_progress: ProgressCallback = _no_progress
    end: EndCallback = end_process

    @property
    def work(self) -> Path:
        """The directory of partial state; survives a kill, goes when the stage is done."""
        path = self.root / "work"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def progress(self, done: float, total: float, unit: str = "", note: str = "") -> None:
        """Tell whoever looks how far the stage is. Cheap: call it often."""
        self.on_progress(done, total, unit, note)


@dataclass(frozen=True)
class Outcome:
    """What a stage's `run` returns: the figures for its manifest."""

    counts: Mapping[str, float | int]
    facts: Mapping[str, Any] = field(default_factory=dict)


def open_workspace(
    root: Path, on_progress: ProgressCallback = _no_progress, end: EndCallback = end_process
) -> Workspace:
    """A workspace in `root` (made if absent): metrics in metrics.jsonl, the log in log.txt."""
    root.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger(f"tsugiki.stage.{root.name}")
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(root / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    return Workspace(root, MetricsLog(root / "metrics.jsonl"), log, on_progress, end)
