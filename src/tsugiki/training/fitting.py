"""Whether the degrees of parallelism divide a model and its batch, and the nearest layouts that do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from typing import TYPE_CHECKING

from tsugiki.errors import Problem
from tsugiki.models.config import DecoderConfig
from tsugiki.planner.layout import division_problems, divisors
from tsugiki.training.layouts import planned
from tsugiki.training.settings import Parallel

if TYPE_CHECKING:
    from tsugiki.training.stage import Config

ASKED_AS = {"micro_batch": "data", "expert_tensor": "tensor"}
"""The planner's names of degrees that a train stage does not have, and what its own is called."""

_DEGREES = ("data", "tensor", "pipeline", "context", "expert")
_SHOWN = 3
"""So many of the nearest layouts are told."""

_LARGEST = 64
"""Degrees of tensor, context and expert parallelism beyond it are no use: a node has fewer devices."""


def fit_problems(config: Config, shape: DecoderConfig, rows: int) -> Iterator[Problem]:
    """Every way in which the layout does not fit; the first with the nearest layouts that would.

    rows: sequences of a micro-batch.
    """
    found = list(_problems(config, shape, rows))
    errors = [problem for problem in found if problem.severity == "error"]
    if errors:
        near = nearest(config, shape)
        told = f"; nearest layouts that fit: {' | '.join(one.text for one in near)}" if near else ""
        found[found.index(errors[0])] = replace(errors[0], hint=errors[0].hint + told)
    yield from found


def nearest(config: Config, shape: DecoderConfig) -> list[Parallel]:
    """The layouts next to the one that was asked for: one degree is another, or two where no one would do.

    Those with the fewest processes more or less come first.
    """
    from tsugiki.training.planning import micro_batch_rows

    asked = config.parallel
    wanted = {name: getattr(asked, name) for name in _DEGREES}
    candidates = {
        name: [degree for degree in _useful(name, config, shape) if degree != wanted[name]]
        for name in _DEGREES
    }
    for changes in (1, 2):
        found: list[tuple[float, float, Parallel]] = []
        for names in combinations(_DEGREES, changes):
            for degrees in product(*(candidates[name] for name in names)):
                changed = dict(zip(names, degrees, strict=True))
                one = _parallel(asked, changed)
                if one is None:
                    continue
                tried = config.model_copy(update={"parallel": one})
                problems = _problems(tried, shape, micro_batch_rows(tried))
                if not any(problem.severity == "error" for problem in problems):
                    step = sum(abs(math.log(changed[name] / wanted[name])) for name in names)
                    found.append((abs(math.log(one.product / asked.product)), step, one))
        if found:
            return [one for *_, one in sorted(found, key=lambda row: row[:2])[:_SHOWN]]
    return []


def _useful(name: str, config: Config, shape: DecoderConfig) -> list[int]:
    """Degrees that may fit: divisors of what they cut."""
    if name == "data":
        return divisors(config.sequences_per_step, config.sequences_per_step)
    if name == "pipeline":
        return divisors(shape.layers, shape.layers)
    if name == "expert":
        return divisors(shape.moe.experts, _LARGEST) if shape.moe else [1]
    return divisors(shape.heads if name == "tensor" else config.sequence_length // 2 or 1, _LARGEST)


def _parallel(asked: Parallel, changed: dict[str, int]) -> Parallel | None:
    given = asked.model_dump() | changed
    if given["pipeline"] == 1:
        given |= {"schedule": "1f1b", "chunks": 1}
    if given["shard"] is not None and given["data"] % given["shard"]:
        given["shard"] = None
    try:
        return Parallel.model_validate(given)
    except ValueError:
        return None


def _problems(config: Config, shape: DecoderConfig, rows: int) -> Iterator[Problem]:
    """What the planner says of degrees that do not divide, in a recipe's words; and what our engine asks."""
    parallel = config.parallel
    workload, layout = planned(shape, config, rows=1)
    for problem in division_problems(workload, replace(layout, chunks=1)):
        where = ASKED_AS.get(problem.where, problem.where)
        said = problem.message.removeprefix(problem.where)
        yield replace(problem, message=f"parallel.{where}{said}", where=f"parallel.{where}")
    part = config.sequence_length // parallel.context
    if part % parallel.tensor == 0 and part // 2 % parallel.tensor:
        yield Problem(
            f"parallel.tensor: {parallel.tensor} does not divide half of a process's part of a sequence "
            f"({part // 2} tokens)",
            f"degrees that do: {', '.join(map(str, divisors(part // 2, _LARGEST)))}",
            "parallel.tensor",
        )
    divided = shape.kv_heads % parallel.tensor == 0 or parallel.tensor % shape.kv_heads == 0
    if divided and shape.kv_heads * shape.head_dim % parallel.tensor:
        copies = parallel.tensor // shape.kv_heads
        fitting = ", ".join(str(n * shape.kv_heads) for n in divisors(shape.head_dim, _LARGEST))
        yield Problem(
            f"parallel.tensor: {copies} processes share each key-value head, and do not divide its dimension "
            f"({shape.head_dim})",
            f"degrees that do: {fitting}",
            "parallel.tensor",
        )
    yield from _pipeline_problems(config, shape, rows)


def _pipeline_problems(config: Config, shape: DecoderConfig, rows: int) -> Iterator[Problem]:
    """What torch's schedules ask: no empty stage, and a micro-batch a stage, or a multiple of the stages."""
    parallel = config.parallel
    stages, each = parallel.pipeline, config.sequences_per_step // parallel.data
    if parallel.chunks > 1 and stages == 1:
        yield Problem(
            f"parallel.chunks: {parallel.chunks} need a pipeline to interleave",
            "use schedule: 1f1b, chunks: 1",
            "parallel.chunks",
        )
    elif stages * parallel.chunks > shape.layers and stages <= shape.layers:
        fitting = list(range(2, shape.layers // stages + 1))
        yield Problem(
            f"parallel.chunks: {stages} processes of {parallel.chunks} chunks are {stages * parallel.chunks} "
            f"stages; there are {shape.layers} layers",
            f"chunks that fit: {', '.join(map(str, fitting))}"
            if fitting
            else "use schedule: 1f1b, chunks: 1",
            "parallel.chunks",
        )
    count = each // rows
    if stages == 1:
        return
    if parallel.schedule == "interleaved" and count % stages:
        fitting = [n * config.sequence_length for n in divisors(each, each) if each // n % stages == 0]
        yield Problem(
            f"parallel.pipeline: {stages} does not divide the {count} micro-batches of a step, which an "
            "interleaved pipeline takes in rounds",
            f"micro_batch_tokens that do: {', '.join(map(str, fitting))}"
            if fitting
            else f"use schedule: 1f1b, or batch_tokens a multiple of "
            f"{parallel.data * stages * config.sequence_length}",
            "parallel.pipeline",
        )
    elif count < stages:
        yield Problem(
            f"{count} micro-batches leave a pipeline of {stages} idle most of the time"
            if parallel.schedule == "gpipe"
            else f"parallel.pipeline: {stages} stages need a micro-batch each; a step has {count}",
            "lower micro_batch_tokens or parallel.pipeline, or raise batch_tokens",
            "parallel.pipeline",
            "warning" if parallel.schedule == "gpipe" else "error",
        )
