"""`tsugiki train checkpoints` and `tsugiki train export`: what a run has kept, and a model of any of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from tsugiki.commands.terminal import Flag, Json, columns, print_json
from tsugiki.errors import InputError
from tsugiki.report.formatting import exact, fixed


def checkpoints(stage: Path, *, quick: Flag = False, json: Json = False) -> None:
    """List the checkpoints of a run that goes on, was stopped, or is done: step, tokens, loss, whole or not.

    Every byte is read and compared with its SHA-256. The newest few are kept while a run goes on
    (`keep_checkpoints`); those of `keep_every_steps` are kept for good.

    Example: `tsugiki train checkpoints runs/demo-ja/adapted`

    Args:
        stage: Directory of the train stage, or one checkpoint.
        quick: Look at the state and the files' presence only, and read no weights.
        json: Print JSON.
    """
    from tsugiki.training.checkpoint_files import STATE
    from tsugiki.training.export import checkpoints_of

    found = [stage] if (stage / STATE).exists() else checkpoints_of(stage)
    if not found:
        raise InputError(
            f"{stage} has no checkpoints",
            hint="name the directory of a train stage; one that is done keeps those of keep_every_steps only",
        )
    rows = [_row(directory, verify=not quick) for directory in reversed(found)]
    if json:
        print_json(rows)
        return
    print("\n".join(_table(rows)))


def export(
    source: Path,
    *,
    out: Path,
    step: int | None = None,
    precision: Literal["float32", "bfloat16"] = "float32",
    no_check: Flag = False,
    json: Json = False,
) -> None:
    """Make a Hugging Face model directory from a checkpoint, while the run goes on or after it.

    Whatever layout wrote the checkpoint: the result is config.json, safetensors, the tokenizer and
    generation_config.json, as the finished stage would leave them. It is held against `transformers` in
    float32 on drawn tokens; no more than one file of it (5 GB) is in memory before that. To train on from it,
    name the directory as `--model`.

    Example: `tsugiki train export runs/demo-ja/adapted --out out/so-far`

    Example: `tsugiki train export runs/big/adapted --step 5000 --out out/step-5000 --precision bfloat16`

    Args:
        source: Directory of the train stage (the newest checkpoint is taken), or one checkpoint.
        out: Directory of the model; must not exist.
        step: Take the checkpoint after so many steps; `tsugiki train checkpoints` lists them.
        precision: Type of the written weights.
        no_check: Skip the comparison with transformers, which holds the model in memory, or as many of its
            layers as fit.
        json: Print JSON.
    """
    import torch

    from tsugiki.training.checkpoint_files import step_of
    from tsugiki.training.export import export_checkpoint, find_checkpoint

    directory = find_checkpoint(source, step)
    parity = export_checkpoint(directory, out, dtype=getattr(torch, precision), check=not no_check)
    difference = None if parity is None else parity.max_abs_difference
    if json:
        print_json({"model": str(out), "step": step_of(directory), "max_abs_difference": difference})
        return
    proof = "not checked"
    if parity is not None:
        proof = f"logits{parity.note} within {parity.max_abs_difference:.1e} of transformers'"
    print(f"{out}: the model after step {exact(step_of(directory))} ({proof})")


def _row(directory: Path, *, verify: bool) -> dict[str, Any]:
    """What is to be said of a checkpoint; `fault` is None where nothing is wrong with it."""
    from tsugiki.training.checkpoint_files import KEPT, read_checkpoint, size_bytes, step_of

    row: dict[str, Any] = {
        "step": step_of(directory),
        "directory": str(directory),
        "bytes": size_bytes(directory),
        "for_good": directory.parent.name == KEPT,
        "tokens": None,
        "loss": None,
        "layout": None,
        "fault": None,
    }
    try:
        found = read_checkpoint(directory, verify=verify)
    except InputError as error:
        return {**row, "fault": error.message}
    losses = found.counters.get("recent_losses") or [None]
    tokens = sum(found.counters.get("tokens_of_source") or [])
    return {**row, "tokens": tokens, "loss": losses[-1], "layout": found.layout or None}


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    title = ("step", "tokens", "loss", "MB", "written by", "kept", "")
    cells: list[Sequence[str]] = [title]
    cells += [
        (
            exact(row["step"]),
            "–" if row["tokens"] is None else exact(row["tokens"]),
            "–" if row["loss"] is None else fixed(row["loss"], 4),
            fixed(row["bytes"] / 1e6, 1),
            row["layout"] or "–",
            "for good" if row["for_good"] else "for now",
            "whole" if row["fault"] is None else f"broken: {row['fault']}",
        )
        for row in rows
    ]
    return columns(cells, right=(0, 1, 2, 3))
