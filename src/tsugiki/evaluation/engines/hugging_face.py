"""Any causal model of `transformers` as an engine, for families that our decoder does not compute.

Beginnings that questions share are computed once where the model's cache allows it (`_has_plain_cache`).
Questions go in batches by length, padded on the right; prompts are continued in batches of equal length, so
nothing is masked and no family needs a case of its own. Code from a model's directory is never run.

Shapes: B rows, T time, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from tsugiki.errors import InputError
from tsugiki.evaluation.engines.branches import Branch, plan_branches
from tsugiki.evaluation.engines.choosing import choose
from tsugiki.evaluation.engines.tokens import Ids, Scored, Writing, Written
from tsugiki.evaluation.engines.writing import Draft, contents_of
from tsugiki.models.quiet import quiet, without_bars
from tsugiki.models.tokenizer import TextTokenizer

_LOGITS_BYTES = 256 * 2**20
"""Bound on the logits of a batch, as far as one row allows: these models give them for every token."""
_MAXIMUM_ROWS = 32
_KEYS_OF_BATCH = 16
"""Tokens whose keys are held at once, in multiples of the tokens that are computed at once."""


class TransformersModel:
    """A `TokenModel`. ends: tokens that end a text."""

    def __init__(
        self,
        directory: Path,
        tokenizer: TextTokenizer,
        dtype: torch.dtype,
        device: torch.device,
        *,
        batch_tokens: int,
        ends: frozenset[int],
    ) -> None:
        self._model = _load(directory, dtype).to(device).eval()
        rows = self._model.get_input_embeddings().weight.shape[0]
        if tokenizer.size > rows:
            raise InputError(
                f"the tokenizer in {directory} has {tokenizer.size} pieces, the model {rows} rows",
                hint="the directory mixes files of two models; fetch it again",
            )
        self._tokenizer = tokenizer
        self._ends = ends
        self._device = device
        self._batch_tokens = max(1, min(batch_tokens, _LOGITS_BYTES // (4 * rows)))
        self._shares = _has_plain_cache(self._model, device)

    @torch.inference_mode()
    def score(self, asked: Sequence[Scored]) -> list[tuple[float, ...]]:
        """See `TokenModel`. Tails of one token share the pass over their context."""
        answers = [[0.0] * len(question.tails) for question in asked]
        for branch, prefix in self._branches([question.context_T[:-1] for question in asked]):
            for batch in self._batches(_rows(asked, branch), branch.length):
                logits_BTV = self._logits([row.inputs_T for row in batch], prefix)
                for logits_TV, row in zip(logits_BTV, batch, strict=True):
                    question = asked[row.question]
                    first = len(question.context_T) - branch.length - 1
                    scores_NV = logits_TV[first : len(row.inputs_T)].float()
                    for tail in row.tails:
                        target_N = torch.from_numpy(question.tails[tail]).to(self._device)
                        nll_N = F.cross_entropy(scores_NV, target_N, reduction="none")
                        answers[row.question][tail] = nll_N.double().sum().item()
        return [tuple(nlls) for nlls in answers]

    def _branches(self, sequences: Sequence[Ids]) -> Iterator[tuple[Branch, Any]]:
        """Beginnings that are worth computing once, each with its cache; see `branches.plan_branches`."""
        if self._shares:
            yield from self._walk(plan_branches(sequences), sequences, None)
        elif sequences:
            yield Branch(0, 0, 0, tuple(range(len(sequences))), ()), None

    def _walk(self, branch: Branch, sequences: Sequence[Ids], parent: Any) -> Iterator[tuple[Branch, Any]]:
        prefix = parent
        if branch.length > branch.start:
            prefix = copy.deepcopy(parent)  # a model writes into the cache that it is given
            ids_T = sequences[branch.example][branch.start : branch.length]
            for start in range(0, len(ids_T), self._batch_tokens):
                ids_1T = torch.from_numpy(ids_T[None, start : start + self._batch_tokens]).to(self._device)
                prefix = self._model(ids_1T, past_key_values=prefix, use_cache=True).past_key_values
        yield branch, prefix
        for child in branch.children:
            yield from self._walk(child, sequences, prefix)

    def _batches(self, rows: Sequence[_Row], start: int) -> Iterator[Sequence[_Row]]:
        """Rows by length, the longest first; each row of a batch has its own copy of the prefix's keys."""
        rows = sorted(rows, key=lambda row: (-len(row.inputs_T), row.question, row.tails))
        while rows:
            longest = len(rows[0].inputs_T)
            count = max(1, min(self._batch_tokens // longest, self._rows_of(start + longest)))
            yield rows[:count]
            rows = rows[count:]

    def _rows_of(self, tokens: int) -> int:
        """Rows of so many tokens each whose keys may be held at once."""
        return max(1, min(_MAXIMUM_ROWS, _KEYS_OF_BATCH * self._batch_tokens // tokens))

    def _logits(self, rows: Sequence[Ids], prefix: Any) -> torch.Tensor:
        ids_BT = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for row, inputs_T in enumerate(rows):
            ids_BT[row, : len(inputs_T)] = inputs_T
        on_device_BT = torch.from_numpy(ids_BT).to(self._device)
        past = _repeated(prefix, len(rows))
        logits_BTV: torch.Tensor = self._model(
            on_device_BT, past_key_values=past, use_cache=past is not None
        ).logits
        return logits_BTV

    @torch.inference_mode()
    def write(self, asked: Sequence[Writing]) -> list[Written]:
        """See `TokenModel`. Samples of one prompt have its beginning in common too."""
        answers: dict[int, Written] = {}
        contents = contents_of(self._tokenizer)
        for branch, prefix in self._branches([job.prompt_T[:-1] for job in asked]):
            by_length: dict[int, list[int]] = {}
            for number in branch.rows:
                by_length.setdefault(len(asked[number].prompt_T), []).append(number)
            for length, numbers in sorted(by_length.items(), reverse=True):
                count = max(1, min(self._batch_tokens // (length - branch.length), self._rows_of(length)))
                for first in range(0, len(numbers), count):
                    drafts = [
                        Draft(number, asked[number], self._tokenizer, self._ends)
                        for number in numbers[first : first + count]
                    ]
                    answers.update(self._write_batch(drafts, contents, branch.length, prefix))
        return [answers[number] for number in range(len(asked))]

    def _write_batch(
        self, drafts: Sequence[Draft], contents: Sequence[bytes] | None, start: int, prefix: Any
    ) -> Iterator[tuple[int, Written]]:
        """Write texts of equally long prompts; rows that have ended are fed on, and not looked at."""
        step_BT = torch.from_numpy(np.stack([draft.job.prompt_T[start:] for draft in drafts]))
        step_BT = step_BT.to(self._device)
        past = _repeated(prefix, len(drafts))
        active = dict(enumerate(drafts))
        while active:
            said = self._model(step_BT, past_key_values=past, use_cache=True)
            past = said.past_key_values
            rows = list(active)
            chosen = choose(
                said.logits[rows, -1, : self._tokenizer.size].float(),
                [active[row].job.sampling for row in rows],
                [active[row].generator for row in rows],
            )
            step_BT = torch.zeros((len(drafts), 1), dtype=torch.int64, device=self._device)
            for row, token in zip(rows, chosen, strict=True):
                written = active[row].take(token, contents)
                if written is not None:
                    yield active.pop(row).number, written
                else:
                    step_BT[row] = token


@dataclass(frozen=True)
class _Row:
    """What is fed behind a prefix for some tails of a question (their numbers)."""

    question: int
    inputs_T: Ids
    tails: tuple[int, ...]


def _rows(asked: Sequence[Scored], branch: Branch) -> list[_Row]:
    """The rows of a branch's questions: one for all tails of one token, and one for each longer tail."""
    rows = []
    for number in branch.rows:
        context_T, tails = asked[number].context_T[branch.length :], asked[number].tails
        single = tuple(place for place, tail in enumerate(tails) if len(tail) == 1)
        if single:
            rows.append(_Row(number, context_T, single))
        rows += [
            _Row(number, np.concatenate((context_T, tail[:-1])), (place,))
            for place, tail in enumerate(tails)
            if len(tail) > 1
        ]
    return rows


def _repeated(prefix: Any, rows: int) -> Any:
    """A copy of a cache of one row, for `rows` rows; None for none."""
    if prefix is None:
        return None
    several = copy.deepcopy(prefix)
    several.batch_repeat_interleave(rows)
    return several


def _has_plain_cache(model: Any, device: torch.device) -> bool:
    """Whether the model keeps all keys and values of every layer, and nothing else (a state, a window).

    Only of such a cache is it known here that a beginning can be computed once and repeated.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    token_11 = torch.zeros((1, 1), dtype=torch.int64, device=device)
    with torch.inference_mode():
        cache = getattr(model(token_11, use_cache=True), "past_key_values", None)
    if cache is None or type(cache) is not DynamicCache:
        return False
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def _load(directory: Path, dtype: torch.dtype) -> Any:
    """The model, every weight of it read from the directory; raises InputError where that can't be."""
    from transformers import AutoModelForCausalLM

    try:
        with quiet(), without_bars():
            model, info = AutoModelForCausalLM.from_pretrained(
                directory,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                dtype=dtype,
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises whatever its parts do
        raise InputError(
            f"neither Tsugiki nor transformers can run the model in {directory}: {error}",
            hint="models that need code of their own are not run; choose one that transformers knows",
        ) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        lacking = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
        raise InputError(
            f"the weights in {directory} lack {len(lacking)} tensors of its config.json: "
            f"{', '.join(lacking[:5])}",
            hint="fetch the model again",
        )
    return model
