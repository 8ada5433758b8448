"""What a batch holds of each source: several processes, of which each has some rows, add theirs up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tsugiki.dataset.mixture import Batch


class Counts(NamedTuple):
    """By source (S), int64: input positions, counted targets, and UTF-8 bytes of text behind those."""

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    text_bytes: NDArray[np.int64]


def count(batch: Batch, piece_bytes: NDArray[np.int32], sources: int) -> Counts:
    """The counts of some rows. piece_bytes: UTF-8 bytes of each entry of the vocabulary."""
    counted_BT = batch.targets_BT >= 0
    bytes_BT = np.where(counted_BT, piece_bytes[np.maximum(batch.targets_BT, 0)], 0)
    per_row = (
        np.full(len(batch), batch.ids_BT.shape[1]),
        counted_BT.sum(axis=1),
        bytes_BT.sum(axis=1, dtype=np.int64),
    )
    totals = np.zeros((3, sources), np.int64)
    for total, rows in zip(totals, per_row, strict=True):
        np.add.at(total, batch.source_B, rows)
    return Counts(*totals)
