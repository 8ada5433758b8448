"""Our decoder as an engine: shared prefixes once, questions in batches by length, many texts written at once.

Shapes: B batch, T time, D model width, V vocabulary, N scored positions. Padding is on the right: attention
is causal, so what stands behind a token can't change its prediction.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

from tsugiki.evaluation.engines.branches import Branch, plan_branches
from tsugiki.evaluation.engines.local import LocalBackend, Reading
from tsugiki.evaluation.engines.packing import Packed, Row, batches, make_rows, pack, visible
from tsugiki.evaluation.engines.prefix import Pass, Prefix
from tsugiki.evaluation.engines.tokens import Ids, Scored, Writing, Written
from tsugiki.evaluation.engines.writing import Job, Pen
from tsugiki.models.decoder import Decoder
from tsugiki.models.tokenizer import TextTokenizer

_LOGITS_BYTES = 8 * 2**20
"""Bound on one block of logits: what stays in the cache. Blocks of 8 MiB and the fused `cross_entropy` take
half the time of blocks of 128 MiB and logsumexp minus gather (0.115 against 0.237 s for 8192 tokens, V =
4096, one core)."""
_KEPT_BYTES = 512 * 2**20
"""Prefixes of earlier questions that are kept, in case the next questions begin alike."""


class DecoderBackend(LocalBackend):
    """Answers a task's questions with one model of ours.

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
        reading: Reading | None = None,
        ends: frozenset[int] | None = None,
    ) -> None:
        super().__init__(
            DecoderModel(decoder, tokenizer, batch_tokens=batch_tokens, ends=ends),
            tokenizer,
            context_length=context_length,
            stride=stride,
            reading=reading,
        )


class DecoderModel:
    """A `TokenModel`. ends: tokens that end a text; by default the tokenizer's own one."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: TextTokenizer,
        *,
        batch_tokens: int,
        ends: frozenset[int] | None = None,
    ) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._batch_tokens = batch_tokens
        own = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
        self._ends = frozenset(own) if ends is None else ends
        self._device = decoder.head_weight_VD.device
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()

    @torch.inference_mode()
    def score(self, asked: Sequence[Scored]) -> list[tuple[float, ...]]:
        """See `TokenModel`."""
        answers = [[0.0] * len(question.tails) for question in asked]
        # The last token of a context predicts the tails: it is computed with them, never in a prefix.
        contexts = [question.context_T[:-1] for question in asked]
        for branch, prefix in self._walk(plan_branches(contexts), contexts, None, ""):
            rows = make_rows(asked, branch.rows, branch.length, self._batch_tokens)
            for batch in batches(rows, self._batch_tokens):
                for row, nlls in zip(batch, self._row_nlls(batch, prefix), strict=True):
                    answers[row.question][row.first : row.first + len(nlls)] = nlls
        return [tuple(nlls) for nlls in answers]

    @torch.inference_mode()
    def write(self, asked: Sequence[Writing]) -> list[Written]:
        """See `TokenModel`."""
        answers: list[Written | None] = [None] * len(asked)
        prompts = [job.prompt_T[:-1] for job in asked]
        pen = Pen(self._decoder, self._tokenizer, self._batch_tokens, self._ends)
        tree, at_once = plan_branches(prompts), pen.limit(asked, 0)

        def many(branch: Branch) -> bool:
            return len(branch.rows) >= at_once

        def few(branch: Branch) -> bool:
            return 0 < len(branch.rows) < at_once

        for branch, prefix in self._walk(tree, prompts, None, "", many):
            rows = pen.limit([asked[row] for row in branch.rows], branch.length)
            for number, written in pen.write(_jobs(asked, branch, None), rows, prefix):
                answers[number] = written
        # Branches of a few texts (an item's samples) are written side by side: the fewer, the slower.
        branches = self._walk(tree, prompts, None, "", few)
        jobs = (job for branch, prefix in branches for job in _jobs(asked, branch, prefix))
        for number, written in pen.write(jobs, at_once, None):
            answers[number] = written
        return [answer for answer in answers if answer is not None]

    def _walk(
        self,
        branch: Branch,
        sequences: Sequence[Ids],
        parent: Prefix | None,
        key: str,
        wanted: Callable[[Branch], bool] = lambda branch: bool(branch.rows),
    ) -> Iterator[tuple[Branch, Prefix | None]]:
        """Every branch that is wanted with its prefix, parents first.

        A prefix is held while its children are at work; one that leads to none that is wanted is not made.
        """
        if not branch.leads_to(wanted):
            return
        prefix = parent
        if branch.length > branch.start:
            ids_T = sequences[branch.example][branch.start : branch.length]
            key = hashlib.sha256(key.encode() + ids_T.tobytes()).hexdigest()
            prefix = self._prefix(key, ids_T, parent)
        if wanted(branch):
            yield branch, prefix
        for child in branch.children:
            yield from self._walk(child, sequences, prefix, key, wanted)

    def _prefix(self, key: str, ids_T: Ids, parent: Prefix | None) -> Prefix:
        """Keys and values of the parent's tokens and `ids_T`.

        The key tells the tokens and how they were cut into passes: a prefix that was kept is to the bit the
        one that would be computed, so a run that was resumed gives the same bytes.
        """
        prefix = self._prefixes.pop(key, None)
        if prefix is None:
            prefix = parent
            for start in range(0, len(ids_T), self._batch_tokens):
                part_1T = self._on_device(ids_T[None, start : start + self._batch_tokens])
                at = prefix.length if prefix else 0
                positions_1T = torch.arange(at, at + part_1T.shape[1], device=self._device)[None]
                run = Pass(self._decoder.config.layers, positions_1T, prefix, keep=True)
                self._decoder.blocks(self._decoder.embed(part_1T), positions_1T, cache=run)
                prefix = run.extended()
        assert prefix is not None  # noqa: S101 (ids_T is not empty)
        self._prefixes[key] = prefix
        while sum(one.size_bytes for one in self._prefixes.values()) > _KEPT_BYTES:
            self._prefixes.popitem(last=False)
        return prefix

    def _row_nlls(self, rows: Sequence[Row], prefix: Prefix | None) -> list[list[float]]:
        packed = pack(rows)
        x_BTD = self._hidden(packed, prefix)
        nll_N = self._token_nlls(x_BTD.flatten(0, 1), packed.place_N, packed.target_N)
        sums = iter(np.bincount(packed.owner_N, weights=nll_N).tolist())
        return [[next(sums) for _ in row.tails] for row in rows]

    def _hidden(self, packed: Packed, prefix: Prefix | None) -> torch.Tensor:
        ids_BT = self._on_device(packed.ids_BT)
        if prefix is None and packed.part_BT is None:
            return self._decoder.hidden(ids_BT)
        mask_B1TT = None
        if packed.part_BT is not None:
            seen_B1TT = torch.from_numpy(visible(packed.part_BT)).to(self._device)[:, None]
            mask_B1TT = torch.zeros(seen_B1TT.shape, device=self._device)
            mask_B1TT.masked_fill_(~seen_B1TT, -torch.inf)
        positions_BT = self._on_device(packed.positions_BT)
        run = Pass(self._decoder.config.layers, positions_BT, prefix, mask_B1TT)
        x_BTD = self._decoder.blocks(self._decoder.embed(ids_BT), positions_BT, cache=run)
        norm = self._decoder.model.norm
        return x_BTD if norm is None else norm(x_BTD)

    def _on_device(self, ids: Ids) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(ids)).to(self._device)

    def _token_nlls(self, x_XD: torch.Tensor, place_N: Ids, target_N: Ids) -> NDArray[np.float64]:
        """-ln p of each target at its place in x_XD; places that predict several targets have logits once."""
        places_U, first_U, place_of_N = np.unique(place_N, return_index=True, return_inverse=True)
        x_UD = x_XD[self._on_device(places_U)]
        order_N = np.argsort(place_of_N, kind="stable")
        bounds = np.searchsorted(place_of_N[order_N], np.arange(len(places_U) + 1))
        block = max(1, _LOGITS_BYTES // (4 * self._decoder.config.vocabulary_size))
        nll_N = np.empty(len(target_N))
        for start in range(0, len(places_U), block):
            end = min(len(places_U), start + block)
            logits_UV = self._decoder.head(x_UD[start:end]).float()
            first = self._on_device(target_N[first_U[start:end]])
            first_nll_U = F.cross_entropy(logits_UV, first, reduction="none")
            numbers = order_N[bounds[start] : bounds[end]]
            at = self._on_device(place_of_N[numbers] - start)
            other = logits_UV[at, self._on_device(target_N[numbers])]
            lift = logits_UV.gather(1, first[:, None])[:, 0][at] - other
            nll_N[numbers] = (first_nll_U[at].double() + lift.double()).cpu().numpy()
        return nll_N


def _jobs(asked: Sequence[Writing], branch: Branch, prefix: Prefix | None) -> Iterator[Job]:
    """The texts of a branch, the longest prompts first, so that those of a batch are about as long."""
    for row in sorted(branch.rows, key=lambda row: (-len(asked[row].prompt_T), row)):
        yield Job(row, asked[row], prefix)
