"""`tsugiki corpus|vocabulary|upcycle|train|evaluate`: each stage alone, on plain files, without a recipe.

The options are the fields of the stage's Config. They are read from stage_options.json, which `make docs`
writes from the Configs and `make check` compares with them: so they can't drift apart, and `--help` answers
without pydantic. The result is an artifact like that of a run, resumable and guarded against drift.
"""

from __future__ import annotations

import inspect
import json as json_module
import typing
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from cyclopts import Parameter

if TYPE_CHECKING:
    from tsugiki.artifacts.contract import StageConfig
    from tsugiki.workflow.recipe import Recipe

# as in workflow.kinds, which is too heavy for --help
_KINDS = ("corpus", "vocabulary", "upcycle", "train", "evaluate")
OPTIONS = Path(__file__).with_name("stage_options.json")

_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD
_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _command(kind: str) -> Callable[..., None]:
    """A function whose options are the fields of a kind's Config.

    Every value is text that is read as in a recipe (YAML 1.2), then validated by the Config: so `10M`,
    `{preset: llama-mini}` and `[a, b]` mean the same in both places.
    """

    def command(out: Path, *, rebuild: bool = False, json: bool = False, **given: Any) -> None:
        options = {name: value for name, value in given.items() if value is not None}
        _run(kind, out, config_of(kind, options), rebuild=rebuild, json=json)

    flag = Parameter(negative="", show_default=False)
    parameters = [
        inspect.Parameter("out", _POSITIONAL, annotation=Path),
        *(_parameter(option) for option in _options()[kind]),
        inspect.Parameter("rebuild", _KEYWORD, default=False, annotation=Annotated[bool, flag]),
        inspect.Parameter("json", _KEYWORD, default=False, annotation=Annotated[bool, flag]),
    ]
    signature = inspect.Signature(parameters)
    command.__name__ = kind
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: given.annotation for name, given in signature.parameters.items()}
    command.__doc__ = """Run one stage alone (the help text is in cli.py, which loads this lazily).

    Args:
        out: Directory of the result; made if absent.
        rebuild: Replace a result that was made from something else.
        json: Print the manifest's counts and facts as JSON.
    """
    return command


class Option(TypedDict):
    """An option of a stage's command: a field of its Config."""

    name: str
    help: str
    required: bool
    several: bool


def options_of(kind: str) -> list[Option]:
    """The options that the Config of a kind asks for; imports it. stage_options.json holds those of all."""
    from pydantic import BaseModel

    from tsugiki.workflow.kinds import stage_module
    from tsugiki.workflow.type_names import type_name

    options: list[Option] = []
    for name, info in stage_module(kind).Config.model_fields.items():
        notes = [type_name(info.annotation)]
        if not info.is_required():
            default = info.get_default(call_default_factory=True)
            shown = default.model_dump(mode="json") if isinstance(default, BaseModel) else default
            notes += [] if shown is None else [f"default {shown}"]
        options.append(
            {
                "name": name,
                "help": f"{info.description or ''} [{', '.join(notes)}]",
                "required": info.is_required(),
                "several": typing.get_origin(info.annotation) in {tuple, list},
            }
        )
    return options


@cache
def _options() -> dict[str, list[Option]]:
    found: dict[str, list[Option]] = json_module.loads(OPTIONS.read_text(encoding="utf-8"))
    return found


def _parameter(option: Option) -> inspect.Parameter:
    several, required = option["several"], option["required"]
    parameter = Parameter(
        name=f"--{option['name'].replace('_', '-')}",
        help=option["help"],
        show_default=False,
        required=required,
        negative="",
        consume_multiple=several,
    )
    if required:
        kind: Any = Annotated[list[str], parameter] if several else Annotated[str, parameter]
        return inspect.Parameter(option["name"], _KEYWORD, annotation=kind)
    optional = Annotated[list[str] | None, parameter] if several else Annotated[str | None, parameter]
    return inspect.Parameter(option["name"], _KEYWORD, default=None, annotation=optional)


def config_of(kind: str, options: Mapping[str, str | list[str]]) -> StageConfig:
    """The options as a validated Config; raises InputError with every mistake."""
    from pydantic import ValidationError
    from ruamel.yaml import YAML

    from tsugiki.errors import InputError
    from tsugiki.workflow.kinds import stage_module

    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    values = {
        name: [item for one in given for item in _items(yaml, one)]
        if isinstance(given, list)
        else yaml.load(given)
        for name, given in options.items()
    }
    try:
        return stage_module(kind).Config.model_validate(values)
    except ValidationError as error:
        said = [
            f"--{str(item['loc'][0]).replace('_', '-') if item['loc'] else kind}: "
            + item["msg"].removeprefix("Value error, ")
            for item in error.errors()
        ]
        raise InputError("\n".join(said), hint=f"see `tsugiki {kind} --help`") from error


def _items(yaml: Any, text: str) -> list[Any]:
    """What one of several values stands for: a list as in a recipe ([a, b]), a mapping ({...}), or text."""
    if text.startswith("{"):
        return [yaml.load(text)]
    if text.startswith("[") and text.endswith("]"):  # `[ab]*.txt` is a pattern of file names
        return list(yaml.load(text))
    return [text]


def recipe_of(kind: str, out: Path, config: StageConfig) -> Recipe:
    """A recipe of one stage, named after its directory."""
    from tsugiki.workflow.recipe import Recipe, Stage

    name = out.resolve().name
    data = {"stages": {name: {"kind": kind}}}
    return Recipe(Path("command line"), name, "", "", {name: Stage(name, kind, config)}, data, alone=True)


def _run(kind: str, out: Path, config: StageConfig, *, rebuild: bool, json: bool) -> None:
    from tsugiki.artifacts.manifest import read_manifest
    from tsugiki.workflow.display import choose_display
    from tsugiki.workflow.running import RunOptions, run_alone

    recipe = recipe_of(kind, out, config)
    display = choose_display(silent=json)
    try:
        run_alone(recipe, out.resolve(), RunOptions(rebuild=rebuild), display)
    finally:
        display.close()
    manifest = read_manifest(out)
    if json:
        done = {"directory": str(out), "counts": manifest.counts, "facts": manifest.facts}
        print(json_module.dumps(done, indent=2, ensure_ascii=False))
    else:
        print(manifest.facts.get("verdict") or out)


def __getattr__(name: str) -> Callable[..., None]:
    """The command of a kind, made when it is asked for."""
    if name not in _KINDS:
        raise AttributeError(name)
    return _command(name)
