"""Rows of new pieces, learnt so that the base does with one new token what it did with its several parts.

Token Distillation (Dobler, Elliott and de Melo, arXiv 2505.20133): for an occurrence of a piece, the base
reads the text with the piece's parts (teacher) and with one row in their place (student); the row is moved
until the hidden states from the piece on agree. Only the row is trained, the model is frozen. The output head
(where it is not the same matrix) gets its rows by next-token prediction, on the same frozen hidden states.
Shapes: B snippets, T time, R new pieces, D width, V old vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tsugiki.models.decoder import Decoder
from tsugiki.vocabulary.snippets import Snippet, Window

Item = TypeVar("Item")

_DECAY_1, _DECAY_2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's (Kingma and Ba 2015)

OnBatch = Callable[[int, int], None]
"""Called after each batch with (snippets done, snippets in all)."""


@dataclass(frozen=True)
class Settings:
    """How to distil; the defaults are the paper's (its repository's README).

    old_pieces: the base's pieces; labels of new ones follow.
    """

    old_pieces: int
    batch: int = 16
    learning_rate: float = 1e-4
    epochs: int = 1


@dataclass(frozen=True)
class Distilled:
    """Rows (R, D) in float32, and the mean squared difference of hidden states before and after.

    The two are means over the first and last tenth of the batches.
    """

    rows_RD: Tensor
    loss_before: float
    loss_after: float


class _LazyAdam:
    """Adam that moves only the rows that a batch holds, with a count of steps for each row."""

    def __init__(self, rows_RD: Tensor) -> None:
        self.rows_RD = rows_RD
        self.first_RD = torch.zeros_like(rows_RD)
        self.second_RD = torch.zeros_like(rows_RD)
        self.steps_R = torch.zeros(len(rows_RD), 1, device=rows_RD.device)

    def step(self, numbers_B: Tensor, gradient_BD: Tensor, learning_rate: float) -> None:
        """Move the rows `numbers_B`; the gradients of one row that occurs several times are added."""
        rows_U, places_B = torch.unique(numbers_B, return_inverse=True)
        summed_UD = torch.zeros(len(rows_U), gradient_BD.shape[1], device=gradient_BD.device)
        summed_UD.index_add_(0, places_B, gradient_BD)
        self.steps_R[rows_U] += 1
        first_UD = self.first_RD[rows_U].lerp(summed_UD, 1 - _DECAY_1)
        second_UD = self.second_RD[rows_U].lerp(summed_UD.square(), 1 - _DECAY_2)
        self.first_RD[rows_U], self.second_RD[rows_U] = first_UD, second_UD
        steps_U1 = self.steps_R[rows_U]
        step_UD = first_UD / (1 - _DECAY_1**steps_U1)
        step_UD /= (second_UD / (1 - _DECAY_2**steps_U1)).sqrt() + _EPSILON
        self.rows_RD[rows_U] -= learning_rate * step_UD


def distil_input_rows(
    decoder: Decoder,
    rows_RD: Tensor,
    snippets: Sequence[Snippet],
    settings: Settings,
    *,
    seed: int,
    on_batch: OnBatch = lambda _done, _total: None,
) -> Distilled:
    """Learn rows of the input embedding, from `rows_RD` on (not changed); pieces without snippet keep theirs.

    decoder: the base, on the device where the work is done; frozen here. The learning rate falls linearly.
    """
    decoder.requires_grad_(requires_grad=False)
    adam = _LazyAdam(rows_RD.detach().float().clone())
    losses = []
    order = list(_batches(snippets, settings, seed))
    for number, batch in enumerate(order):
        targets_B = torch.tensor([snippet.piece for snippet in batch], device=rows_RD.device)
        leaf_BD = adam.rows_RD[targets_B].requires_grad_()
        loss = _difference(decoder, leaf_BD, batch)
        (gradient_BD,) = torch.autograd.grad(loss, leaf_BD)
        adam.step(targets_B, gradient_BD, settings.learning_rate * (1 - number / len(order)))
        losses.append(float(loss.detach()))
        on_batch(number + 1, len(order))
    return _distilled(adam, losses)


def _batches(items: Sequence[Item], settings: Settings, seed: int) -> Iterator[list[Item]]:
    """Batches in an order that `seed` decides, anew in each epoch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(settings.epochs):
        order = torch.randperm(len(items), generator=generator).tolist()
        for start in range(0, len(order), settings.batch):
            yield [items[place] for place in order[start : start + settings.batch]]


def _difference(decoder: Decoder, leaf_BD: Tensor, batch: Sequence[Snippet]) -> Tensor:
    """The mean squared difference of the last hidden states, from the piece (its last part) on."""
    device = leaf_BD.device
    teacher = [(*one.before, *one.parts, *one.after) for one in batch]
    student = [(*one.before, one.parts[-1], *one.after) for one in batch]
    with torch.no_grad():
        wanted_BTD = decoder.hidden(_padded(teacher, device))
    places_B = torch.tensor([len(one.before) for one in batch], device=device)
    hook = embedding_of(decoder).register_forward_hook(_put_rows(leaf_BD, places_B))
    try:
        given_BTD = decoder.hidden(_padded(student, device))
    finally:
        hook.remove()
    rows = torch.arange(len(batch), device=device)
    lengths = [1 + len(one.after) for one in batch]
    row_N = rows.repeat_interleave(torch.tensor(lengths, device=device))
    step_N = torch.cat([torch.arange(length, device=device) for length in lengths])
    student_N = places_B[row_N] + step_N
    extra_B = torch.tensor([len(one.parts) - 1 for one in batch], device=device)
    given_ND = given_BTD[row_N, student_N]
    wanted_ND = wanted_BTD[row_N, student_N + extra_B[row_N]]
    return F.mse_loss(given_ND.float(), wanted_ND.float())


def embedding_of(decoder: Decoder) -> nn.Embedding:
    """The input embedding of a whole decoder."""
    return next(module for module in decoder.modules() if isinstance(module, nn.Embedding))


def _put_rows(leaf_BD: Tensor, places_B: Tensor) -> Callable[[Any, Any, Tensor], Tensor]:
    """A forward hook of the embedding: row b of `leaf_BD` stands at `places_B[b]` of sequence b."""

    def hook(_module: Any, _arguments: Any, x_BTD: Tensor) -> Tensor:
        is_place_BT1 = (torch.arange(x_BTD.shape[1], device=x_BTD.device) == places_B[:, None])[..., None]
        return torch.where(is_place_BT1, leaf_BD[:, None].to(x_BTD.dtype), x_BTD)

    return hook


def _padded(sequences: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Sequences as (B, T), filled up behind their ends: a causal model does not see that."""
    longest = max(map(len, sequences))
    return torch.tensor([[*one, *[0] * (longest - len(one))] for one in sequences], device=device)


def distil_head_rows(
    decoder: Decoder,
    rows_RD: Tensor,
    windows: Sequence[Window],
    settings: Settings,
    *,
    seed: int,
    on_batch: OnBatch = lambda _done, _total: None,
) -> Distilled:
    """Learn rows of the output head by next-token prediction, from `rows_RD` on (not changed).

    The label is what the extended tokenizer says comes next, a new piece or an old one, so that a new row is
    also pushed down where it does not belong. Hidden states and old rows are the base's and frozen: the
    problem is convex. The losses are cross-entropies in nats a token.
    """
    adam = _LazyAdam(rows_RD.detach().float().clone())
    losses = []
    order = list(_batches(windows, settings, seed))
    everything = torch.arange(len(rows_RD), device=rows_RD.device)
    for number, batch in enumerate(order):
        x_ND = _states_before(decoder, batch)
        labels_N = torch.tensor([label for one in batch for label in one.labels], device=x_ND.device)
        leaf_RD = adam.rows_RD.clone().requires_grad_()
        loss = _cross_entropy(_old_logits(decoder, x_ND, settings.old_pieces), x_ND @ leaf_RD.T, labels_N)
        (gradient_RD,) = torch.autograd.grad(loss, leaf_RD)
        adam.step(everything, gradient_RD, settings.learning_rate * (1 - number / len(order)))
        losses.append(float(loss.detach()))
        on_batch(number + 1, len(order))
    return _distilled(adam, losses)


def _cross_entropy(old_NV: Tensor, new_NR: Tensor, labels_N: Tensor) -> Tensor:
    """The mean cross-entropy of labels that count the old pieces first, then the new ones.

    The old logits learn nothing, so only their logarithms of sums go into the graph: no gradient as large as
    the whole vocabulary is ever made.
    """
    size = old_NV.shape[1]
    is_new_N = labels_N >= size
    old_labels_N = torch.where(is_new_N, 0, labels_N)
    new_labels_N = torch.where(is_new_N, labels_N - size, 0)
    total_N = torch.logsumexp(torch.cat((old_NV.logsumexp(dim=1)[:, None], new_NR), dim=1), dim=1)
    chosen_N = torch.where(
        is_new_N,
        new_NR.gather(1, new_labels_N[:, None])[:, 0],
        old_NV.gather(1, old_labels_N[:, None])[:, 0],
    )
    return (total_N - chosen_N).mean()


def _distilled(adam: _LazyAdam, losses: Sequence[float]) -> Distilled:
    tenth = max(1, len(losses) // 10)
    before, after = (sum(part) / max(len(part), 1) for part in (losses[:tenth], losses[-tenth:]))
    return Distilled(adam.rows_RD, before, after)


@torch.no_grad()
def _states_before(decoder: Decoder, batch: Sequence[Window]) -> Tensor:
    """The hidden states (N, D) before each label, in float32."""
    x_BTD = decoder.hidden(_padded([one.ids for one in batch], decoder.head_weight_VD.device))
    rows = [row for row, one in enumerate(batch) for _ in one.ends]
    return x_BTD[rows, [place for one in batch for place in one.ends]].float()


@torch.no_grad()
def _old_logits(decoder: Decoder, x_ND: Tensor, old_pieces: int) -> Tensor:
    """Logits of the base's pieces alone: padding rows behind them will be replaced."""
    return x_ND @ decoder.head_weight_VD[:old_pieces].float().T
