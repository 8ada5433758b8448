"""What a run would do and cost, worked out before anything runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tsugiki.artifacts.contract import ArtifactType, Forecast, Reference
from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.errors import InputError, Problem, TsugikiError
from tsugiki.workflow.display import size
from tsugiki.workflow.graph import Graph
from tsugiki.workflow.identities import Identity, stage_identities
from tsugiki.workflow.sources import DigestCache, Source, source_bytes
from tsugiki.workflow.states import Standing, State, standings


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan: how it stands, what it reads, what it will make and cost."""

    name: str
    kind: str
    standing: Standing
    reads: tuple[str, ...]
    forecast: Forecast

    @property
    def is_done(self) -> bool:
        """Whether the result is there already."""
        return self.standing.state == State.DONE


@dataclass(frozen=True)
class Plan:
    """The whole of a plan. `problems` forbid a run; `warnings` and `here` are worth knowing.

    here: what this machine lacks (disk, memory). A recipe for a cluster may be planned on a laptop, so
    these forbid `run`, not `plan`.
    """

    graph: Graph
    directory: Path
    identities: Mapping[str, Identity]
    stages: tuple[PlannedStage, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    here: tuple[Problem, ...]

    def stage(self, name: str) -> PlannedStage:
        """The planned stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, for `--json`."""
        return {
            "recipe": self.graph.recipe.name,
            "scale": self.graph.recipe.scale,
            "directory": str(self.directory),
            "stages": [
                {
                    "name": stage.name,
                    "kind": stage.kind,
                    "state": stage.standing.state.value,
                    "detail": stage.standing.detail,
                    "identity": self.identities[stage.name].hash,
                    "reads": list(stage.reads),
                    "produces": stage.forecast.type.value,
                    "counts": dict(stage.forecast.counts),
                    "seconds": stage.forecast.seconds,
                    "memory_bytes": stage.forecast.memory_bytes,
                    "disk_bytes": stage.forecast.disk_bytes,
                    "core_hours": stage.forecast.facts.get("core_hours"),
                    "device_hours": stage.forecast.facts.get("device_hours"),
                }
                for stage in self.stages
            ],
            "problems": [asdict(problem) for problem in self.problems],
            "warnings": [asdict(problem) for problem in self.warnings],
            "here": [asdict(problem) for problem in self.here],
        }


def make_plan(graph: Graph, directory: Path) -> Plan:
    """Check everything that can be checked without doing work, and estimate the rest."""
    has_place = directory.exists() and not graph.recipe.alone  # a stage alone leaves nothing beside itself
    digests = DigestCache(directory / "digests.json" if has_place else None)
    identities = stage_identities(graph, digests)
    digests.save()
    found = standings(graph, directory, identities)
    forecasts: dict[str, Forecast] = {}
    stages: list[PlannedStage] = []
    found_problems: dict[str, list[Problem]] = {"error": [], "warning": [], "here": []}
    for name in graph.order:
        forecast = _forecast(graph, name, found[name], forecasts)
        forecasts[name] = forecast
        outside = [source.reference.name for source in graph.sources[name]]
        stages.append(
            PlannedStage(name, found[name].kind, found[name], (*graph.reads[name], *outside), forecast)
        )
        for problem in forecast.problems:
            found_problems[problem.severity].append(_placed(graph, name, problem))
    problems, warnings, here = (tuple(found_problems[kind]) for kind in ("error", "warning", "here"))
    here += tuple(machine_problems(directory, stages))
    return Plan(graph, directory, identities, tuple(stages), problems, warnings, here)


def _placed(graph: Graph, name: str, problem: Problem) -> Problem:
    """The problem with its stage's line in the recipe (a stage says at most the field in `where`)."""
    keys = problem.where.split(".") if problem.where else []
    where = graph.recipe.where("stages", name, *keys)
    return replace(problem, message=f'stage "{name}": {problem.message}', where=where)


def _forecast(graph: Graph, name: str, standing: Standing, known: Mapping[str, Forecast]) -> Forecast:
    stage = graph.recipe.stages[name]
    if standing.state == State.DONE and standing.manifest is not None:
        manifest = standing.manifest
        return Forecast(stage.module.PRODUCES, manifest.counts, manifest.facts)
    inputs = {read: known[read] for read in graph.reads[name]}
    try:
        for source in graph.sources[name]:
            inputs[source.reference.name] = source_forecast(source)
        return stage.module.estimate(stage.config, inputs)
    except TsugikiError as error:
        return Forecast(stage.module.PRODUCES, problems=(Problem(error.message, error.hint),))


def source_forecast(source: Source) -> Forecast:
    """What is known of something outside of the run: sizes of files, shape of a model."""
    reference: Reference = source.reference
    if not source.remote and len(source.paths) == 1 and is_finished(source.paths[0]):
        manifest = read_manifest(source.paths[0])
        return Forecast(reference.type, manifest.counts, manifest.facts)
    if reference.type == ArtifactType.MODEL:
        return _model_forecast(source)
    if source.remote:
        return Forecast(reference.type)
    counts = {"files": len(source.paths), "bytes": source_bytes(source)}
    return Forecast(reference.type, counts)


def _model_forecast(source: Source) -> Forecast:
    from tsugiki.models.config import DecoderConfig, preset_of_hub_id

    name = source.reference.name
    if source.remote:
        known = preset_of_hub_id(name)
        if known is None:
            message = f'the shape of the hub model "{name}" is not known without a network'
            hint = "download it first and name its directory, or plan where the hub can be reached"
            problem = Problem(message, hint, severity="warning")
            return Forecast(ArtifactType.MODEL, facts={"tokenizer": name}, problems=(problem,))
        data = known.to_hf()
    else:
        data = read_json(source.paths[0] / "config.json")
        _prove_model_directory(source.paths[0])
    config = DecoderConfig.from_hf(data)
    counts = {"vocabulary_size": config.vocabulary_size, "parameters": config.parameters}
    return Forecast(ArtifactType.MODEL, counts, {"model_config": data, "tokenizer": name})


def _prove_model_directory(directory: Path) -> None:
    """Raise InputError now for what a stage would stumble over after hours: no safetensors, no tokenizer."""
    if not any(directory.glob("*.safetensors")):
        seen = ", ".join(sorted(path.name for path in directory.glob("*.bin"))) or "no weights at all"
        raise InputError(
            f"{directory} holds no safetensors ({seen})",
            hint="convert the weights: model.save_pretrained(DIRECTORY, safe_serialization=True)",
        )
    if not (directory / "tokenizer.json").is_file():
        raise InputError(
            f"{directory} holds no tokenizer.json", hint="save the model's fast tokenizer beside its weights"
        )


def machine_problems(directory: Path, stages: Sequence[PlannedStage]) -> list[Problem]:
    """What this machine lacks for running the unfinished ones of `stages`: disk, memory."""
    problems = []
    ahead = [stage for stage in stages if not stage.is_done]
    needed = sum(stage.forecast.disk_bytes or 0 for stage in ahead)
    place = next(path for path in [directory, *directory.resolve().parents] if path.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        message = f"about {size(needed)} of disk are needed in {directory}; {size(free)} are free"
        problems.append(Problem(message, "free some space, or choose another --runs directory"))
    memory = _memory_bytes()
    needs = {stage.name: stage.forecast.memory_bytes or 0 for stage in ahead if _runs_on_cpu(stage)}
    large = [f"{name} {size(wanted)}" for name, wanted in needs.items() if memory and wanted > memory]
    if large:
        message = f"this machine has {size(memory)} of memory; these stages need more: {', '.join(large)}"
        problems.append(Problem(message, "use a larger machine, or `--scale mini` to try the recipe here"))
    return problems


def _runs_on_cpu(stage: PlannedStage) -> bool:
    """Whether a stage's memory is this machine's (a stage planned for accelerators names its device)."""
    return stage.forecast.facts.get("device", "cpu") == "cpu"


def _memory_bytes() -> int:
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
