"""`tsugiki planner MODEL`: all layouts, ranked, with memory, speed and cost, and why others won't do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from tsugiki.commands import planner_tables as tables
from tsugiki.commands.planner_inputs import (
    asked_device,
    asked_model,
    asked_tuning,
    asked_workload,
    assumed,
    degrees,
    whole_number,
    words,
)
from tsugiki.commands.terminal import Json, print_json
from tsugiki.errors import InputError, StageError
from tsugiki.report.formatting import count, exact, fixed, percent, plural

if TYPE_CHECKING:
    from tsugiki.planner.layout import Layout, Workload
    from tsugiki.planner.search import Candidate, Found

Framework = Literal["megatron-lm", "torchtitan", "tsugiki"]


@dataclass(frozen=True, kw_only=True)
class Narrow:
    """Which layouts to look at, and how many to show. Lists are written 1,2,4."""

    tensor: Annotated[str | None, Parameter(help="Only these tensor-parallel degrees.")] = None
    pipeline: Annotated[str | None, Parameter(help="Only these pipeline degrees.")] = None
    context: Annotated[str | None, Parameter(help="Only these context-parallel degrees.")] = None
    expert: Annotated[str | None, Parameter(help="Only these expert-parallel degrees.")] = None
    micro_batch: Annotated[str | None, Parameter(help="Only these micro-batches, in sequences.")] = None
    chunks: Annotated[str | None, Parameter(help="Only these chunks of an interleaved pipeline.")] = None
    expert_tensor: Annotated[
        str | None, Parameter(help="Over how many GPUs each expert's matrices are cut: 1 or as --tensor.")
    ] = None
    recompute: Annotated[str | None, Parameter(help="Only these of none, selective and full.")] = None
    schedule: Annotated[
        str | None, Parameter(help="Pipeline schedules: 1f1b,interleaved unless given; or gpipe.")
    ] = None
    sharding: Annotated[
        str | None,
        Parameter(
            help="What data-parallel GPUs share instead of copying: none, optimizer (ZeRO-1, Megatron's "
            "distributed optimizer), gradients (ZeRO-2), weights (ZeRO-3, FSDP2). Else as the framework does."
        ),
    ] = None
    top: Annotated[int, Parameter(help="How many layouts to show.")] = 10
    refused: Annotated[int, Parameter(help="How many refused layouts to show.")] = 5


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The devices, where the tables of the program don't have yours."""

    devices: Annotated[
        Path | None, Parameter(help="A TOML file of devices of your own: speeds, memory, prices.")
    ] = None
    gpus_per_node: Annotated[int | None, Parameter(help="Devices that NVLink connects.")] = None
    network: Annotated[float | None, Parameter(help="Network of a node by its GPUs, in GB/s.")] = None
    price: Annotated[float | None, Parameter(help="Dollars of one GPU-hour.")] = None
    calibration: Annotated[
        Path | None, Parameter(help="Constants that `tsugiki planner calibrate` fitted.")
    ] = None


def search(
    model: str,
    *,
    gpus: int,
    device: str = "h100-80gb",
    sequence: str | None = None,
    batch: str | None = None,
    framework: Framework = "megatron-lm",
    assume: str | None = None,
    precision: Literal["bfloat16", "float8", "float32"] | None = None,
    gradient_bytes: int = 4,
    tokens: str | None = None,
    stage: str | None = None,
    narrow: Annotated[Narrow | None, Parameter(name="*")] = None,
    machine: Annotated[Machine | None, Parameter(name="*")] = None,
    emit: Framework | None = None,
    html: Path | None = None,
    json: Json = False,
) -> None:
    """Find the parallel layouts that fit a model on so many GPUs, and rank them by predicted speed.

    See `tsugiki planner --help`.

    Args:
        model: A preset such as llama-3-70b, a hub id of a known model, a config.json or a directory with one,
            or a recipe.
        gpus: How many devices there are.
        device: Their type: a100-40gb, a100-80gb, h100-80gb, h100-94gb, h200-141gb, b200-180gb, or one of
            --devices.
        sequence: Tokens of a sequence; 8k is 8,000, so write 8192. A recipe has it.
        batch: Sequences of one optimizer step, over all devices. A recipe has it.
        framework: Whose kernels and sharding to reckon with.
        assume: Other kernels than the framework's: swiglu_saved=6,norm_bytes=6,logit_bytes=4,
            logit_chunk=0, selective=products, routing_imbalance=1.2, communicator_bytes=1e9 and so on.
        precision: Of matrix products; bfloat16 unless a recipe says otherwise.
        gradient_bytes: Of an accumulated gradient in Megatron-LM: 4, or 2.
        tokens: Tokens of the whole run, such as 100B: adds hours, dollars and energy. A recipe has them.
        stage: The recipe's train stage that is meant, where it has several.
        narrow: Which layouts to look at, and how many to show.
        machine: The devices, where the program's tables don't have yours.
        emit: Print the settings of the chosen layout for this framework, and nothing else.
        html: Write a page with figures to this file.
        json: Print JSON.
    """
    from tsugiki.planner.kernels import kernels
    from tsugiki.planner.search import search as search_layouts

    asked = asked_model(model, stage)
    machine, narrow = machine or Machine(), narrow or Narrow()
    workload = asked_workload(asked, sequence, batch, precision, gradient_bytes)
    chosen = asked_device(device, machine.devices, machine.gpus_per_node, machine.network, machine.price)
    found = search_layouts(
        workload,
        gpus,
        chosen,
        assumed(kernels(framework), assume),
        tuning=asked_tuning(machine.calibration),
        space=_space(narrow),
    )
    total = float(whole_number("--tokens", tokens)) if tokens is not None else asked.tokens
    if html is not None:
        from tsugiki.report.layouts import write_layout_page

        write_layout_page(html, asked.name, found, total)
    if json:
        print_json({"model": asked.name, **tables.found_as_dict(found, total)})
    elif emit is not None:
        print("\n".join(_emitted(workload, _chosen(found).layout, emit, found)))
    else:
        _print(asked.name, found, total, narrow)
        if html is not None:
            print(f"\nPage: {html}")
        if not found.candidates:
            raise StageError("no layout fits", hint=_what_else(found))


def _space(narrow: Narrow) -> Any:
    from tsugiki.planner.layout import SHARDINGS
    from tsugiki.planner.search import Space

    recompute: Any = words("--recompute", narrow.recompute, ("none", "selective", "full"))
    schedule: Any = words("--schedule", narrow.schedule, ("1f1b", "gpipe", "interleaved"))
    sharding: Any = words("--sharding", narrow.sharding, SHARDINGS)
    return Space(
        tensor=degrees("--tensor", narrow.tensor),
        pipeline=degrees("--pipeline", narrow.pipeline),
        context=degrees("--context", narrow.context),
        expert=degrees("--expert", narrow.expert),
        micro_batch=degrees("--micro-batch", narrow.micro_batch),
        chunks=degrees("--chunks", narrow.chunks),
        recompute=recompute,
        expert_tensor=degrees("--expert-tensor", narrow.expert_tensor),
        schedule=schedule,
        sharding=sharding,
    )


def _chosen(found: Found) -> Candidate:
    """The layout to emit: the fastest safe one, else the fastest that may fit; raises StageError for none."""
    if found.chosen is not None:
        return found.chosen
    if found.candidates:
        return found.candidates[0]
    raise StageError("no layout fits", hint=_what_else(found))


def _what_else(found: Found) -> str:
    """What would help where nothing fits: the smallest need that was seen."""
    large = [one for one in found.refusals if one.stage is not None]
    if not large:
        reasons = "; ".join(dict.fromkeys(one.reason for one in found.refusals[:20]))
        return f"no degrees divide the model and the batch: {reasons}" if reasons else "try other degrees"
    least = min(large, key=lambda one: one.stage.total if one.stage else 0.0)
    need = least.stage.counted if least.stage else 0.0
    return (
        f"the smallest layout ({least.layout.text}) counts {tables.gib(need)} GiB of tensors; use more GPUs, "
        "devices with more memory, or a shorter sequence"
    )


def _print(name: str, found: Found, tokens: float | None, narrow: Narrow) -> None:
    from tsugiki.planner.memory import memory

    workload, device = found.workload, found.device
    parameters = count(workload.model.parameters)
    print(f"{name}: {parameters} parameters on {found.gpus} x {device.name} ({found.kernels.name})")
    print(
        f"{exact(workload.batch)} sequences of {exact(workload.sequence_length)} tokens a step, "
        f"{workload.precision}; {len(found.candidates)} layouts fit, {len(found.refusals)} are refused\n"
    )
    if found.candidates:
        shown = list(found.candidates[: narrow.top])
        if found.chosen is not None and found.chosen not in shown:
            shown.append(found.chosen)
        print("\n".join(tables.ranking(found, shown, tokens)))
        one = _chosen(found)
        print(f"\n{_sentence(found, one, tokens)}\n")
        print("\n".join(tables.stages(memory(workload, one.layout, found.kernels), device.memory_bytes)))
    if narrow.refused and found.refusals:
        print(f"\nRefused ({plural(len(found.refusals), 'layout')}; --json lists all):")
        print("\n".join(tables.refusals(found.refusals[: narrow.refused])))


def _sentence(found: Found, one: Candidate, tokens: float | None) -> str:
    said = {
        "safe": "counted tensors take at most 80 % of the memory: none such ran out in 454 measured runs",
        "probe": "between 80 and 90 %: some such layouts ran and some did not, try a few steps first",
    }[one.verdict]
    legacy = percent(found.utilisation(one, legacy=True))
    lines = [
        f"Chosen: {one.layout.text}.",
        f"{one.verdict.capitalize()} ({said}).",
        f"MFU {percent(found.utilisation(one))}, {legacy} with attention counted in full (Megatron's count).",
    ]
    if tokens is not None:
        bill = found.bill(one, tokens)
        hours = f"{fixed(bill.hours / 24, 1)} days, {count(bill.device_hours)} GPU-hours"
        price = f"${count(bill.dollars)}, {fixed(bill.kilowatt_hours / 1000, 1)} MWh"
        lines.append(f"{count(tokens)} tokens: {hours}, {price}.")
    faster = found.candidates[0]
    if one.verdict == "safe" and faster is not one:
        gain = one.time.seconds / faster.time.seconds - 1
        lines.append(f"A probe may be {percent(gain)} faster: {faster.layout.text}.")
    return "\n".join(lines)


def _emitted(workload: Workload, layout: Layout, framework: Framework, found: Found) -> list[str]:
    from tsugiki.planner.emit import megatron_flags, recipe_lines, recipe_settings, titan_flags

    if framework == "megatron-lm":
        return megatron_flags(workload, layout)
    if framework == "torchtitan":
        return titan_flags(workload, layout)
    if layout.sharding == "optimizer":
        raise InputError(
            "Tsugiki spreads weights over the data processes; this layout was reckoned for Megatron-LM",
            hint="give --framework tsugiki too",
        )
    from tsugiki.training.devices import DEVICES

    hardware = found.device.name if found.device.name in DEVICES else None
    return recipe_lines(recipe_settings(workload, layout, hardware))
