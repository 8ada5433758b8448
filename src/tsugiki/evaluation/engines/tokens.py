"""What an engine is asked once text has become tokens; `local.LocalBackend` puts texts on top of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tsugiki.evaluation.backend import Sampling

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """A context of one token or more, and the tails (none empty) whose tokens are scored after it.

    Context and longest tail together are no longer than the window and one.
    """

    context_T: Ids
    tails: tuple[Ids, ...]

    @property
    def longest_input(self) -> int:
        """Tokens that are fed for the longest tail: all but its last one."""
        return len(self.context_T) + max(map(len, self.tails)) - 1


@dataclass(frozen=True)
class Writing:
    """Tokens to go on from, and where to end; `stops` and `maximum_bytes` are looked for in the text."""

    prompt_T: Ids
    maximum_tokens: int
    maximum_bytes: int
    seed: int
    sampling: Sampling | None = None
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """The tokens that were chosen, without an end token.

    ended: the model ended the text itself. broken: its logits were not numbers, so nothing could be chosen.
    """

    ids: list[int]
    ended: bool
    broken: bool = False


class TokenModel(Protocol):
    """An engine; each answer depends on its own question only."""

    def score(self, asked: Sequence[Scored]) -> list[tuple[float, ...]]:
        """-ln p of every tail, tail by tail."""
        ...

    def write(self, asked: Sequence[Writing]) -> list[Written]:
        """The tokens that follow each prompt."""
        ...
