"""Safetensors files, single or in shards: reading headers and tensors, and writing. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tsugiki.artifacts.files import atomic_path, read_json, write_json
from tsugiki.errors import InputError, StageError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
"""The size at which transformers 4 starts a new shard."""

_PICKLED = {".bin", ".pt", ".pth"}
_HEADER_LENGTH_BYTES = 8
_LARGEST_HEADER_BYTES = 100_000_000  # the limit in the safetensors format's own reader


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies and what it is; dtype is safetensors' name (F32, BF16, ...).

    bytes: how many it has; begins: where in the file the first of them lies.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    begins: int


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory, in order of their names.

    Where a single file and an index lie side by side, it is the single file, as for transformers. Raises
    InputError where there are none (with a word on pickled files, which are not read), or where a shard that
    the index names is missing.
    """
    if (directory / WEIGHTS).exists():
        return [directory / WEIGHTS]
    index = directory / INDEX
    if index.exists():
        names = _names_in(index)
        missing = [name for name in names if not (directory / name).exists()]
        if missing or not names:
            raise InputError(
                f"{directory} lacks {', '.join(missing) or 'every shard'} of {INDEX}",
                hint="fetch the model again",
            )
        return [directory / name for name in names]
    pickled = sorted(path.name for path in directory.glob("*") if path.suffix in _PICKLED)
    if pickled:
        raise InputError(
            f"{directory} holds only pickled weights ({', '.join(pickled)}), which are not read: "
            "unpickling runs whatever code is in the file",
            hint="convert them once: transformers' save_pretrained writes safetensors",
        )
    raise InputError(f"{directory} holds no {WEIGHTS}", hint="check the path, or fetch the model again")


def _names_in(index: Path) -> list[str]:
    """The files that an index names, sorted; none that lie elsewhere."""
    stored = read_json(index)
    named = stored.get("weight_map") if isinstance(stored, dict) else None
    files = list(named.values()) if isinstance(named, dict) else [None]
    names = [name for name in files if isinstance(name, str) and Path(name).name == name]
    if len(names) < len(files):
        raise InputError(f"{index} does not say which file holds which tensor", hint="fetch the model again")
    return sorted(set(names))


def read_headers(directory: Path) -> dict[str, TensorEntry]:
    """Every tensor of a model directory by name, from the files' headers alone.

    Raises InputError for a file that is cut short or no safetensors file, and for a tensor in two files.
    """
    entries: dict[str, TensorEntry] = {}
    for file in weight_files(directory):
        for name, entry in read_file_header(file).items():
            if name in entries:
                raise InputError(
                    f"{name} is in {entries[name].file.name} and in {file.name}", hint="fetch the model again"
                )
            entries[name] = entry
    return entries


def read_file_header(file: Path) -> dict[str, TensorEntry]:
    """Every tensor of one safetensors file by name; raises InputError where it is cut short or damaged."""
    size_bytes = file.stat().st_size
    broken = InputError(
        f"{file} is cut short or no safetensors file ({size_bytes} bytes)", hint="fetch or make it again"
    )
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_HEADER_LENGTH_BYTES), "little")
        if not 0 < length <= min(size_bytes - _HEADER_LENGTH_BYTES, _LARGEST_HEADER_BYTES):
            raise broken
        try:
            begins = _HEADER_LENGTH_BYTES + length
            entries, data_bytes = _entries(file, json.loads(stream.read(length)), begins)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise broken from error
    if _HEADER_LENGTH_BYTES + length + data_bytes != size_bytes:
        raise broken
    return entries


def _entries(file: Path, header: Any, begins: int) -> tuple[dict[str, TensorEntry], int]:
    """What a header says, and how many bytes follow it from `begins` on; a damaged one raises anything."""
    entries, data_bytes = {}, 0
    for name, fields in header.items():
        if name != "__metadata__":
            start, end = (int(offset) for offset in fields["data_offsets"])
            shape = tuple(int(size) for size in fields["shape"])
            entries[name] = TensorEntry(file, str(fields["dtype"]), shape, end - start, begins + start)
            data_bytes = max(data_bytes, end)
    return entries, data_bytes


def read_tensors(file: Path, names: Iterable[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Tensors of one file, one at a time, in order of their names; all of them unless `names` are given."""
    try:
        with safe_open(file, framework="pt", device="cpu") as stored:
            for name in sorted(stored.keys() if names is None else names):
                yield name, stored.get_tensor(name)
    except SafetensorError as error:
        raise InputError(f"{file} can't be read: {error}", hint="fetch or make it again") from error


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file atomically; the same tensors give the same bytes."""
    with atomic_path(path) as partial:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            partial,
            metadata={"format": "pt"},
        )


def write_weights(directory: Path, tensors: Mapping[str, Tensor], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a model's tensors; see `write_stream`."""
    sizes_bytes = {name: tensor.nbytes for name, tensor in tensors.items()}
    write_stream(directory, sizes_bytes, tensors.items(), shard_bytes=shard_bytes)


def write_stream(
    directory: Path,
    sizes_bytes: Mapping[str, int],
    tensors: Iterable[tuple[str, Tensor]],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors as they come: one file where they fit into `shard_bytes`, else shards and their index.

    sizes_bytes: of all tensors by name, in the order in which shards hold them. A shard is written as soon
    as it is complete, so no more than a shard is held where the tensors come in that order. A shard holds
    at least one tensor, so a single tensor larger than `shard_bytes` is one too large shard. Weight files
    of an earlier write are removed first, so two generations never mix.

    Raises StageError where a tensor is not of the size it should be, or never comes.
    """
    remove_weights(directory)
    plan = _plan_shards(sizes_bytes, shard_bytes)
    names = [WEIGHTS] if len(plan) == 1 else [_shard_name(number, len(plan)) for number in range(len(plan))]
    file_of = {tensor: file for file, held in zip(names, plan, strict=True) for tensor in held}
    missing = {file: set(held) for file, held in zip(names, plan, strict=True)}
    held_back: dict[str, dict[str, Tensor]] = {file: {} for file in names}
    for name, tensor in tensors:
        if tensor.nbytes != sizes_bytes.get(name):
            raise _unplanned(f"{name} has {tensor.nbytes} bytes, not {sizes_bytes.get(name)}")
        file = file_of[name]
        held_back[file][name] = tensor
        missing[file].discard(name)
        if not missing[file]:
            write_shard(directory / file, held_back.pop(file))
    if held_back:
        raise _unplanned(f"{min(set.union(*missing.values()))} did not come")
    if len(plan) > 1:
        write_index(directory, file_of, sizes_bytes)


def _shard_name(number: int, shards: int) -> str:
    return f"model-{number + 1:05d}-of-{shards:05d}.safetensors"


def _unplanned(what: str) -> StageError:
    return StageError(
        f"weights are not what was planned: {what}", hint="this is a fault in Tsugiki; please report it"
    )


def write_index(
    directory: Path, files: Mapping[str, str], tensors: Mapping[str, Tensor | TensorEntry | int]
) -> None:
    """Write model.safetensors.index.json. files: tensor name -> file name; tensors: they, or their bytes."""
    total = sum(_size_bytes(tensors[name]) for name in files)
    write_json(
        directory / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    )


def _size_bytes(tensor: Tensor | TensorEntry | int) -> int:
    if isinstance(tensor, int):
        return tensor
    return tensor.nbytes if isinstance(tensor, Tensor) else tensor.bytes


def remove_weights(directory: Path) -> None:
    """Remove every weight file of a model directory, and the index."""
    for path in [directory / INDEX, *directory.glob("model*.safetensors")]:
        path.unlink(missing_ok=True)


def _plan_shards(sizes_bytes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    """Names in order, cut before the one that would overfill a shard."""
    plan: list[list[str]] = []
    room = 0
    for name, size in sizes_bytes.items():
        if not plan or size > room:
            plan.append([])
            room = shard_bytes
        plan[-1].append(name)
        room -= size
    return plan
