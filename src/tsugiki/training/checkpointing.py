"""When checkpoints of a run are made and which one it goes on from, in one process or in many."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tsugiki.training.checkpoint import (
    Background,
    Checkpoint,
    Saving,
    clear_unfinished,
    newest_checkpoint,
    restore,
)
from tsugiki.training.checkpoint_files import Retention, checkpoint_directories, discard, step_of
from tsugiki.training.engine import Engine

if TYPE_CHECKING:
    from tsugiki.training.loop import Counters
    from tsugiki.training.stage import Config


def retention_of(config: Config) -> Retention:
    """Which checkpoints a run keeps."""
    return Retention(config.keep_checkpoints, config.keep_every_steps)


def resume(engine: Engine, work: Path, run_identity: str, log: logging.Logger) -> Checkpoint | None:
    """Restore the newest whole checkpoint into the engine, if there is one. Every process calls this."""
    if engine.rank == 0:
        clear_unfinished(work)
    engine.in_all(flag=True)  # nobody writes before that
    found = newest_checkpoint(
        work, run_identity, log, rank=engine.rank, ranks=engine.ranks, agree=engine.in_all
    )
    if found is not None:
        restore(found, engine.parameters, engine.optimizer)
    return found


class Checkpoints:
    """Checkpoints that are written beside the training, one at a time. Every process makes the same calls."""

    def __init__(self, engine: Engine, work: Path, run_identity: str, config: Config) -> None:
        self._engine, self._work, self._identity = engine, work, run_identity
        self._config, self._retention = config, retention_of(config)
        self._saving: Saving | None = None
        self._committing: Background | None = None
        self._is_owed = False

    def is_due(self, step: int, steps: int, *, is_high: bool = False) -> bool:
        """Whether a checkpoint is made after `step` of `steps` steps; called once for each.

        After the last one only where it is kept, or where the model is read from it (several processes).
        is_high: the last loss was, so that these weights may be harmed; it is made when one no longer is,
        unless it is one of those that are kept for good.
        """
        if self._retention.is_for_good(step):
            return True
        if step == steps:
            return self._engine.ranks > 1
        self._is_owed |= step % self._config.checkpoint_every_steps == 0
        return self._is_owed and not is_high

    def steps(self) -> list[int]:
        """The finished steps of all checkpoints, newest first. Every process calls it at the same time."""
        self.finish()
        self._engine.in_all(flag=True)  # the first process has made it whole
        return [step_of(path) for path in checkpoint_directories(self._work)]

    def back_to(self, step: int) -> None:
        """Delete the checkpoints after more than `step` steps. Every process calls it at the same time."""
        later = [path for path in checkpoint_directories(self._work) if step_of(path) > step]
        self._is_owed = False
        self._engine.in_all(flag=True)  # all have seen the same
        if self._engine.rank == 0:
            for path in later:
                discard(path)
        self._engine.in_all(flag=True)

    def begin(self, counters: Counters, step: int) -> None:
        """Copy the state and start writing it; waits for the one before."""
        self.finish()
        self._is_owed = False
        self._saving = Saving(
            self._work,
            self._engine.parameters,
            self._engine.optimizer,
            step=step,
            run_identity=self._identity,
            counters=asdict(counters),
            rank=self._engine.rank,
            ranks=self._engine.ranks,
            layout=self._config.parallel.text,
            retention=self._retention,
        )

    def poll(self) -> None:
        """Make the checkpoint whole if every process has written its part; call it at every step."""
        if self._committing is not None and self._committing.is_done:
            self._committed()
        if self._saving is not None and self._engine.in_all(self._saving.written):
            self._hand_over(self._saving)

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is whole. Raises StorageError on a full disk."""
        if self._saving is not None:
            self._hand_over(self._saving)
        self._committed()

    def _hand_over(self, saving: Saving) -> None:
        """Let the first process make it whole and delete older ones, beside the training too."""
        self._saving = None
        saving.wait()
        self._engine.in_all(flag=True)  # all parts are on the disk
        self._committed()
        if self._engine.rank == 0:
            self._committing = Background(saving.commit)

    def _committed(self) -> None:
        committing, self._committing = self._committing, None
        if committing is not None:
            committing.wait()

    def close(self) -> None:
        """As `finish`, and nobody leaves before the first process is done: Slurm ends all when one ends."""
        self.finish()
        self._engine.in_all(flag=True)
