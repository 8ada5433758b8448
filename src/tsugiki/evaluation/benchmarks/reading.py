"""Reading task files: every fault with file and line, and the settings of a variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tsugiki.errors import InputError, did_you_mean
from tsugiki.evaluation.benchmarks.names import TASKS, task_names
from tsugiki.evaluation.benchmarks.schema import VARIANTS, Settings, TaskSpec, Variant

MAXIMUM_BYTES = 1 << 20
"""A task's file is a page or two of text."""
MAXIMUM_NODES = 100_000
"""More values than any task has; YAML aliases can make a short file stand for billions."""


def load_task(name: str) -> TaskSpec:
    """A task by its name, or by the path of a YAML file; raises InputError with every fault in it."""
    if name.endswith((".yaml", ".yml")):
        return read_task(Path(name))
    if name not in task_names():
        raise InputError(f'there is no benchmark "{name}"', hint=did_you_mean(name, task_names()))
    return _own(name)


@cache
def _own(name: str) -> TaskSpec:
    return read_task(TASKS / f"{name}.yaml")


def split_name(word: str, variant: Variant) -> tuple[str, Variant]:
    """`mgsm@published` -> ("mgsm", "published"); without an @ the variant that is given."""
    name, mark, wanted = word.partition("@")
    if not mark:
        return name, variant
    for known in VARIANTS:
        if wanted == known:
            return name, known
    raise InputError(
        f'"{word}" names the variant "{wanted}", which does not exist', hint=f"write {' or '.join(VARIANTS)}"
    )


def read_task(path: Path) -> TaskSpec:
    """Read one file. Both variants are made too, so that a broken patch is found here."""
    data = _read_yaml(path)
    try:
        task = TaskSpec.model_validate(_plain(data, path))
    except ValidationError as error:
        raise _faults(path, data, error, ()) from error
    if task.name != path.stem:
        raise InputError(
            f'{_where(path, data, ("name",))}: the task is called "{task.name}", its file "{path.stem}"',
            hint="a task's file bears its name",
        )
    for variant in VARIANTS:
        try:
            made = settings_of(task, variant)
        except ValidationError as error:
            raise _faults(path, data, error, ("defects",)) from error
        if made.shots.count and made.shots.choice != "written" and made.shots.split not in task.splits:
            raise InputError(
                f"{_where(path, data, ('settings', 'shots'))}: the {variant} shots come from the split "
                f'"{made.shots.split}", which has no origin',
                hint=f"the task has the splits {', '.join(task.splits)}",
            )
    return task


def settings_of(task: TaskSpec, variant: Variant) -> Settings:
    """The settings with the patches of all defects: what was published, or what is right."""
    data = task.settings.model_dump(mode="json")
    for defect in task.defects.values():
        data = _merged(data, defect.published if variant == "published" else defect.corrected)
    return Settings.model_validate(data)


def _merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in patch.items():
        inner = out.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        out[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return out


def _read_yaml(path: Path) -> CommentedMap:
    yaml = YAML(typ="rt", pure=True)
    yaml.version = (1, 2)
    hint = "compare it with one of the files in evaluation/benchmarks/tasks"
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise InputError(f"{path} is larger than {MAXIMUM_BYTES} bytes; no task's file is", hint=hint)
        data = yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the task file {path} can't be read: {error}", hint="check the path") from error
    except (MarkedYAMLError, YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error)
        raise InputError(f"{place}: not YAML ({reason})", hint=hint) from error
    if not isinstance(data, CommentedMap):
        raise InputError(f"{path} is not a task: keys and values are expected", hint=hint)
    return data


def _plain(data: CommentedMap, path: Path) -> Any:
    """The data without line numbers; raises InputError where it is endless."""
    left = MAXIMUM_NODES

    def plain(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise RecursionError
        if isinstance(value, Mapping):
            return {str(key): plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        if isinstance(value, bool) or value is None:
            return value
        for kind in (int, float, str):
            if isinstance(value, kind):
                return kind(value)
        return value

    try:
        return plain(data)
    except RecursionError as error:
        raise InputError(
            f"{path} stands for more than {MAXIMUM_NODES} values", hint="write it without YAML aliases"
        ) from error


def _faults(path: Path, data: CommentedMap, error: ValidationError, below: Sequence[str]) -> InputError:
    """All that pydantic says, each with its line; for a missing key the line of the mapping that lacks it."""
    said = []
    for fault in error.errors():
        keys = (*below, *fault["loc"])
        name = ".".join(str(key) for key in fault["loc"]) or "task"
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":
            message = "this field is missing"
        elif fault["type"] == "extra_forbidden":
            message = "there is no such field; " + did_you_mean(str(fault["loc"][-1]), _fields(fault["loc"]))
        said.append(f"{_where(path, data, keys)}: {name}: {message}")
    return InputError("\n".join(said), hint="the fields are described in evaluation/benchmarks/schema.py")


def _fields(keys: Sequence[Any]) -> list[str]:
    """The fields that are known where a wrong one stands, as far as the schema can be followed."""
    model: type[BaseModel] = TaskSpec
    for key in keys[:-1]:
        info = model.model_fields.get(str(key))
        inner = next((kind for kind in _models(info.annotation)), None) if info else None
        model = inner or model
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def _where(path: Path, data: CommentedMap, keys: Sequence[Any]) -> str:
    """`file:line` of a key, or of the nearest one above it."""
    line = 1
    inside: Any = data
    for key in keys:
        if isinstance(inside, CommentedMap) and key in inside:
            line = inside.lc.key(key)[0] + 1
        elif isinstance(inside, CommentedSeq) and isinstance(key, int) and key < len(inside):
            line = inside.lc.item(key)[0] + 1
        else:
            break
        inside = inside[key]
    return f"{path}:{line}"
