"""`tsugiki planner calibrate` and `measured`: the planner against runs that were measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from tsugiki.commands.planner_inputs import asked_device, asked_model, whole_number
from tsugiki.commands.planner_search import Framework
from tsugiki.commands.terminal import Json, columns, print_json
from tsugiki.errors import InputError
from tsugiki.report.formatting import exact, fixed, percent

if TYPE_CHECKING:
    from tsugiki.planner.measured import Choice, Judged


def calibrate(
    runs: Path,
    *,
    model: str,
    batch: str,
    device: str = "h100-80gb",
    devices: Path | None = None,
    gpus_per_node: int | None = None,
    network: float | None = None,
    framework: Framework = "megatron-lm",
    out: Path | None = None,
    json: Json = False,
) -> None:
    """Fit the few constants of the planner's speed to your own runs, and say what error is left.

    RUNS is a CSV file with the columns gpu, seq_len, tp, cp, pp, micro_batch, n_gpus, tflops_per_gpu (as
    Megatron reports it, attention counted in full) and status (ran, or oom_or_failed).

    Example: `tsugiki planner calibrate runs.csv --model llama-3.1-8b --batch 1024 --out ours.json`

    Args:
        runs: The CSV file; runs of one type of device.
        model: The model of all of them, as for `tsugiki planner`.
        batch: Sequences of a step in all of them.
        device: The device that they ran on.
        devices: A TOML file of devices of your own.
        gpus_per_node: Devices that NVLink connects.
        network: Network of a node by its GPUs, in GB/s.
        framework: Whose kernels they ran.
        out: Write the constants to this file, for --calibration.
        json: Print JSON.
    """
    from tsugiki.planner.calibrate import FITTED
    from tsugiki.planner.calibrate import calibrate as fit
    from tsugiki.planner.kernels import kernels
    from tsugiki.planner.measured import read_cells
    from tsugiki.planner.speed import Tuning

    shape = asked_model(model, None).shape
    cells = read_cells(runs, shape, whole_number("--batch", batch))
    types = sorted({cell.gpu for cell in cells})
    if len(types) > 1:
        raise InputError(
            f"{runs} has runs of {len(types)} types of device: {', '.join(types)}",
            hint="give a file for each: constants belong to one type",
        )
    found = fit(cells, asked_device(device, devices, gpus_per_node, network, None), kernels(framework))
    as_dict = {**asdict(found), "device": device, "framework": framework}
    if out is not None:
        from tsugiki.artifacts.files import write_json

        write_json(out, as_dict)
    if json:
        print_json(as_dict)
        return
    rows: list[Sequence[str]] = [("constant", "default", "fitted")]
    rows += [(name, *(f"{getattr(one, name):.3g}" for one in (Tuning(), found.tuning))) for name in FITTED]
    print("\n".join(columns(rows, right=(1, 2))))
    print(
        f"\n{found.runs} runs: mean error of the speed {percent(found.error_before)} before, "
        f"{percent(found.error)} after; {percent(found.error_left_out)} for a GPU count that was left out"
    )


def measured(
    runs: Path | None = None, *, model: str = "llama-3.1-8b", batch: str = "1024", json: Json = False
) -> None:
    """Hold the planner against measured runs: which it calls safe and ran, and what its choices cost.

    Without a file: Megatron-LM runs of Llama-3.1-8B on A100-40GB and H100-94GB that come with the package; no
    constant of the planner is fitted to them.

    Example: `tsugiki planner measured`

    Args:
        runs: A CSV file as for `tsugiki planner calibrate`; gpu is "A100 (40GB)", "H100 (94GB)" or a device
            of `tsugiki planner`.
        model: The model of all runs.
        batch: Sequences of a step in all of them.
        json: Print JSON.
    """
    from tsugiki.planner.measured import choices, classification, judge, read_cells, shipped_cells

    cells = shipped_cells()
    if runs is not None:
        cells = read_cells(runs, asked_model(model, None).shape, whole_number("--batch", batch))
    judged = judge(cells)
    whole, picks = classification(judged), choices(judged)
    if json:
        print_json(_as_dict(judged))
        return
    print("\n".join(_classified(judged)))
    print(
        f"\nBest single threshold: {percent(whole.threshold)} of the memory, right for "
        f"{percent(whole.correct)} of {whole.cells} layouts\n"
    )
    if not picks:
        print("No group of equal GPUs, GPU count and length has three runs: nothing to choose from")
        return
    print("\n".join(_chosen(picks)))
    for name, costs in (
        ("the fastest safe layout by prediction", [one.cost(one.chosen) for one in picks]),
        ("the fastest by prediction of those that ran", [one.cost(one.among) for one in picks]),
    ):
        print(
            f"\nTaking {name} costs {percent(fmean(costs), 2)} on average, {percent(max(costs))} at most",
            end="",
        )
    print()


def _classified(judged: Sequence[Judged]) -> Iterator[str]:
    rows: list[Sequence[str]] = [("", "safe", "probe", "refuse")]
    for gpu in sorted({one.cell.gpu for one in judged}):
        for ran, word in ((True, "ran"), (False, "failed")):
            cells = [one.verdict for one in judged if one.cell.gpu == gpu and one.cell.ran == ran]
            rows.append((f"{gpu}, {word}", *(str(cells.count(band)) for band in ("safe", "probe", "refuse"))))
    return columns(rows, right=(1, 2, 3))


def _chosen(picks: Sequence[Choice]) -> Iterator[str]:
    title = ("GPUs", "tokens", "fastest measured", "TFLOP/s", "chosen", "TFLOP/s", "costs")
    rows: list[Sequence[str]] = [title]
    for one in picks:
        best, chosen = one.best.cell, None if one.chosen is None else one.chosen.cell
        rows.append(
            (
                f"{one.gpus} x {one.gpu}",
                exact(one.sequence_length),
                best.layout.text,
                fixed(best.tflops, 1),
                "nothing is safe" if chosen is None else chosen.layout.text,
                "–" if chosen is None else fixed(chosen.tflops, 1),
                percent(one.cost(one.chosen)),
            )
        )
    return columns(rows, right=(1, 3, 5, 6))


def _as_dict(judged: Sequence[Judged]) -> dict[str, object]:
    from tsugiki.planner.measured import choices, classification

    whole = classification(judged)
    return {
        "threshold": whole.threshold,
        "correct": whole.correct,
        "choices": [
            {
                "gpu": one.gpu,
                "gpus": one.gpus,
                "sequence_length": one.sequence_length,
                "best": one.best.cell.layout.text,
                "chosen": None if one.chosen is None else one.chosen.cell.layout.text,
                "cost": one.cost(one.chosen),
                "cost_among_ran": one.cost(one.among),
            }
            for one in choices(judged)
        ],
        "cells": [
            {
                "gpu": one.cell.gpu,
                "gpus": one.cell.gpus,
                "layout": asdict(one.cell.layout),
                "measured": one.cell.tflops,
                "predicted": one.predicted,
                "counted_share": one.counted_share,
                "share": one.share,
                "verdict": one.verdict,
            }
            for one in judged
        ],
    }
