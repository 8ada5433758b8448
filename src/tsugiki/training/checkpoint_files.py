"""Checkpoints as directories: where they lie, whether their bytes are whole, and how long they are kept.

    STAGE/work/checkpoint-00000100          the newest few, until the stage is done
    STAGE/checkpoints/checkpoint-00000100   those that are kept for good

A checkpoint holds everything that a model is made from: beside weights and moments the model's config.json
and its tokenizer, copied from `work/model`, so that one directory can be carried elsewhere and exported.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsugiki.artifacts.files import PARTIAL, fsync_directory, fsync_file, read_json, sha256_of
from tsugiki.artifacts.processes import usable_cores
from tsugiki.errors import DriftError, InputError, storage_errors

STATE = "state.json"
KEPT = "checkpoints"
"""Beside the model: checkpoints that stay when the stage is done."""
MODEL = "model"
"""In the work directory: config.json and the tokenizer's files, for every checkpoint to take along."""

KEPT_CHECKPOINTS = 2
FORMAT = 1
"""Of what a state holds. Another number is refused, not passed over: newer code wrote it, all is whole."""

_READERS = 8
"""Threads that check files: a core hashes about 1 GB/s, less than a disk gives."""
_GOING = f".gone{PARTIAL}"
_NAME = re.compile(r"checkpoint-(\d{8})")


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept: the `newest` of a run that goes on, and every `every_steps` for good."""

    newest: int = KEPT_CHECKPOINTS
    every_steps: int | None = None

    def is_for_good(self, step: int) -> bool:
        """Whether the checkpoint after `step` steps outlives the stage."""
        return self.every_steps is not None and step > 0 and step % self.every_steps == 0

    def apply(self, work: Path) -> None:
        """Move what is kept for good out of the way, and delete what is older than the newest."""
        for old in _below(work)[self.newest :]:
            if self.is_for_good(step_of(old)):
                _move_to_kept(old)
            else:
                discard(old)

    def close(self, work: Path) -> None:
        """Before the work directory goes: move all that is kept for good out of it."""
        for directory in _below(work):
            if self.is_for_good(step_of(directory)):
                _move_to_kept(directory)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found: the number of finished steps, the run's counters, where its tensors lie.

    tensors: for each, its shape and its pieces as (file, offset, size). layout: of the processes that wrote
    it. files: SHA-256 by name.
    """

    step: int
    counters: Mapping[str, Any]
    directory: Path
    tensors: Mapping[str, Any]
    layout: str = ""
    files: Mapping[str, str] | None = None


def checkpoint_directory(work: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps is written."""
    return work / f"checkpoint-{step:08d}"


def step_of(directory: Path) -> int:
    """The number of finished steps, from a checkpoint's name."""
    return int(directory.name.rpartition("-")[2])


def checkpoint_directories(work: Path) -> list[Path]:
    """All finished checkpoints of the stage whose work directory this is, newest first, whole or broken."""
    found = [*_below(work), *_below(work.parent / KEPT)]
    return sorted(found, key=lambda path: path.name, reverse=True)


def clear_unfinished(work: Path) -> None:
    """Delete what processes that were killed have left; before any of this run's write."""
    for directory in (work, work.parent / KEPT):
        for path in directory.glob(f"checkpoint-*{PARTIAL}"):
            shutil.rmtree(path)


def discard(directory: Path) -> None:
    """Delete a checkpoint: first its name, so that nobody ever finds half of one.

    What can't be deleted now is deleted with the next one, and never ends a run: NFS keeps the files that
    somebody, such as an export, still has open.
    """
    gone = directory.with_name(directory.name + _GOING)
    for one in directory.parent.glob(f"checkpoint-*{_GOING}"):
        shutil.rmtree(one, ignore_errors=True)
    if gone.exists():
        shutil.rmtree(directory, ignore_errors=True)
    else:
        directory.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def newest_checkpoint(
    work: Path,
    run_identity: str,
    log: logging.Logger,
    *,
    rank: int = 0,
    ranks: int = 1,
    agree: Callable[[bool], bool] = bool,
) -> Checkpoint | None:
    """The newest checkpoint whose bytes are those that were written; None where nothing was written yet.

    rank, ranks: each of several processes reads a share of the bytes; agree: whether all of them found theirs
    whole. A broken one is passed over with a warning in the log. Raises DriftError where a whole one belongs
    to another run or was written by newer code, InputError where there are checkpoints and none is whole: a
    run does not start anew unless a person says so.
    """
    directories = checkpoint_directories(work)
    for directory in directories:
        found: Checkpoint | None = None
        identity = ""
        try:
            found, identity = _verified(directory, rank, ranks)
        except InputError as error:
            log.warning("passed over a broken checkpoint: %s", error.message)
        if not agree(found is not None) or found is None:
            continue
        if identity != run_identity:
            raise DriftError(
                f"{directory} belongs to another run ({identity}, not {run_identity}): "
                f"{_difference(directory, work)}",
                hint=f"delete {work} to start anew, or go back to the configuration that it was made with",
            )
        return found
    if directories:
        names = ", ".join(path.name for path in directories)
        raise InputError(
            f"none of the checkpoints of {work.parent} is whole ({names}): there is nothing to go on from",
            hint="look at the disk; to start anew, delete these directories",
        )
    return None


def read_checkpoint(directory: Path, *, verify: bool = True) -> Checkpoint:
    """A checkpoint by its directory. Raises InputError where it is broken, DriftError where it is too new.

    verify: read every byte and compare its SHA-256; otherwise only the state and the files' presence.
    """
    return _verified(directory, 0, 1 if verify else 0)[0]


def sealed(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state with its format and its own SHA-256."""
    state = {"format": FORMAT, **state}
    return {**state, "state_sha256": _digest(state)}


def add_model_files(work: Path, directory: Path) -> dict[str, str]:
    """Copy config.json and the tokenizer's files into a checkpoint; their SHA-256s by name."""
    digests = {}
    for path in sorted((work / MODEL).glob("*")):
        copy = Path(shutil.copyfile(path, directory / path.name))
        fsync_file(copy)
        digests[path.name] = sha256_of(copy)
    return digests


def _below(directory: Path) -> list[Path]:
    """Checkpoints in a directory, newest first; unfinished ones (`.partial`) don't match."""
    return sorted(
        (path for path in directory.glob("checkpoint-*") if _NAME.fullmatch(path.name)), reverse=True
    )


def _move_to_kept(directory: Path) -> None:
    kept = directory.parent.parent / KEPT
    with storage_errors(kept):
        kept.mkdir(exist_ok=True)
        target = kept / directory.name
        if target.exists():  # a broken one, which was passed over and made again
            discard(target)
        directory.rename(target)
        for changed in (kept, directory.parent, kept.parent):
            fsync_directory(changed)


def _verified(directory: Path, rank: int, ranks: int) -> tuple[Checkpoint, str]:
    """A checkpoint after a look at a share of its files (none where ranks is 0), and its run's identity."""
    try:
        state = read_json(directory / STATE)
    except OSError as error:
        raise InputError(f"{directory / STATE} can't be read: {error}", hint="look at the disk") from error
    if not isinstance(state, dict) or state.pop("state_sha256", None) != _digest(state):
        raise InputError(f"{directory / STATE} is not what was written", hint="delete the checkpoint")
    if (version := state.get("format", FORMAT)) != FORMAT:
        raise DriftError(
            f"{directory} was written by a newer version of Tsugiki (format {version}, not {FORMAT})",
            hint="go on with that version, or delete the checkpoint",
        )
    missing = [name for name in state["files"] if not (directory / name).is_file()]
    if missing:
        raise InputError(f"{directory / missing[0]} is missing", hint="delete the checkpoint")
    share = sorted(state["files"].items())[rank :: ranks or None] if ranks else []
    with ThreadPoolExecutor(min(_READERS, usable_cores())) as pool:  # hashing lets go of the GIL
        list(pool.map(lambda one: _check_file(directory / one[0], one[1]), share))
    found = Checkpoint(
        state["step"],
        state["counters"],
        directory,
        state["tensors"],
        state.get("layout", ""),
        state["files"],
    )
    return found, state["run_identity"]


def _check_file(file: Path, expected: str) -> None:
    try:
        found = sha256_of(file)
    except OSError as error:
        raise InputError(f"{file} can't be read: {error}", hint="delete the checkpoint") from error
    if found != expected:
        raise InputError(
            f"{file} has SHA-256 {found[:12]}…, not {expected[:12]}…", hint="delete the checkpoint"
        )


def _difference(directory: Path, work: Path) -> str:
    """What of a checkpoint's model is not this run's, as far as the files beside it tell."""
    pairs = [(path, directory / path.name) for path in sorted((work / MODEL).glob("*.json"))]
    other = [mine.name for mine, its in pairs if not its.is_file() or mine.read_bytes() != its.read_bytes()]
    if other:
        return f"{', '.join(other)} of its model differ from those of {work / MODEL}"
    same = "the same model and tokenizer, but " if pairs else ""
    return f"{same}other settings, data, or version of the code"


def _digest(state: object) -> str:
    text = json.dumps(state, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def size_bytes(directory: Path) -> int:
    """Bytes of all files of a checkpoint; what vanishes meanwhile counts nothing."""
    return sum(_sizes(directory))


def _sizes(directory: Path) -> Iterator[int]:
    for path in directory.glob("*"):
        try:
            yield path.stat().st_size
        except FileNotFoundError:
            continue
