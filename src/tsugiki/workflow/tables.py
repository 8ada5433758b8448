"""Plans, standings and schemas as tables for a person."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tsugiki.artifacts.contract import EXECUTION, Forecast, StageConfig
from tsugiki.artifacts.durations import about, taken
from tsugiki.errors import Problem
from tsugiki.workflow.display import amount, size
from tsugiki.workflow.kinds import KINDS, stage_module
from tsugiki.workflow.planning import Plan, PlannedStage
from tsugiki.workflow.states import Standing, State
from tsugiki.workflow.type_names import type_name

_COLOURS = {
    State.DONE: "green",
    State.RUNNING: "cyan",
    State.WAITING: "dim",
    State.INTERRUPTED: "yellow",
    State.DRIFTED: "magenta",
    State.DAMAGED: "red",
    State.FAILED: "red",
}
_OF_STAGE = re.compile(r'^stage "(?P<stage>[^"]+)": ')
_SHOWN = (
    ("documents", "documents"),
    ("characters", "characters"),
    ("vocabulary_size", "pieces"),
    ("tokens", "tokens"),
    ("parameters", "params"),
    ("items", "items"),
)


def print_plan(plan: Plan) -> None:
    """A row a stage: how it stands, what it will make, and what that costs."""
    console = Console()
    recipe = plan.graph.recipe
    scale = f" at scale {recipe.scale}" if recipe.scale else ""
    console.print(
        f"[bold]{escape(recipe.name)}[/bold]{scale} -> {escape(str(plan.directory))}", soft_wrap=True
    )
    if recipe.description:
        console.print(f"[dim]{escape(recipe.description.strip())}")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("stage", "kind", "state"):
        table.add_column(title, no_wrap=True)
    table.add_column("makes", overflow="fold")
    for title in ("time", "memory", "disk"):
        table.add_column(title, justify="right", no_wrap=True)
    for stage in plan.stages:
        table.add_row(*_plan_cells(stage))
    console.print(table)
    console.print(_what_is_ahead(plan), soft_wrap=True)
    for title, problems in (("Note", plan.warnings), ("On this machine", plan.here)):
        for problem in alike_together(problems):
            console.print(f"[yellow]{title}:[/yellow] {escape(str(problem))}", soft_wrap=True)


def _what_is_ahead(plan: Plan) -> str:
    """What the stages that are not done take together, and how many of them could not be reckoned."""
    ahead = [stage.forecast for stage in plan.stages if not stage.is_done]
    if not ahead:
        return "Everything is done."
    seconds = sum(forecast.seconds or 0 for forecast in ahead)
    disk = sum(forecast.disk_bytes or 0 for forecast in ahead)
    unknown = sum(forecast.seconds is None for forecast in ahead)
    needs = {
        place: max((one.memory_bytes or 0 for one in ahead if _on_accelerator(one) == on_device), default=0)
        for place, on_device in (("of memory", False), ("on each device", True))
    }
    parts = [f"about {about(seconds)}", f"{size(disk)} of disk"]
    parts += [f"up to {size(needed)} {place}" for place, needed in needs.items() if needed]
    text = f"To do: {len(ahead)} stages, {', '.join(parts)}."
    if unknown:
        text += f" Not reckoned in: {unknown} of them, whose time can't be told."
    for fact, title, least in (("core_hours", "Core hours", 1.0), ("device_hours", "Device hours", 0.0)):
        hours = sum(float(forecast.facts.get(fact, 0)) for forecast in ahead)
        text += f"\n{title}: {amount(hours)}." if hours > least else ""
    return text


def _on_accelerator(forecast: Forecast) -> bool:
    return forecast.facts.get("device", "cpu") != "cpu"


def alike_together(problems: Sequence[Problem]) -> list[Problem]:
    """The problems, with those of several stages that say the same as one, at the first one's place."""
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        said = _OF_STAGE.sub("", problem.message)
        groups.setdefault((said, problem.hint, problem.where.rpartition(":")[0]), []).append(problem)
    return [_as_one(members, said, file) for (said, _, file), members in groups.items()]


def _as_one(members: Sequence[Problem], said: str, file: str) -> Problem:
    found = [_OF_STAGE.match(problem.message) for problem in members]
    if len(members) == 1 or not all(found):
        return members[0]
    names = ", ".join(f'"{match["stage"]}"' for match in found if match)
    lines = ", ".join(problem.where.rpartition(":")[2] for problem in members)
    return replace(members[0], message=f"stages {names}: {said}", where=f"{file}:{lines}")


def _plan_cells(stage: PlannedStage) -> list[str]:
    forecast = stage.forecast
    made = [f"{amount(forecast.counts[key])} {unit}" for key, unit in _SHOWN if key in forecast.counts]
    costs = [
        about(forecast.seconds) if forecast.seconds is not None else "",
        size(forecast.memory_bytes) if forecast.memory_bytes else "",
        size(forecast.disk_bytes) if forecast.disk_bytes else "",
    ]
    return [
        escape(stage.name),
        stage.kind,
        _state(stage.standing),
        ", ".join(made) or forecast.type.value,
        *(("", "", "") if stage.is_done else costs),
    ]


def _state(standing: Standing) -> str:
    colour = _COLOURS[standing.state]
    return f"[{colour}]{standing.state.value}[/{colour}]"


def print_standings(plan: Plan) -> None:
    """A row a stage: its state, when it was made, how long it took, and why it is not done."""
    console = Console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("stage", "kind", "state", "finished (UTC)", "took", "why"):
        table.add_column(title, overflow="fold", no_wrap=title == "finished (UTC)")
    for stage in plan.stages:
        standing = stage.standing
        made = standing.manifest.provenance if standing.manifest else {}
        took = taken(float(made["seconds"])) if "seconds" in made else ""
        finished = str(made.get("finished", ""))[:16].replace("T", " ")  # to the minute
        table.add_row(
            escape(standing.name), standing.kind, _state(standing), finished, took, escape(standing.detail)
        )
    console.print(f"[bold]{escape(str(plan.directory))}", soft_wrap=True)
    console.print(table)


def standing_as_dict(standing: Standing) -> dict[str, Any]:
    """A standing as plain data, for `--json`."""
    made = standing.manifest.provenance if standing.manifest else {}
    return {
        "name": standing.name,
        "kind": standing.kind,
        "state": standing.state.value,
        "detail": standing.detail,
        "differences": [str(difference) for difference in standing.differences],
        "finished": made.get("finished"),
        "seconds": made.get("seconds"),
    }


def print_kinds() -> None:
    """The kinds of stages, with what each makes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "makes", "what it is"):
        table.add_column(title)
    for kind in KINDS:
        module = stage_module(kind)
        first = (module.Config.__doc__ or "").strip().splitlines()[0]
        table.add_row(kind, module.PRODUCES.value, first)
    Console().print(table)


def print_schema(kind: str, config: type[StageConfig]) -> None:
    """The keys of a kind, one a row; nested keys are indented."""
    console = Console()
    console.print(f"[bold]kind: {kind}[/bold]  (makes {stage_module(kind).PRODUCES.value})")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("key", no_wrap=True)
    table.add_column("type", overflow="fold", max_width=34)
    table.add_column("default")
    table.add_column("meaning", overflow="fold")
    _schema_rows(table, config, "")
    console.print(table)
    console.print("[dim]* says how to run, not what comes out: changing it is not drift")


def _schema_rows(table: Table, config: type[BaseModel], indent: str) -> None:
    for name, info in config.model_fields.items():
        mark = "*" if EXECUTION in info.metadata else ""
        default = "(required)" if info.is_required() else str(info.get_default(call_default_factory=True))
        kind = type_name(info.annotation)
        table.add_row(f"{indent}{name}{mark}", escape(kind), escape(default), escape(info.description or ""))
        for member in (info.annotation, *typing.get_args(info.annotation)):
            if isinstance(member, type) and issubclass(member, BaseModel):
                _schema_rows(table, member, indent + "  ")
