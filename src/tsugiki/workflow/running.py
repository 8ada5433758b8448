"""Running a recipe: stage by stage, each in a process of its own, going on where the last run stopped."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML

from tsugiki.artifacts.contract import ArtifactType, StageConfig
from tsugiki.artifacts.files import PARTIAL, read_json, write_json, write_text
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.artifacts.signals import terminating_with
from tsugiki.errors import (
    InputError,
    RecipeError,
    StageError,
    StorageError,
    TsugikiError,
    did_you_mean,
    error_of,
)
from tsugiki.workflow import drift
from tsugiki.workflow.display import Display, amount
from tsugiki.workflow.graph import Graph, build_graph
from tsugiki.workflow.identities import Identity
from tsugiki.workflow.planning import Plan, machine_problems, make_plan
from tsugiki.workflow.provenance import provenance
from tsugiki.workflow.recipe import NAME, NAME_HINT, Recipe
from tsugiki.workflow.sources import Source
from tsugiki.workflow.states import FAILURE, JOB, locked

RECIPE = "recipe.yaml"
WORKER_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # A waiting thread of OpenMP should sleep before long: with a foreign program on a core, endless spinning
    # made training on two threads 15 times slower (650 instead of 10,800 tokens/s). This many turns give
    # 3,600 then, and 10,400 undisturbed.
    "GOMP_SPINCOUNT": "10000",
}
"""What a worker finds in its environment unless the user has set it otherwise."""

_TERMINATED = 128 + signal.SIGTERM
"""Exit status of a process that ended because it was asked to."""

SUMMARY_COUNTS = ("documents", "characters", "vocabulary_size", "tokens", "parameters", "items")


@dataclass(frozen=True)
class RunOptions:
    """What `tsugiki run` may be told; see `tsugiki run --help`."""

    until: str | None = None
    only: str | None = None
    rebuild: bool = False
    accept: bool = False
    fork: str | None = None


@dataclass
class RunResult:
    """What a run did: the directory, the stages that ran, and those that were there already."""

    directory: Path
    ran: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)


def run_recipe(graph: Graph, directory: Path, options: RunOptions, display: Display) -> RunResult:
    """Run what is not done yet of the wanted stages.

    Raises RecipeError (the plan does not hold), DriftError, StorageError, or the error of the stage that
    failed. Whatever was finished stays; calling again goes on.
    """
    wanted = _wanted(graph, options)
    if options.fork is not None:
        graph, directory = _fork(graph, directory, options.fork)
    with locked(directory) as lock:
        plan = make_plan(graph, directory)
        _check(plan, wanted)
        plan = _settle_drift(plan, wanted, options)
        _write_run_files(plan)
        result = RunResult(directory)
        for name in graph.order:
            if name in wanted:
                ran = _run_or_reuse(plan, name, display, lock)
                (result.ran if ran else result.reused).append(name)
    return result


def run_alone(recipe: Recipe, directory: Path, options: RunOptions, display: Display) -> None:
    """Run a recipe of one stage into `directory` itself: no recipe.yaml, no report, only the artifact.

    Raises as `run_recipe` does.
    """
    graph = build_graph(recipe)
    (name,) = graph.order
    _check_not_a_source(graph, name, directory)
    place = directory.parent
    with locked(place, name=f".{name}.lock") as lock:
        plan = make_plan(graph, place)
        _check(plan, {name})
        plan = _settle_drift(plan, {name}, options, alone=True)
        _run_or_reuse(plan, name, display, lock)


def _check_not_a_source(graph: Graph, name: str, directory: Path) -> None:
    """Refuse to write over what is read: with `--rebuild` it would be gone before it is read."""
    for source in graph.sources[name]:
        for path in [] if source.remote else source.paths:
            if directory in {path.resolve(), *path.resolve().parents}:
                raise InputError(
                    f"{directory} is, or holds, what is read: {path}",
                    hint="name another directory for the result",
                )


def _wanted(graph: Graph, options: RunOptions) -> set[str]:
    if options.until is not None and options.only is not None:
        raise InputError("--until and --only exclude each other", hint="give one of them")
    for name in (options.until, options.only):
        if name is not None and name not in graph.order:
            raise InputError(f'the recipe has no stage "{name}"', hint=did_you_mean(name, list(graph.order)))
    if options.only is not None:
        return {options.only}
    return set(graph.order) if options.until is None else graph.ancestors(options.until)


def _fork(graph: Graph, directory: Path, name: str) -> tuple[Graph, Path]:
    """Take over what fits into a run of its own, whose recipe bears the new name (names are no identity)."""
    if not NAME.fullmatch(name):
        raise InputError(f'"{name}" is not a name for a run', hint=NAME_HINT)
    target = directory.parent / name
    with locked(directory):
        drift.fork(directory, target, make_plan(graph, directory))
    data = copy.deepcopy(graph.recipe.data)
    cast("dict[str, Any]", data)["recipe"] = name
    recipe = replace(graph.recipe, name=name, data=data, path=target / RECIPE)
    return replace(graph, recipe=recipe), target


def _check(plan: Plan, wanted: set[str]) -> None:
    """Refuse a run that can't end well. With --only, the stages it reads must be done."""
    if plan.problems:
        raise RecipeError(plan.problems)
    ahead = [stage for stage in plan.stages if stage.name in wanted and not stage.is_done]
    for stage in ahead:
        for problem in stage.forecast.problems:
            if problem.severity == "here":
                raise InputError(f'stage "{stage.name}": {problem.message}', hint=problem.hint)
    lacking = machine_problems(plan.directory, ahead)
    if lacking:
        said = "\n".join(problem.message for problem in lacking)
        raise StorageError(f"this machine is too small for the run:\n{said}", hint=lacking[0].hint)
    for name in wanted:
        for read in plan.graph.reads[name]:
            if read not in wanted and not plan.stage(read).is_done:
                raise InputError(
                    f'stage "{name}" reads "{read}", which is {plan.stage(read).standing.state.value}',
                    hint=f"run with --until {name} instead of --only, or run {read} first",
                )


def _settle_drift(plan: Plan, wanted: set[str], options: RunOptions, *, alone: bool = False) -> Plan:
    stale = drift.stale_stages(plan, wanted)
    if not stale:
        return plan
    if options.rebuild:
        drift.rebuild(plan.directory, stale)
    elif options.accept:
        drift.accept(plan.directory, stale, plan.identities)
    else:
        drift.refuse(stale, alone=alone)
    return make_plan(plan.graph, plan.directory)


def _write_run_files(plan: Plan) -> None:
    """recipe.yaml and run.json (a function of the recipe alone), and where the recipe came from."""
    recipe = plan.graph.recipe
    text = io.StringIO()
    YAML(typ="rt").dump(recipe.data, text)
    write_text(plan.directory / RECIPE, text.getvalue())
    stages = {
        stage.name: {"kind": stage.kind, "inputs": list(plan.graph.reads[stage.name])}
        for stage in plan.stages
    }
    run = {
        "recipe": recipe.name,
        "language": recipe.language,
        "description": recipe.description,
        "scale": recipe.scale,
        "order": list(plan.graph.order),
        "stages": stages,
    }
    write_json(plan.directory / "run.json", run)
    write_json(plan.directory / "origin.json", {"recipe": str(recipe.path), "scale": recipe.scale})


def _run_or_reuse(plan: Plan, name: str, display: Display, lock: int) -> bool:
    """Run a stage unless it is done; gives whether it ran."""
    if plan.stage(name).is_done:
        # what a kill between the manifest and the clearing away left
        shutil.rmtree(plan.directory / name / "work", ignore_errors=True)
        display.skipped(name, "done before")
        return False
    graph = plan.graph
    stage = graph.recipe.stages[name]
    inputs = {read: [plan.directory / read] for read in graph.reads[name]}
    for source in graph.sources[name]:
        inputs[source.reference.name] = _fetched(source) if source.remote else list(source.paths)
    run_stage(
        plan.directory / name,
        kind=stage.kind,
        config=stage.config,
        inputs=inputs,
        identity=plan.identities[name],
        display=display,
        lock=lock,
    )
    return True


def _fetched(source: Source) -> list[Path]:
    """Bring a model of the hub here; remote files stay where they are, the stage reads their address."""
    if source.reference.type != ArtifactType.MODEL:
        return []
    from tsugiki.models.directory import resolve_model

    return [resolve_model(source.reference.name)]


def run_stage(
    directory: Path,
    *,
    kind: str,
    config: StageConfig,
    inputs: Mapping[str, list[Path]],
    identity: Identity,
    display: Display,
    lock: int,
) -> None:
    """Run one stage in a process of its own until its manifest is there.

    Raises the stage's own error, or StageError where its process died.
    """
    job = _prepare_job(directory, kind, config, inputs, identity)
    name = directory.name
    display.started(name, kind)
    try:
        code, failure = _run_worker(directory, display, lock)
    except KeyboardInterrupt:
        display.stopped(name, "interrupted")
        raise
    if code in {_TERMINATED, -signal.SIGTERM} and failure is None:
        display.stopped(name, "asked to end; the same command goes on")
        raise SystemExit(_TERMINATED)
    if code != 0 or not is_finished(directory):
        display.stopped(name, "failed")
        raise _error(directory, code, failure)
    manifest = read_manifest(directory)
    figures = [f"{amount(manifest.counts[key])} {key}" for key in SUMMARY_COUNTS if key in manifest.counts]
    seconds = float(manifest.provenance["seconds"]) - float(job["seconds"])
    display.finished(name, seconds, ", ".join(figures).replace("_", " "))


def _prepare_job(
    directory: Path, kind: str, config: StageConfig, inputs: Mapping[str, list[Path]], identity: Identity
) -> dict[str, Any]:
    """Write job.json; unfinished work of another identity (drift was settled before) is cleared away."""
    path = directory / JOB
    before: dict[str, Any] = read_json(path) if path.exists() else {}
    if before.get("identity") != identity.hash:
        _clear(directory)
        before = {}
    (directory / FAILURE).unlink(missing_ok=True)
    job = {
        "stage": directory.name,
        "kind": kind,
        "config": config.model_dump(mode="json"),
        "inputs": {name: [str(path) for path in paths] for name, paths in inputs.items()},
        "identity": identity.hash,
        "payload": dict(identity.payload),
        "attempts": before.get("attempts", 0) + 1,
        "seconds": before.get("seconds", 0.0),
        "started": before.get("started", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())),
        "provenance": provenance(),
    }
    write_json(path, job)
    return job


def _clear(directory: Path) -> None:
    """Delete the unfinished work of a stage. Raises InputError for a directory that Tsugiki did not make."""
    ours = {JOB, JOB + PARTIAL}  # the first thing that is written; a kill may have come in between
    present = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    if present and not ours & present:
        raise InputError(
            f"{directory} is not empty, and Tsugiki did not make what is in it",
            hint="choose an empty or a new directory; nothing was changed",
        )
    shutil.rmtree(directory, ignore_errors=True)


def _run_worker(directory: Path, display: Display, lock: int) -> tuple[int, dict[str, Any] | None]:
    """Start the worker, relay its progress; gives its exit status (negative: a signal) and its last word."""
    failure = None
    with (directory / "log.txt").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "tsugiki.workflow.worker", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us; the worker goes when we let go of its input
            pass_fds=(lock,),
            env={**WORKER_ENVIRONMENT, **os.environ},
        )
    with worker:
        try:
            with terminating_with([worker]):
                for line in worker.stdout or ():
                    event = _event(line)
                    failure = event.get("failure", failure)
                    if "done" in event:
                        display.progress(
                            directory.name, event["done"], event["total"], event["unit"], event["note"]
                        )
        except BaseException:
            worker.kill()
            raise
        return worker.wait(), failure


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return event if isinstance(event, dict) else {}


def _error(directory: Path, code: int, failure: Mapping[str, Any] | None) -> TsugikiError:
    """The error of a stage that did not finish: what it said itself, or what its exit status says."""
    name, log = directory.name, directory / "log.txt"
    if failure is not None:
        return error_of({**failure, "message": f"{name}: {failure['message']}"})
    if code < 0:
        killer = signal.Signals(-code).name
        usual = "; running out of memory is the usual cause" if killer == "SIGKILL" else ""
        return StageError(
            f"{name}: its process was killed by {killer}{usual}",
            hint=f"see {log}; then run the same command again: it goes on where it was",
        )
    return StageError(
        f"{name}: its process ended with status {code} and said nothing",
        hint=f"the end of {log} may tell why",
    )
