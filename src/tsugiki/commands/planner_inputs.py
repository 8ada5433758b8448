"""What the planner's commands are given: a model, a device, lists of degrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsugiki.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from tsugiki.models.config import DecoderConfig
    from tsugiki.planner.devices import Accelerator
    from tsugiki.planner.kernels import Kernels
    from tsugiki.planner.layout import Workload
    from tsugiki.planner.speed import Tuning

_RECIPES = {".yaml", ".yml"}


@dataclass(frozen=True)
class Asked:
    """A model and what its recipe says of its training, if it came from one."""

    name: str
    shape: DecoderConfig
    sequence_length: int | None = None
    batch: int | None = None
    precision: str | None = None
    tokens: float | None = None


def asked_model(model: str, stage: str | None) -> Asked:
    """A preset, a hub model of a known shape, a config.json or a directory with one, or a recipe's stage.

    Raises InputError for what is none of these, and for a config.json that lacks what a shape needs.
    """
    from tsugiki.models.config import DecoderConfig, preset, preset_names, preset_of_hub_id

    path = Path(model)
    if path.suffix in _RECIPES:
        return _of_recipe(path, stage)
    if stage is not None:
        raise InputError("--stage names a stage of a recipe", hint="give a recipe, or leave --stage out")
    if model in preset_names():
        return Asked(model, preset(model))
    file = path / "config.json" if path.is_dir() else path
    if file.is_file():
        from tsugiki.artifacts.files import read_json

        return Asked(path.name or model, DecoderConfig.from_hf(read_json(file)))
    known = preset_of_hub_id(model)
    if known is not None:
        return Asked(model, known)
    if path.is_dir():
        raise InputError(f"{path} has no config.json", hint="give a model directory, or a config.json")
    raise InputError(
        f'"{model}" is no preset, no known hub model, no config.json and no recipe',
        hint=did_you_mean(model, preset_names()),
    )


def _of_recipe(path: Path, stage: str | None) -> Asked:
    from tsugiki.models.config import DecoderConfig
    from tsugiki.workflow.graph import build_graph
    from tsugiki.workflow.planning import make_plan
    from tsugiki.workflow.recipe import load_recipe

    graph = build_graph(load_recipe(path))
    known = [name for name, one in graph.recipe.stages.items() if one.kind == "train"]
    if stage is None and len(known) == 1:
        stage = known[0]
    if stage not in known:
        said = "has several train stages" if stage is None else f'has no train stage "{stage}"'
        raise InputError(f"{path} {said}", hint=did_you_mean(stage or "", known))
    config: Any = graph.recipe.stages[stage].config
    forecast = make_plan(graph, Path("runs") / graph.recipe.name).stage(stage).forecast
    if "model_config" not in forecast.facts:
        raise InputError(
            f'the shape of the model of "{stage}" is not known yet',
            hint=f"`tsugiki plan {path}` says what is missing",
        )
    shape = DecoderConfig.from_hf(forecast.facts["model_config"])
    tokens = forecast.counts.get("tokens")
    return Asked(
        f"{path.name}, stage {stage}",
        shape,
        config.sequence_length,
        config.sequences_per_step,
        "float8" if config.precision.startswith("float8") else config.precision,
        tokens,
    )


def asked_workload(
    asked: Asked, sequence: str | None, batch: str | None, precision: str | None, gradient_bytes: int
) -> Workload:
    """The workload, options before what a recipe says; raises InputError where neither says it."""
    from tsugiki.planner.layout import Workload

    length = whole_number("--sequence", sequence) if sequence is not None else asked.sequence_length
    rows = whole_number("--batch", batch) if batch is not None else asked.batch
    if length is None or rows is None:
        missing = "--sequence" if length is None else "--batch"
        raise InputError(
            f"{missing} is missing",
            hint="give --sequence 8192 (tokens of a sequence) and --batch 1024 (sequences of a step)",
        )
    chosen: Any = precision or asked.precision or "bfloat16"
    return Workload(asked.shape, length, rows, chosen, gradient_bytes)


def asked_device(
    name: str, devices: Path | None, gpus_per_node: int | None, network: float | None, price: float | None
) -> Accelerator:
    """The device, with what was given of its node and price; raises InputError for numbers below zero."""
    from tsugiki.planner.devices import ACCELERATORS, accelerator, read_devices

    found = accelerator(name, ACCELERATORS if devices is None else read_devices(devices))
    for option, value in (("--gpus-per-node", gpus_per_node), ("--network", network), ("--price", price)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{option} {value} is not a positive number", hint=f"leave {option} out")
    return replace(
        found,
        node=gpus_per_node or found.node,
        network_bandwidth=found.network_bandwidth if network is None else network * 1e9,
        dollars_per_hour=price or found.dollars_per_hour,
    )


def assumed(kernels: Kernels, text: str | None) -> Kernels:
    """The kernels with the switches of `swiglu_saved=6,norm_bytes=6`; raises InputError for unknown ones."""
    from dataclasses import fields

    from tsugiki.planner.kernels import SWITCHES

    changed: dict[str, Any] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name not in SWITCHES:
            raise InputError(
                f'--assume: there is no switch "{name}"', hint=did_you_mean(name, tuple(SWITCHES))
            )
        try:
            changed[name] = SWITCHES[name](value)
        except ValueError as error:
            now = getattr(kernels, name)
            raise InputError(
                f'--assume {name}: "{value}" is not {error}', hint=f"it is {now} for {kernels.name}"
            ) from error
    assert set(changed) <= {field.name for field in fields(kernels)}  # noqa: S101 (SWITCHES names fields)
    return replace(kernels, **changed)


def asked_tuning(calibration: Path | None) -> Tuning | None:
    """The constants of a file that `tsugiki planner calibrate --out` wrote."""
    from dataclasses import fields

    from tsugiki.planner.speed import Tuning

    if calibration is None:
        return None
    from tsugiki.artifacts.files import read_json

    found = read_json(calibration)
    values = found.get("tuning") if isinstance(found, dict) else None
    names = [field.name for field in fields(Tuning)]
    hint = "write it with `tsugiki planner calibrate ... --out FILE`"
    if not isinstance(values, dict) or set(values) != set(names):
        raise InputError(f"{calibration} holds no calibration", hint=hint)
    wrong = [name for name, value in values.items() if not isinstance(value, int | float) or not value > 0]
    if wrong:
        raise InputError(f"{calibration}: {wrong[0]} is {values[wrong[0]]!r}", hint=hint)
    return Tuning(**values)


def whole_number(option: str, text: str) -> int:
    """`8192`, `8k`: a count; raises InputError for anything else."""
    from tsugiki.artifacts.contract import parse_count

    try:
        found = parse_count(text)
    except ValueError as error:
        raise InputError(f"{option} {text}: {error}", hint=f"write {option} 1024") from error
    assert isinstance(found, int)  # noqa: S101 (parse_count gives a number for text)
    return found


def degrees(option: str, text: str | None) -> tuple[int, ...] | None:
    """`1,2,4` -> (1, 2, 4); raises InputError for what is no list of positive whole numbers."""
    if text is None:
        return None
    found = tuple(sorted({whole_number(option, part) for part in text.split(",")}))
    if found[0] < 1:
        raise InputError(f"{option} {text}: {found[0]} is not a degree", hint=f"write {option} 1,2,4")
    return found


def words(option: str, text: str | None, allowed: Sequence[str]) -> tuple[str, ...] | None:
    """`none,full` -> ("none", "full"); raises InputError for a word that is not allowed."""
    if text is None:
        return None
    found = tuple(part.strip() for part in text.split(","))
    for word in found:
        if word not in allowed:
            raise InputError(f'{option}: "{word}" is not known', hint=did_you_mean(word, allowed))
    return found
