"""Questions in text, put to an engine that knows tokens only: tokenisation, windows, caps and stops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import InputError
from tsugiki.evaluation.backend import Choices, Continuation, Likelihood, Prompt
from tsugiki.evaluation.engines.branches import common_prefix
from tsugiki.evaluation.engines.tokens import Ids, Scored, TokenModel, Writing, Written
from tsugiki.evaluation.engines.windows import plan_windows
from tsugiki.evaluation.items import byte_length, cut_bytes
from tsugiki.models.tokenizer import TextTokenizer

NOT_NUMBERS = "the model's logits are not numbers"
"""Error of a continuation that could not be written."""


@dataclass(frozen=True)
class Reading:
    """How texts become tokens.

    boundary: where an option begins. "joined": context and option are cut into tokens together, and scored
    from the first token on that the context alone does not have. "context": lm-evaluation-harness's rule
    (`TemplateLM._encode_pair`): spaces at the context's end go to the option, and the option is what stands
    behind as many tokens as the context has on its own; where the two merge, it begins in the middle of what
    the model was given.
    start: whether every text begins with the beginning-of-sequence token; a context without any token does
    in any case.
    """

    boundary: Literal["joined", "context"] = "joined"
    start: bool = True


class LocalBackend:
    """A `Backend` on top of a `TokenModel` in this process.

    context_length: window in tokens; stride: tokens that each further window scores (`windows.plan_windows`).
    """

    def __init__(
        self,
        model: TokenModel,
        tokenizer: TextTokenizer,
        *,
        context_length: int,
        stride: int,
        reading: Reading | None = None,
    ) -> None:
        start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if start is None:
            raise InputError(
                "the tokenizer has neither a beginning- nor an end-of-sequence token to start a text with",
                hint="set bos_token in the model's tokenizer_config.json",
            )
        if not 1 <= stride <= context_length:
            raise InputError(
                f"the stride {stride} does not lie between 1 and the window of {context_length} tokens",
                hint="use about half of the window",
            )
        self._model = model
        self._tokenizer = tokenizer
        self._start = start
        self._context_length = context_length
        self._stride = stride
        self._reading = reading or Reading()

    def text_likelihoods(self, texts: Sequence[str]) -> list[Likelihood]:
        """See `Backend`. Long texts go through overlapping windows; every token is scored exactly once."""
        wholes = [self._started(ids, always=True) for ids in self._tokenizer.encode_batch(list(texts))]
        parts = [self._windows(whole_T, 1) for whole_T in wholes]
        nlls = iter(self._model.score([part for windows in parts for part in windows]))
        return [
            Likelihood(sum(next(nlls)[0] for _ in windows), len(whole_T) - 1)
            for whole_T, windows in zip(wholes, parts, strict=True)
        ]

    def choice_likelihoods(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        """See `Backend`. `Reading.boundary` says where an option begins.

        Where an option's first characters merge with the context's last token, all options of the question
        are scored from that token on, so that all of them pay for the same text.
        """
        plans = [self._plan(*pair) for pair in self._pairs(questions)]
        nlls = iter(self._model.score([part for plan in plans for part in plan.parts]))
        answers = []
        for plan in plans:
            sums = [0.0] * len(plan.tokens)
            for tails in plan.tails_of_part:
                for tail, nll in zip(tails, next(nlls), strict=True):
                    sums[tail] += nll
            answers.append(
                tuple(
                    Likelihood(nll, tokens, plan.cut_context)
                    for nll, tokens in zip(sums, plan.tokens, strict=True)
                )
            )
        return answers

    def continuations(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """See `Backend`. Each prompt that samples has its own generator."""
        encoded = self._tokenizer.encode_batch([prompt.text for prompt in prompts])
        jobs, cuts = [], []
        for prompt, ids in zip(prompts, encoded, strict=True):
            bound = min(prompt.maximum_bytes, prompt.maximum_tokens or prompt.maximum_bytes)
            # A long prompt's end is what matters. It may take what the answer can't, half of the window at
            # least: an answer of so many bytes has no more tokens, those aside that stand for no text.
            kept = self._context_length - max(1, min(bound, self._context_length // 2))
            prompt_T = self._started(ids[-kept:])
            cuts.append(kept < len(ids))
            room = self._context_length - len(prompt_T) + 1  # the last token is never fed
            jobs.append(
                Writing(
                    prompt_T,
                    min(prompt.maximum_tokens or room, room),
                    prompt.maximum_bytes,
                    prompt.seed,
                    prompt.sampling,
                    tuple(filter(None, prompt.stops)),
                )
            )
        written = self._model.write(jobs)
        return [
            self._continuation(prompt, answer, cut_context=cut)
            for prompt, answer, cut in zip(prompts, written, cuts, strict=True)
        ]

    @property
    def measuring(self) -> LocalBackend:
        """What tells a model's tokens (`benchmarks.fitting.Measuring`)."""
        return self

    @property
    def window(self) -> int:
        """Tokens of prompt and answer together."""
        return self._context_length

    def count(self, text: str) -> int:
        """Tokens of a text, special ones aside."""
        return len(self._tokenizer.encode_batch([text])[0])

    def beginning(self, text: str, tokens: int) -> str:
        """The text of a text's first tokens."""
        return self._tokenizer.decode(self._tokenizer.encode_batch([text])[0][:tokens])

    def pieces(self, texts: Sequence[str]) -> list[list[str]]:
        """The texts as the model's own tokens, for what was published in tokens."""
        names = self._tokenizer.pieces
        return [[names[number] for number in ids] for ids in self._tokenizer.encode_batch(list(texts))]

    def _continuation(self, prompt: Prompt, written: Written, *, cut_context: bool) -> Continuation:
        """The text of the tokens, cut at the first stop and at the cap.

        Bytes that are no UTF-8 (half a character at the cap) become U+FFFD when decoded; one at the very end
        is dropped.
        """
        if written.broken:
            return Continuation("", 0, truncated=False, cut_context=cut_context, error=NOT_NUMBERS)
        return finish_text(
            prompt, self._tokenizer.decode(written.ids), len(written.ids), written.ended, cut_context
        )

    def _pairs(self, questions: Sequence[Choices]) -> list[tuple[Ids, list[Ids]]]:
        """Context and tails of every question."""
        contexts, wholes = [], []
        for question in questions:
            context = question.context
            wholes += [context + option for option in question.options]
            contexts.append(context if self._reading.boundary == "joined" else context.rstrip())
        context_ids = self._tokenizer.encode_batch(contexts)
        joined = iter(self._tokenizer.encode_batch(wholes))
        pairs = []
        for question, ids in zip(questions, context_ids, strict=True):
            whole_ids = [next(joined) for _ in question.options]
            if self._reading.boundary == "joined":
                shared = min((common_prefix(whole, ids) for whole in whole_ids), default=0)
                before, firsts = ids[:shared], whole_ids
            else:
                shared, before, firsts = len(ids), ids, whole_ids
            context_T = self._started(before)
            if not len(context_T):
                context_T = np.array([self._start], dtype=np.int64)
            pairs.append((context_T, [whole[shared:].astype(np.int64) for whole in firsts]))
        return pairs

    def _plan(self, context_T: Ids, tails: Sequence[Ids]) -> _Plan:
        """A context with all its tails in one piece, if the window holds them.

        A context that does not fit beside the longest tail is cut on the left, for all tails alike. Where
        that would leave less than windows leave (context_length - stride + 1 tokens), the tails go through
        windows like any long text.
        """
        tokens = [len(tail) for tail in tails]
        filled = [number for number, tail in enumerate(tails) if len(tail)]
        if not filled:
            return _Plan([], [], tokens, cut_context=False)
        room = self._context_length - (max(tokens) - 1)
        if room >= min(len(context_T), self._context_length - self._stride + 1):
            whole = Scored(context_T[-room:], tuple(tails[number] for number in filled))
            return _Plan([whole], [filled], tokens, cut_context=room < len(context_T))
        parts, owners = [], []
        for number in filled:
            windows = self._windows(np.concatenate([context_T, tails[number]]), len(context_T))
            parts += windows
            owners += [[number]] * len(windows)
        return _Plan(parts, owners, tokens, cut_context=True)

    def _windows(self, ids_T: Ids, first: int) -> list[Scored]:
        """The tokens from `first` on, each scored in one window."""
        windows = plan_windows(
            len(ids_T) - 1, first=first, context_length=self._context_length, stride=self._stride
        )
        return [
            Scored(ids_T[window.start : window.first], (ids_T[window.first : window.end + 1],))
            for window in windows
        ]

    def _started(self, ids: NDArray[np.integer], *, always: bool = False) -> Ids:
        start = [self._start] if self._reading.start or always or not len(ids) else []
        return np.concatenate([start, ids]).astype(np.int64)


@dataclass(frozen=True)
class _Plan:
    """What the engine is asked of one question, and which tails each part answers for.

    tokens: of every tail; one without any is not asked.
    """

    parts: list[Scored]
    tails_of_part: list[list[int]]
    tokens: list[int]
    cut_context: bool


def finish_text(prompt: Prompt, text: str, tokens: int, ended: bool, cut_context: bool) -> Continuation:  # noqa: FBT001
    """The answer to a prompt: the text before its first stop, within the cap in bytes."""
    places = [(place, stop) for stop in prompt.stops if stop and (place := text.find(stop)) >= 0]
    if places:
        place, stop = min(places, key=lambda found: (found[0], -len(found[1])))
        text = text[:place]
        if byte_length(text) <= prompt.maximum_bytes:
            return Continuation(text, tokens, truncated=False, stop=stop, cut_context=cut_context)
    cut = cut_bytes(text, prompt.maximum_bytes)
    truncated = not ended or len(cut) < len(text)
    return Continuation(
        cut.rstrip("\ufffd") if truncated else cut, tokens, truncated, cut_context=cut_context
    )
