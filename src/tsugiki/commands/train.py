"""`tsugiki train`: the stage alone, and what goes with it, as one group of commands."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tsugiki import stage_commands
from tsugiki.commands.terminal import columns, print_json
from tsugiki.commands.train_checkpoints import checkpoints, export
from tsugiki.errors import InputError
from tsugiki.report.formatting import exact, fixed
from tsugiki.training.devices import GIB

if TYPE_CHECKING:
    from tsugiki.models.config import DecoderConfig
    from tsugiki.training.dry_run import Rehearsal
    from tsugiki.training.slurm import Slurm
    from tsugiki.training.stage import Config
    from tsugiki.workflow.recipe import Recipe

_RECIPES = {".yaml", ".yml"}


def _parameters() -> list[inspect.Parameter]:
    """What the stage's command has, and the options below; a recipe has its own `model`."""
    flag: Any = {"negative": "", "show_default": False}
    stage = list(inspect.signature(stage_commands.train).parameters.values())
    (place,) = (number for number, one in enumerate(stage) if one.name == "model")
    (asked,) = stage[place].annotation.__metadata__
    wanted = Parameter.combine(asked, Parameter(required=False))
    stage[place] = stage[place].replace(default=None, annotation=Annotated[str | None, wanted])
    several: list[tuple[str, Any, Any, str]] = [
        (
            "dry_run",
            bool,
            flag,
            (
                "Build the layout with nothing in it, push one micro-batch through, and print what each "
                "process would hold. OUT may be a recipe. Not run: the accelerator's own kernels, documents' "
                "masks, the exchange between pipeline stages, experts' routing."
            ),
        ),
        (
            "sbatch",
            bool,
            flag,
            "Print a Slurm script that starts the run, one task a GPU. OUT may be a recipe.",
        ),
        ("stage", str | None, {}, "With --dry-run and --sbatch: the recipe's train stage that is meant."),
        ("runs", Path, {"show_default": True}, "With --sbatch and a recipe: directory that holds the runs."),
        ("nodes", int | None, {}, "With --sbatch: machines; by default the processes / 8."),
        ("gpus_per_node", int | None, {}, "With --sbatch: GPUs of each machine; by default at most 8."),
        ("partition", str | None, {}, "With --sbatch: the partition."),
        ("account", str | None, {}, "With --sbatch: the account."),
        ("time", str | None, {}, "With --sbatch: the limit, such as 24:00:00; the job queues itself again."),
        ("cpus", int | None, {}, "With --sbatch: CPU cores of each task."),
        ("setup", str | None, {}, "With --sbatch: a line of shell before the run: modules, environment."),
    ]
    defaults: dict[str, Any] = {"dry_run": False, "sbatch": False, "runs": Path("runs")}
    more = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(name),
            annotation=Annotated[kind, Parameter(**{"show_default": False, **settings}, help=text)],
        )
        for name, kind, settings, text in several
    ]
    return [*stage, *more]


_SLURM = ("nodes", "gpus_per_node", "partition", "account", "time", "cpus", "setup")


def train(
    out: Path,
    *,
    dry_run: bool = False,
    sbatch: bool = False,
    stage: str | None = None,
    runs: Path = Path("runs"),
    **given: Any,
) -> None:
    """Run the stage, or say what running it would be (the help text is in cli.py)."""
    asked = {name: given.pop(name, None) for name in _SLURM}
    is_recipe = out.suffix in _RECIPES
    if not (dry_run or sbatch):
        if is_recipe or stage is not None:
            raise InputError(
                f"{out} is a recipe" if is_recipe else "--stage names a stage of a recipe",
                hint=f"`tsugiki run {out}` runs it; --dry-run and --sbatch take a recipe and --stage",
            )
        stage_commands.train(out, **given)
        return
    as_json = bool(given.pop("json", False))
    given.pop("rebuild", None)
    recipe, name = _meant(out, stage, given) if is_recipe else (_alone(out, given), out.resolve().name)
    config = recipe.stages[name].config
    if sbatch:
        from tsugiki.training.slurm import Slurm

        command = ["tsugiki", *_command(out, name, runs if is_recipe else None, given)]
        _print_script(name, command, config, Slurm(**asked))  # type: ignore[arg-type]
    else:
        _rehearse(recipe, name, config, runs, json=as_json)  # type: ignore[arg-type]


train.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
train.__annotations__ = {one.name: one.annotation for one in _parameters()}
train.__doc__ = f"{stage_commands.train.__doc__}"


def _meant(path: Path, stage: str | None, given: Mapping[str, Any]) -> tuple[Recipe, str]:
    """The recipe, and the name of the train stage that is meant."""
    from tsugiki.errors import did_you_mean
    from tsugiki.workflow.recipe import load_recipe

    others = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if others:
        raise InputError(f"{path} is a recipe: {', '.join(others)} stand in it", hint="leave them out")
    recipe = load_recipe(path)
    known = [name for name, one in recipe.stages.items() if one.kind == "train"]
    if stage is None and len(known) == 1:
        return recipe, known[0]
    if stage not in known:
        said = "has several train stages" if stage is None else f'has no train stage "{stage}"'
        raise InputError(f"{path} {said}", hint=did_you_mean(stage or "", known))
    return recipe, stage


def _alone(out: Path, given: Mapping[str, Any]) -> Recipe:
    options = {name: value for name, value in given.items() if value is not None}
    return stage_commands.recipe_of("train", out, stage_commands.config_of("train", options))


def _command(out: Path, name: str, runs: Path | None, given: Mapping[str, Any]) -> list[str]:
    """The command that every process of the run starts."""
    if runs is not None:
        return ["run", str(out), "--only", name, "--runs", str(runs)]
    words = ["train", str(out)]
    for option, value in given.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{option.replace('_', '-')}", *map(str, values)]
    return words


def _print_script(name: str, command: list[str], config: Config, asked: Slurm) -> None:
    from tsugiki.training.slurm import script

    parallel = config.parallel
    print(script(name, command, parallel.product, parallel.tensor * parallel.context, asked), end="")


def _rehearse(recipe: Recipe, name: str, config: Config, runs: Path, *, json: bool) -> None:
    import sys

    from tsugiki.training.dry_run import rehearse
    from tsugiki.training.layouts import busiest_bytes
    from tsugiki.training.planning import layout_problems, micro_batch_rows

    shape = _shape(recipe, name, config, runs)
    wrong = [problem for problem in layout_problems(config, shape) if problem.severity == "error"]
    if wrong:
        raise InputError(wrong[0].message, hint=wrong[0].hint)
    found = rehearse(config, shape, lambda what: print(f"building {what} …", file=sys.stderr))
    rows = micro_batch_rows(config)
    forecast = busiest_bytes(shape, config, rows)
    if json:
        processes = [{**vars(one), "peak_bytes": one.peak_bytes} for one in found]
        print_json({"parallel": config.parallel.text, "processes": processes, "forecast_bytes": forecast})
        return
    print(f"{name}: {exact(shape.parameters)} parameters, {config.parallel.text}\n")
    print("\n".join(_table(found)))
    reckoned = (
        "can't forecast this layout" if forecast is None else f"reckons with {fixed(forecast / GIB, 1)} GiB"
    )
    print(
        f"\nplan {reckoned} for the busiest device, the runtime's and communicators' buffers included; "
        f"counted here: {fixed(max(one.peak_bytes for one in found) / GIB, 1)} GiB without that."
    )
    for one in found[:1] if found[0].not_run else ():
        print(f"No micro-batch went through: {one.not_run}. Activations are not counted.")


def _shape(recipe: Recipe, name: str, config: Config, runs: Path) -> DecoderConfig:
    """The shape that would be trained; the documents need not be there for a stage alone."""
    from tsugiki.models.config import DecoderConfig
    from tsugiki.models.directory import read_config, resolve_model
    from tsugiki.training.planning import shape_of
    from tsugiki.workflow.graph import build_graph
    from tsugiki.workflow.planning import make_plan

    if recipe.alone:
        if isinstance(config.model, str):
            return read_config(resolve_model(config.model))
        shape = shape_of(config, {})
        assert shape is not None  # noqa: S101 (a preset has one)
        return shape
    facts = make_plan(build_graph(recipe), runs / recipe.name).stage(name).forecast.facts
    if "model_config" not in facts:
        raise InputError(
            f'the shape of model "{config.model}" is not known yet',
            hint="name a model that is at hand, or a preset; `tsugiki plan` says what is missing",
        )
    return DecoderConfig.from_hf(facts["model_config"])


def _table(found: list[Rehearsal]) -> list[str]:
    title = (
        "process",
        "layers",
        "parameters",
        "weights",
        "gradients",
        "AdamW",
        "activations",
        "working",
        "GiB",
    )
    rows: list[tuple[str, ...]] = [title]
    rows += [
        (
            str(one.rank),
            f"{one.layers[0]}-{one.layers[-1]}" if one.layers else "–",
            exact(one.parameters),
            *(fixed(size / GIB, 2) for size in (one.weights, one.gradients, one.moments)),
            f"{one.in_flight:g} x {fixed(one.activations / GIB, 2)}",
            fixed(one.working / GIB, 2),
            fixed(one.peak_bytes / GIB, 2),
        )
        for one in found
    ]
    return list(columns(rows, right=range(9)))


app = App(name="train", help_format="markdown")
app.default(train)
app.command(checkpoints, name="checkpoints", sort_key=1)
app.command(export, name="export", sort_key=2)
