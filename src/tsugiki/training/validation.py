"""Held-out bits per byte while training: the early sign of forgetting, and of learning.

A small fixed sample of each dataset's held-out split. It is chosen by bytes of text and without the run's
seed, so that runs with different tokenizers and seeds are measured on the same text.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tsugiki.artifacts.documents import HELD_OUT, iterate_documents
from tsugiki.dataset.mixture import Batch
from tsugiki.dataset.packing import IGNORED, window_of
from tsugiki.dataset.permutation import derive_key
from tsugiki.dataset.tokenise import document_frame
from tsugiki.errors import DataError
from tsugiki.models.decoder import Decoder
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.training.compute import Compute


@dataclass(frozen=True)
class ValidationSet:
    """Packed rows of a dataset's held-out sample, and the UTF-8 bytes behind their counted targets."""

    name: str
    rows: Batch
    target_bytes: int
    language: str = ""
    """As the corpus has it; empty where it does not say."""
    domain: str = ""
    """What kind of text it is, as the configuration says; the set's name otherwise."""


def sample_texts(directory: Path, maximum_bytes: int) -> list[str]:
    """Held-out texts of `maximum_bytes` of UTF-8 together; the last is cut between characters.

    Documents are taken in order of a hash of their ids, so the sample depends on nothing else: not on their
    order, the tokenizer or the seed. Only about `maximum_bytes` are in memory at once.

    Raises DataError where nothing is held out.
    """
    chosen: list[tuple[int, bytes]] = []  # a heap with the largest hash (negated) on top
    total = 0
    for row in iterate_documents(directory, split=HELD_OUT, columns=["id", "text"]):
        text = row["text"].encode("utf-8")
        if not text:
            continue
        heapq.heappush(chosen, (-derive_key("validation", row["id"]), text))
        total += len(text)
        while total - len(chosen[0][1]) >= maximum_bytes:
            total -= len(heapq.heappop(chosen)[1])
    if total == 0:
        raise DataError(
            f"{directory} holds no held-out documents to validate on",
            hint="hold out a share of the corpus, or take the dataset out of `validation`",
        )
    texts = [text for _, text in sorted(chosen, reverse=True)]
    texts[-1] = texts[-1][: len(texts[-1]) - max(0, total - maximum_bytes)]
    return [text.decode("utf-8", errors="ignore") for text in texts]


def language_of(directory: Path) -> str:
    """The language of a corpus, by the first held-out document that says one; empty where none does."""
    rows = iterate_documents(directory, split=HELD_OUT, columns=["language"])
    return next((row["language"] for row in rows if row["language"]), "")


def validation_set(
    name: str, texts: list[str], tokenizer: TextTokenizer, sequence_length: int, language: str = ""
) -> ValidationSet:
    """Pack texts into rows of `sequence_length`; only pieces of the texts are counted.

    What fills the last row up is not, and neither is the end-of-sequence token: it stands for no bytes, so
    the evaluate stage's bits per byte leave it out too.
    """
    first, last = document_frame(tokenizer)
    documents = [np.concatenate((first, ids, last)) for ids in tokenizer.encode_batch(texts)]
    tokens = np.concatenate(documents).astype(np.int64)
    numbers = np.repeat(np.arange(len(documents), dtype=np.int32), [len(document) for document in documents])
    count = max(1, math.ceil((len(tokens) - 1) / sequence_length))
    spare = count * sequence_length + 1 - len(tokens)
    filler = len(documents)
    numbers = np.concatenate((numbers, np.full(spare, filler, dtype=np.int32)))
    tokens = np.concatenate((tokens, np.zeros(spare, dtype=np.int64)))
    cuts = [slice(row * sequence_length, (row + 1) * sequence_length + 1) for row in range(count)]
    windows = [window_of(tokens[cut], numbers[cut]) for cut in cuts]
    document_ids_BT = np.stack([window.document_ids_T for window in windows])
    targets_BT = np.stack([window.targets_T for window in windows])
    has_bytes_BT = tokenizer.piece_bytes[np.maximum(targets_BT, 0)] > 0
    rows = Batch(
        ids_BT=np.stack([window.ids_T for window in windows]),
        targets_BT=np.where((document_ids_BT != filler) & has_bytes_BT, targets_BT, IGNORED),
        document_ids_BT=document_ids_BT,
        source_B=np.zeros(count, dtype=np.int64),
    )
    return ValidationSet(name, rows, target_bytes(rows.targets_BT, tokenizer.piece_bytes), language)


def target_bytes(targets: NDArray[np.int64], piece_bytes: NDArray[np.int32]) -> int:
    """UTF-8 bytes of text behind the counted targets."""
    return int(piece_bytes[targets[targets >= 0]].sum(dtype=np.int64))


def bits_per_byte(nats: float, byte_count: int) -> float:
    """Nats summed over tokens, as bits for each byte of the text: comparable between tokenizers."""
    return nats / (math.log(2) * max(1, byte_count))


def held_out_notes(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """For the progress line: `bits per byte: japanese 2.968 (-0.562)`, what each set has, and its change.

    measured: rows with `dataset` and `bits_per_byte` (None: not finite), in the order of time. Empty before
    the first.
    """
    values: dict[str, list[float | None]] = {}
    for row in measured:
        values.setdefault(row["dataset"], []).append(row["bits_per_byte"])
    notes = [f"{name.rsplit('/', 1)[-1]} {_change(found[0], found[-1])}" for name, found in values.items()]
    return [f"bits per byte: {', '.join(notes)}"] if notes else []


def _change(first: float | None, last: float | None) -> str:
    if last is None:
        return "not finite"
    return f"{last:.3f}" + ("" if first is None else f" ({last - first:+.3f})")


@torch.no_grad()
def measure(decoder: Decoder, held_out: ValidationSet, *, rows_at_once: int, compute: Compute) -> float:
    """Bits per byte of a validation set: cross entropy of all counted targets over the bytes of the text."""
    nats = 0.0
    for start in range(0, len(held_out.rows), rows_at_once):
        part = held_out.rows.rows(start, start + rows_at_once)
        nats += float(compute.loss(decoder, part).cross_entropy)
    return bits_per_byte(nats, held_out.target_bytes)
