"""Several sources mixed by weight, on an exact schedule, in one phase or several.

Which source a place of the schedule draws from keeps every source within one sequence of its share at every
moment (`schedule`); a source's own windows come in the order of its epochs, and go on from phase to phase. So
the batch of a step is a function of (seed, step): workers, ranks and restarts change nothing, and the
position in the data is one integer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from tsugiki.dataset.ahead import Ahead
from tsugiki.dataset.best_fit import BestFitWindows
from tsugiki.dataset.packing import ConcatenatedWindows, Epoch, Window, Windows
from tsugiki.dataset.permutation import derive_key
from tsugiki.dataset.schedule import Schedule, apportion
from tsugiki.dataset.settings import (
    Packing,
    Phase,
    Weights,
    WeightUnit,
    asked_shares,
    epoch_limit,
    phases_of,
    source_names,
)
from tsugiki.dataset.tokens import AGAIN, TokenSource
from tsugiki.errors import DataError, InputError

__all__ = ["Batch", "Mixture", "PhasePlan", "Share", "apportion"]


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
    """What one source gives to the mixture.

    weight: its share of the run as asked for, in the unit of the weights. tokens: input positions, sequences
    x sequence length; `padding` is the part of them that holds none. bytes: of the text behind the tokens, by
    the source's mean.
    """

    name: str
    weight: float
    sequences: int
    tokens: int
    epochs: float
    available_tokens: int
    available_bytes: int
    available_documents: int
    padding: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class PhasePlan:
    """One phase of the schedule: its first step, how many there are, and the sequences of each source."""

    name: str
    first_step: int
    steps: int
    sequences: Mapping[str, int]


class Mixture:
    """The training data of a run: `batch(step)` for 0 <= step < steps.

    sources: opened token sources, in a fixed order (their names must differ).
    weights: by source name, positive; or phases, whose tokens say how the steps are divided among them.
    weight_unit: whether weights are shares of tokens or of bytes of text.
    max_epochs: the most passes over any source, or over each by its name.
    packing: see `packing` (concatenate) and `best_fit`.
    spare_steps: further steps, by the last phase's weights, for a trainer that skips data that hurt it.
    directory: where a long schedule is remembered for the next start (`Schedule`).

    Raises DataError where a source would have to be repeated more often than allowed, InputError where a
    phase gets no step or draws from a source that is not there.
    """

    def __init__(
        self,
        sources: Sequence[TokenSource],
        weights: Weights,
        *,
        steps: int,
        sequences_per_step: int,
        sequence_length: int,
        seed: int,
        max_epochs: float | Mapping[str, float],
        weight_unit: WeightUnit = "tokens",
        packing: Packing = "concatenate",
        spare_steps: int = 0,
        directory: Path | None = None,
    ) -> None:
        self.steps = steps
        self.spare_steps = spare_steps
        self.sequences_per_step = sequences_per_step
        self.sequence_length = sequence_length
        self._sources = tuple(sources)
        self._seed = seed
        pack = ConcatenatedWindows if packing == "concatenate" else BestFitWindows
        self._windows: list[Windows] = [pack(source, sequence_length) for source in sources]
        phases = phases_of(weights)
        phase_steps = self._phase_steps(phases)
        planned = list(zip(phase_steps, self._row_weights(phases, weight_unit), strict=True))
        self._schedule = Schedule([*planned, (spare_steps, planned[-1][1])], sequences_per_step, directory)
        self.phases = self._phase_plans(phases, phase_steps)
        self.shares = self._shares(asked_shares(weights))
        self._check_epochs(max_epochs)
        # Two epochs of each source: the one under way and the one that begins next.
        self._epoch = lru_cache(maxsize=2 * len(self._sources))(self._make_epoch)
        self._lock = Lock()
        self._ahead = Ahead(self.rows, steps + spare_steps)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """The rows of step `step` that data-parallel rank `rank` of `world` trains on, (rows / world, T).

        The ranks' rows, one after another, are the batch of a single process: rank r has rows
        r · n .. (r + 1) · n - 1, n = sequences_per_step / world. Ranks that share a sequence or the model
        (tensor, context, pipeline) pass the same rank and get the same rows. The same rows of step + 1 are
        made meanwhile, in a thread.

        Raises IndexError for a step outside of 0..steps + spare_steps - 1 or a rank outside of 0..world-1,
        InputError where `world` does not divide the rows.
        """
        if not 0 <= rank < world:
            raise IndexError(f"rank {rank} is outside of 0..{world - 1}")
        if self.sequences_per_step % world:
            raise InputError(
                f"{world} data-parallel ranks do not divide the {self.sequences_per_step} sequences of a "
                "step",
                hint="choose a number of ranks that divides them, or another batch_tokens",
            )
        share = self.sequences_per_step // world
        return self._ahead.get(step, rank * share, (rank + 1) * share)

    def sequences_of(self, step: int) -> NDArray[np.int64]:
        """How many sequences of each source step `step` draws (S)."""
        with self._lock:
            return np.bincount(self._schedule.step(step).source, minlength=len(self._sources))

    def rows(self, step: int, start: int, stop: int) -> Batch:
        """Rows start..stop-1 of step `step`."""
        if not 0 <= step < self.steps + self.spare_steps:
            raise IndexError(f"step {step} is outside of 0..{self.steps + self.spare_steps - 1}")
        with self._lock:  # epochs and the schedule keep what they need again
            return self._rows(step, start, stop)

    def _rows(self, step: int, start: int, stop: int) -> Batch:
        places = self._schedule.step(step)
        shape = (stop - start, self.sequence_length)
        batch = Batch(
            ids_BT=np.empty(shape, np.int64),
            targets_BT=np.empty(shape, np.int64),
            document_ids_BT=np.empty(shape, np.int32),
            source_B=places.source[start:stop],
        )
        uses = places.use[start:stop].tolist()
        for row, (source, use) in enumerate(zip(batch.source_B.tolist(), uses, strict=True)):
            epoch, position = divmod(use, self._windows[source].count)
            window = Window(batch.ids_BT[row], batch.targets_BT[row], batch.document_ids_BT[row])
            self._epoch(source, epoch).fill(position, window)
        self._check_ids(batch)
        return batch

    def _check_ids(self, batch: Batch) -> None:
        """Raise DataError where a file changed under us: on a GPU such an id ends all that runs there."""
        largest = max(int(batch.ids_BT.max()), int(batch.targets_BT.max()))
        sizes_B = np.asarray([source.vocabulary_size for source in self._sources])[batch.source_B]
        if largest < sizes_B.min():
            return
        rows_BT = np.maximum(batch.ids_BT, batch.targets_BT)
        for source, row_T, size in zip(batch.source_B.tolist(), rows_BT, sizes_B.tolist(), strict=True):
            if int(row_T.max()) >= size:
                raise DataError(
                    f'"{self._sources[source].name}" holds the id {row_T.max()} in a vocabulary of {size}: '
                    "its tokens are damaged",
                    hint=AGAIN,
                )

    def _make_epoch(self, source: int, epoch: int) -> Epoch:
        return self._windows[source].epoch(derive_key(self._seed, "source", source, "epoch", epoch))

    def _phase_steps(self, phases: Sequence[Phase]) -> list[int]:
        known = {source.name for source in self._sources}
        unknown = [name for name in source_names(phases) if name not in known]
        if unknown:
            raise InputError(
                f"weights name {', '.join(unknown)}; the sources are {', '.join(sorted(known))}",
                hint="give every source that a phase draws from",
            )
        steps = apportion([phase.tokens for phase in phases], self.steps)
        for number, (phase, count) in enumerate(zip(phases, steps, strict=True), start=1):
            if count < 1:
                raise InputError(
                    f'phase {number} ("{phase.name}", {phase.tokens:,} tokens) gets none of {self.steps} '
                    f"steps of {self.sequences_per_step * self.sequence_length:,} tokens",
                    hint="give the phase more tokens, or lower batch_tokens",
                )
        return steps

    def _row_weights(self, phases: Sequence[Phase], unit: WeightUnit) -> list[list[Fraction]]:
        """For each phase, how often each source is drawn: its weight over what one of its rows counts."""
        worth = [windows.tokens_per_window for windows in self._windows]
        if unit == "bytes":
            worth = [
                tokens * Fraction(max(1, source.text_bytes), source.tokens)
                for tokens, source in zip(worth, self._sources, strict=True)
            ]
        return [
            [
                Fraction(phase.data.get(source.name, 0.0)) / one
                for source, one in zip(self._sources, worth, strict=True)
            ]
            for phase in phases
        ]

    def _phase_plans(self, phases: Sequence[Phase], steps: Sequence[int]) -> tuple[PhasePlan, ...]:
        drawn_FS = np.diff(self._schedule.used_FS, axis=0)
        firsts = np.cumsum([0, *steps]).tolist()
        names = [source.name for source in self._sources]
        return tuple(
            PhasePlan(phase.name, first, count, dict(zip(names, drawn.tolist(), strict=True)))
            for phase, first, count, drawn in zip(phases, firsts, steps, drawn_FS[:-1], strict=False)
        )

    def _shares(self, asked: Mapping[str, float]) -> list[Share]:
        return [
            Share(
                name=source.name,
                weight=asked.get(source.name, 0.0),
                sequences=count,
                tokens=count * self.sequence_length,
                epochs=count / windows.count,
                available_tokens=source.tokens,
                available_bytes=source.text_bytes,
                available_documents=source.documents,
                padding=1 - float(windows.tokens_per_window / self.sequence_length),
                bytes=float(count * windows.tokens_per_window * Fraction(source.text_bytes, source.tokens)),
            )
            for source, windows, count in zip(
                self._sources, self._windows, self._schedule.used_FS[-2].tolist(), strict=True
            )
        ]

    def _check_epochs(self, max_epochs: float | Mapping[str, float]) -> None:
        limits = [(share, epoch_limit(max_epochs, share.name)) for share in self.shares]
        too_small = [(share, limit) for share, limit in limits if share.epochs > limit]
        if too_small:
            raise DataError(
                "; ".join(_too_small(share, limit) for share, limit in too_small),
                hint="ask for fewer tokens, lower the weight, add text, or raise max_epochs "
                "(repeating up to about 4 times costs little: Muennighoff et al. 2023, arXiv 2305.16264)",
            )


def _too_small(share: Share, limit: float) -> str:
    return (
        f'corpus too small for the tokens asked: "{share.name}" has {share.available_tokens:,} tokens, '
        f"{share.tokens:,} are asked of it, which takes {share.epochs:.2f} epochs (max_epochs: {limit:g})"
    )
