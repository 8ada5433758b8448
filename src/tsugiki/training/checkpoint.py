"""The whole state of a run on the disk: written at once or not at all, and believed only after a check.

    checkpoint-00000100/tensors.safetensors   weights ("model.*") and AdamW's moments ("first.*", "second.*")
    checkpoint-00000100/state.json            step, counters, and the SHA-256 of the tensors

Position in the data, learning rate and shuffling are functions of the step, so there is no random state to
keep. Safetensors and JSON only: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tsugiki.artifacts.files import atomic_directory, read_json, sha256_of, write_json
from tsugiki.errors import DriftError, InputError

TENSORS = "tensors.safetensors"
STATE = "state.json"
KEPT_CHECKPOINTS = 2

_NAME = re.compile(r"checkpoint-(\d{8})")
_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the number of finished steps, the run's counters, and where it lies."""

    step: int
    counters: Mapping[str, Any]
    directory: Path


def save_checkpoint(
    work: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    run_identity: str,
    counters: Mapping[str, Any],
) -> Path:
    """Write `work/checkpoint-<step>`, then delete all but the newest two.

    step: finished steps. run_identity: what the run is; a checkpoint of another run is refused when read.
    counters: plain JSON data. Raises StorageError where the disk is full; older checkpoints stay then.
    """
    directory = work / f"checkpoint-{step:08d}"
    if directory.exists():
        shutil.rmtree(directory)
    with atomic_directory(directory) as partial:
        save_file(_tensors(model, optimizer), partial / TENSORS)
        state = {
            "step": step,
            "run_identity": run_identity,
            "tensors_sha256": sha256_of(partial / TENSORS),
            "counters": dict(counters),
        }
        write_json(partial / STATE, {**state, "state_sha256": _digest(state)})
    for old in _directories(work)[KEPT_CHECKPOINTS:]:
        shutil.rmtree(old)
    return directory


def newest_checkpoint(work: Path, run_identity: str, log: logging.Logger) -> Checkpoint | None:
    """The newest checkpoint whose bytes are those that were written, or None.

    A broken one is passed over with a warning in the log. Raises DriftError where a whole one belongs to
    another run.
    """
    for directory in _directories(work):
        try:
            state = _verified_state(directory)
        except InputError as error:
            log.warning("passed over a broken checkpoint: %s", error.message)
            continue
        if state["run_identity"] != run_identity:
            raise DriftError(
                f"{directory} belongs to another run ({state['run_identity']}, not {run_identity})",
                hint=f"delete {work} to start anew, or go back to the configuration that it was made with",
            )
        return Checkpoint(state["step"], state["counters"], directory)
    return None


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copy weights and moments into `model` and `optimizer`, in place.

    Raises InputError where a tensor is missing or has another shape.
    """
    tensors = load_file(checkpoint.directory / TENSORS)
    expected = {f"{part}.{name}" for name in _parameters(model) for part in ("model", *_MOMENTS)}
    if set(tensors) != expected:
        odd = sorted(set(tensors) ^ expected)[:3]
        raise InputError(
            f"{checkpoint.directory} does not hold this model: {', '.join(odd)} differ",
            hint="delete the checkpoint, or go back to the model that it was made with",
        )
    with torch.no_grad():
        for name, parameter in _parameters(model).items():
            parameter.copy_(tensors[f"model.{name}"])
            state = optimizer.state[parameter]
            # The fused kernel wants the step as a float32 tensor on the parameter's device.
            state["step"] = torch.tensor(float(checkpoint.step), device=parameter.device)
            for part, key in _MOMENTS.items():
                # A copy: what was read may lie unaligned, and vectorised kernels round by alignment.
                state[key] = torch.empty_like(parameter).copy_(tensors[f"{part}.{name}"])


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in _parameters(model).items():
        tensors[f"model.{name}"] = parameter.detach().contiguous()
        state = optimizer.state.get(parameter, {})
        for part, key in _MOMENTS.items():
            # Before the first step there are no moments yet: they are zero.
            tensors[f"{part}.{name}"] = state.get(key, torch.zeros_like(parameter.detach())).contiguous()
    return tensors


def _directories(work: Path) -> list[Path]:
    """Checkpoints below `work`, newest first; unfinished ones (`.partial`) don't match."""
    return sorted((path for path in work.glob("checkpoint-*") if _NAME.fullmatch(path.name)), reverse=True)


def _verified_state(directory: Path) -> dict[str, Any]:
    state = read_json(directory / STATE)
    if not isinstance(state, dict) or state.pop("state_sha256", None) != _digest(state):
        raise InputError(f"{directory / STATE} is not what was written", hint="delete the checkpoint")
    tensors = directory / TENSORS
    try:
        found = sha256_of(tensors)
    except OSError as error:
        raise InputError(f"{tensors} can't be read: {error}", hint="delete the checkpoint") from error
    if found != state["tensors_sha256"]:
        raise InputError(
            f"{tensors} has SHA-256 {found[:12]}…, not {state['tensors_sha256'][:12]}…",
            hint="delete the checkpoint",
        )
    return state


def _digest(state: object) -> str:
    text = json.dumps(state, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
