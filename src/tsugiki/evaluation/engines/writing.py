"""Many texts written at once: each ends when it is done, and the next one takes its place.

Shapes: B texts at work, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
import torch
from torch import Tensor

from tsugiki.evaluation.engines.choosing import BROKEN, choose
from tsugiki.evaluation.engines.prefix import Pass, Prefix
from tsugiki.evaluation.engines.slots import Slots
from tsugiki.evaluation.engines.tokens import Writing, Written
from tsugiki.evaluation.items import byte_length
from tsugiki.models.decoder import Decoder
from tsugiki.models.spelling import TokenizerKind
from tsugiki.models.tokenizer import TextTokenizer

_MAXIMUM_ROWS = 64
_KEYS_OF_BATCH = 16
"""Own tokens whose keys are kept at most, in multiples of the tokens that are computed at once."""


class Draft:
    """One text that is being written. Stops and bytes are looked for after each token.

    Pieces' bytes are joined to see whether a look at the text is due; what counts is the decoded text. ends:
    the tokens by which the model ends a text itself.
    """

    def __init__(self, number: int, job: Writing, tokenizer: TextTokenizer, ends: Container[int]) -> None:
        self.number = number
        self.job = job
        self.ids: list[int] = []
        self.generator = torch.Generator().manual_seed(job.seed % 2**63)
        self._tokenizer = tokenizer
        self._ends = ends
        self._stops = tuple(stop.encode() for stop in job.stops)
        self._overlap = max(map(len, self._stops), default=0)
        self._bytes = bytearray()

    def take(self, token: int, contents: Sequence[bytes] | None) -> Written | None:
        """Add a token; the answer, if that ends the text."""
        if token == BROKEN:
            return Written(self.ids, ended=False, broken=True)
        if token in self._ends:
            return Written(self.ids, ended=True)
        self.ids.append(token)
        if len(self.ids) >= self.job.maximum_tokens or (self._is_due(token, contents) and self._is_over()):
            return Written(self.ids, ended=False)
        return None

    def _is_due(self, token: int, contents: Sequence[bytes] | None) -> bool:
        if contents is None:
            return True
        seen = max(0, len(self._bytes) - self._overlap)
        self._bytes += contents[token]
        return len(self._bytes) >= self.job.maximum_bytes or any(
            self._bytes.find(stop, seen) >= 0 for stop in self._stops
        )

    def _is_over(self) -> bool:
        text = self._tokenizer.decode(self.ids)
        return byte_length(text) >= self.job.maximum_bytes or any(stop in text for stop in self.job.stops)


@dataclass(frozen=True)
class Job:
    """A text to write and its number. prefix: the first tokens of its prompt, where they are computed."""

    number: int
    writing: Writing
    prefix: Prefix | None


class Pen:
    """Writes with one decoder."""

    def __init__(
        self, decoder: Decoder, tokenizer: TextTokenizer, batch_tokens: int, ends: Container[int]
    ) -> None:
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._ends = ends
        self._batch_tokens = batch_tokens
        self._device = decoder.head_weight_VD.device
        self._contents = contents_of(tokenizer)

    def write(
        self, jobs: Iterable[Job], at_once: int, shared: Prefix | None
    ) -> Iterator[tuple[int, Written]]:
        """Every job's number and answer, as they end; at most `at_once` texts side by side.

        shared: the first tokens of all prompts; without it each job may have a prefix of its own.
        """
        waiting = iter(jobs)
        slots = Slots(self._decoder.config.layers, shared, at_once)
        drafts: list[Draft] = []
        more = True
        while more or drafts:
            # Some at a time: prompts are computed better together than one by one.
            if more and len(drafts) <= at_once - max(1, at_once // 4):
                taken = list(islice(waiting, at_once - len(drafts)))
                more = len(taken) == at_once - len(drafts)
                for batch in self._batches(taken, shared):
                    new = [Draft(job.number, job.writing, self._tokenizer, self._ends) for job in batch]
                    logits_BV = self._begin(new, shared or batch[0].prefix, slots)
                    first = len(drafts)
                    drafts += new
                    yield from self._take(drafts, first, logits_BV, slots)
            else:
                yield from self._take(drafts, 0, self._step(drafts, slots), slots)

    def limit(self, asked: Sequence[Writing], start: int) -> int:
        """Texts at once: as many as their keys fit for when all are as long as they may become.

        start: tokens of all prompts whose keys are there once.
        """
        longest = max((len(job.prompt_T) - start + job.maximum_tokens for job in asked), default=1)
        return max(1, min(_MAXIMUM_ROWS, len(asked), _KEYS_OF_BATCH * self._batch_tokens // longest))

    def _batches(self, jobs: Sequence[Job], shared: Prefix | None) -> Iterator[Sequence[Job]]:
        """Jobs whose prompts are computed together: behind the same prefix."""
        for _, group in groupby(jobs, key=lambda job: id(job.prefix)):
            left = list(group)
            while left:
                prefix = shared or left[0].prefix
                tokens = len(left[0].writing.prompt_T) - (prefix.length if prefix else 0)
                rows = max(1, self._batch_tokens // tokens)
                yield left[:rows]
                left = left[rows:]

    def _begin(self, drafts: Sequence[Draft], prefix: Prefix | None, slots: Slots) -> Tensor:
        """Compute the prompts behind the prefix; logits (B, V) of the first tokens."""
        start = prefix.length if prefix else 0
        tails = [draft.job.prompt_T[start:] for draft in drafts]
        lengths_B = torch.tensor([len(tail) for tail in tails])
        ids_BT = np.zeros((len(tails), int(lengths_B.max())), dtype=np.int64)
        for row, tail in enumerate(tails):
            ids_BT[row, : len(tail)] = tail
        positions_1T = torch.arange(start, start + ids_BT.shape[1], device=self._device)[None]
        run = Pass(self._decoder.config.layers, positions_1T, prefix, keep=True)
        on_device_BT = torch.from_numpy(ids_BT).to(self._device)
        x_BTD = self._decoder.blocks(self._decoder.embed(on_device_BT), positions_1T, cache=run)
        if prefix is None or slots.prefix is not None:
            slots.add(lengths_B, run.kept)
        else:
            slots.add(lengths_B + start, run.whole())
        return self._logits(x_BTD[torch.arange(len(tails)), lengths_B - 1])

    def _step(self, drafts: Sequence[Draft], slots: Slots) -> Tensor:
        """One more token of every text; logits (B, V) of the next ones."""
        slots.begin_step()
        ids_B1 = torch.tensor([draft.ids[-1:] for draft in drafts], device=self._device)
        positions_B1 = slots.positions_B1().to(self._device)
        x_B1D = self._decoder.blocks(self._decoder.embed(ids_B1), positions_B1, cache=slots)
        slots.advance(1)
        return self._logits(x_B1D[:, 0])

    def _logits(self, x_BD: Tensor) -> Tensor:
        norm = self._decoder.model.norm
        logits_BV = self._decoder.head(x_BD if norm is None else norm(x_BD))
        return logits_BV[:, : self._tokenizer.size].float()

    def _take(
        self, drafts: list[Draft], first: int, logits_BV: Tensor, slots: Slots
    ) -> Iterator[tuple[int, Written]]:
        """Give drafts first.. their tokens; those that end leave, the last draft takes their place."""
        chosen = choose(
            logits_BV,
            [draft.job.sampling for draft in drafts[first:]],
            [draft.generator for draft in drafts[first:]],
        )
        for row in reversed(range(first, len(drafts))):
            written = drafts[row].take(chosen[row - first], self._contents)
            if written is not None:
                yield drafts[row].number, written
                slots.drop(row)
                drafts[row] = drafts[-1]
                drafts.pop()


def contents_of(tokenizer: TextTokenizer) -> list[bytes] | None:
    """The bytes of every piece, none for special ones; None where pieces can't be read one by one."""
    if tokenizer.kind in {TokenizerKind.OTHER, TokenizerKind.UNIGRAM}:
        return None
    added = tokenizer.tokenizer.get_added_tokens_decoder()
    spelled = {number: token.content.encode() for number, token in added.items() if not token.special}
    return [content or spelled.get(number, b"") for number, content in enumerate(tokenizer.contents)]
