"""Answers that are looked at before a task sees them: one for each question, and each of them there.

An answer that is missing (a likelihood that is no finite number, a server that fails) must never become a
score of 0: the runner finds the item, leaves it without a score, and counts it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from tsugiki.errors import StageError
from tsugiki.evaluation.backend import Backend, Choices, Continuation, Likelihood, Prompt


class AnswerError(StageError):
    """A model left a question without an answer; the runner looks for the item and goes on."""


class Checked:
    """A backend whose answers are looked at."""

    def __init__(self, backend: Backend, model: str) -> None:
        self._backend = backend
        self._model = model

    def text_likelihoods(self, texts: Sequence[str]) -> list[Likelihood]:
        """See `Backend`; raises AnswerError."""
        answers = self._backend.text_likelihoods(texts)
        self._check_number(len(texts), answers)
        self._check_likelihoods(answers)
        return answers

    def choice_likelihoods(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        """See `Backend`; raises AnswerError."""
        answers = self._backend.choice_likelihoods(questions)
        self._check_number(len(questions), answers)
        for question, options in zip(questions, answers, strict=True):
            self._check_number(len(question.options), options)
            self._check_likelihoods(options)
        return answers

    def continuations(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """See `Backend`; raises AnswerError."""
        answers = self._backend.continuations(prompts)
        self._check_number(len(prompts), answers)
        for answer in answers:
            if answer.error is not None:
                raise AnswerError(f'model "{self._model}": {answer.error}', hint=_HINT)
        return answers

    def _check_number(self, asked: int, answers: Sequence[object]) -> None:
        if len(answers) != asked:
            raise StageError(
                f'model "{self._model}" gave {len(answers)} answers to {asked} questions',
                hint="this is a fault of the engine that runs the model; please report it",
            )

    def _check_likelihoods(self, answers: Iterable[Likelihood]) -> None:
        for answer in answers:
            if answer.error is not None:
                raise AnswerError(f'model "{self._model}": {answer.error}', hint=_HINT)
            if not math.isfinite(answer.nll_nats):
                raise AnswerError(
                    f'model "{self._model}" gives a log-likelihood of {answer.nll_nats}; '
                    "a finite number is needed",
                    hint="its weights are broken: look at the training loss for a divergence",
                )


_HINT = "look at the model's server or its weights; the same command asks again what is missing"


class _CheckedWithPieces(Checked):
    """Of a backend that tells a text's tokens (`local.LocalBackend.pieces`, `measuring`)."""

    def __init__(
        self, backend: Backend, model: str, pieces: Callable[[Sequence[str]], list[list[str]]]
    ) -> None:
        super().__init__(backend, model)
        self.pieces = pieces
        self.measuring = getattr(backend, "measuring", None)


def checked(backend: Backend, model: str) -> Checked:
    """The backend with its answers looked at; what else it can tell, it still tells."""
    pieces = getattr(backend, "pieces", None)
    return Checked(backend, model) if pieces is None else _CheckedWithPieces(backend, model, pieces)
