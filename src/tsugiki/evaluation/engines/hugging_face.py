"""Any causal model of `transformers` as an engine, for families that our decoder does not compute.

Questions go in batches by length, padded on the right; prompts are continued in batches of equal length, so
nothing is masked and no family needs a case of its own. Code from a model's directory is never run.

Shapes: B rows, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from tsugiki.errors import InputError
from tsugiki.evaluation.engines.choosing import choose
from tsugiki.evaluation.engines.tokens import Ids, Scored, Writing, Written
from tsugiki.evaluation.engines.writing import Draft, contents_of
from tsugiki.models.quiet import quiet, without_bars
from tsugiki.models.tokenizer import TextTokenizer

_LOGITS_BYTES = 256 * 2**20
"""Bound on the logits of a batch, as far as one row allows: these models give them for every token."""
_MAXIMUM_ROWS = 32


class TransformersModel:
    """A `TokenModel`."""

    def __init__(
        self,
        directory: Path,
        tokenizer: TextTokenizer,
        dtype: torch.dtype,
        device: torch.device,
        *,
        batch_tokens: int,
    ) -> None:
        self._model = _load(directory, dtype).to(device).eval()
        rows = self._model.get_input_embeddings().weight.shape[0]
        if tokenizer.size > rows:
            raise InputError(
                f"the tokenizer in {directory} has {tokenizer.size} pieces, the model {rows} rows",
                hint="the directory mixes files of two models; fetch it again",
            )
        self._tokenizer = tokenizer
        self._device = device
        self._batch_tokens = max(1, min(batch_tokens, _LOGITS_BYTES // (4 * rows)))

    @torch.inference_mode()
    def score(self, asked: Sequence[Scored]) -> list[tuple[float, ...]]:
        """See `TokenModel`. Tails of one token share the pass over their context."""
        answers = [[0.0] * len(question.tails) for question in asked]
        rows: list[tuple[Ids, int, list[int]]] = []  # inputs, question, numbers of its tails
        for number, question in enumerate(asked):
            single = [place for place, tail in enumerate(question.tails) if len(tail) == 1]
            if single:
                rows.append((question.context_T, number, single))
            rows += [
                (np.concatenate((question.context_T, tail[:-1])), number, [place])
                for place, tail in enumerate(question.tails)
                if len(tail) > 1
            ]
        rows.sort(key=lambda row: (-len(row[0]), row[1], row[2]))
        while rows:
            count = max(1, self._batch_tokens // len(rows[0][0]))
            batch, rows = rows[:count], rows[count:]
            logits_BTV = self._logits([inputs_T for inputs_T, _, _ in batch])
            for logits_TV, (inputs_T, number, places) in zip(logits_BTV, batch, strict=True):
                first = len(asked[number].context_T) - 1
                scores_NV = logits_TV[first : len(inputs_T)].float()
                for place in places:
                    target_N = torch.from_numpy(asked[number].tails[place]).to(self._device)
                    nll_N = F.cross_entropy(scores_NV, target_N, reduction="none")
                    answers[number][place] = nll_N.double().sum().item()
        return [tuple(nlls) for nlls in answers]

    def _logits(self, rows: Sequence[Ids]) -> torch.Tensor:
        ids_BT = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for row, inputs_T in enumerate(rows):
            ids_BT[row, : len(inputs_T)] = inputs_T
        logits_BTV: torch.Tensor = self._model(
            torch.from_numpy(ids_BT).to(self._device), use_cache=False
        ).logits
        return logits_BTV

    @torch.inference_mode()
    def write(self, asked: Sequence[Writing]) -> list[Written]:
        """See `TokenModel`."""
        answers: dict[int, Written] = {}
        by_length: dict[int, list[int]] = {}
        for number, job in enumerate(asked):
            by_length.setdefault(len(job.prompt_T), []).append(number)
        contents = contents_of(self._tokenizer)
        for length, numbers in sorted(by_length.items(), reverse=True):
            rows = max(1, min(_MAXIMUM_ROWS, self._batch_tokens // length))
            for start in range(0, len(numbers), rows):
                drafts = [
                    Draft(number, asked[number], self._tokenizer) for number in numbers[start : start + rows]
                ]
                answers.update(self._write_batch(drafts, contents))
        return [answers[number] for number in range(len(asked))]

    def _write_batch(
        self, drafts: Sequence[Draft], contents: Sequence[bytes] | None
    ) -> Iterator[tuple[int, Written]]:
        """Write texts of equally long prompts; rows that have ended are fed on, and not looked at."""
        step_BT = torch.from_numpy(np.stack([draft.job.prompt_T for draft in drafts])).to(self._device)
        past: Any = None
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
