"""Our decoder as a `Backend`: log-likelihoods in batches by length, and sampled continuations.

Shapes: B batch, T time, D model width, V vocabulary, N scored positions. Padding is on the right: attention
is causal, so what stands behind a token can't change its prediction, and no mask is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from tsugiki.errors import InputError
from tsugiki.evaluation.backend import Choices, Continuation, Likelihood, Prompt
from tsugiki.evaluation.items import byte_length, cut_bytes
from tsugiki.evaluation.prefix import SharedPrefix
from tsugiki.evaluation.windows import Window, plan_windows
from tsugiki.models.decoder import Decoder
from tsugiki.models.generation import generate
from tsugiki.models.tokenizer import TextTokenizer

_LOGITS_BYTES = 8 * 2**20
"""Bound on one block of logits: what stays in the cache. Blocks of 8 MiB and the fused `cross_entropy` take
half the time of blocks of 128 MiB and logsumexp minus gather (0.115 against 0.237 s for 8192 tokens, V =
4096, one core)."""
_PIECE_TOKENS = 32
"""Tokens written before the number of bytes is looked at again."""

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """A token sequence x_0 .. x_n (beginning of sequence included) of which x_first .. x_n are scored."""

    ids_T: Ids
    first: int


class DecoderBackend:
    """Answers a task's questions with one model.

    context_length: window in tokens; stride: tokens that each further window scores (`windows.plan_windows`).
    batch_tokens: input tokens, padding included, that are computed at once; it changes the speed and the last
    bits of the sums, nothing else.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: TextTokenizer,
        *,
        context_length: int,
        stride: int,
        batch_tokens: int,
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
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._start = start
        self._context_length = context_length
        self._stride = stride
        self._batch_tokens = batch_tokens
        self._device = decoder.head_weight_VD.device

    def text_likelihoods(self, texts: Sequence[str]) -> list[Likelihood]:
        """See `Backend`. Long texts go through overlapping windows; every token is scored exactly once."""
        segments = [Segment(self._started(ids), 1) for ids in self._tokenizer.encode_batch(list(texts))]
        return [
            Likelihood(nll, len(segment.ids_T) - 1)
            for nll, segment in zip(self._segment_nlls(segments), segments, strict=True)
        ]

    def choice_likelihoods(self, questions: Sequence[Choices]) -> list[tuple[Likelihood, ...]]:
        """See `Backend`. Context and option are tokenised together, as a reader of the page would see them.

        Where an option's first characters merge with the context's last token, all options of the question
        are scored from that token on, so that all of them pay for the same text.
        """
        contexts = self._tokenizer.encode_batch([question.context for question in questions])
        joined = iter(
            self._tokenizer.encode_batch(
                [question.context + option for question in questions for option in question.options]
            )
        )
        answers = []
        for question, context in zip(questions, contexts, strict=True):
            wholes = [next(joined) for _ in question.options]
            shared = min((_common_prefix(whole, context) for whole in wholes), default=0)
            prefix_T = self._started(context[:shared])
            answers.append(
                self._option_likelihoods(prefix_T, [whole[shared:].astype(np.int64) for whole in wholes])
            )
        return answers

    def _option_likelihoods(self, prefix_T: Ids, tails: Sequence[Ids]) -> tuple[Likelihood, ...]:
        """-ln p of each tail after the prefix, which all tails see to the same extent.

        A prefix that does not fit beside the longest tail is cut on the left. Where that would leave less
        than windows leave (context_length - stride + 1 tokens), the tails go through windows like any long
        text.
        """
        longest = max((len(tail) for tail in tails), default=0)
        room = self._context_length - (longest - 1)
        if room >= min(len(prefix_T), self._context_length - self._stride + 1):
            nlls, truncated = self._shared_nlls(prefix_T[-room:], tails), room < len(prefix_T)
        else:
            segments = [Segment(np.concatenate([prefix_T, tail]), len(prefix_T)) for tail in tails]
            nlls, truncated = self._segment_nlls(segments), True
        return tuple(Likelihood(nll, len(tail), truncated) for nll, tail in zip(nlls, tails, strict=True))

    @torch.inference_mode()
    def _shared_nlls(self, prefix_T: Ids, tails: Sequence[Ids]) -> list[float]:
        """One pass over the prefix, one over all tails behind it."""
        cache = SharedPrefix(self._decoder.config.layers)
        last_D = self._decoder.hidden(self._on_device(prefix_T[None]), cache=cache)[0, -1]
        inputs_BT = np.zeros((len(tails), max(len(tail) for tail in tails) - 1), dtype=np.int64)
        for row, tail in enumerate(tails):
            inputs_BT[row, : len(tail) - 1] = tail[:-1]
        x_BTD = last_D.expand(len(tails), 1, -1)
        if inputs_BT.shape[1]:
            x_BTD = torch.cat((x_BTD, self._decoder.hidden(self._on_device(inputs_BT), cache=cache)), dim=1)
        x_ND = torch.cat([x_BTD[row, : len(tail)] for row, tail in enumerate(tails)])
        row_N = np.repeat(np.arange(len(tails)), [len(tail) for tail in tails])
        nll_N = self._token_nlls(x_ND, self._on_device(np.concatenate(tails)))
        return np.bincount(row_N, weights=nll_N, minlength=len(tails)).tolist()

    def continuations(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """See `Backend`. Each prompt that samples has its own generator."""
        encoded = self._tokenizer.encode_batch([prompt.text for prompt in prompts])
        return [self._continue(prompt, ids) for prompt, ids in zip(prompts, encoded, strict=True)]

    def _continue(self, prompt: Prompt, prompt_ids: NDArray[np.uint32]) -> Continuation:
        """Write in pieces until the bytes, the window or the text itself ends.

        Bytes that are no UTF-8 (half a character at the cap) become U+FFFD when decoded; one at the very end
        is dropped.
        """
        room = self._context_length
        # A prompt may take half of the window; of a longer one the end is what matters.
        prefix = [self._start, *(int(token) for token in prompt_ids[-(room // 2) :])]
        generator = torch.Generator(device=self._device).manual_seed(prompt.seed % 2**63)
        sampling = prompt.sampling
        written: list[int] = []
        text, ended = "", False
        while not ended and byte_length(text) < prompt.maximum_bytes and len(prefix) + len(written) < room:
            wanted = min(_PIECE_TOKENS, room - len(prefix) - len(written))
            piece = generate(
                self._decoder,
                prefix + written,
                wanted,
                self._tokenizer.eos_id,
                temperature=sampling.temperature if sampling else 0.0,
                top_k=(sampling.top_k or None) if sampling else None,
                generator=generator,
                pieces=self._tokenizer.size,
            )
            written += piece
            text = self._tokenizer.decode(written)
            ended = len(piece) < wanted
        cut = cut_bytes(text, prompt.maximum_bytes)
        truncated = not ended or len(cut) < len(text)
        return Continuation(cut.rstrip("\ufffd") if truncated else cut, len(written), truncated)

    def _started(self, ids: NDArray[np.uint32]) -> Ids:
        return np.concatenate([[self._start], ids]).astype(np.int64)

    def _on_device(self, ids: Ids) -> torch.Tensor:
        return torch.from_numpy(ids).to(self._device)

    def _windows(self, segment: Segment) -> list[Window]:
        return plan_windows(
            len(segment.ids_T) - 1,
            first=segment.first,
            context_length=self._context_length,
            stride=self._stride,
        )

    def _segment_nlls(self, segments: Sequence[Segment]) -> list[float]:
        """-ln p of each segment's scored tokens; the longest windows go first, so memory peaks at once."""
        jobs = [
            (index, window) for index, segment in enumerate(segments) for window in self._windows(segment)
        ]
        order = sorted(range(len(jobs)), key=lambda job: (-jobs[job][1].length, job))
        nll_of_job = [0.0] * len(jobs)
        while order:
            rows = max(1, self._batch_tokens // jobs[order[0]][1].length)
            batch, order = order[:rows], order[rows:]
            nlls = self._batch_nlls([(segments[jobs[job][0]].ids_T, jobs[job][1]) for job in batch])
            for job, nll in zip(batch, nlls, strict=True):
                nll_of_job[job] = nll
        totals = [0.0] * len(segments)
        for (index, _), nll in zip(jobs, nll_of_job, strict=True):
            totals[index] += nll
        return totals

    @torch.inference_mode()
    def _batch_nlls(self, batch: Sequence[tuple[Ids, Window]]) -> list[float]:
        longest = max(window.length for _, window in batch)
        ids_BT = np.zeros((len(batch), longest), dtype=np.int64)
        rows_N, columns_N, targets_N = [], [], []
        for row, (ids_T, window) in enumerate(batch):
            ids_BT[row, : window.length] = ids_T[window.start : window.end]
            scored = np.arange(window.first, window.end + 1)
            rows_N.append(np.full(len(scored), row))
            columns_N.append(scored - 1 - window.start)
            targets_N.append(ids_T[scored])
        row_N = np.concatenate(rows_N)
        place_N = self._on_device(row_N * longest + np.concatenate(columns_N))
        x_ND = self._decoder.hidden(self._on_device(ids_BT)).flatten(0, 1)[place_N]
        nll_N = self._token_nlls(x_ND, self._on_device(np.concatenate(targets_N)))
        return np.bincount(row_N, weights=nll_N, minlength=len(batch)).tolist()

    def _token_nlls(self, x_ND: torch.Tensor, target_N: torch.Tensor) -> NDArray[np.float64]:
        block = max(1, _LOGITS_BYTES // (4 * self._decoder.config.vocabulary_size))
        parts = []
        for x, target in zip(torch.split(x_ND, block), torch.split(target_N, block), strict=True):
            logits_NV = self._decoder.head(x).float()
            parts.append(F.cross_entropy(logits_NV, target, reduction="none"))
        return torch.cat(parts).double().cpu().numpy()


def _common_prefix(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
