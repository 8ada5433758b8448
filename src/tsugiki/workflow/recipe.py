"""Recipes: YAML 1.2 into typed stages, with every problem found at once and shown with its line.

    recipe: demo-ja
    language: ja
    stages:
      japanese: {kind: corpus, source: examples/crawl/*.warc.gz, language: ja}

YAML 1.2 (ruamel) because YAML 1.1 reads `no` as False, `1e-4` as a string and 10:00:00 as 36000.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tsugiki.artifacts.contract import StageConfig
from tsugiki.errors import Problem, RecipeError, did_you_mean
from tsugiki.workflow.kinds import KINDS, StageModule, stage_module

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
RESERVED = frozenset({"recipe.yaml", "run.json", "origin.json", "digests.json", "report.html"})
MAXIMUM_DEPTH = 50
MAXIMUM_NODES = 100_000
"""More keys and values than any recipe has; YAML aliases can stand for billions."""
NAME_HINT = "use lower-case letters, digits, dots, dashes and underscores; begin with a letter or digit"


class RecipeHead(BaseModel):
    """The keys at the top of a recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: str = Field(description="Name of the recipe; also of its run directory.")
    language: str = Field(description="Language pack of the language that is grafted on, e.g. ja.")
    description: str = Field(default="", description="What the recipe is for, in a sentence or two.")
    seed: int = Field(default=0, ge=0, description="Seed of every stage that does not set its own.")
    stages: dict[str, dict[str, Any]] = Field(description="The stages by name.")


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe: its name, kind and validated configuration."""

    name: str
    kind: str
    config: StageConfig

    @cached_property
    def module(self) -> StageModule:
        """The package that runs it."""
        return stage_module(self.kind)


@dataclass(frozen=True)
class Recipe:
    """A recipe that has been read and validated stage by stage (its graph is checked in graph.py)."""

    path: Path
    name: str
    language: str
    description: str
    stages: Mapping[str, Stage]
    data: Mapping[str, Any]
    """The recipe as plain data (scale applied), as it is stored beside the results."""
    scale: str | None = None
    alone: bool = False
    """One stage without a recipe: its references are paths, even where one is called like the stage."""

    def where(self, *keys: str | int) -> str:
        """`file:line` of a key, or of the nearest key above it."""
        return _where(self.path, self.data, keys)


def load_recipe(path: Path, *, scale: str | None = None) -> Recipe:
    """Read and validate a recipe file.

    scale: None for the recipe as it is written, "mini" for the version that a laptop replays.
    Raises RecipeError with all problems found.
    """
    data = _read_yaml(path)
    if scale == "mini":
        from tsugiki.workflow.miniature import miniature

        data = miniature(data, path)
    return recipe_from_data(data, path, scale=scale)


def recipe_from_data(data: Mapping[str, Any], path: Path, *, scale: str | None = None) -> Recipe:
    """Validate a recipe given as data; `path` is for messages and for resolving relative paths."""
    try:
        _refuse_huge(data, path)
        head = RecipeHead.model_validate(_plain(data))
    except ValidationError as error:
        known = list(RecipeHead.model_fields)
        raise RecipeError(
            [_problem(_where(path, data, item["loc"]), item, known) for item in error.errors()]
        ) from error
    problems = _name_problems(path, data, head)
    stages: dict[str, Stage] = {}
    for name, body in head.stages.items():
        stage, faults = _stage(path, data, name, body, head.seed)
        problems += faults
        if stage is not None:
            stages[name] = stage
    if not head.stages:
        problems.append(
            Problem("the recipe has no stages", "add at least one", _where(path, data, ("stages",)))
        )
    if problems:
        raise RecipeError(problems)
    return Recipe(path, head.recipe, head.language, head.description, stages, data, scale)


def _read_yaml(path: Path) -> CommentedMap:
    if not path.is_file():
        seen = "is a directory" if path.is_dir() else "does not exist"
        others = sorted(str(p) for p in Path("recipes").glob("*.yaml"))
        hint = did_you_mean(str(path), others) if others else "give the path of a recipe, a YAML file"
        raise RecipeError([Problem(f"the recipe file {seen}", hint, str(path))])
    yaml = YAML(typ="rt")
    yaml.allow_duplicate_keys = False
    try:
        data = yaml.load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = " ".join(part for part in (error.context, error.problem) if part)
        message = f"not valid YAML: {said.splitlines()[0] if said else error}"
        raise RecipeError(
            [Problem(message, "check indentation, colons and brackets", f"{path}:{line}")]
        ) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(
            [Problem(f"not valid YAML: {error}", "save it as UTF-8 text", str(path))]
        ) from error
    except RecursionError as error:
        raise RecipeError([_huge(path)]) from error
    if not isinstance(data, CommentedMap):
        message = "a recipe is a mapping with the keys recipe, language and stages"
        raise RecipeError([Problem(message, "see recipes/demo-ja.yaml", f"{path}:1")])
    return data


def _huge(path: Path) -> Problem:
    return Problem(
        "it is nested too deeply, or its aliases stand for too much", "write it out plainly", str(path)
    )


def _refuse_huge(data: Any, path: Path) -> None:
    """Count what the data holds once its aliases are written out; stop at more than any recipe needs."""
    stack, count = [iter([data])], 0
    while stack:
        value = next(stack[-1], None)
        if value is None:
            stack.pop()
            continue
        count += 1
        if count > MAXIMUM_NODES or len(stack) > MAXIMUM_DEPTH:
            raise RecipeError([_huge(path)])
        if isinstance(value, Mapping):
            stack.append(iter([item for item in value.values() if item is not None]))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            stack.append(iter([item for item in value if item is not None]))


def _plain(value: Any) -> Any:
    """The positioned containers and scalars of ruamel as plain Python ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def plain_data(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain JSON-like data."""
    return dict(_plain(copy.deepcopy(recipe.data)))


def _name_problems(path: Path, data: Any, head: RecipeHead) -> list[Problem]:
    named: list[tuple[str, str, tuple[str, ...]]] = [("recipe name", head.recipe, ("recipe",))]
    named += [("stage name", name, ("stages", name)) for name in head.stages]
    problems = [
        Problem(f'"{name}" is not a {what}', NAME_HINT, _where(path, data, keys))
        for what, name, keys in named
        if not NAME.fullmatch(name) or name in RESERVED
    ]
    from tsugiki.languages import pack_codes

    codes = pack_codes(_pack_folders(head))
    if head.language not in codes:
        message = f'there is no language pack "{head.language}"'
        hint = did_you_mean(head.language, codes)
        problems.append(Problem(message, hint, _where(path, data, ("language",))))
    return problems


def _pack_folders(head: RecipeHead) -> list[Path]:
    """The folders of language packs that the stages name; what else they may be is said with the stages."""
    named = [body.get("language_packs") for body in head.stages.values()]
    lists = [one for one in named if isinstance(one, list)]
    return [Path(folder) for one in lists for folder in one if isinstance(folder, str)]


def _stage(
    path: Path, data: Any, name: str, body: dict[str, Any], seed: int
) -> tuple[Stage | None, list[Problem]]:
    kind = body.get("kind")
    if kind not in KINDS:
        seen = "has no kind" if kind is None else f'is of the unknown kind "{kind}"'
        place = _where(path, data, ("stages", name, "kind"))
        return None, [Problem(f'stage "{name}" {seen}', did_you_mean(str(kind), list(KINDS)), place)]
    module = stage_module(kind)
    settings = {"seed": seed, **{key: value for key, value in body.items() if key != "kind"}}
    try:
        config = module.Config.model_validate(settings)
    except ValidationError as error:
        known = ["kind", *module.Config.model_fields]
        return None, [
            _problem(_where(path, data, ("stages", name, *item["loc"])), item, known, name)
            for item in error.errors()
        ]
    return Stage(name, kind, config), []


def _problem(where: str, item: Any, known: list[str], stage: str = "") -> Problem:
    field = ".".join(str(part) for part in item["loc"]) or "recipe"
    owner = f'stage "{stage}", ' if stage else ""
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(str(item["loc"][-1]), known) if len(item["loc"]) == 1 else "remove it"
        return Problem(f'{owner}unknown key "{field}"', hint, where)
    if item["type"] == "missing":
        return Problem(f'{owner}the key "{field}" is missing', f'add "{item["loc"][-1]}: ..."', where)
    said = item["msg"].removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    seen = "" if isinstance(item["input"], dict) else f" (seen: {item['input']!r})"
    hint = "`tsugiki schema KIND` lists a kind's keys with their types and meanings"
    return Problem(f"{owner}{field}: {said}{seen}", hint, where)


def _where(path: Path, data: Any, keys: Sequence[str | int]) -> str:
    """Walk down as far as the data goes; pydantic's own words in a path (union members) are skipped."""
    line = 1
    node = data
    for key in keys:
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0] + 1 if node.lc.data and key in node.lc.data else line
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0] + 1 if node.lc.data and key in node.lc.data else line
        else:
            continue
        node = node[key]
    return f"{path}:{line}"
