"""Output head and cross entropy in one differentiable step that never holds all logits at once.

A head of V rows makes V numbers a token: with V = 128k and float32 that is half a megabyte a token, kept from
the forward to the backward pass. The gradient of the cross entropy is known as soon as the logits are, so
each chunk of tokens is taken through logits, loss and both gradients at once, and only the gradients stay:
of the hidden states (N x D) and of the head (V x D). The number of operations is that of the plain way.
Known from Liger Kernel (arXiv 2410.10989, section 3.2) as fused linear cross entropy.

With z = x W^T, log Z = logsumexp(z), and CE = log Z - z_y:
    loss = sum over counted tokens of CE + lambda (log Z)^2                   (z-loss: PaLM, arXiv 2204.02311)
    d loss / d z_j = p_j (1 + 2 lambda log Z) - [j = y]
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from tsugiki.dataset.packing import IGNORED
from tsugiki.models.products import is_slow
from tsugiki.training.memory import LOGIT_ELEMENTS


class LossSums(NamedTuple):
    """Sums over the counted tokens of a micro-batch, in nats, as float32 scalars.

    objective: what is differentiated, cross entropy + z-loss. cross_entropy: without the z-loss, so that
    curves can be compared (Megatron logs both added up). z_loss: the other part, its weight included.
    """

    objective: Tensor
    cross_entropy: Tensor
    z_loss: Tensor


class Chunk(Protocol):
    """Takes some tokens through the head: their `LossSums` stacked (2), and the gradient of their logits.

    Without `gradients` the second value may be anything of that shape.
    """

    def __call__(
        self,
        x_CD: Tensor,
        w_VD: Tensor,
        targets_C: Tensor,
        /,
        *,
        z_loss: float,
        scale: float,
        gradients: bool,
    ) -> tuple[Tensor, Tensor]: ...


def head_loss(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, *, z_loss: float = 0.0, scale: float = 1.0
) -> LossSums:
    """Cross entropy of `softmax(hidden_ND @ weight_VD.T)` at `targets_N`, summed over counted targets.

    targets_N: int64; IGNORED (-100) is not counted. scale: factor of `objective` (1 / tokens in the global
    batch); `cross_entropy` is not scaled. Matrix products run in the autocast type where autocast is on,
    softmax and sums in float32.
    """
    return chunked_loss(hidden_ND, weight_VD, targets_N, _chunk, z_loss=z_loss, scale=scale)


def chunked_loss(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    chunk: Chunk,
    *,
    z_loss: float,
    scale: float,
) -> LossSums:
    """The loss of `head_loss` by any way of taking one chunk of tokens through logits and their gradient."""
    device_type = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else None
    gradients = torch.is_grad_enabled()  # inside of forward() it never is
    sums = _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, targets_N, chunk, z_loss, scale, dtype or weight_VD.dtype, gradients
    )
    return LossSums(*sums)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (torch passes them by position)
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        chunk: Chunk,
        z_loss: float,
        scale: float,
        dtype: torch.dtype,
        gradients: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor, Tensor]:
        x_ND, w_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
        if is_slow(x_ND):  # the same rounded operands; logits and gradients are not rounded again
            dtype = torch.float32
            x_ND, w_VD = x_ND.to(dtype), w_VD.to(dtype)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            grad_x_ND = torch.empty_like(x_ND) if gradients else None
            grad_w_VD = torch.zeros_like(weight_VD) if gradients else None
            sums = torch.zeros(2, dtype=torch.float32, device=x_ND.device)
            rows = max(1, LOGIT_ELEMENTS[weight_VD.device.type] // weight_VD.shape[0])
            for start in range(0, x_ND.shape[0], rows):
                part = slice(start, start + rows)
                chunk_sums, grad_logits_CV = chunk(
                    x_ND[part], w_VD, targets_N[part], z_loss=z_loss, scale=scale, gradients=gradients
                )
                sums += chunk_sums
                if grad_x_ND is not None and grad_w_VD is not None:
                    grad_logits_CV = grad_logits_CV.to(dtype)
                    torch.mm(grad_logits_CV, w_VD, out=grad_x_ND[part])
                    _accumulate(grad_w_VD, grad_logits_CV, x_ND[part])
        ctx.save_for_backward(grad_x_ND, grad_w_VD)
        ctx.hidden_dtype = hidden_ND.dtype
        cross_entropy, z_term = sums[0], sums[1]
        ctx.mark_non_differentiable(cross_entropy, z_term)
        return (cross_entropy + z_term) * scale, cross_entropy, z_term

    @staticmethod
    def backward(ctx: Any, grad_objective: Tensor, *_: Tensor) -> tuple[Any, ...]:
        grad_x_ND, grad_w_VD = ctx.saved_tensors
        # The objective is the end of the graph, so this factor is 1 in training; it costs two small passes.
        grad_x_ND = grad_x_ND.mul_(grad_objective).to(ctx.hidden_dtype)
        return grad_x_ND, grad_w_VD.mul_(grad_objective), None, None, None, None, None, None


def _accumulate(grad_w_VD: Tensor, grad_logits_CV: Tensor, x_CD: Tensor) -> None:
    if grad_w_VD.dtype == grad_logits_CV.dtype:
        grad_w_VD.addmm_(grad_logits_CV.T, x_CD)
    else:
        grad_w_VD.add_(grad_logits_CV.T @ x_CD)


def _chunk(
    x_CD: Tensor, w_VD: Tensor, targets_C: Tensor, *, z_loss: float, scale: float, gradients: bool
) -> tuple[Tensor, Tensor]:
    """Sums of cross entropy and z-loss of one chunk, and the gradient of its logits times `scale`.

    Written in single passes over one buffer: on a CPU that takes a fifth of the time of `torch.log_softmax`.
    """
    logits_CV = (x_CD @ w_VD.T).float()
    counted_C1 = (targets_C != IGNORED).unsqueeze(1).float()
    index_C1 = targets_C.clamp_min(0).unsqueeze(1)
    target_C1 = logits_CV.gather(1, index_C1)
    largest_C1 = logits_CV.amax(dim=1, keepdim=True)
    exponentials_CV = logits_CV.sub_(largest_C1).exp_()
    total_C1 = exponentials_CV.sum(dim=1, keepdim=True)
    log_z_C1 = total_C1.log() + largest_C1
    z_C1 = z_loss * log_z_C1.square()
    sums = torch.stack([((log_z_C1 - target_C1) * counted_C1).sum(), (z_C1 * counted_C1).sum()])
    if not gradients:
        return sums, exponentials_CV
    weight_C1 = scale * counted_C1
    grad_logits_CV = exponentials_CV.mul_(weight_C1 * (1 + 2 * z_loss * log_z_C1) / total_C1)
    # Each row has one target, so reading and writing back needs none of scatter_add's atomic operations.
    at_target_C1 = grad_logits_CV.gather(1, index_C1) - weight_C1
    return sums, grad_logits_CV.scatter_(1, index_C1, at_target_C1)
