"""A rehearsal of a layout at any size: everything is built, and nothing is held.

For the first process of the first, a middle and the last pipeline stage: torch's fake process group takes the
place of the others, fake tensors that of numbers. Modules are built, cut and wrapped as in training, AdamW is
made, two micro-batches (where there are so many) go forward and backward one after the other, with what FSDP,
or torch's pipeline, leaves gathered or whole between them, and one step is taken; what all that would hold is
counted. Each stage is rehearsed in a process of its own (`python -m tsugiki.training.dry_run`).

What is not rehearsed: the accelerator's kernels (the CPU's stand in, and activations are those of its
kernels), the allocator's fragmentation, documents' masks, the exchange between pipeline stages, and where
experts' tokens go: all experts get as many.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tsugiki.errors import StageError
from tsugiki.models.config import DecoderConfig
from tsugiki.planner.activations import in_flight
from tsugiki.training.layouts import planned
from tsugiki.training.planning import micro_batch_rows

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from tsugiki.training.parallel.together import Together
    from tsugiki.training.parallel.trainee import Trainee
    from tsugiki.training.stage import Config

    GroupedLinear = Callable[[Tensor, Tensor, Tensor], Tensor]

_ACTIVATIONS = "Activation"


@dataclass(frozen=True)
class Rehearsal:
    """What one process would hold, in bytes.

    rank: its number. layers: of the decoder, by their numbers. parameters: numbers of the model that it
    holds. weights, gradients, moments: of those. activations: kept of one micro-batch for its backward pass;
    in_flight: micro-batches that are between their passes at once; a process of an interleaved pipeline may
    hold a part of them only. working: gathered weights, gradients that are whole (as a pipeline adds them
    up), buffers, and what else lives at the peak of a micro-batch. not_run: why none went through, else
    empty.
    """

    rank: int
    layers: tuple[int, ...]
    parameters: int
    weights: int
    gradients: int
    moments: int
    activations: int
    in_flight: float
    working: int
    seconds: float
    not_run: str = ""

    @property
    def peak_bytes(self) -> int:
        """The most that is held at once."""
        states = self.weights + self.gradients + self.moments
        return states + round(self.activations * self.in_flight) + self.working


def rehearse(config: Config, shape: DecoderConfig, tell: Callable[[str], None]) -> list[Rehearsal]:
    """Rehearse the first process of the first, the second and the last pipeline stage, as far as there are.

    tell: is told what begins. Raises StageError with the words of what went wrong.
    """
    degree = config.parallel.pipeline
    found = []
    for stage in sorted({0, min(1, degree - 1), degree - 1}):
        rank = stage * config.parallel.product // degree
        tell(f"process {rank} of {config.parallel.product}")
        found.append(_elsewhere(config, shape, rank))
    return found


def _elsewhere(config: Config, shape: DecoderConfig, rank: int) -> Rehearsal:
    job = {"config": config.model_dump(mode="json"), "shape": shape.to_hf(), "rank": rank}
    done = subprocess.run(
        [sys.executable, "-m", "tsugiki.training.dry_run"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise StageError(
            f"the layout can't be built for process {rank}: {said.strip()}",
            hint="change the degrees of parallel; if they should work, this is a fault in Tsugiki: report it",
        )
    data = json.loads(done.stdout)
    return Rehearsal(**{**data, "layers": tuple(data["layers"])})


def rehearse_here(config: Config, shape: DecoderConfig, rank: int) -> Rehearsal:
    """Rehearse one process in this one, which is of no other use afterwards: torch's groups stay behind."""
    import torch
    import torch.distributed as dist
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from tsugiki.training.job import engine_of, optimizer_of
    from tsugiki.training.parallel.mesh import open_world

    begun = time.monotonic()
    # one process is rehearsed as a group of one; all documents' masks are left out
    # float8 as an accelerator has it: the emulation keeps float32 copies
    config = config.model_copy(update={"document_masking": False, "float8_products": "exact"})
    dist.init_process_group("fake", rank=rank, world_size=config.parallel.product, store=FakeStore())
    world = open_world(config.parallel, torch.device("cpu"))
    with _prepared(), FakeTensorMode(allow_non_fake_inputs=True):
        engine = engine_of(config, shape, world)
        engine.optimizer = optimizer_of(config, engine.parameters.items())
        held = _held_bytes(engine.parameters.values())
        snapshot, not_run = _passed(engine, config)
        moments = _stepped(engine)
    activations = snapshot.get(_ACTIVATIONS, 0)
    # at the peak some gradients may still be whole, and not yet among those that stay
    rest = snapshot.get("Total", 0) - activations - snapshot.get("Sharded Param", 0) - held
    return Rehearsal(
        rank=rank,
        layers=tuple(int(number) for part in engine.decoders for number in part.model.layers),
        parameters=held // 4,
        weights=held,
        gradients=held,
        moments=moments,
        activations=activations,
        in_flight=_in_flight(config, shape, rank),
        working=max(0, rest),
        seconds=time.monotonic() - begun,
        not_run=not_run,
    )


def _held_bytes(parameters: Any) -> int:
    from tsugiki.training.placement import local_part

    return sum(local_part(one).numel() * one.element_size() for one in parameters)


def _passed(engine: Together, config: Config) -> tuple[dict[str, int], str]:
    """One micro-batch through every stage of this process: bytes by category, or why not.

    At the peak, but activations as they are kept between the two passes.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    total: dict[str, int] = {}
    try:
        for trainee in engine.trainees:
            for name, size in _tracked(trainee, engine, config).items():
                total[name] = total.get(name, 0) + size
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        return {}, f"{error} has a shape that depends on numbers"
    return total, ""


def _tracked(trainee: Trainee, engine: Together, config: Config) -> dict[str, int]:
    import torch
    from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker

    rows, length = engine.rows_at_once, config.sequence_length
    ids_BT = torch.zeros(rows, length, dtype=torch.long)
    x = ids_BT
    if trainee.decoder.model.embed_tokens is None:
        part = length // (config.parallel.context * config.parallel.tensor)
        x = torch.zeros(rows, part, engine.shape.hidden_size, dtype=engine.dtype, requires_grad=True)
    tracker = FSDPMemTracker(trainee, engine.optimizer)
    tracker.track_inputs((x, ids_BT))
    in_pipeline = config.parallel.pipeline > 1
    with tracker:
        for left in reversed(range(min(2, _micro_batches(config)))):
            tracker.reset_mod_stats()
            y = trainee(x, ids_BT, ids_BT)
            kept = _by_name(tracker.get_tracker_snapshot("current"))
            if in_pipeline:
                _as_torchs_stages(trainee)
            else:
                trainee.set_requires_all_reduce(not left)  # type: ignore[operator]
            y.backward(torch.ones_like(y))
    return {**_by_name(tracker.get_tracker_snapshot("peak")), _ACTIVATIONS: kept[_ACTIVATIONS]}


def _as_torchs_stages(trainee: Trainee) -> None:
    """What torch's pipeline stages set for the backward pass of every micro-batch.

    Weights stay gathered, and gradients whole, until the end of the step (`_PipelineStageBase`).
    """
    trainee.set_is_last_backward(False)  # type: ignore[operator]
    trainee.set_reshard_after_backward(False)  # type: ignore[operator]
    trainee.set_requires_gradient_sync(False)  # type: ignore[operator]


def _by_name(snapshot: Mapping[Any, Mapping[Any, int]]) -> dict[str, int]:
    """Bytes by category, over all devices."""
    found: dict[str, int] = {}
    for sizes in snapshot.values():
        for kind, size in sizes.items():
            name = str(getattr(kind, "value", kind))
            found[name] = found.get(name, 0) + int(size)
    return found


def _stepped(engine: Together) -> int:
    """Take a step; bytes of AdamW's moments."""
    import torch

    for parameter in engine.parameters.values():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    engine.optimizer.step()
    states = engine.optimizer.state.values()
    return sum(_held_bytes([state[name] for name in ("exp_avg", "exp_avg_sq")]) for state in states)


def _in_flight(config: Config, shape: DecoderConfig, rank: int) -> float:
    """Micro-batches' worth of activations that a process holds at once, by its schedule."""
    workload, layout = planned(shape, config, micro_batch_rows(config))
    return in_flight(workload, layout, rank * layout.pipeline // layout.world)


def _micro_batches(config: Config) -> int:
    return max(1, config.sequences_per_step // (config.parallel.data * micro_batch_rows(config)))


@contextmanager
def _prepared() -> Iterator[None]:
    """What torch 2.13 needs for DTensors of fake tensors (found by trial, see the comments)."""
    from torch._subclasses.fake_tensor import unset_fake_temporarily
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import _sharding_prop, _utils

    from tsugiki.models import moe, products
    from tsugiki.training import loss
    from tsugiki.training.memory import LOGIT_ELEMENTS
    from tsugiki.training.parallel import expert

    def real(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            with unset_fake_temporarily():
                return function(*arguments, **keywords)

        return wrapped

    changes: list[tuple[Any, str, Any]] = [
        # a mesh looks up its own coordinates in a tensor: that one has to be real
        *((DeviceMesh, name, real(getattr(DeviceMesh, name))) for name in _MESH),
        (
            _utils,
            "compute_local_shape_and_global_offset",
            real(_utils.compute_local_shape_and_global_offset),
        ),
        # otherwise shapes are propagated on fake tensors of the global size, and counted as memory
        (_sharding_prop, "detect_fake_mode", lambda *_: None),
        # accelerators have instructions for bfloat16, whatever this CPU has
        (products, "multiplies_bfloat16", lambda: True),
        # and take large chunks of logits, of which a CPU would have thousands
        (loss, "LOGIT_ELEMENTS", {"cpu": LOGIT_ELEMENTS["cuda"]}),
        # which rows go where depends on numbers that are not there
        (expert, "count_rows", _count_evenly),
        (moe, "grouped_linear", _grouped_evenly(moe.grouped_linear)),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in changes]
    for place, name, value in changes:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _evenly(rows: int, parts: int) -> list[int]:
    return [(part + 1) * rows // parts - part * rows // parts for part in range(parts)]


def _count_evenly(
    rows_RD: Tensor, ends_E: Tensor, group: ProcessGroup
) -> tuple[list[int], list[int], Tensor]:
    """In place of `expert.count_rows`: every expert has as many rows."""
    each = _evenly(len(rows_RD), group.size())
    return each, each, ends_E.new_empty((len(each), len(ends_E) // len(each))).long()


def _grouped_evenly(grouped_linear: GroupedLinear) -> GroupedLinear:
    """`moe.grouped_linear`, whose grouped product exists for fake tensors in bfloat16 only."""
    import torch
    from torch.nn import functional

    def grouped(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
        if x_RD.dtype == torch.bfloat16:
            return grouped_linear(x_RD, weight_EFD, ends_E)
        groups = zip(torch.split(x_RD, _evenly(len(x_RD), len(weight_EFD))), weight_EFD, strict=True)
        return torch.cat([functional.linear(rows, matrix_FD) for rows, matrix_FD in groups])

    return grouped


_MESH = ("__init__", "__getitem__", "_concatenate", "_flatten", "_unflatten")


def main() -> None:
    """Rehearse the process that standard input names; its figures go to standard output."""
    from tsugiki.training.stage import Config

    job = json.load(sys.stdin)
    shape = DecoderConfig.from_hf(job["shape"])
    found = rehearse_here(Config.model_validate(job["config"]), shape, job["rank"])
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
