"""The planner's page: one self-contained HTML file of memory by stage, memory against speed, and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tsugiki.artifacts.files import write_text
from tsugiki.planner.layout import Layout
from tsugiki.planner.memory import StageMemory, memory
from tsugiki.planner.search import Candidate, Found
from tsugiki.report.figures.figure import Figure, Words, bar_legend, full_width
from tsugiki.report.figures.scatter import Axes, Dot, scatter_chart
from tsugiki.report.figures.stacks import Limit, StackRow, stack_chart
from tsugiki.report.figures.svg import Canvas
from tsugiki.report.formatting import exact, fixed, percent
from tsugiki.report.page import environment

GIB: Final = 2**30
_SHOWN: Final = 25
_REFUSED: Final = 60
_DOTS: Final = 400
_STAGES: Final = 24

PARTS: Final = (
    ("weights", "m0", ("weights", "gathered")),
    ("gradients", "m4", ("gradients",)),
    ("optimizer", "m3", ("optimizer",)),
    ("activations", "m1", ("activations", "inputs")),
    ("logits", "m2", ("logits",)),
    ("work space, buffers, communicators, CUDA", "m5", ("working", "buffers", "communicators", "context")),
)
"""What the bars are made of: a name, its colour, and the parts of `StageMemory` in it."""

TIMES: Final = (
    ("matrix products", "m0", ("products", "head")),
    ("attention", "m3", ("attention",)),
    ("element-wise, gradients, optimizer", "m5", ("elementwise", "gradients", "optimizer")),
    ("waiting: tensor, context, experts", "m1", ("tensor", "context", "expert")),
    ("waiting: pipeline and its bubble", "m4", ("pipeline", "bubble")),
    ("waiting: data and weights", "m2", ("data", "weights")),
)


@dataclass(frozen=True)
class Row:
    """A layout in the table: its cells, its verdict and whether it is the chosen one."""

    cells: tuple[str, ...]
    verdict: str
    chosen: bool


def write_layout_page(path: Path, name: str, found: Found, tokens: float | None) -> None:
    """Write the page atomically; the same findings give the same bytes.

    name: of the model. tokens: of the whole run, for its cost, where known.
    """
    write_text(path, layout_page(name, found, tokens))


def layout_page(name: str, found: Found, tokens: float | None) -> str:
    """The page as HTML text."""
    shown = found.chosen or (found.candidates[0] if found.candidates else None)
    return environment().get_template("layouts.html.j2").render(
        name=name,
        found=found,
        shown=shown,
        legacy=None if shown is None else found.utilisation(shown, legacy=True),
        bill=None if shown is None or tokens is None else found.bill(shown, tokens),
        tokens=tokens,
        figures=[] if shown is None else _figures(found, shown),
        titles=_without_idle(found, TITLES),
        rows=[_row(found, one, tokens) for one in found.candidates[:_SHOWN]],
        refused=found.refusals[:_REFUSED],
        gib=GIB,
    )  # fmt: skip


TITLES: Final = (
    *("tensor", "context", "pipeline", "data", "expert", "micro-batch", "chunks", "recompute"),
    *("counted", "in all", "GiB", "s/step", "tokens/s/GPU", "MFU", "GPU-hours"),
)


def _row(found: Found, one: Candidate, tokens: float | None) -> Row:
    layout, capacity = one.layout, found.device.memory_bytes
    names = ("tensor", "context", "pipeline", "data", "expert", "micro_batch", "chunks")
    cells = (
        *(str(getattr(layout, name)) for name in names),
        "–" if layout.recompute == "none" else layout.recompute,
        percent(one.stage.counted / capacity, 0),
        percent(one.stage.total / capacity, 0),
        fixed(one.stage.total / GIB, 1),
        fixed(one.time.seconds, 2),
        exact(found.tokens_per_second(one) / found.gpus),
        percent(found.utilisation(one)),
        exact(found.bill(one, tokens).device_hours) if tokens is not None else "–",
    )
    return Row(_without_idle(found, cells), one.verdict, one is found.chosen)


def _without_idle(found: Found, cells: tuple[str, ...]) -> tuple[str, ...]:
    """The cells of a row without that of experts where the model has none."""
    place = TITLES.index("expert")
    return cells if found.workload.model.moe else cells[:place] + cells[place + 1 :]


def _figures(found: Found, shown: Candidate) -> list[Figure]:
    return [_memory(found, shown.layout), _front(found), _time(found)]


def _memory(found: Found, layout: Layout) -> Figure:
    stages = memory(found.workload, layout, found.kernels)
    capacity = found.device.memory_bytes / GIB
    limits = [
        Limit(0.8 * capacity, "80 %"),
        Limit(0.9 * capacity, "90 %"),
        Limit(capacity, found.device.name),
    ]
    rows = [_stack(one) for one in _spread(stages)]
    words = Words(
        "Memory of each pipeline stage",
        f"The chosen layout ({layout.text}). Where the coloured tensors stay below 80 %, no measured run "
        "ran out of memory; the grey part comes beside them.",
        "; ".join(f"stage {one.stage}: {one.total / GIB:.1f} GiB" for one in stages),
    )

    def draw(canvas: Canvas) -> Any:
        return stack_chart(canvas, rows, limits, "GiB of one GPU")

    return full_width("memory", words, draw, bar_legend([(name, css) for name, css, _ in PARTS]))


def _spread(stages: Sequence[StageMemory]) -> Sequence[StageMemory]:
    """All stages, or of a deep pipeline the first, the last and evenly some between."""
    if len(stages) <= _STAGES:
        return stages
    return [stages[round(index * (len(stages) - 1) / (_STAGES - 1))] for index in range(_STAGES)]


def _stack(stage: StageMemory) -> StackRow:
    parts = tuple((sum(getattr(stage, one) for one in names) / GIB, css) for _, css, names in PARTS)
    return StackRow(f"stage {stage.stage}", parts, f"{stage.total / GIB:.1f}")


def _front(found: Found) -> Figure:
    front = set(map(id, found.front))
    step = max(1, len(found.candidates) // _DOTS)
    others = [one for one in found.candidates[::step] if id(one) not in front]
    colours = {"safe": "m0", "probe": "m2", "refuse": "m5"}

    def dot(one: Candidate) -> Dot:
        speed = found.tokens_per_second(one) / found.gpus
        name = "chosen" if one is found.chosen else ""
        title = f"{one.layout.text}: {one.stage.total / GIB:.1f} GiB, {speed:,.0f} tokens/s/GPU"
        return Dot(one.stage.total / GIB, speed, colours[one.verdict], title, name)

    words = Words(
        "Memory against speed",
        "Each dot is a layout; the line joins those that none beats in both. Left is smaller, up is faster.",
        f"{len(found.candidates)} layouts; the fastest {found.candidates[0].layout.text}, "
        f"the smallest {found.front[-1].layout.text}",
    )
    chosen = [] if found.chosen is None or id(found.chosen) in front else [dot(found.chosen)]

    def draw(canvas: Canvas) -> Any:
        axes = Axes("GiB of the busiest GPU", "tokens a second and GPU")
        return scatter_chart(canvas, [*map(dot, others), *chosen], [dot(one) for one in found.front], axes)

    return full_width("front", words, draw, bar_legend([("safe", "m0"), ("probe", "m2")]))


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The fastest of the layouts that have the same degrees and micro-batch."""
    kept: dict[tuple[int, ...], Candidate] = {}
    for one in candidates:
        layout = one.layout
        key = (layout.tensor, layout.context, layout.pipeline, layout.data, layout.micro_batch, layout.expert)
        kept.setdefault(key, one)
    return list(kept.values())


def _time(found: Found) -> Figure:
    rows = []
    for one in _distinct(found.candidates)[:8]:
        parts = tuple((sum(getattr(one.time, part) for part in names), css) for _, css, names in TIMES)
        degrees = f"T{one.layout.tensor} C{one.layout.context} P{one.layout.pipeline} D{one.layout.data}"
        degrees += f" E{one.layout.expert}" if found.workload.model.moe else ""
        rows.append(StackRow(f"{degrees} b{one.layout.micro_batch}", parts, f"{one.time.seconds:.2f} s"))
    words = Words(
        "Where the time of a step goes",
        "The fastest layouts: T tensor, C context, P pipeline, D data, E expert, b micro-batch.",
        "; ".join(f"{row.label}: {row.text}" for row in rows),
    )

    def draw(canvas: Canvas) -> Any:
        return stack_chart(canvas, rows, [], "seconds of one optimizer step")

    return full_width("time", words, draw, bar_legend([(name, css) for name, css, _ in TIMES]))
