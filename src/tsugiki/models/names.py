"""Under which names Hugging Face's files hold the decoder's tensors, and which part of each.

All names are the decoder's own but those of experts: the decoder stacks them (`moe.Experts`), the files hold
one tensor an expert and matrix.

| | router | experts |
|---|---|---|
| decoder | mlp.gate.weight (E, D) | mlp.experts.{gate_proj,up_proj} (E, F, D), .down_proj (E, D, F) |
| Mixtral's files | block_sparse_moe.gate.weight | block_sparse_moe.experts.e.{w1,w3} (F, D), .w2 (D, F) |
| Qwen's files | mlp.gate.weight | mlp.experts.e.{gate_proj,up_proj,down_proj}.weight |
| transformers 5 in memory | mlp.gate.weight | mlp.experts.gate_up_proj (E, 2F, D), .down_proj (E, D, F) |

A shared expert (mlp.shared_expert.{gate_proj,up_proj,down_proj}.weight) and its gate
(mlp.shared_expert_gate.weight, (1, D)) have the same names everywhere.

The last layout is read too: it is what a training program that saves transformers' module as it is leaves
behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tsugiki.models.config import DecoderConfig

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"

_EXPERTS = re.compile(r"(model\.layers\.\d+\.)mlp\.experts\.(gate_proj|up_proj|down_proj)")
_MIXTRAL_MATRICES = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
_FUSED = ".mlp.experts.gate_up_proj"


@dataclass(frozen=True)
class Piece:
    """What a stored tensor holds of the decoder's: the whole tensor `name`, or one expert's matrix of it."""

    name: str
    expert: int | None = None

    def of(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """The piece itself, a view."""
        whole = tensors[self.name]
        return whole if self.expert is None else whole[self.expert]


def is_fused(stored_names: Iterable[str]) -> bool:
    """Whether the files hold transformers 5's stacked experts rather than one tensor an expert."""
    return any(name.endswith(_FUSED) for name in stored_names)


def stored_pieces(
    config: DecoderConfig, names: Iterable[str], *, fused: bool = False
) -> dict[str, tuple[Piece, ...]]:
    """Stored name -> the pieces that it holds, one above the other (along the second last dimension).

    names: of the decoder's tensors, or of some of them. fused: transformers 5's layout of experts; only there
    a stored tensor holds two pieces. The last pipeline stage's own copy of tied embeddings is stored under
    the embedding's name.
    """
    stored: dict[str, tuple[Piece, ...]] = {}
    for name in names:
        experts = _EXPERTS.fullmatch(name)
        if name == HEAD and config.tied_embeddings:
            stored.setdefault(EMBEDDING, (Piece(name),))
        elif experts is None:
            moved = config.family == "mixtral" and not fused
            stored[name.replace(".mlp.gate.", ".block_sparse_moe.gate.") if moved else name] = (Piece(name),)
        elif not fused:
            stored.update(_one_an_expert(config, name, *experts.groups()))
        elif experts[2] == "gate_proj":
            up = Piece(name.replace("gate_proj", "up_proj"))
            stored[name.replace("gate_proj", "gate_up_proj")] = (Piece(name), up)
        elif experts[2] == "down_proj":
            stored[name] = (Piece(name),)
    return stored


def _one_an_expert(
    config: DecoderConfig, name: str, layer: str, matrix: str
) -> Iterator[tuple[str, tuple[Piece, ...]]]:
    folder = "mlp"
    if config.family == "mixtral":
        folder, matrix = "block_sparse_moe", _MIXTRAL_MATRICES[matrix]
    for expert in range(config.moe.experts if config.moe else 0):
        yield f"{layer}{folder}.experts.{expert}.{matrix}.weight", (Piece(name, expert),)


def stored_shapes(config: DecoderConfig, *, fused: bool = False) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in the files of this model, in order of the decoder's own."""
    from tsugiki.models.decoder import Decoder

    with torch.device("meta"):
        tensors = Decoder(config).state_dict()
    shapes = {}
    for name, pieces in stored_pieces(config, tensors, fused=fused).items():
        first = tuple(pieces[0].of(tensors).shape)
        rows = sum(piece.of(tensors).shape[-2] for piece in pieces) if len(pieces) > 1 else 0
        shapes[name] = (*first[:-2], rows, first[-1]) if rows else first
    return shapes


def export_config(config: DecoderConfig) -> DecoderConfig:
    """The shape of the Hugging Face model that computes the same: without `embedding_scale`.

    The rows are multiplied by the scale instead, so tied embeddings become two.
    """
    if config.embedding_scale == 1:
        return config
    return replace(config, embedding_scale=1.0, tied_embeddings=False)


def export_tensors(config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the files of `export_config(config)` hold of `tensors` (a decoder's, or some of them).

    Views of `tensors`, except for scaled rows.
    """
    stored = {name: piece.of(tensors) for name, (piece,) in stored_pieces(config, tensors).items()}
    if config.embedding_scale != 1 and EMBEDDING in stored:
        rows_VD = stored[EMBEDDING]
        stored[EMBEDDING] = rows_VD * config.embedding_scale
        if config.tied_embeddings:
            stored[HEAD] = rows_VD
    return stored
