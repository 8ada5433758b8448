"""A workload, a parallel layout of it, and every reason why the two would not fit together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from tsugiki.errors import InputError, Problem
from tsugiki.models.config import DecoderConfig

Schedule = Literal["1f1b", "gpipe", "interleaved"]
Recompute = Literal["none", "selective", "full"]
Sharding = Literal["none", "optimizer", "gradients", "weights"]
Precision = Literal["bfloat16", "float8", "float32"]

SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)
"""What the data-parallel processes share instead of copying, each with all before it: nothing (plain data
parallelism), optimizer states (ZeRO-1, Megatron's distributed optimizer), gradients (ZeRO-2), weights
(ZeRO-3, FSDP2)."""


@dataclass(frozen=True)
class Workload:
    """What is to be trained, whatever the layout.

    sequence_length: tokens. batch: sequences of one optimizer step, over all devices. precision: of matrix
    products; weights stay in bfloat16, or float32, under float8 too.
    gradient_bytes: of one accumulated gradient, 4 or 2 (Megatron: --grad-reduce-in-bf16 gives 2).
    """

    model: DecoderConfig
    sequence_length: int
    batch: int
    precision: Precision = "bfloat16"
    gradient_bytes: int = 4

    def __post_init__(self) -> None:
        for name in ("sequence_length", "batch"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}; it has to be 1 or more",
                    hint="give the tokens of a sequence, and the sequences of one optimizer step",
                )
        if self.precision not in get_args(Precision):
            raise InputError(
                f'precision "{self.precision}" is not known', hint=f"use {', '.join(get_args(Precision))}"
            )
        if self.gradient_bytes not in {2, 4}:
            raise InputError(f"a gradient of {self.gradient_bytes} bytes is not known", hint="use 4 or 2")

    @property
    def step_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch * self.sequence_length

    @cached_property
    def sparse_before(self) -> tuple[int, ...]:
        """How many of the first n layers are mixtures of experts, for n from 0 to all."""
        counts = [0]
        for layer in range(self.model.layers):
            counts.append(counts[-1] + self.model.is_sparse(layer))
        return tuple(counts)


@dataclass(frozen=True)
class Layout:
    """How the work is spread. The world is data x tensor x pipeline x context processes.

    expert: over how many of the data x context x tensor processes experts are spread. expert_tensor: cuts
    each expert's matrices; by default as `tensor`. micro_batch: sequences that go through one copy of the
    model at once. chunks: parts of the model that each process of an interleaved pipeline holds.
    shard: over how many of the `data` processes `sharding` goes; all unless given (hybrid sharding else).
    Sequence parallelism always goes with `tensor`.
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    expert: int = 1
    expert_tensor: int | None = None
    micro_batch: int = 1
    schedule: Schedule = "1f1b"
    chunks: int = 1
    recompute: Recompute = "none"
    sharding: Sharding = "optimizer"
    shard: int | None = None

    def __post_init__(self) -> None:
        names = ("data", "tensor", "pipeline", "context", "expert", "micro_batch", "chunks")
        for name in (*names, "expert_tensor", "shard"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it has to be 1 or more", hint=f"leave {name} at 1")

    @property
    def world(self) -> int:
        """Processes, one a device."""
        return self.data * self.tensor * self.pipeline * self.context

    @property
    def experts_tensor(self) -> int:
        """Over how many processes each expert's matrices are cut."""
        return self.tensor if self.expert_tensor is None else self.expert_tensor

    @property
    def sharing(self) -> int:
        """Processes that share the sharded states of what is not an expert: D = d c.

        Context-parallel processes hold the same weights as data-parallel ones do.
        """
        return (self.data if self.shard is None else self.shard) * self.context

    @property
    def experts_sharing(self) -> int:
        """Processes that share the sharded states of an expert: D t / (e e_t) (Megatron's expert-DP)."""
        return max(1, self.sharing * self.tensor // (self.expert * self.experts_tensor))

    def micro_batches(self, workload: Workload) -> int:
        """Micro-batches of one optimizer step, for each copy of the model."""
        return max(1, workload.batch // (self.data * self.micro_batch))

    def tokens(self, workload: Workload) -> float:
        """Tokens of a micro-batch on one process, before tensor parallelism cuts them: b s / c."""
        return self.micro_batch * workload.sequence_length / self.context

    @property
    def text(self) -> str:
        """All that is not the default, for a person: `tensor 4 x data 8, micro-batch 2`."""
        names = ("tensor", "context", "pipeline", "data", "expert")
        degrees = " x ".join(f"{name} {getattr(self, name)}" for name in names if getattr(self, name) > 1)
        parts = [degrees or "one device", f"micro-batch {self.micro_batch}"]
        if self.chunks > 1:
            parts.append(f"{self.chunks} chunks")
        if self.schedule == "gpipe":
            parts.append("GPipe")
        if self.recompute != "none":
            parts.append(f"{self.recompute} recomputation")
        return ", ".join(parts)


def layout_problems(workload: Workload, layout: Layout, gpus: int | None = None) -> Iterator[Problem]:
    """Every reason why this layout can't run this workload, each with the degrees that would."""
    if gpus is not None and layout.world != gpus:
        yield Problem(
            f"the degrees multiply to {layout.world} processes; there are {gpus} GPUs",
            f"data x tensor x pipeline x context has to be {gpus}",
            "data",
        )
    yield from division_problems(workload, layout)
    yield from _schedule_problems(workload, layout)


def division_problems(workload: Workload, layout: Layout) -> Iterator[Problem]:
    """Every degree that does not divide what it cuts, each with the degrees that would."""
    model = workload.model
    shares = [
        ("tensor", layout.tensor, "query heads", model.heads),
        ("tensor", layout.tensor, "entries of the vocabulary", model.vocabulary_size),
        ("pipeline", layout.pipeline * layout.chunks, "layers", model.layers),
        ("micro_batch", layout.data * layout.micro_batch, "sequences of a batch", workload.batch),
    ]
    if workload.sparse_before[-1] < model.layers:
        width = model.intermediate_size
        shares.append(("tensor", layout.tensor, "the width of the feed-forward layers", width))
    if model.moe is not None and model.moe.shared_size:
        shares.append(("tensor", layout.tensor, "the width of the shared expert", model.moe.shared_size))
    length, pieces = workload.sequence_length, 2 * layout.context
    if layout.context > 1 and length % pieces:
        # each rank takes one early and one late piece, so that causal work is even
        fitting = divisors(length // 2, 64) if length % 2 == 0 else [1]
        yield Problem(
            f"context: {layout.context} needs {pieces} pieces of a sequence, two a process, which do not "
            f"divide its {length} tokens",
            f"degrees that do: {', '.join(map(str, fitting))}",
            "context",
        )
    part = length // layout.context
    shares.append(("tensor", layout.tensor, "tokens of a process's part of a sequence", part))
    for where, degree, what, size in shares:
        if size % degree:
            yield Problem(
                f"{where}: {degree} does not divide {what} ({size})",
                f"degrees that do: {', '.join(map(str, divisors(size, 64)))}",
                where,
            )
    keys, tensor = model.kv_heads, layout.tensor
    if keys % tensor and tensor % keys:
        fitting = [n for n in divisors(model.heads, 64) if keys % n == 0 or n % keys == 0]
        yield Problem(
            f"tensor: {tensor} and {keys} key-value heads divide neither way",
            f"degrees that do: {', '.join(map(str, fitting))} (from {keys} on, heads are copied)",
            "tensor",
        )
    yield from _expert_problems(workload, layout)


def _schedule_problems(workload: Workload, layout: Layout) -> Iterator[Problem]:
    count = layout.micro_batches(workload)
    if layout.pipeline > 1 and count < layout.pipeline:
        yield Problem(
            f"pipeline: {count} micro-batches leave {layout.pipeline} stages idle most of the time",
            f"at most {count} stages, or a larger batch",
            "pipeline",
        )
    if (layout.schedule == "interleaved") != (layout.chunks > 1):
        yield Problem(
            f"chunks: {layout.chunks} with the schedule {layout.schedule}",
            "interleaved needs 2 chunks or more, and the others 1",
            "chunks",
        )
    if layout.chunks > 1 and layout.pipeline == 1:
        yield Problem("chunks: there is no pipeline to interleave", "use chunks 1", "chunks")
    elif layout.chunks > 1 and count % layout.pipeline:
        yield Problem(
            f"chunks: {layout.pipeline} stages do not divide {count} micro-batches (interleaved)",
            "use 1f1b, or a micro-batch that leaves a multiple of the stages",
            "chunks",
        )
    if layout.shard is not None and layout.data % layout.shard:
        yield Problem(
            f"shard: {layout.shard} does not divide data ({layout.data})",
            f"degrees that do: {', '.join(map(str, divisors(layout.data, 64)))}",
            "shard",
        )


def _expert_problems(workload: Workload, layout: Layout) -> Iterator[Problem]:
    moe, spread = workload.model.moe, layout.expert * layout.experts_tensor
    if moe is None:
        if layout.expert > 1 or layout.expert_tensor not in {None, 1, layout.tensor}:
            yield Problem("expert: the model has no experts", "use expert 1", "expert")
        return
    if moe.experts % layout.expert:
        yield Problem(
            f"expert: {layout.expert} does not divide {moe.experts} experts",
            f"degrees that do: {', '.join(map(str, divisors(moe.experts, 64)))}",
            "expert",
        )
    if moe.intermediate_size % layout.experts_tensor:
        yield Problem(
            f"expert_tensor: {layout.experts_tensor} does not divide the width of an expert "
            f"({moe.intermediate_size})",
            f"degrees that do: {', '.join(map(str, divisors(moe.intermediate_size, 64)))}",
            "expert_tensor",
        )
    processes = layout.data * layout.context * layout.tensor
    if processes % spread:
        yield Problem(
            f"expert: experts would be spread over {spread} processes (expert x expert_tensor), which do not "
            f"divide the {processes} of a pipeline stage",
            f"products that do: {', '.join(map(str, divisors(processes, 64)))}",
            "expert",
        )


def divisors(size: int, largest: int) -> list[int]:
    """The divisors of `size`, up to `largest`, rising."""
    return [number for number in range(1, min(size, largest) + 1) if size % number == 0]
