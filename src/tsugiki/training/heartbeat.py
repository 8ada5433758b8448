"""Signs of life of processes that were started from outside, at the store where they met.

A process that is stopped, or whose machine lost its power or its network, closes no connection: the others
would wait in an exchange until `timeout_minutes`. So each says every few seconds that it lives. Process 0
looks after all of them, and they after process 0 and its store: whoever finds silence says so, and ends.
(`launch` looks after the processes that it starts itself by files.)
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tsugiki.artifacts.contract import EndCallback
from tsugiki.artifacts.files import write_json
from tsugiki.artifacts.outside import Place, store_of
from tsugiki.errors import TsugikiError
from tsugiki.training.launch import SILENCE_SECONDS, failure_of, silence

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

BEAT_SECONDS = 2.0
_LEFT = 1 << 40
"""Added by a process that leaves: nobody waits for more signs of it."""


class Heartbeat:
    """The signs of life of this process, and of those that it looks after."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._watched = range(1, place.processes) if place.rank == 0 else range(1)
        self._store: TCPStore = store_of(place)
        self._answered = time.monotonic()
        """When the store last answered; a connection to a machine that is gone may block for ever."""
        self._counts = dict.fromkeys(self._watched, 0)
        self._changed: dict[int, float] = {}
        """When the last sign of each came; those that never gave any still start."""

    def beat(self) -> None:
        """Say that this process lives, and ask about the others. Raises RuntimeError without the store."""
        self._store.add(self._key(self._place.rank), 1)
        for rank in self._watched:
            count = self._store.add(self._key(rank), 0)
            if count != self._counts[rank]:
                self._counts[rank], self._changed[rank] = count, time.monotonic()
        self._answered = time.monotonic()

    def leave(self) -> None:
        """Say that no more signs will come."""
        with contextlib.suppress(RuntimeError):
            self._store.add(self._key(self._place.rank), _LEFT)

    def forgive(self) -> None:
        """Begin to wait anew: this process stood still, and all others may have (a machine that slept)."""
        self._answered = time.monotonic()
        self._changed = dict.fromkeys(self._changed, self._answered)

    def silent(self) -> list[int]:
        """Processes that have given no sign for too long; process 0 where its store does not answer."""
        now = time.monotonic()
        if now - self._answered > SILENCE_SECONDS:
            return [0] if self._place.rank else []
        return [
            rank
            for rank, changed in self._changed.items()
            if self._counts[rank] < _LEFT and now - changed > SILENCE_SECONDS
        ]

    def _key(self, rank: int) -> str:
        return f"{self._place.key}/beat/{rank}"


@contextmanager
def living(place: Place, work: Path, end: EndCallback) -> Iterator[None]:
    """Give signs of life while this lasts, and `end` this process where others fall silent."""
    heart, over = Heartbeat(place), threading.Event()

    def give() -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone: `look` finds it silent
            while not over.is_set():
                heart.beat()
                over.wait(BEAT_SECONDS)
            heart.leave()

    def look() -> None:
        looked = time.monotonic()
        while not over.wait(BEAT_SECONDS / 2):
            if time.monotonic() - looked > SILENCE_SECONDS / 4:
                heart.forgive()
            looked = time.monotonic()
            if silent := heart.silent():
                error = silence(work, silent, place.processes)
                with contextlib.suppress(OSError, TsugikiError):
                    write_json(failure_of(work, place.rank), error.as_dict())
                end(error)

    giving = threading.Thread(target=give, name="signs-of-life", daemon=True)
    giving.start()
    threading.Thread(target=look, name="silence-watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        giving.join(timeout=BEAT_SECONDS)
