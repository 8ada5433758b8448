"""Causal attention in float32 on a CPU, for training: blocks of queries, as batched matrix products.

torch's fused kernel for CPUs multiplies small tiles one after another. Here a block of queries of all heads
is multiplied by every key that one of them may see by the library's batched product, which runs near the
processor's peak. Nothing of a block is kept: the backward pass computes its scores again (as Dao et al. 2022,
arXiv 2205.14135), so memory stays linear in the length.

Measured on one core without AVX-512, documents of 300, 585 and 1,024 tokens, forward and backward together,
against the fused kernel: 0.95, 0.85 and 0.86 of the time with heads of 32, 0.83, 0.75 and 0.82 with heads of
64. Beyond `LONGEST` the scores of a block fall out of the caches, and nothing is gained.

Shapes as in `tsugiki.models.decoder`; S = B · T, the tokens of all rows, row after row; G = N / K query heads
of one key-value head; Q queries of a block, R = G · Q of them with their heads, E keys that it sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

SHORTEST, LONGEST = 256, 1024
"""Tokens of a document that gains (see above); of 150 tokens it loses a tenth with heads of 32."""

QUERIES = 64
"""Queries of a block at most. Of 32, 48, 64, 96 and 128 the fastest on the whole: smaller ones make thin
products, larger ones compute more scores that the mask throws away."""


class Block(NamedTuple):
    """Queries begin .. end - 1 of a document that begins at `first` see keys first .. end - 1.

    Those before `begin` are seen by all queries of the block; bias_QQ (0 or -inf) says who sees the others.
    """

    first: int
    begin: int
    end: int
    bias_QQ: Tensor


def is_for_blocks(x_BNTH: Tensor) -> bool:
    """Whether causal attention to be differentiated is faster here.

    Not where something looks on that knows torch's own attention (tracing of memory, selective recomputation)
    or would change the type (autocast).
    """
    return (
        SHORTEST <= x_BNTH.shape[2] <= LONGEST
        and x_BNTH.requires_grad
        and torch.is_grad_enabled()
        and type(x_BNTH) is Tensor
        and x_BNTH.device.type == "cpu"
        and x_BNTH.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and _get_current_dispatch_mode() is None
    )


@lru_cache(maxsize=64)
def blocks_of(rows: int, length: int) -> tuple[Block, ...]:
    """Every row in blocks of nearly the same size."""
    count = math.ceil(length / QUERIES)
    cuts = [length * number // count for number in range(count + 1)]
    return tuple(
        Block(row * length, row * length + begin, row * length + end, _bias(end - begin))
        for row in range(rows)
        for begin, end in pairwise(cuts)
    )


@lru_cache(maxsize=2 * QUERIES)
def _bias(queries: int) -> Tensor:
    return torch.full((queries, queries), -math.inf).triu(1)


def attend_blocks(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor) -> Tensor:
    """Causal attention, (B, N, T, H), where `is_for_blocks`."""
    out: Tensor = _BlockAttention.apply(  # type: ignore[no-untyped-call]
        q_BNTH, k_BKTH, v_BKTH, blocks_of(q_BNTH.shape[0], q_BNTH.shape[2])
    )
    return out


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, blocks: tuple[Block, ...]
    ) -> Tensor:
        ctx.save_for_backward(q_BNTH, k_BKTH, v_BKTH)
        ctx.blocks = blocks
        q_SKGH, k_KSH, v_KSH = _by_key_head(q_BNTH, k_BKTH, v_BKTH)
        out_BTNH = q_BNTH.new_empty(q_BNTH.transpose(1, 2).shape)
        out_SKGH = out_BTNH.view(q_SKGH.shape)
        for block, _, weights_KRE in _weights(q_SKGH, k_KSH, blocks):
            _put(out_SKGH, block, torch.bmm(weights_KRE, v_KSH[:, block.first : block.end]))
        return out_BTNH.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, grad_BNTH: Tensor) -> tuple[Tensor | None, ...]:
        q_BNTH, k_BKTH, v_BKTH = ctx.saved_tensors
        q_SKGH, k_KSH, v_KSH = _by_key_head(q_BNTH, k_BKTH, v_BKTH)
        grad_SKGH = grad_BNTH.transpose(1, 2).reshape(q_SKGH.shape)
        grad_q_BTNH = q_BNTH.new_empty(q_BNTH.transpose(1, 2).shape)
        grad_q_SKGH = grad_q_BTNH.view(q_SKGH.shape)
        grad_k_KSH, grad_v_KSH = k_KSH.new_zeros(k_KSH.shape), v_KSH.new_zeros(v_KSH.shape)
        scale = 1 / math.sqrt(q_BNTH.shape[-1])
        buffer = _Buffer(q_SKGH, ctx.blocks)
        for block, q_KRH, weights_KRE in _weights(q_SKGH, k_KSH, ctx.blocks):
            keys, grad_KRH = slice(block.first, block.end), _rows(grad_SKGH, block)
            grad_v_KSH[:, keys].baddbmm_(weights_KRE.transpose(1, 2), grad_KRH)
            scores_KRE = buffer.of(weights_KRE.shape)
            torch.bmm(grad_KRH, v_KSH[:, keys].transpose(1, 2), out=scores_KRE)
            torch._softmax_backward_data(  # noqa: SLF001 (softmax's own, without a copy)
                scores_KRE, weights_KRE, -1, torch.float32, grad_input=scores_KRE
            )
            grad_k_KSH[:, keys].baddbmm_(scores_KRE.transpose(1, 2), q_KRH, alpha=scale)
            _put(grad_q_SKGH, block, torch.bmm(scores_KRE, k_KSH[:, keys]).mul_(scale))
        grad_k_BKTH, grad_v_BKTH = (
            grad_KSH.view(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)
            for grad_KSH, x in ((grad_k_KSH, k_BKTH), (grad_v_KSH, v_BKTH))
        )
        return grad_q_BTNH.transpose(1, 2), grad_k_BKTH, grad_v_BKTH, None


class _Buffer:
    """Memory for the scores of any block, used again and again: it stays in the caches."""

    def __init__(self, q_SKGH: Tensor, blocks: Sequence[Block]) -> None:
        most = max((block.end - block.begin) * (block.end - block.first) for block in blocks)
        self._numbers = q_SKGH.new_empty(q_SKGH.shape[1] * q_SKGH.shape[2] * most)

    def of(self, shape: Sequence[int]) -> Tensor:
        """A tensor of a shape."""
        return self._numbers[: math.prod(shape)].view(*shape)


def _weights(
    q_SKGH: Tensor, k_KSH: Tensor, blocks: Sequence[Block]
) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Each block, its queries (K, R, H), and their weights of the keys it sees (K, R, E)."""
    scale, buffer, groups = 1 / math.sqrt(q_SKGH.shape[-1]), _Buffer(q_SKGH, blocks), q_SKGH.shape[2]
    for block in blocks:
        q_KRH = _rows(q_SKGH, block)
        keys_KHE = k_KSH[:, block.first : block.end].transpose(1, 2)
        scores_KRE = buffer.of((*q_KRH.shape[:2], keys_KHE.shape[2]))
        torch.baddbmm(scores_KRE, q_KRH, keys_KHE, beta=0, alpha=scale, out=scores_KRE)
        scores_KGQE = scores_KRE.view(len(q_KRH), groups, -1, keys_KHE.shape[2])
        scores_KGQE[..., block.begin - block.first :] += block.bias_QQ
        torch._softmax(scores_KRE, -1, False, out=scores_KRE)  # noqa: SLF001 (softmax, in place)
        yield block, q_KRH, scores_KRE


def _by_key_head(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(S, K, G, H), (K, S, H), (K, S, H): views where the layout in memory allows."""
    heads, width = k_BKTH.shape[1], k_BKTH.shape[3]
    q_SKGH = q_BNTH.transpose(1, 2).reshape(-1, heads, q_BNTH.shape[1] // heads, width)
    k_KSH, v_KSH = (x.transpose(0, 1).reshape(heads, -1, width) for x in (k_BKTH, v_BKTH))
    return q_SKGH, k_KSH, v_KSH


def _rows(x_SKGH: Tensor, block: Block) -> Tensor:
    """The part of a block, (K, R, H)."""
    x_KGQH = x_SKGH[block.begin : block.end].permute(1, 2, 0, 3)
    return x_KGQH.reshape(x_KGQH.shape[0], -1, x_KGQH.shape[3])


def _put(out_SKGH: Tensor, block: Block, part_KRH: Tensor) -> None:
    """Write the part of a block."""
    out_KGQH = out_SKGH[block.begin : block.end].permute(1, 2, 0, 3)
    out_KGQH.copy_(part_KRH.view(out_KGQH.shape))
