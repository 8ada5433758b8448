"""Output head and cross entropy where the vocabulary is cut over the tensor group.

As `training.loss`, chunk by chunk, but each process has logits of its rows of the head only: the largest
logit, the sum of exponentials and the target's logit are combined over the group (Shoeybi et al. 2019, arXiv
1909.08053, section 3), so no process ever sees all logits. The gradient of the hidden states is this
process's share; gathering the sequence before the head adds the shares up on the way back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tsugiki.dataset.packing import IGNORED
from tsugiki.training.loss import LossSums
from tsugiki.training.memory import LOGIT_ELEMENTS


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
    kind = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight_WD.dtype
    gradients = torch.is_grad_enabled()
    objective, cross_entropy = _HeadLossAcross.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_WD, targets_N, piece, z_loss, scale, dtype, gradients
    )
    return LossSums(objective, cross_entropy)


class _HeadLossAcross(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (torch passes them by position)
        ctx: Any,
        hidden_ND: Tensor,
        weight_WD: Tensor,
        targets_N: Tensor,
        piece: Piece,
        z_loss: float,
        scale: float,
        dtype: torch.dtype,
        gradients: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor]:
        x_ND, w_WD = hidden_ND.to(dtype), weight_WD.to(dtype)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            grad_x_ND = torch.empty_like(x_ND) if gradients else None
            grad_w_WD = torch.zeros_like(weight_WD) if gradients else None
            sums = torch.zeros(2, dtype=torch.float32, device=x_ND.device)
            rows = max(1, LOGIT_ELEMENTS[weight_WD.device.type] // weight_WD.shape[0])
            for start in range(0, x_ND.shape[0], rows):
                part = slice(start, start + rows)
                chunk_sums, grad_CW = _chunk(
                    x_ND[part], w_WD, targets_N[part], piece, z_loss=z_loss, scale=scale
                )
                sums += chunk_sums
                if grad_x_ND is not None and grad_w_WD is not None:
                    grad_CW = grad_CW.to(dtype)
                    torch.mm(grad_CW, w_WD, out=grad_x_ND[part])
                    grad_w_WD.add_(grad_CW.T @ x_ND[part])
        ctx.save_for_backward(grad_x_ND, grad_w_WD)
        ctx.hidden_dtype = hidden_ND.dtype
        cross_entropy, z_term = sums[0], sums[1]
        ctx.mark_non_differentiable(cross_entropy)
        return (cross_entropy + z_term) * scale, cross_entropy

    @staticmethod
    def backward(ctx: Any, grad_objective: Tensor, _grad_cross_entropy: Tensor) -> tuple[Any, ...]:
        grad_x_ND, grad_w_WD = ctx.saved_tensors
        grad_x_ND = grad_x_ND.mul_(grad_objective).to(ctx.hidden_dtype)
        return grad_x_ND, grad_w_WD.mul_(grad_objective), None, None, None, None, None, None


def _chunk(
    x_CD: Tensor, w_WD: Tensor, targets_C: Tensor, piece: Piece, *, z_loss: float, scale: float
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
    weight_C1 = scale * counted_C1
    grad_CW = exponentials_CW.mul_(weight_C1 * (1 + 2 * z_loss * log_z_C1) / total_C1)
    at_target_C1 = grad_CW.gather(1, index_C1) - torch.where(mine_C1, weight_C1, 0.0)
    return sums, grad_CW.scatter_(1, index_C1, at_target_C1)
