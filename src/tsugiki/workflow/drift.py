"""Finished work that no longer belongs to the recipe: refused, with the difference and the ways on.

Silently using stale results and silently making everything anew are both wrong; a person decides:

    --rebuild       make the drifted stages, and what reads them, again
    --fork NAME     leave this run as it is; go on in runs/NAME, taking over what still fits
    --accept        keep the old results as if they were made from the new recipe; the manifest says so
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from tsugiki.artifacts.files import atomic_directory
from tsugiki.artifacts.manifest import read_manifest, write_manifest
from tsugiki.errors import DriftError, InputError
from tsugiki.workflow.identities import Identity
from tsugiki.workflow.planning import Plan
from tsugiki.workflow.states import Standing, State

_STALE = (State.DRIFTED, State.DAMAGED)


def stale_stages(plan: Plan, wanted: set[str]) -> list[Standing]:
    """The wanted stages whose results are there but can't be used, in graph order."""
    return [
        stage.standing for stage in plan.stages if stage.name in wanted and stage.standing.state in _STALE
    ]


def refuse(stale: list[Standing], *, alone: bool = False) -> None:
    """Raise DriftError that shows, field by field, what changed; stages that merely follow get a line each.

    alone: the stage was run without a recipe, where there is only --rebuild.
    """
    names = {standing.name for standing in stale}
    lines = []
    for standing in stale:
        changed = [difference.field.removeprefix("inputs.") for difference in standing.differences]
        if standing.state == State.DAMAGED:
            lines.append(f'stage "{standing.name}" is damaged: {standing.detail}')
        elif changed and names.issuperset(changed):
            because = ", ".join(f'(stage "{name}" changed)' for name in changed)
            lines.append(f'stage "{standing.name}" follows {because}')
        else:
            lines.append(f'stage "{standing.name}" was made from something else than the recipe says now:')
            lines += [f"    {difference}" for difference in standing.differences]
    raise DriftError("\n".join(lines), hint=_ways_on(stale, alone=alone))


def _ways_on(stale: list[Standing], *, alone: bool) -> str:
    if alone:
        return "use the options of before, or another directory; or add --rebuild to replace the result"
    ways = ["--rebuild to make these stages again", "--fork NAME to go on in another run directory"]
    if all(standing.state == State.DRIFTED and not standing.begun for standing in stale):
        ways.append("--accept to keep the old results under the new recipe (the manifest will say so)")
    return f"put the recipe back; or add {', or '.join(ways)}"


def rebuild(directory: Path, stale: list[Standing]) -> None:
    """Delete stale stages. Each is renamed first, so that a kill never leaves half a stage in place."""
    for standing in stale:
        stage = directory / standing.name
        doomed = directory / f".deleted-{standing.name}"
        shutil.rmtree(doomed, ignore_errors=True)
        stage.rename(doomed)
        shutil.rmtree(doomed)


def accept(directory: Path, stale: list[Standing], identities: Mapping[str, Identity]) -> None:
    """Give finished but drifted stages the recipe's identity, and write down that a person did so.

    Raises InputError for damaged and for unfinished stages: there is nothing whole to accept.
    """
    for standing in stale:
        if standing.state == State.DAMAGED or standing.begun:
            raise InputError(
                f'stage "{standing.name}" can\'t be accepted: it is not whole', hint="use --rebuild for it"
            )
        old = read_manifest(directory / standing.name)
        record = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "from": old.identity,
            "differences": [str(difference) for difference in standing.differences],
        }
        new = identities[standing.name]
        update = {"identity": new.hash, "payload": new.payload, "accepted": [*old.accepted, record]}
        write_manifest(directory / standing.name, old.model_copy(update=update))


def fork(source: Path, target: Path, plan: Plan) -> list[str]:
    """Take over every finished stage that still fits into a new run directory; gives their names.

    Files are hard links where the file system allows it (artifacts are never changed in place).
    Raises InputError where `target` holds a run already.
    """
    if target.exists() and any(target.iterdir()):
        raise InputError(
            f"{target} exists already",
            hint=f"to go on in it: tsugiki run {target / 'recipe.yaml'}; or choose another name for --fork",
        )
    taken = [stage.name for stage in plan.stages if stage.is_done]
    for name in taken:
        with atomic_directory(target / name) as partial:
            shutil.copytree(source / name, partial, dirs_exist_ok=True, copy_function=_link_or_copy)
    return taken


def _link_or_copy(source: str, target: str) -> str:
    # metrics.jsonl and log.txt are appended to by nobody once the stage is finished
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
