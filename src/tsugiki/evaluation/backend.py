"""What a model must be able to answer, whoever runs it.

A task asks only these three questions, so that a task works with every engine: our decoder in this process
(`decoder.DecoderBackend`), or any other that implements `Backend`. Sizes are in UTF-8 bytes, never in tokens:
a cap in tokens cuts a model with a poor vocabulary shorter than one with a good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Likelihood:
    """How probable a text is: -ln p summed over its tokens, and how many tokens that were.

    truncated: the text's context did not fit into the model's window and was cut on the left.
    """

    nll_nats: float
    tokens: int
    truncated: bool = False


@dataclass(frozen=True)
class Choices:
    """A context and the texts that may follow it, each taken as it is (with its leading space, if any)."""

    context: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """A text to go on from. seed is the prompt's own, so that its neighbours don't matter."""

    text: str
    maximum_bytes: int
    seed: int


@dataclass(frozen=True)
class Continuation:
    """Generated text without the prompt. truncated: the cap ended it, not the model."""

    text: str
    tokens: int
    truncated: bool


class Backend(Protocol):
    """A model that answers. Each answer depends on its own question only, whatever else is in the list."""

    def text_likelihoods(self, texts: Sequence[str]) -> list[Likelihood]:
        """-ln p of whole texts, each from its first token on, given only the beginning-of-sequence token."""
        ...

    def choice_likelihoods(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        """-ln p of every option given its question's context, option by option."""
        ...

    def continuations(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """Text that the model writes after each prompt, at most `maximum_bytes` of it."""
        ...
