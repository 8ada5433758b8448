"""The verbs. Nothing heavy is imported at the top: `tsugiki --help` answers in under 0.3 s.

The only module that reads Tsugiki's own environment variable, TSUGIKI_RUNS.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from tsugiki import __version__
from tsugiki.command_groups import GROUPS
from tsugiki.commands.terminal import Flag, Json, print_json
from tsugiki.errors import InputError, TsugikiError, did_you_mean

if TYPE_CHECKING:
    from tsugiki.workflow.planning import Plan

app = App(
    name="tsugiki",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # main() says what an interrupted run leaves
    help="""Graft a language onto an open large language model.

One recipe file drives it all: crawl, corpus, vocabulary, continual pre-training, evaluation, report.

Begin with `tsugiki plan recipes/demo-ja.yaml`, then `tsugiki run recipes/demo-ja.yaml`.
Every command explains itself: `tsugiki run --help`.""",
)

Runs = Annotated[
    Path, Parameter(name="--runs", env_var="TSUGIKI_RUNS", help="Directory that holds the runs.")
]
Scale = Annotated[
    Literal["mini"] | None,
    Parameter(name="--scale", help="mini: shrink any recipe to one that a laptop replays in minutes."),
]


@app.command(sort_key=1)
def plan(recipe: Path, *, scale: Scale = None, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Check everything, and estimate documents, tokens, memory, time and disk. No work is done.

    Every problem of the recipe is shown at once, with its line.

    Example: `tsugiki plan recipes/swallow-llama2-7b.yaml`

    Args:
        recipe: The recipe file (YAML).
        scale: Size at which to plan.
        runs: Directory that holds the runs.
        json: Print JSON.
    """
    from tsugiki.workflow.tables import print_plan

    found = _plan(recipe, scale, runs)
    if json:
        print_json(found.as_dict())
    else:
        print_plan(found)
    if found.problems:
        from tsugiki.errors import RecipeError

        raise RecipeError(found.problems)


@app.command(sort_key=2)
def run(
    recipe: Path,
    *,
    until: str | None = None,
    only: str | None = None,
    scale: Scale = None,
    rebuild: Flag = False,
    accept: Flag = False,
    fork: str | None = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Run a recipe, going on where the last run stopped, and write its report.

    Finished stages are kept. A run that was killed at any moment goes on with the same command. When a
    finished stage no longer fits the recipe, nothing runs, the difference is shown, and you choose:
    `--rebuild`, `--fork` or `--accept`.

    Example: `tsugiki run recipes/demo-ja.yaml --until vocabulary`

    Args:
        recipe: The recipe file (YAML).
        until: Run this stage and what it needs, nothing more.
        only: Run this stage alone; what it reads must be done.
        scale: Size at which to run; `mini` has a run directory of its own.
        rebuild: Make stages that no longer fit the recipe again, with all that reads them.
        accept: Keep results that no longer fit; their manifests say that you did.
        fork: Leave the old run as it is, and go on in a run of this name with what still fits.
        runs: Directory that holds the runs.
        json: Print JSON when the run has ended, and nothing before.
    """
    from tsugiki.report import write_report
    from tsugiki.workflow.display import choose_display
    from tsugiki.workflow.graph import build_graph
    from tsugiki.workflow.recipe import load_recipe
    from tsugiki.workflow.running import RunOptions, run_recipe

    if sum((rebuild, accept, fork is not None)) > 1:
        raise InputError("--rebuild, --accept and --fork exclude each other", hint="give one of them")
    graph = build_graph(load_recipe(recipe, scale=scale))
    display = choose_display(silent=json)
    options = RunOptions(until, only, rebuild, accept, fork)
    try:
        result = run_recipe(graph, _directory(graph.recipe.name, scale, runs), options, display)
    finally:
        display.close()
    report_file = write_report(result.directory)
    if json:
        done = {
            "directory": result.directory,
            "ran": result.ran,
            "reused": result.reused,
            "report": report_file,
        }
        print_json(done)
    else:
        print(f"\nReport: {report_file}")


@app.command(sort_key=3)
def status(target: str, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Show what is done, running, stale, failed or waiting, and why.

    Example: `tsugiki status demo-ja`

    Args:
        target: A run's name, its directory, or a recipe file.
        runs: Directory that holds the runs.
        json: Print JSON.
    """
    from tsugiki.workflow.tables import print_standings, standing_as_dict

    found = _plan_of_run(target, runs)
    if json:
        rows = [standing_as_dict(stage.standing) for stage in found.stages]
        print_json({"directory": found.directory, "stages": rows})
    else:
        print_standings(found)


@app.command(sort_key=4)
def report(target: str, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Write the report of a run: one HTML file, made from the run's files alone.

    The same files give the same bytes, so it can be deleted and made again at any time.

    Example: `tsugiki report runs/demo-ja`

    Args:
        target: A run's name or its directory.
        runs: Directory that holds the runs.
        json: Print JSON.
    """
    from tsugiki.report import write_report

    file = write_report(_run_directory(target, runs))
    if json:
        print_json({"report": file})
    else:
        print(file)


@app.command(sort_key=5)
def verify(target: str, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Compare every file of a run with the SHA-256 in its manifest.

    Example: `tsugiki verify demo-ja`

    Args:
        target: A run's name, its directory, or the directory of one stage.
        runs: Directory that holds the runs.
        json: Print JSON.
    """
    from tsugiki.artifacts.manifest import is_finished, read_manifest, verify_files
    from tsugiki.errors import StorageError

    directory = _run_directory(target, runs)
    stages = [path for path in (directory, *sorted(directory.iterdir())) if is_finished(path)]
    if not stages:
        raise InputError(
            f"{directory} holds no finished stage", hint="name a run, or the directory of a stage"
        )
    faults: dict[str, list[str]] = {}
    for path in stages:
        try:
            faults[path.name] = verify_files(path, read_manifest(path))
        except InputError as error:
            faults[path.name] = [error.message]
    bad = [path for path in stages if faults[path.name]]
    if json:
        print_json({"directory": directory, "faults": faults})
        sys.exit(1 if bad else 0)
    for name, said in faults.items():
        print(f"{name}: " + ("; ".join(said) or "as in its manifest"))
    if bad:
        named = ", ".join(path.name for path in bad)
        hint = f"delete {' and '.join(str(path) for path in bad)}, then run the recipe again"
        raise StorageError(f"files differ from their manifests in: {named}", hint=hint)


@app.command(sort_key=6)
def schema(kind: str | None = None, *, json: Json = False) -> None:
    """List the keys that a stage of a kind may have in a recipe: types, defaults and meanings.

    Example: `tsugiki schema train`

    Args:
        kind: corpus, vocabulary, upcycle, train or evaluate; without it, the kinds are listed.
        json: Print the JSON schema.
    """
    from tsugiki.workflow.kinds import KINDS, stage_module
    from tsugiki.workflow.tables import print_kinds, print_schema

    if kind is None:
        print_json(list(KINDS)) if json else print_kinds()
        return
    if kind not in KINDS:
        raise InputError(f'there is no kind of stage "{kind}"', hint=did_you_mean(kind, list(KINDS)))
    config = stage_module(kind).Config
    if json:
        print_json(config.model_json_schema())
    else:
        print_schema(kind, config)


for _number, (_name, _group) in enumerate(GROUPS.items()):
    app.command(_group.target, name=_name, help=_group.help, sort_key=10 + _number)


def _plan(recipe: Path, scale: Literal["mini"] | None, runs: Path) -> Plan:
    from tsugiki.workflow.graph import build_graph
    from tsugiki.workflow.planning import make_plan
    from tsugiki.workflow.recipe import load_recipe

    graph = build_graph(load_recipe(recipe, scale=scale))
    return make_plan(graph, _directory(graph.recipe.name, scale, runs))


def _directory(name: str, scale: str | None, runs: Path) -> Path:
    return runs / (name if scale is None else f"{name}-{scale}")


def _run_directory(target: str, runs: Path) -> Path:
    """The directory meant by a path or by a name below `runs`."""
    for path in (Path(target), runs / target):
        if path.is_dir():
            return path
    known = [path.name for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
    raise InputError(f'there is no run "{target}" here or in {runs}', hint=did_you_mean(target, known))


def _plan_of_run(target: str, runs: Path) -> Plan:
    """The plan of a run directory, or of a recipe's run directory."""
    from tsugiki.artifacts.files import read_json
    from tsugiki.workflow.graph import build_graph
    from tsugiki.workflow.planning import make_plan
    from tsugiki.workflow.recipe import load_recipe

    if Path(target).suffix in {".yaml", ".yml"}:
        return _plan(Path(target), None, runs)
    directory = _run_directory(target, runs)
    if not (directory / "origin.json").exists():
        raise InputError(f"{directory} is not a run directory", hint="a run holds recipe.yaml and run.json")
    origin = read_json(directory / "origin.json")
    recipe = Path(origin["recipe"])
    if recipe.exists():
        graph = build_graph(load_recipe(recipe, scale=origin["scale"]))
    else:  # the recipe has moved: what was run is all that is known
        graph = build_graph(load_recipe(directory / "recipe.yaml"))
    return make_plan(graph, directory)


def _run_app() -> None:
    """Run the command; where Slurm or torchrun started many processes of it, all but the first follow."""
    if not {"run", "train", "evaluate"} & set(sys.argv[1:2]) or "WORLD_SIZE" not in os.environ:
        app()
        return
    from tsugiki.artifacts.outside import follow, leading, place_of

    place = place_of()
    if place is None:
        app()
    elif place.rank > 0:
        from tsugiki.evaluation import models
        from tsugiki.training import outside

        follow(place, {"train": outside.take_part, "evaluate": models.take_part})
    else:
        with leading(place):
            app()


def main() -> None:
    """The entry point of the `tsugiki` program: errors become one message and an exit status.

    1 something failed, 2 the recipe or a path is wrong, 3 drift, 130 interrupted.
    """
    try:
        _run_app()
    except TsugikiError as error:
        if "--json" in sys.argv:
            print_json({"error": error.as_dict()})
        sys.stderr.write(f"\nError: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. What is finished is kept: the same command goes on.\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except (OSError, RecursionError) as error:
        sys.stderr.write(f"\nError: {error}\nHint: check the path, what is there and who may write it\n")
        sys.exit(1)
