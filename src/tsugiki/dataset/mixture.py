"""Several sources mixed by weight, on an exact schedule.

Each source gives the number of sequences that its weight says (largest remainder), no more and no fewer.
Which source a place of the schedule draws from is one keyed permutation of all places; a source's own
windows come in the order of its epochs. So the batch of a step is a function of (seed, step): workers, ranks
and restarts change nothing, and the position in the data is one integer.

Weights count tokens. Setting up costs O(places + documents): about 5 bytes a place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tsugiki.dataset.packing import EpochWindows, Window, windows_per_epoch
from tsugiki.dataset.permutation import Permutation, derive_key
from tsugiki.dataset.tokens import TokenSource
from tsugiki.errors import DataError

_CHUNK_PLACES = 2**20


@dataclass(frozen=True)
class Batch:
    """Rows of one step: inputs, targets (-100 = not counted), document numbers, and each row's source."""

    ids_BT: NDArray[np.int64]
    targets_BT: NDArray[np.int64]
    document_ids_BT: NDArray[np.int32]
    source_B: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids_BT)

    def rows(self, start: int, stop: int) -> Batch:
        """Rows start..stop-1, as views."""
        part = slice(start, stop)
        return Batch(
            self.ids_BT[part], self.targets_BT[part], self.document_ids_BT[part], self.source_B[part]
        )

    @property
    def several_documents(self) -> bool:
        """Whether any row holds more than one document (otherwise plain causal attention is the same)."""
        return bool((self.document_ids_BT[:, -1] != self.document_ids_BT[:, 0]).any())


@dataclass(frozen=True)
class Share:
    """What one source gives to the mixture. Tokens are input positions: sequences x sequence length."""

    name: str
    weight: float
    sequences: int
    tokens: int
    epochs: float
    available_tokens: int
    available_bytes: int
    available_documents: int


def apportion(weights: Sequence[float], total: int) -> list[int]:
    """Split `total` into whole parts in proportion to `weights`, by largest remainder (Hamilton's method).

    The parts add up to `total` and each is within 1 of its exact share. Ties go to the earlier one. Weights
    are taken as exact binary fractions, so the split is the same on every machine.
    """
    exact = [Fraction(weight) for weight in weights]
    quotas = [weight * total / sum(exact) for weight in exact]
    parts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(parts)), key=lambda index: (parts[index] - quotas[index], index))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


class Mixture:
    """The training data of a run: `batch(step)` for 0 <= step < steps.

    sources: opened token sources, in a fixed order (their names must differ).
    weights: by source name, positive; normalised here.

    Raises DataError where a source would have to be repeated more than `max_epochs` times.
    """

    def __init__(
        self,
        sources: Sequence[TokenSource],
        weights: Mapping[str, float],
        *,
        steps: int,
        sequences_per_step: int,
        sequence_length: int,
        seed: int,
        max_epochs: float,
    ) -> None:
        self.steps = steps
        self.sequences_per_step = sequences_per_step
        self.sequence_length = sequence_length
        self._sources = tuple(sources)
        self._seed = seed
        total = steps * sequences_per_step
        sequences = apportion([weights[source.name] for source in sources], total)
        self._windows = [windows_per_epoch(source, sequence_length) for source in sources]
        self.shares = self._shares(weights, sequences, max_epochs)
        self._source_of_place, self._use_of_place = _schedule(sequences, derive_key(seed, "places"))
        # Two epochs of each source: the one under way and the one that begins next.
        self._epoch = lru_cache(maxsize=2 * len(self._sources))(self._make_epoch)

    def batch(self, step: int) -> Batch:
        """All rows of step `step`. Raises IndexError outside of 0..steps-1."""
        return self.rows(step, 0, self.sequences_per_step)

    def rows(self, step: int, start: int, stop: int) -> Batch:
        """Rows start..stop-1 of step `step`: what one rank reads of the batch that all ranks share."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside of 0..{self.steps - 1}")
        places = range(step * self.sequences_per_step + start, step * self.sequences_per_step + stop)
        windows = [self._window(place) for place in places]
        return Batch(
            ids_BT=np.stack([window.ids_T for window in windows]),
            targets_BT=np.stack([window.targets_T for window in windows]),
            document_ids_BT=np.stack([window.document_ids_T for window in windows]),
            source_B=self._source_of_place[places.start : places.stop].astype(np.int64),
        )

    def _window(self, place: int) -> Window:
        source = int(self._source_of_place[place])
        epoch, position = divmod(int(self._use_of_place[place]), self._windows[source])
        return self._epoch(source, epoch)[position]

    def _make_epoch(self, source: int, epoch: int) -> EpochWindows:
        key = derive_key(self._seed, "source", source, "epoch", epoch)
        return EpochWindows(self._sources[source], self.sequence_length, key)

    def _shares(self, weights: Mapping[str, float], sequences: list[int], max_epochs: float) -> list[Share]:
        whole = sum(weights[source.name] for source in self._sources)
        shares = [
            Share(
                name=source.name,
                weight=weights[source.name] / whole,
                sequences=count,
                tokens=count * self.sequence_length,
                epochs=count / windows,
                available_tokens=source.tokens,
                available_bytes=source.text_bytes,
                available_documents=source.documents,
            )
            for source, count, windows in zip(self._sources, sequences, self._windows, strict=True)
        ]
        too_small = [share for share in shares if share.epochs > max_epochs]
        if too_small:
            raise DataError(
                "; ".join(_too_small(share, max_epochs) for share in too_small),
                hint="ask for fewer tokens, lower the weight, add text, or raise max_epochs "
                "(repeating up to about 4 times costs little: Muennighoff et al. 2023, arXiv 2305.16264)",
            )
        return shares


def _too_small(share: Share, max_epochs: float) -> str:
    return (
        f'corpus too small for the tokens asked: "{share.name}" has {share.available_tokens:,} tokens, '
        f"{share.tokens:,} are asked of it, which takes {share.epochs:.2f} epochs "
        f"(max_epochs: {max_epochs:g})"
    )


def _schedule(sequences: Sequence[int], key: int) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """For every place: its source, and how many earlier places draw from that source."""
    total = sum(sequences)
    shuffle = Permutation(total, key)
    ends = np.cumsum(np.asarray(sequences, dtype=np.int64))
    source_of_place = np.empty(total, dtype=np.uint16)
    for start in range(0, total, _CHUNK_PLACES):
        places = np.arange(start, min(start + _CHUNK_PLACES, total), dtype=np.int64)
        source_of_place[start : start + len(places)] = np.searchsorted(ends, shuffle(places), side="right")
    use_of_place = np.empty(total, dtype=np.int32)
    for source, count in enumerate(sequences):
        use_of_place[source_of_place == source] = np.arange(count, dtype=np.int32)
    return source_of_place, use_of_place
