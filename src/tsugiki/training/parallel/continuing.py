"""Going on from prompts where the model lies in several processes: the most likely token each time.

There is no cache of keys and values: a token costs a forward pass over the rows of a micro-batch, as a
validation set's rows do, in every layout. A few prompts of some dozen tokens take less than a training step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tsugiki.dataset.mixture import Batch
from tsugiki.dataset.packing import IGNORED

if TYPE_CHECKING:
    from tsugiki.training.parallel.together import Together

_ROUNDED_TO = 16
"""Rows are a multiple of so many tokens a process: sequences are cut in halves, float8 wants sixteens."""


class Offer(NamedTuple):
    """The largest logit of each row in a process's part of the vocabulary, and its id; -inf: none here."""

    logits_B: Tensor
    ids_B: Tensor


def offer(hidden_BQD: Tensor, weight_WD: Tensor, targets_BQ: Tensor, *, first: int, pieces: int) -> Offer:
    """What a process offers for the token after the one place of each row whose target counts.

    weight_WD: rows of the head from id `first` on. pieces: ids behind these are padding, never chosen. Rows
    whose place lies elsewhere have none.
    """
    is_place_BQ = targets_BQ != IGNORED
    place_B = is_place_BQ.int().argmax(dim=1)
    hidden_BD = hidden_BQD[torch.arange(len(place_B), device=place_B.device), place_B]
    logits_BW = (hidden_BD.to(weight_WD.dtype) @ weight_WD.T).float()
    known = min(max(pieces - first, 0), logits_BW.shape[1])
    if known == 0:
        return Offer(logits_BW.new_full(place_B.shape, -math.inf), place_B.new_zeros(place_B.shape))
    logits_B, ids_B = logits_BW[:, :known].max(dim=1)
    return Offer(torch.where(is_place_BQ.any(dim=1), logits_B, -math.inf), ids_B + first)


@torch.no_grad()
def continuations(
    engine: Together, prompts: Sequence[Sequence[int]], tokens: int, eos_id: int | None, pieces: int
) -> list[list[int]]:
    """What follows each prompt, at most `tokens` ids; an end token is not part of it. See `Engine`.

    Every process calls it alike, and has the same result. Nothing follows an empty prompt, or one that fills
    a sequence.
    """
    length = _length(engine, max(map(len, prompts)) + tokens)
    found: list[list[int]] = [[] for _ in prompts]
    going = [number for number, prompt in enumerate(prompts) if 0 < len(prompt) < length]
    for _ in range(tokens):
        if not going:
            break
        chosen = _next([[*prompts[number], *found[number]] for number in going], engine, length, pieces)
        ended = {number for number, token in zip(going, chosen, strict=True) if token == eos_id}
        for number, token in zip(going, chosen, strict=True):
            if number not in ended:
                found[number].append(token)
                if len(prompts[number]) + len(found[number]) == length:
                    ended.add(number)
        going = [number for number in going if number not in ended]
    return found


def _length(engine: Together, wanted: int) -> int:
    """Tokens of a row: those of a sequence where a pipeline has fixed shapes, otherwise as few as will do."""
    parallel = engine.world.parallel
    if parallel.pipeline > 1:
        return engine.sequence_length
    unit = _ROUNDED_TO * parallel.context * parallel.tensor
    return min(engine.sequence_length, math.ceil(wanted / unit) * unit)


def _next(texts: Sequence[Sequence[int]], engine: Together, length: int, pieces: int) -> list[int]:
    """The most likely token after each text."""
    shape = (len(texts), length)
    ids_BT, targets_BT = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    for row, text in enumerate(texts):
        ids_BT[row, : len(text)] = text
        targets_BT[row, len(text) - 1] = 0  # the place that is asked about
    rows = Batch(ids_BT, targets_BT, np.zeros(shape, np.int32), np.zeros(len(texts), np.int64))
    return [token for offers in engine.offers(rows, pieces) for token in _agreed(offers)][: len(texts)]


def _agreed(offers: Offer) -> list[int]:
    """The id of the largest logit of each row over all processes, the smallest id among equals."""
    largest_R = offers.logits_B.clone()
    dist.all_reduce(largest_R, dist.ReduceOp.MAX)
    wins_R = offers.logits_B == largest_R
    ids_R = torch.where(wins_R, offers.ids_B, torch.iinfo(torch.int64).max)
    dist.all_reduce(ids_R, dist.ReduceOp.MIN)
    found: list[int] = ids_R.tolist()
    return found
