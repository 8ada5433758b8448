"""`tsugiki planner verify`: the planner's memory against what Tsugiki's trainer really builds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tsugiki.commands.terminal import Json, columns, print_json
from tsugiki.report.formatting import exact, fixed, percent

if TYPE_CHECKING:
    from tsugiki.planner.layout import Layout, Recompute, Workload
    from tsugiki.training.dry_run import Rehearsal

MIB = 2**20
TOLERANCE = 0.05
"""By how much activations may differ; weights, gradients and moments may not."""

SHALLOW = (2, 4)
"""Layers of a pipeline stage that are built; activations are linear in depth, and carried on from these."""


@dataclass(frozen=True)
class Case:
    """A layout of a model to build. degrees: tensor, context, pipeline, data."""

    model: str
    degrees: tuple[int, int, int, int]
    sequence: int
    batch: int
    micro_batch: int = 1
    recompute: Recompute = "none"
    precision: str = "bfloat16"


CASES = (
    Case("llama-nano", (1, 1, 1, 2), 256, 8, precision="float32"),
    Case("llama-nano", (2, 2, 1, 4), 512, 16),
    Case("llama-mini", (1, 1, 2, 4), 512, 32, micro_batch=2),
    Case("llama-2-7b", (1, 1, 1, 8), 4096, 8),
    Case("llama-3.1-8b", (4, 1, 1, 8), 8192, 8),
    Case("llama-3.1-8b", (2, 4, 1, 8), 8192, 16, recompute="selective"),
    Case("qwen3-8b", (1, 1, 2, 16), 4096, 64, recompute="full"),
    Case("llama-3-70b", (8, 1, 1, 64), 8192, 64),
    Case("llama-3-70b", (8, 2, 4, 8), 8192, 128, recompute="selective"),
)
"""From tiny to 70B on 512 processes."""


@dataclass(frozen=True)
class Compared:
    """One stage of a case: bytes as planned and as built, at the model's full depth.

    states: weights, gradients and AdamW's moments together, of the shallow model that was built.
    """

    case: Case
    layout: str
    processes: int
    stage: int
    planned_states: float
    built_states: int
    planned_activations: float
    built_activations: float

    @property
    def ratio(self) -> float:
        """Planned by built activations."""
        return self.planned_activations / self.built_activations

    @property
    def holds(self) -> bool:
        """Whether the states are equal byte for byte, and the activations within the tolerance."""
        return self.planned_states == self.built_states and abs(self.ratio - 1) <= TOLERANCE


def verify(
    *,
    model: str | None = None,
    largest: int | None = None,
    json: Json = False,
) -> None:
    """Hold the planner's bytes against what Tsugiki's trainer builds, from tiny models to 70B on 512 GPUs.

    Each layout is built with nothing in it (torch's fake process group, fake tensors, FSDPMemTracker), at two
    small depths, as `tsugiki train --dry-run` does. Weights, gradients and AdamW's moments have to be equal
    byte for byte; activations, carried on to the full depth, within 5 %. No GPU is needed; it takes minutes.
    Kernels are those of the CPU: an accelerator's may keep less.

    Example: `tsugiki planner verify --largest 16`

    Args:
        model: Only the layouts of this preset.
        largest: Only layouts of at most so many processes.
        json: Print JSON.
    """
    found = []
    for case in CASES:
        processes = _product(case.degrees)
        if (model is None or case.model == model) and (largest is None or processes <= largest):
            print(f"building {case.model} on {processes} processes …", file=sys.stderr)
            found += list(compare(case))
    if json:
        print_json(
            [{**vars(one), "case": vars(one.case), "ratio": one.ratio, "holds": one.holds} for one in found]
        )
    else:
        print("\n".join(_table(found)))
    if not found or not all(one.holds for one in found):
        from tsugiki.errors import InputError, StageError

        if not found:
            raise InputError(
                "no layout was asked for", hint=f"models: {', '.join(sorted({c.model for c in CASES}))}"
            )
        wrong = sum(not one.holds for one in found)
        raise StageError(f"{wrong} of {len(found)} stages differ", hint="mend the planner's formulas")


def compare(case: Case) -> Iterator[Compared]:
    """Build a case at both depths, and compare each stage that was built."""
    low, high = (_built(case, depth * case.degrees[2]) for depth in SHALLOW)
    layers = _workload(case).model.layers
    full = _planned(case, layers)
    shallow = _planned(case, SHALLOW[1] * case.degrees[2])
    per_stage = layers / case.degrees[2]
    for small, large in zip(low, high, strict=True):
        slope = (large.activations - small.activations) / (SHALLOW[1] - SHALLOW[0])
        stage = large.rank * case.degrees[2] // _product(case.degrees)
        yield Compared(
            case,
            _layout(case).text,
            _product(case.degrees),
            stage,
            shallow[stage][0],
            large.weights + large.gradients + large.moments,
            full[stage][1],
            large.activations + slope * (per_stage - SHALLOW[1]),
        )


def _workload(case: Case, layers: int | None = None) -> Workload:
    from tsugiki.models.config import preset
    from tsugiki.planner.layout import Workload

    shape = preset(case.model)
    precision: Any = case.precision
    return Workload(replace(shape, layers=layers or shape.layers), case.sequence, case.batch, precision)


def _layout(case: Case) -> Layout:
    from tsugiki.planner.layout import Layout

    tensor, context, pipeline, data = case.degrees
    return Layout(
        data,
        tensor,
        pipeline,
        context,
        micro_batch=case.micro_batch,
        recompute=case.recompute,
        sharding="weights",
    )


def _built(case: Case, layers: int) -> list[Rehearsal]:
    from tsugiki.planner.emit import recipe_settings
    from tsugiki.training.dry_run import rehearse
    from tsugiki.training.stage import Config

    workload = _workload(case, layers)
    settings = recipe_settings(workload, _layout(case))
    given: dict[str, Any] = {"model": "base", "data": {"text": 1.0}, "tokens": case.batch * case.sequence}
    return rehearse(Config(**given, device="cpu", **settings), workload.model, lambda _: None)


def _planned(case: Case, layers: int) -> list[tuple[float, float]]:
    """States, and activations of one micro-batch with what the loss keeps, of every stage.

    What a later stage receives is an input to the tracker, also where recomputation keeps it.
    """
    from tsugiki.planner.activations import element_bytes, in_flight
    from tsugiki.planner.kernels import KERNELS
    from tsugiki.planner.memory import loss_bytes, memory

    # what is built here is built for a CPU, where no kernel takes gathered keys
    kernels = replace(KERNELS["tsugiki"], masks_gathered=True)
    workload, layout = _workload(case, layers), _layout(case)
    found = []
    for one in memory(workload, layout, kernels):
        activations = one.activations / in_flight(workload, layout, one.stage)
        if one.stage == layout.pipeline - 1:
            activations += loss_bytes(workload, layout, kernels)
        if one.stage > 0 and layout.recompute != "none":
            stream = layout.tokens(workload) * workload.model.hidden_size / layout.tensor
            activations -= stream * element_bytes(workload)
        found.append((one.weights + one.gradients + one.optimizer, activations))
    return found


def _product(degrees: tuple[int, int, int, int]) -> int:
    tensor, context, pipeline, data = degrees
    return tensor * context * pipeline * data


def _table(found: Sequence[Compared]) -> Iterator[str]:
    title = (
        "model",
        "GPUs",
        "layout",
        "stage",
        "states built, MiB",
        "planned",
        "activations, MiB",
        "planned",
    )
    rows: list[Sequence[str]] = [(*title, "differs by")]
    rows += [
        (
            one.case.model + ("" if one.case.precision == "bfloat16" else f" ({one.case.precision})"),
            exact(one.processes),
            one.layout,
            str(one.stage),
            fixed(one.built_states / MIB, 3),
            "the same" if one.planned_states == one.built_states else fixed(one.planned_states / MIB, 3),
            fixed(one.built_activations / MIB, 1),
            fixed(one.planned_activations / MIB, 1),
            percent(one.ratio - 1),
        )
        for one in found
    ]
    return columns(rows, right=(1, 3, 4, 5, 6, 7, 8))
