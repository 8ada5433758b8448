"""Rows of the embeddings for new pieces, and the extended model's files, without loading the whole model."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tsugiki.artifacts.files import atomic_path, read_json, write_json
from tsugiki.models.directory import CONFIG_FILE, EMBEDDING, HEAD, write_tokenizer
from tsugiki.models.weights import (
    INDEX,
    read_file_header,
    read_headers,
    read_tensors,
    remove_weights,
    weight_files,
    write_index,
    write_shard,
)
from tsugiki.vocabulary.extend import Extension

Initialisation = Literal["subtoken-mean", "frequency-weighted-mean", "distillation", "random"]

_SMOOTHING = 1e-3
"""`a` of smooth inverse frequency (Arora, Liang and Ma 2017, section 4.1: 1e-4 to 1e-3 do well)."""


@dataclass(frozen=True)
class Knowledge:
    """What some initialisations need besides the base's rows.

    frequency_V: how often each old piece occurs in the corpus as the base encodes it. learnt: new rows
    (pieces, D) by the name of the tensor, from `distillation`.
    """

    frequency_V: Tensor | None = None
    learnt: Mapping[str, Tensor] = field(default_factory=dict)


NOTHING = Knowledge()


def subtoken_mean(rows_VD: Tensor, components: Sequence[Sequence[int]]) -> Tensor:
    """For each new piece the mean of the rows that it is made of, (pieces, D) in float32.

    Fast vocabulary transfer (FVT; Gee et al. 2022), as Swallow did for both embeddings (arXiv 2404.17790).
    """
    flat = torch.tensor([number for numbers in components for number in numbers])
    lengths = torch.tensor([len(numbers) for numbers in components])
    starts = lengths.cumsum(0) - lengths
    return F.embedding_bag(flat, rows_VD.float(), starts, mode="mean")


def frequency_weighted_mean(
    rows_VD: Tensor, components: Sequence[Sequence[int]], frequency_V: Tensor
) -> Tensor:
    """As `subtoken_mean`, but frequent parts count less, (pieces, D) in float32.

    The weight of a part of relative frequency p is a / (a + p): smooth inverse frequency (Arora, Liang and Ma
    2017), since a part that is in every piece, such as a first byte, says little about any.
    """
    share_V = frequency_V.double() / frequency_V.sum().clamp(min=1)
    weight_V = (_SMOOTHING / (_SMOOTHING + share_V)).float()
    flat = torch.tensor([number for numbers in components for number in numbers])
    lengths = torch.tensor([len(numbers) for numbers in components])
    starts = lengths.cumsum(0) - lengths
    weights = weight_V[flat]
    totals = F.embedding_bag(flat, weight_V[:, None], starts, mode="sum")
    summed = F.embedding_bag(flat, rows_VD.float(), starts, mode="sum", per_sample_weights=weights)
    return summed / totals


def random_rows(rows_VD: Tensor, count: int, std: float, seed: int, name: str) -> Tensor:
    """`count` rows drawn from a normal distribution of the given `std`, (count, D) in float32.

    The baseline that every initialisation has to beat. The same seed and tensor name give the same bits.
    """
    digest = hashlib.sha256(f"{seed}:{name}:new rows".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(count, rows_VD.shape[1], generator=generator) * std


def extended_rows(
    rows_VD: Tensor,
    extension: Extension,
    method: Initialisation,
    *,
    std: float,
    seed: int,
    name: str,
    knowledge: Knowledge = NOTHING,
) -> Tensor:
    """An embedding with the new pieces' rows, in the stored type; rows of old pieces keep their bits.

    Rows beyond the base's pieces (padding) are replaced by the first new pieces'. A tensor that distillation
    learnt nothing for gets the subtoken mean.
    """
    old_VD = rows_VD[: extension.base_size]
    if method == "random":
        new_VD = random_rows(old_VD, extension.added, std, seed, name)
    elif method == "frequency-weighted-mean" and knowledge.frequency_V is not None:
        new_VD = frequency_weighted_mean(old_VD, extension.components, knowledge.frequency_V)
    elif method == "distillation" and name in knowledge.learnt:
        new_VD = knowledge.learnt[name]
    else:
        new_VD = subtoken_mean(old_VD, extension.components)
    return torch.cat((old_VD, new_VD.to(rows_VD.dtype)))


def write_extended_model(
    base: Path,
    extension: Extension,
    directory: Path,
    method: Initialisation,
    *,
    seed: int,
    knowledge: Knowledge = NOTHING,
) -> None:
    """Write the extended model: files without embeddings are copied, those with are rewritten, one at a time.

    config.json is the base's with another `vocab_size`, so every architecture that names its embeddings as
    Llama does can be extended. Memory: the largest weight file and one extended embedding. The same inputs
    give the same bytes.
    """
    config: dict[str, Any] = read_json(base / CONFIG_FILE)
    std = float(config.get("initializer_range", 0.02))
    headers = read_headers(base)
    remove_weights(directory)
    for file in weight_files(base):
        names = [name for name, entry in headers.items() if entry.file == file]
        if EMBEDDING not in names and HEAD not in names:
            with atomic_path(directory / file.name) as partial:
                shutil.copyfile(file, partial)
            continue
        tensors = dict(read_tensors(file, names))
        for name in {EMBEDDING, HEAD} & tensors.keys():
            # Some writers store tied rows under both names: the two have to stay the same.
            source = EMBEDDING if config.get("tie_word_embeddings") else name
            tensors[name] = extended_rows(
                tensors[name], extension, method, std=std, seed=seed, name=source, knowledge=knowledge
            )
        write_shard(directory / file.name, tensors)
    if (base / INDEX).exists():
        written = [read_file_header(directory / file.name) for file in weight_files(base)]
        entries = {name: entry for header in written for name, entry in header.items()}
        write_index(directory, {name: entry.file.name for name, entry in entries.items()}, entries)
    write_tokenizer(extension.tokenizer, directory)
    write_json(directory / CONFIG_FILE, {**config, "vocab_size": extension.tokenizer.size})


def row_facts(rows_VD: Tensor, base_size: int) -> dict[str, Any]:
    """Norms of new and old rows (minimum, quartiles, maximum), and how many new rows equal another new one.

    Pieces that are made of the same parts in another order start with the same row under the subtoken mean.
    """
    norms_V = rows_VD.float().norm(dim=1)
    steps = torch.linspace(0, 1, 5)
    new_VD = rows_VD[base_size:]
    return {
        "quantiles": [round(value, 6) for value in norms_V[base_size:].quantile(steps).tolist()],
        "old_quantiles": [round(value, 6) for value in norms_V[:base_size].quantile(steps).tolist()],
        "identical_new_rows": len(new_VD) - len(torch.unique(new_VD, dim=0)),
    }
