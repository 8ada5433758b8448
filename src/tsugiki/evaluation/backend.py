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

    cut_context: the text's context did not fit into the model's window and was cut on the left. error: what
    went wrong where there is no answer; nll_nats is NaN then.
    """

    nll_nats: float
    tokens: int
    cut_context: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Choices:
    """A context and the texts that may follow it, each taken as it is (with its leading space, if any)."""

    context: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: by softmax(logits / temperature), from those that the two bounds leave.

    top_k: the most likely ones (0: all). top_p: the fewest that together reach this probability.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """A text to go on from.

    seed is the prompt's own, so that its neighbours don't matter. sampling: None is greedy. stops: the text
    ends before the first of these. maximum_tokens: a cap in tokens beside the one in bytes, only to match
    numbers that were published with one.
    """

    text: str
    maximum_bytes: int
    seed: int
    sampling: Sampling | None = None
    stops: tuple[str, ...] = ()
    maximum_tokens: int | None = None


@dataclass(frozen=True)
class Continuation:
    """Generated text without the prompt.

    truncated: a cap ended it, not the model and not a stop. stop: the stop that ended it, which is not part
    of the text. cut_context: the prompt did not fit into the window and was cut on the left. error: what went
    wrong where there is no answer; the text is "" then.
    """

    text: str
    tokens: int
    truncated: bool
    stop: str | None = None
    cut_context: bool = False
    error: str | None = None


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
