"""Which stored tensor of the mixture comes from which of the dense model, and the work that makes them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tsugiki.errors import InputError
from tsugiki.models.config import DecoderConfig
from tsugiki.models.names import stored_pieces, stored_shapes
from tsugiki.models.weights import TensorEntry
from tsugiki.upcycling.experts import NEURON_DIMENSION
from tsugiki.upcycling.shards import BYTES_OF_DTYPE, Part

_SPARSE = re.compile(r"model\.layers\.(\d+)\.mlp\.(?:gate\.weight|experts\.(gate_proj|up_proj|down_proj))")
_SHARED = re.compile(r"model\.layers\.(\d+)\.mlp\.shared_expert\.(gate_proj|up_proj|down_proj)\.weight")
_SHARED_GATE = re.compile(r"model\.layers\.(\d+)\.mlp\.shared_expert_gate\.weight")


@dataclass(frozen=True)
class Task:
    """A piece of work: some tensors of the result that are made from one tensor of the dense model.

    matrix: "" for a tensor that is taken over, "router" for a layer's router, "zeros" for one that begins
    with 0 (the shared expert's gate, biases that the dense model doesn't have), "shared gate_proj" and the
    like for the part of a matrix that the shared expert has, or the name of one of a layer's matrices, of
    which all experts' are made; `parts` are in order of the experts then. source: the tensor's name in the
    dense model (of a router and of zeros: that of the matrix whose type it takes).
    """

    parts: tuple[Part, ...]
    source: str
    matrix: str = ""
    layer: int = -1

    @property
    def bytes(self) -> int:
        """The size of what it writes."""
        return sum(part.bytes for part in self.parts)


def dense_name(layer: int, matrix: str) -> str:
    """The stored name of a dense model's feed-forward matrix (all families of ours have the same)."""
    return f"model.layers.{layer}.mlp.{matrix}.weight"


def shared_name(layer: int, matrix: str) -> str:
    """The stored name of a matrix of a layer's shared expert."""
    return f"model.layers.{layer}.mlp.shared_expert.{matrix}.weight"


def expert_names(shape: DecoderConfig, layer: int, matrix: str) -> list[str]:
    """The stored names of one matrix of all experts of a layer, in order."""
    return list(stored_pieces(shape, [f"model.layers.{layer}.mlp.experts.{matrix}"]))


def plan_tasks(shape: DecoderConfig, dense: Mapping[str, TensorEntry]) -> list[Task]:
    """All work, in the order in which the files hold its results. dense: the tensors of the dense model.

    Raises InputError for weights of a type that is not a plain floating-point one.
    """
    _check_types(dense)
    shapes = stored_shapes(shape)
    origin = {stored: piece.name for stored, (piece,) in stored_pieces(shape, _decoder_names(shape)).items()}
    groups: dict[str, list[str]] = {}
    for stored in shapes:
        groups.setdefault(origin[stored], []).append(stored)
    return [_task(name, stored, shapes, dense) for name, stored in groups.items()]


def _decoder_names(shape: DecoderConfig) -> list[str]:
    import torch

    from tsugiki.models.decoder import Decoder

    with torch.device("meta"):
        return list(Decoder(shape).state_dict())


def _task(
    name: str, stored: Sequence[str], shapes: Mapping[str, tuple[int, ...]], dense: Mapping[str, TensorEntry]
) -> Task:
    layer, matrix, source = -1, "", name
    if found := _SPARSE.fullmatch(name):
        layer, matrix = int(found[1]), found[2] or "router"
        source = dense_name(layer, "gate_proj" if matrix == "router" else matrix)
    elif found := _SHARED.fullmatch(name):
        layer, source = int(found[1]), dense_name(int(found[1]), found[2])
        matrix = "" if dense[source].shape == shapes[name] else f"shared {found[2]}"
    elif found := _SHARED_GATE.fullmatch(name):
        layer, matrix, source = int(found[1]), "zeros", dense_name(int(found[1]), "gate_proj")
    elif name not in dense:  # biases
        matrix, source = "zeros", name.removesuffix("bias") + "weight"
    dtype = dense[source].dtype
    return Task(tuple(Part(one, dtype, shapes[one]) for one in stored), source, matrix, layer)


def _check_types(dense: Mapping[str, TensorEntry]) -> None:
    odd = sorted({entry.dtype for entry in dense.values()} - BYTES_OF_DTYPE.keys())
    if odd:
        raise InputError(
            f"the dense model has weights of type {', '.join(odd)}; known: {', '.join(BYTES_OF_DTYPE)}",
            hint="name the model before it was quantised",
        )


def is_matrix(task: Task) -> bool:
    """Whether a task makes experts' matrices."""
    return task.matrix in NEURON_DIMENSION
