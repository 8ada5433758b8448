"""The planner's findings for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tsugiki.commands.terminal import columns
from tsugiki.report.formatting import count, exact, fixed, percent

if TYPE_CHECKING:
    from tsugiki.planner.layout import Layout
    from tsugiki.planner.memory import StageMemory
    from tsugiki.planner.search import Candidate, Found, Refusal

GIB = 2**30

PARTS = (
    "weights",
    "gradients",
    "optimizer",
    "gathered",
    "activations",
    "logits",
    "working",
    "buffers",
    "communicators",
    "context",
)


def gib(size: float) -> str:
    """Bytes as GiB with one decimal."""
    return fixed(size / GIB, 1)


def degrees_of(layout: Layout) -> tuple[str, ...]:
    """The cells of a layout in a table, as `DEGREES` names them."""
    names = ("tensor", "context", "pipeline", "data", "expert", "micro_batch", "chunks")
    recompute = "–" if layout.recompute == "none" else layout.recompute
    schedule = "–" if layout.schedule == "1f1b" else layout.schedule
    return (*(str(getattr(layout, name)) for name in names), schedule, recompute, layout.sharding)


DEGREES = (
    "tensor",
    "context",
    "pipeline",
    "data",
    "expert",
    "micro-batch",
    "chunks",
    "schedule",
    "recompute",
    "shared",
)


def ranking(found: Found, shown: Sequence[Candidate], tokens: float | None) -> Iterator[str]:
    """The table of candidates."""
    title = ["", *DEGREES, "counted", "in all", "GiB", "verdict", "s/step", "tokens/s/GPU", "MFU"]
    if tokens is not None:
        title += ["GPU-hours", "$"]
    rows: list[Sequence[str]] = [title]
    capacity = found.device.memory_bytes
    for one in shown:
        row = [
            "*" if one is found.chosen else "",
            *degrees_of(one.layout),
            percent(one.stage.counted / capacity, 0),
            percent(one.stage.total / capacity, 0),
            gib(one.stage.total),
            one.verdict,
            fixed(one.time.seconds, 2),
            exact(found.tokens_per_second(one) / found.gpus),
            percent(found.utilisation(one)),
        ]
        if tokens is not None:
            bill = found.bill(one, tokens)
            row += [count(bill.device_hours), count(bill.dollars)]
        rows.append(row)
    rows = _without_idle(rows)
    left = {"", "verdict", "schedule", "recompute", "shared"}
    return columns(rows, right=[i for i, name in enumerate(rows[0]) if name not in left])


_IDLE = {
    "expert": {"1"},
    "chunks": {"1"},
    "context": {"1"},
    "pipeline": {"1"},
    "recompute": {"–"},
    "schedule": {"–", "interleaved"},  # the chunks say as much
}


def _without_idle(rows: list[Sequence[str]]) -> list[Sequence[str]]:
    """The table without columns of degrees that nobody uses, and without sharding where all share alike."""
    title = rows[0]
    kept = []
    for index, name in enumerate(title):
        seen = {row[index] for row in rows[1:]}
        if not seen <= _IDLE.get(name, set()) and not (name == "shared" and len(seen) == 1):
            kept.append(index)
    return [[row[index] for index in kept] for row in rows]


def stages(memory: Sequence[StageMemory], capacity: float) -> Iterator[str]:
    """Every pipeline stage's memory by part, in GiB; stages that are alike in one line."""
    rows: list[Sequence[str]] = [("stage", *PARTS, "in all", "of the device")]
    previous: tuple[str, ...] = ()
    start = 0
    for one in memory:
        sizes = tuple(
            gib(getattr(one, name) + (one.inputs if name == "activations" else 0)) for name in PARTS
        )
        row = (*sizes, gib(one.total), percent(one.total / capacity, 0))
        if row == previous:
            rows[-1] = (f"{start}-{one.stage}", *row)
        else:
            rows.append((str(one.stage), *row))
            start = one.stage
        previous = row
    return columns(rows, right=range(len(rows[0])))


def refusals(shown: Sequence[Refusal]) -> Iterator[str]:
    """Refused layouts: each with its reason and what would do."""
    for one in shown:
        yield one.layout.text
        yield f"    {one.reason}"
        yield f"    would do: {one.change}"


def found_as_dict(found: Found, tokens: float | None) -> dict[str, Any]:
    """Everything for a program: bytes, seconds, every layout and every refusal."""
    return {
        "gpus": found.gpus,
        "device": asdict(found.device),
        "kernels": asdict(found.kernels),
        "sequence_length": found.workload.sequence_length,
        "batch": found.workload.batch,
        "precision": found.workload.precision,
        "parameters": found.workload.model.parameters,
        "chosen": None if found.chosen is None else candidate_as_dict(found, found.chosen, tokens),
        "layouts": [candidate_as_dict(found, one, tokens) for one in found.candidates],
        "refused": [
            {
                "layout": asdict(one.layout),
                "reason": one.reason,
                "change": one.change,
                "nearest": None if one.nearest is None else asdict(one.nearest),
                "bytes": None if one.stage is None else one.stage.total,
            }
            for one in found.refusals
        ],
    }


def candidate_as_dict(found: Found, one: Candidate, tokens: float | None) -> dict[str, Any]:
    """One layout: its verdict, its busiest stage's bytes by part, its seconds by part, its speed and cost."""
    capacity = found.device.memory_bytes
    return {
        "layout": asdict(one.layout),
        "verdict": one.verdict,
        "counted_share": one.stage.counted / capacity,
        "share": one.stage.total / capacity,
        "bytes": {"stage": one.stage.stage, "total": one.stage.total, **dict(one.stage.parts())},
        "seconds": {"total": one.time.seconds, **vars(one.time)},
        "tokens_per_second": found.tokens_per_second(one),
        "mfu": found.utilisation(one),
        "mfu_legacy": found.utilisation(one, legacy=True),
        "cost": None if tokens is None else vars(found.bill(one, tokens)),
    }
