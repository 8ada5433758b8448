"""Output head and cross entropy where the vocabulary is cut over the tensor group.

As `training.loss`, chunk by chunk, but each process has logits of its rows of the head only: the largest
logit, the sum of exponentials and the target's logit are combined over the group (Shoeybi et al. 2019, arXiv
1909.08053, section 3), so no process ever sees all logits. The gradient of the hidden states is this
process's share; gathering the sequence before the head adds the shares up on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from tsugiki.dataset.packing import IGNORED
from tsugiki.training.loss import LossSums, chunked_loss


@dataclass(frozen=True)
class Piece:
    """This process's rows of the vocabulary: from `first` on; and the group that holds the others."""

    group: dist.ProcessGroup
    first: int


def head_loss_across(
    hidden_ND: Tensor,
    weight_WD: Tensor,
    targets_N: Tensor,
    piece: Piece,
    *,
    z_loss: float = 0.0,
    scale: float = 1.0,
) -> LossSums:
    """As `training.loss.head_loss`; weight_WD: this process's rows of the head."""
    chunk = partial(_chunk, piece=piece)
    return chunked_loss(hidden_ND, weight_WD, targets_N, chunk, z_loss=z_loss, scale=scale)


def _chunk(
    x_CD: Tensor,
    w_WD: Tensor,
    targets_C: Tensor,
    *,
    piece: Piece,
    z_loss: float,
    scale: float,
    gradients: bool,
) -> tuple[Tensor, Tensor]:
    """Sums of cross entropy and z-loss of one chunk (all processes alike); the gradient of its own logits."""
    logits_CW = (x_CD @ w_WD.T).float()
    counted_C1 = (targets_C != IGNORED).unsqueeze(1).float()
    local_C1 = (targets_C - piece.first).unsqueeze(1)
    mine_C1 = (local_C1 >= 0) & (local_C1 < w_WD.shape[0]) & (counted_C1 > 0)
    index_C1 = torch.where(mine_C1, local_C1, 0)
    target_C1 = torch.where(mine_C1, logits_CW.gather(1, index_C1), 0.0)
    largest_C1 = logits_CW.amax(dim=1, keepdim=True)
    dist.all_reduce(largest_C1, dist.ReduceOp.MAX, piece.group)
    exponentials_CW = logits_CW.sub_(largest_C1).exp_()
    combined_2C1 = torch.stack([exponentials_CW.sum(dim=1, keepdim=True), target_C1])
    dist.all_reduce(combined_2C1, group=piece.group)
    total_C1, target_C1 = combined_2C1.unbind()
    log_z_C1 = total_C1.log() + largest_C1
    z_C1 = z_loss * log_z_C1.square()
    sums = torch.stack([((log_z_C1 - target_C1) * counted_C1).sum(), (z_C1 * counted_C1).sum()])
    if not gradients:
        return sums, exponentials_CW
    weight_C1 = scale * counted_C1
    grad_CW = exponentials_CW.mul_(weight_C1 * (1 + 2 * z_loss * log_z_C1) / total_C1)
    at_target_C1 = grad_CW.gather(1, index_C1) - torch.where(mine_C1, weight_C1, 0.0)
    return sums, grad_CW.scatter_(1, index_C1, at_target_C1)
