"""Prompts that do not fit into a model's window, shortened as the JP harness (jp-stable) did.

Each model's own tokens decide, so models with short windows or poor vocabularies were asked something else: a
fault of the published numbers that only the published variants repeat (MGSM, XL-Sum; `preprocess_ctx` in
lm_eval/tasks/ja of swallow-llm/swallow-evaluation c1479c3). The corrected ones ask all models the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tsugiki.evaluation.benchmarks.questions import Question
from tsugiki.evaluation.benchmarks.schema import Fit


class Measuring(Protocol):
    """What a backend tells of its model's tokens, where it can."""

    @property
    def window(self) -> int:
        """Tokens of prompt and answer together."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text, special ones aside."""
        ...

    def beginning(self, text: str, tokens: int) -> str:
        """The text of a text's first tokens."""
        ...


def fitted(fit: Fit, question: Question, answer_tokens: int, model: Measuring) -> str:
    """The prompt within the window less the answer's tokens; the whole prompt where it fits."""
    room = model.window - answer_tokens
    if model.count(question.prompt) <= room:
        return question.prompt
    if fit.by == "examples":
        return _with_fewer_examples(question, room, model.count)
    return _with_shorter_texts(fit, question, max(0, room), model)


def _with_fewer_examples(question: Question, room: int, count: Callable[[str], int]) -> str:
    """Examples are left out, the first one first; what is too long without any stays as it is."""
    preamble, *sections = (text + rest for text, rest in question.sections)
    while len(sections) > 1:
        del sections[0]
        prompt = preamble + "".join(sections)
        if count(prompt) <= room:
            return prompt
    return preamble + sections[0]


def _with_shorter_texts(fit: Fit, question: Question, room: int, model: Measuring) -> str:
    """Every text, of examples and question alike, keeps the first sentences that its even share holds."""
    (_, preamble), *sections = question.sections
    share = room // len(sections)
    return preamble + "".join(_shortened(fit, text, share, model) + rest for text, rest in sections)


def _shortened(fit: Fit, text: str, share: int, model: Measuring) -> str:
    """A line break follows a text that was shortened, as the template has it; the last full stop is kept."""
    kept: list[str] = []
    for sentence in text.split(fit.sentence_end):
        if model.count(fit.sentence_end.join([*kept, sentence])) > share:
            if kept:
                return fit.sentence_end.join(kept) + fit.sentence_end + "\n"
            return model.beginning(sentence, share) + "\n"
        kept.append(sentence)
    return text
