"""All layouts of a workload on so many devices: ranked, and why the others were refused."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import product
from typing import Any, cast

from tsugiki.errors import InputError
from tsugiki.planner.devices import Accelerator
from tsugiki.planner.kernels import Kernels
from tsugiki.planner.layout import (
    SHARDINGS,
    Layout,
    Recompute,
    Schedule,
    Sharding,
    Workload,
    divisors,
    layout_problems,
)
from tsugiki.planner.memory import StageMemory, busiest
from tsugiki.planner.speed import StepTime, Tuning, model_flops, step_time
from tsugiki.planner.verdict import PROBE_SHARE, Verdict, verdict

LARGEST_MICRO_BATCH = 16
LARGEST_CHUNKS = 8
MOST_GPUS = 2**20
GIB = 2**30


@dataclass(frozen=True)
class Space:
    """Which layouts are looked at; None: every degree that divides.

    Each field holds the values to try. schedule: without it 1F1B and interleaved; GPipe keeps more and is no
    faster. sharding: without it what the framework does by itself.
    """

    tensor: tuple[int, ...] | None = None
    pipeline: tuple[int, ...] | None = None
    context: tuple[int, ...] | None = None
    expert: tuple[int, ...] | None = None
    micro_batch: tuple[int, ...] | None = None
    recompute: tuple[Recompute, ...] | None = None
    chunks: tuple[int, ...] | None = None
    expert_tensor: tuple[int, ...] | None = None
    schedule: tuple[Schedule, ...] | None = None
    sharding: tuple[Sharding, ...] | None = None


@dataclass(frozen=True)
class Candidate:
    """A layout that may run: its busiest stage, the verdict on it, and the predicted time of a step."""

    layout: Layout
    stage: StageMemory
    verdict: Verdict
    time: StepTime


@dataclass(frozen=True)
class Refusal:
    """A layout that won't run: why, what would mend it, and whether it is illegal or only too large.

    stage: its busiest stage, or None for an illegal one. nearest: the layout that fits and differs least.
    """

    layout: Layout
    reason: str
    change: str
    stage: StageMemory | None = None
    nearest: Layout | None = None


@dataclass(frozen=True)
class Found:
    """What a search found.

    Candidates are ordered from the fastest to the slowest; refusals from those that nearly fit to those that
    need most, and then those that are illegal.
    """

    workload: Workload
    device: Accelerator
    kernels: Kernels
    gpus: int
    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...]

    @cached_property
    def chosen(self) -> Candidate | None:
        """The fastest layout that is safe."""
        return next((one for one in self.candidates if one.verdict == "safe"), None)

    @cached_property
    def front(self) -> tuple[Candidate, ...]:
        """The layouts that none beats in both memory and speed, from the fastest to the smallest."""
        front: list[Candidate] = []
        for one in self.candidates:
            if not front or one.stage.total < front[-1].stage.total:
                front.append(one)
        return tuple(front)

    def tokens_per_second(self, candidate: Candidate) -> float:
        """Tokens a second of all devices together."""
        return self.workload.step_tokens / candidate.time.seconds

    def utilisation(self, candidate: Candidate, *, legacy: bool = False) -> float:
        """Model FLOPs by time and the devices' peak (MFU)."""
        flops = model_flops(self.workload, legacy=legacy)
        return flops / candidate.time.seconds / self.gpus / self.device.peak_flops

    def bill(self, candidate: Candidate, tokens: float) -> Bill:
        """What so many tokens take."""
        hours = tokens / self.tokens_per_second(candidate) / 3600
        device_hours = hours * self.gpus
        return Bill(
            hours,
            device_hours,
            device_hours * self.device.dollars_per_hour,
            device_hours * self.device.watts / 1000,
        )


@dataclass(frozen=True)
class Bill:
    """Wall-clock hours, device-hours, dollars and kilowatt-hours of a training run."""

    hours: float
    device_hours: float
    dollars: float
    kilowatt_hours: float


def search(
    workload: Workload,
    gpus: int,
    device: Accelerator,
    kernels: Kernels,
    *,
    tuning: Tuning | None = None,
    space: Space | None = None,
) -> Found:
    """Every layout of `workload` on `gpus` devices, judged.

    Degrees are the divisors of the number of devices. Weights are shared as the framework does: Megatron-LM
    its optimizer states, the others all (FSDP2). Raises InputError for fewer than one device or more than
    `MOST_GPUS`, and where `space` leaves only degrees that divide nothing.
    """
    if gpus < 1:
        raise InputError(f"{gpus} GPUs can't train a model", hint="give --gpus 1 or more")
    if gpus > MOST_GPUS:
        raise InputError(f"{gpus} GPUs are more than there are", hint=f"give --gpus {MOST_GPUS} or fewer")
    space = space or Space()
    check_space(workload, gpus, space)
    candidates, large, illegal = [], [], []
    for layout, problem in _layouts(workload, gpus, kernels, space):
        if problem is not None:
            illegal.append(Refusal(layout, *problem))
            continue
        stage = busiest(workload, layout, kernels)
        judgement = verdict(stage, device.memory_bytes)
        if judgement == "refuse":
            large.append((layout, stage))
        else:
            time = step_time(workload, layout, kernels, device, tuning)
            candidates.append(Candidate(layout, stage, judgement, time))
    candidates.sort(key=lambda one: (one.time.seconds, one.stage.total))
    large.sort(key=lambda one: one[1].total)
    refusals = [*_too_large(large, [one.layout for one in candidates], device), *illegal]
    return Found(workload, device, kernels, gpus, tuple(candidates), tuple(refusals))


def check_space(workload: Workload, gpus: int, space: Space) -> None:
    """Raise InputError where all values that were asked for of some degree can't divide what they cut.

    Each value is looked at by itself, with the smallest degrees for the rest.
    """
    for name in ("tensor", "pipeline", "context", "expert", "micro_batch", "chunks", "expert_tensor"):
        values = getattr(space, name)
        if values is None:
            continue
        found = [_alone(workload, gpus, name, value) for value in values]
        if all(problem is not None for problem in found):
            message, hint = next(problem for problem in found if problem is not None)
            raise InputError(message, hint=hint)


def _alone(workload: Workload, gpus: int, name: str, value: int) -> tuple[str, str] | None:
    """Why a degree is impossible whatever the others are, and what would do; None where it is not."""
    if name in {"tensor", "pipeline", "context"} and gpus % value:
        shown = ", ".join(map(str, divisors(gpus, 64)))
        return f"{name}: {value} does not divide {gpus} GPUs", f"degrees that do: {shown}"
    if name == "chunks":
        layers = workload.model.layers
        shown = ", ".join(map(str, divisors(layers, LARGEST_CHUNKS)))
        wrong = f"chunks: {value} does not divide {layers} layers", f"numbers that do: {shown}"
        return wrong if layers % value else None
    # Experts are spread over the data processes; the other degrees are looked at with one of these.
    values: dict[str, Any] = {"data": gpus if name.startswith("expert") else 1, name: value}
    layout = Layout(**values)
    problems = (problem for problem in layout_problems(workload, layout) if problem.where == name)
    return next(((problem.message, problem.hint) for problem in problems), None)


def _layouts(
    workload: Workload, gpus: int, kernels: Kernels, space: Space
) -> Iterator[tuple[Layout, tuple[str, str] | None]]:
    """Every layout, and the reason and remedy where it is illegal.

    What is illegal by its degrees is told once, with a micro-batch of 1.
    """
    every = divisors(gpus, gpus)
    shardings: tuple[Sharding, ...] = ("weights" if kernels.master_weights else "optimizer",)
    for tensor, pipeline, context, sharding in product(
        space.tensor or every, space.pipeline or every, space.context or every, space.sharding or shardings
    ):
        data, rest = divmod(gpus, tensor * pipeline * context)
        if rest or not data:
            continue
        degrees = Layout(data=data, tensor=tensor, pipeline=pipeline, context=context, sharding=sharding)
        for spread in _spread_experts(workload, degrees, kernels, space):
            problem = next(layout_problems(workload, spread), None)
            if problem is not None:
                yield spread, (problem.message, problem.hint)
                continue
            for layout in _ways_to_run(workload, spread, kernels, space):
                yield layout, None


def _spread_experts(workload: Workload, layout: Layout, kernels: Kernels, space: Space) -> Iterator[Layout]:
    """The layout with every degree of expert parallelism that divides, experts whole or cut by tensor."""
    moe = workload.model.moe
    if moe is None:
        yield layout
        return
    processes = layout.data * layout.context * layout.tensor
    cuts = {layout.tensor} if kernels.experts_follow_tensor else {1, layout.tensor}
    if space.expert_tensor is not None:
        cuts = set(space.expert_tensor)
    for expert in space.expert or divisors(moe.experts, moe.experts):
        for cut in sorted(cuts):
            if processes % (expert * cut) == 0:
                yield replace(layout, expert=expert, expert_tensor=cut)


def _ways_to_run(workload: Workload, layout: Layout, kernels: Kernels, space: Space) -> Iterator[Layout]:
    """Micro-batches, recomputation and chunks that go with legal degrees."""
    share = workload.batch // layout.data
    kinds: tuple[Recompute, ...] = space.recompute or ("none", "selective", "full")
    if space.recompute is None and kernels.selective == "attention":
        kinds = ("none", "full")
    sizes = space.micro_batch or [size for size in (1, 2, 4, 8, 16) if size <= LARGEST_MICRO_BATCH]
    per_stage = workload.model.layers // layout.pipeline
    for size in sizes:
        count = share // size
        if share % size or (layout.pipeline > 1 and count < layout.pipeline):
            continue
        interleaved = layout.pipeline > 1 and count % layout.pipeline == 0
        parts = divisors(per_stage, LARGEST_CHUNKS) if interleaved else [1]
        for schedule, chunks in _schedules(layout, parts, space):
            for recompute in kinds:
                yield replace(layout, micro_batch=size, chunks=chunks, schedule=schedule, recompute=recompute)


def _schedules(layout: Layout, parts: Sequence[int], space: Space) -> Iterator[tuple[Schedule, int]]:
    """The schedules that were asked for, each with the chunks that go with it."""
    asked = space.schedule or ("1f1b", "interleaved")
    for chunks in parts:
        if space.chunks is not None and chunks not in space.chunks:
            continue
        kinds: tuple[Schedule, ...] = ("interleaved",) if chunks > 1 else ("1f1b", "gpipe")
        if layout.pipeline == 1:
            yield "1f1b", chunks  # there is nothing to schedule
        else:
            yield from ((kind, chunks) for kind in kinds if kind in asked)


def _too_large(
    large: Sequence[tuple[Layout, StageMemory]], fitting: Iterable[Layout], device: Accelerator
) -> Iterator[Refusal]:
    """The refusal of each layout that needs too much, with the fewest changes that make it fit.

    Found breadth first from all layouts that fit, the fastest first, over changes of one thing at a time: of
    those that are as near the fastest is named.
    """
    nearest = {_key(layout): layout for layout in fitting}
    waiting = {_key(layout) for layout, _ in large}
    queue = deque(nearest)
    while queue:
        key = queue.popleft()
        for other in _neighbours(key):
            if other in waiting:
                waiting.remove(other)
                nearest[other] = nearest[key]
                queue.append(other)
    for layout, stage in large:
        mended = nearest.get(_key(layout))
        yield Refusal(layout, _reason(stage, device), _change(layout, mended), stage, mended)


def _reason(stage: StageMemory, device: Accelerator) -> str:
    largest, size = max(stage.parts(), key=lambda part: part[1])
    allowed = PROBE_SHARE * device.memory_bytes
    counted, capacity = stage.counted, f"{device.memory_bytes / GIB:.0f} GiB"
    if counted > allowed:
        seen = f"{counted / GIB:.1f} GiB of tensors, more than {PROBE_SHARE:.0%} of {capacity}"
    else:
        seen = f"{stage.total / GIB:.1f} GiB with buffers, more than {capacity}"
    return f"stage {stage.stage} needs {seen}; most of it {largest} ({size / GIB:.1f} GiB)"


def _change(layout: Layout, mended: Layout | None) -> str:
    """What differs, in words."""
    if mended is None:
        return "nothing near it fits: use more or larger devices, or a smaller model"
    changed = []
    for field in fields(Layout):
        old, new = getattr(layout, field.name), getattr(mended, field.name)
        if old != new and field.name not in {"schedule", "data"}:
            changed.append(f"{field.name.replace('_', '-')} {old} -> {new}")
    return ", ".join(changed)


_Way = tuple[int, int, str, bool, str]
_Key = tuple[int, int, int, int, int, int, int, int, str, bool, str]
_RECOMPUTE = ("none", "selective", "full")


def _key(layout: Layout) -> _Key:
    return (
        layout.data,
        layout.tensor,
        layout.pipeline,
        layout.context,
        layout.expert,
        layout.experts_tensor,
        layout.micro_batch,
        layout.chunks,
        layout.recompute,
        layout.schedule == "gpipe",
        layout.sharding,
    )


_FACTORS = (2, 3, 5, 7)


def _neighbours(key: _Key) -> Iterator[_Key]:
    """Layouts that differ in one thing: how layers run, how states are shared, or one degree for another."""
    yield from _other_ways(key)
    data, tensor, pipeline, context, expert, cut, *way = key
    degrees = (data, tensor, pipeline, context)
    rest = cast("_Way", tuple(way))
    for factor in _FACTORS:
        if expert % factor == 0:
            yield (*degrees, expert // factor, cut, *rest)
        yield (*degrees, expert * factor, cut, *rest)
        for given, taken in _PAIRS:
            if degrees[taken] % factor == 0:
                moved = list(degrees)
                moved[taken] //= factor
                moved[given] *= factor
                followed = moved[1] if cut == tensor else cut
                yield (moved[0], moved[1], moved[2], moved[3], expert, followed, *rest)


def _other_ways(key: _Key) -> Iterator[_Key]:
    """The same degrees with another micro-batch, chunks, recomputation, schedule or sharing of states."""
    degrees = key[:6]
    size, chunks, recompute, gpipe, sharding = key[6:]
    for kind in _RECOMPUTE:
        if kind != recompute:
            yield (*degrees, size, chunks, kind, gpipe, sharding)
    for shared in SHARDINGS:
        if shared != sharding:
            yield (*degrees, size, chunks, recompute, gpipe, shared)
    yield (*degrees, size, chunks, recompute, not gpipe, sharding)
    for other in (size * 2, size // 2):
        yield (*degrees, other, chunks, recompute, gpipe, sharding)
    for other in range(1, LARGEST_CHUNKS + 1):
        if other != chunks:
            yield (*degrees, size, other, recompute, gpipe, sharding)


_PAIRS = tuple((given, taken) for given in range(4) for taken in range(4) if given != taken)
