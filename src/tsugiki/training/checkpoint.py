"""The whole state of a run on the disk: written at once or not at all, and believed only after a check.

    checkpoint-00000100/part-00000.safetensors   a process's parts of weights ("model.*") and AdamW's moments
                                                 ("first.*", "second.*")
    checkpoint-00000100/state.json               step, counters, where each tensor's pieces lie, and SHA-256s
    checkpoint-00000100/config.json, ...         the model's shape and tokenizer, so that it can be exported

Every process writes what it holds, each number once; a reader takes the pieces that it needs, so a run may
go on in another layout. Writing goes on beside the training, from a copy. Position in the data, learning rate
and shuffling are functions of the step, so there is no random state to keep. Safetensors and JSON only:
nothing is unpickled, which torch's distributed checkpoints would need.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tsugiki.artifacts.files import (
    PARTIAL,
    fsync_directory,
    fsync_file,
    read_json,
    sha256_of,
    write_json,
)
from tsugiki.errors import InputError, StorageError, storage_errors
from tsugiki.training.checkpoint_files import (
    STATE,
    Checkpoint,
    Retention,
    add_model_files,
    checkpoint_directory,
    clear_unfinished,
    discard,
    newest_checkpoint,
    sealed,
)
from tsugiki.training.placement import Box, box_of, is_first_copy, local_part

__all__ = ["STATE", "Checkpoint", "Saving", "clear_unfinished", "newest_checkpoint", "restore"]

TIED_COPY = "model.embed_tokens.copy"
"""Name of a last pipeline stage's copy of a tied embedding: it is not stored, and read from the embedding."""

SEEN_SECONDS = 120.0
"""How long a file that another machine has written may stay unseen: NFS looks again after 60 (acdirmax)."""
_LOOK_SECONDS = 0.1

_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq"}

Parameters = nn.Module | Mapping[str, nn.Parameter]


def part_name(rank: int) -> str:
    """The file that process `rank` writes."""
    return f"part-{rank:05d}.safetensors"


class Background:
    """A call that is made beside the training, in a thread; it is told of its error by `wait`."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether the call has ended, well or not."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the end of the call, and raise what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 (raised by `wait`, in the thread that trains)
            self._error = error


class Saving:
    """A checkpoint that is being written in the background, from a copy that the constructor makes."""

    def __init__(
        self,
        work: Path,
        parameters: Parameters,
        optimizer: torch.optim.Optimizer,
        *,
        step: int,
        run_identity: str,
        counters: Mapping[str, Any],
        rank: int = 0,
        ranks: int = 1,
        layout: str = "",
        retention: Retention | None = None,
    ) -> None:
        self._work, self._rank, self._ranks = work, rank, ranks
        self._retention = retention or Retention()
        self._facts: dict[str, Any] = {
            "step": step,
            "run_identity": run_identity,
            "counters": dict(counters),
            "layout": layout,
        }
        self._directory = checkpoint_directory(work, step)
        self._partial = self._directory.with_name(self._directory.name + PARTIAL)
        self._writing = Background(partial(self._write, *_copies(_named(parameters), optimizer)))

    @property
    def written(self) -> bool:
        """Whether this process's part is on the disk (or failed)."""
        return self._writing.is_done

    def wait(self) -> None:
        """Wait for this process's part. Raises StorageError where the disk is full."""
        with self._no_half():
            self._writing.wait()

    def commit(self) -> Path:
        """Make the checkpoint whole, when all processes have written; then delete what need not be kept.

        One process does this, for all. Raises StorageError where the disk is full, or where another's part
        is not to be seen.
        """
        with self._no_half(), storage_errors(self._directory):
            parts = _merged(self._partial, self._ranks)
            parts["files"] |= add_model_files(self._work, self._partial)
            write_json(self._partial / STATE, sealed({**self._facts, **parts}))
            if self._directory.exists():  # a broken one, which was passed over
                discard(self._directory)
            fsync_directory(self._partial)
            self._partial.rename(self._directory)
            fsync_directory(self._work)
        if not self._facts["counters"].get("high"):  # else keep what a spike would go back to
            self._retention.apply(self._work)
        return self._directory

    @contextmanager
    def _no_half(self) -> Iterator[None]:
        """Leave no half of a checkpoint after an error: a full disk needs the space to say so."""
        try:
            yield
        except BaseException:
            shutil.rmtree(self._partial, ignore_errors=True)
            raise

    def _write(self, tensors: dict[str, Tensor], boxes: dict[str, Any]) -> None:
        file = self._partial / part_name(self._rank)
        with storage_errors(self._directory):
            self._partial.mkdir(parents=True, exist_ok=True)
            save_file(tensors, file)
            fsync_file(file)
            write_json(file.with_suffix(".json"), {"sha256": sha256_of(file), "tensors": boxes})


def save_checkpoint(
    work: Path,
    parameters: Parameters,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    run_identity: str,
    counters: Mapping[str, Any],
) -> Path:
    """Write `work/checkpoint-<step>` of one process and wait for it; then delete all but the newest two.

    step: finished steps. run_identity: what the run is; a checkpoint of another run is refused when read.
    counters: plain JSON data. Raises StorageError where the disk is full; older checkpoints stay then.
    """
    saving = Saving(work, parameters, optimizer, step=step, run_identity=run_identity, counters=counters)
    saving.wait()
    return saving.commit()


def restore(checkpoint: Checkpoint, parameters: Parameters, optimizer: torch.optim.Optimizer) -> None:
    """Copy weights and moments into parameters and `optimizer`, in place, whatever the layout.

    Raises InputError where a tensor is missing or has another shape.
    """
    named = _named(parameters)
    with Reader(checkpoint) as reader, torch.no_grad():
        for name, parameter in named.items():
            stored = _stored_name(name)
            reader.read(f"model.{stored}", parameter)
            state = optimizer.state[parameter]
            # The fused kernel wants the step as a float32 tensor on the parameter's device.
            state["step"] = torch.tensor(float(checkpoint.step), device=parameter.device)
            for part, key in _MOMENTS.items():
                state[key] = torch.zeros_like(parameter)
                reader.read(f"{part}.{stored}", state[key])


def restore_weights(checkpoint: Checkpoint, parameters: Parameters) -> None:
    """Copy the weights alone into parameters, in place. Raises InputError as `restore`."""
    with Reader(checkpoint) as reader, torch.no_grad():
        for name, parameter in _named(parameters).items():
            reader.read(f"model.{_stored_name(name)}", parameter)


def _stored_name(name: str) -> str:
    return "model.embed_tokens.weight" if name == TIED_COPY else name


class Reader:
    """Reads boxes of tensors out of the pieces of a checkpoint."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._files: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.clear()

    def read(self, name: str, target: Tensor) -> None:
        """Fill `target`'s part here with what the checkpoint holds under `name`."""
        known = self._checkpoint.tensors.get(name)
        if known is None or tuple(known["shape"]) != tuple(target.shape):
            found = "nothing" if known is None else f"shape {tuple(known['shape'])}"
            raise InputError(
                f"{self._checkpoint.directory} does not hold this model: {name} should have shape "
                f"{tuple(target.shape)}, there is {found}",
                hint="delete the checkpoint, or go back to the model that it was made with",
            )
        local, box = local_part(target), box_of(target)
        missing = math.prod(box.size)
        for file, offset, size in known["pieces"]:
            piece = Box(tuple(offset), tuple(size))
            shared = box.meet(piece)
            if shared is not None:
                stored = self._open(file).get_slice(name)
                # A copy: what was read may lie unaligned, and vectorised kernels round by alignment.
                local[shared.within(box)].copy_(stored[shared.within(piece)])
                missing -= math.prod(shared.size)
        if missing:  # pieces never overlap
            raise InputError(
                f"{self._checkpoint.directory} lacks {missing} numbers of {name}: a part is missing",
                hint="delete the checkpoint; all processes have to write to the same disk",
            )

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = safe_open(self._checkpoint.directory / file, framework="pt")
        return self._files[file]


def _named(parameters: Parameters) -> dict[str, nn.Parameter]:
    pairs = parameters.named_parameters() if isinstance(parameters, nn.Module) else parameters.items()
    return {name: parameter for name, parameter in pairs if parameter.requires_grad}


def _copies(
    named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copies in main memory of what this process is to write, and where each lies in its tensor."""
    tensors, boxes = {}, {}
    for name, tensor in _tensors(named, optimizer):
        if not is_first_copy(tensor):
            continue
        box = box_of(tensor)
        local = local_part(tensor)
        if local.numel() == 0 and tensor.numel() > 0:
            continue
        tensors[name] = local.detach().to("cpu", copy=True).contiguous()
        boxes[name] = {"shape": list(tensor.shape), "offset": list(box.offset), "size": list(box.size)}
    return tensors, boxes


def _tensors(
    named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in named.items():
        if name == TIED_COPY:
            continue
        yield f"model.{name}", parameter.detach()
        state = optimizer.state.get(parameter, {})
        for part, key in _MOMENTS.items():
            # Before the first step there are no moments yet: they are zero.
            yield f"{part}.{name}", state.get(key, torch.zeros_like(parameter.detach()))


def _merged(directory: Path, ranks: int) -> dict[str, Any]:
    """What the parts' own JSON files say, in one; those files go."""
    files, tensors = {}, dict[str, Any]()
    told = _told_parts(directory, ranks)
    for path in told:
        part = read_json(path)
        file = path.with_suffix(".safetensors").name
        files[file] = part["sha256"]
        for name, box in part["tensors"].items():
            known = tensors.setdefault(name, {"shape": box["shape"], "pieces": []})
            known["pieces"].append([file, box["offset"], box["size"]])
    for path in told:
        path.unlink()
    return {"files": files, "tensors": tensors}


def _told_parts(directory: Path, ranks: int) -> list[Path]:
    """The JSON files of all parts, which are there; another machine's may take a while to be seen."""
    deadline = time.monotonic() + SEEN_SECONDS
    while len(told := sorted(directory.glob("part-*.json"))) < ranks:
        if time.monotonic() > deadline:
            raise StorageError(
                f"{directory} holds the parts of {len(told)} processes; {ranks} have written theirs",
                hint="put the run on a disk that all machines share",
            )
        time.sleep(_LOOK_SECONDS)
    return told
