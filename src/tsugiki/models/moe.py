"""Mixture of experts: the router, the experts, and the losses that keep the load even.

Shapes: S tokens (B · T), D model width, F feed-forward width of an expert, E experts, K experts a token goes
through, R = S · K rows that the experts compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tsugiki.models.config import MixtureOfExperts
from tsugiki.models.layers import FeedForward, Linear
from tsugiki.models.sharding import computing_part

_GROUPED_BYTES = 16
"""F.grouped_mm wants every row of its operands to be a multiple of this ("strides should be multiple of 16
bytes")."""


class Routing(NamedTuple):
    """What a router decided.

    logits_SE: before the softmax, for the losses (float32). weights_SK: what the chosen experts' outputs are
    multiplied by (float32). experts_SK: their numbers, the largest weight first (with a bias: the largest sum
    of probability and bias first).
    """

    logits_SE: Tensor
    weights_SK: Tensor
    experts_SK: Tensor


class Router(Linear):
    """Chooses each token's experts: softmax over all of them, then the K largest.

    The order is that of Mixtral and Qwen's (transformers' `MixtralTopKRouter`, `Qwen3MoeTopKRouter`): a
    softmax over the K chosen logits gives the same numbers where they are normalised, and others where not.
    All in float32, whatever the model's type and autocast's: rounding sends tokens to other experts (the
    "selective precision" of Switch Transformer, 2101.03961, section 2.4, for the logits too).
    """

    def __init__(self, width: int, moe: MixtureOfExperts) -> None:
        super().__init__(width, moe.experts)
        self.chosen = moe.experts_per_token
        self.normalise = moe.normalise
        self.selection_bias_E: Tensor | None = None
        """Added to the probabilities where experts are chosen, and not where their outputs are weighed: how
        `training.balance` evens the load out without a loss. No family's files hold it."""

    def forward(self, x_SD: Tensor) -> Routing:  # type: ignore[override]
        """The experts of each token."""
        with torch.autocast(x_SD.device.type, enabled=False):
            logits_SE = F.linear(x_SD.float(), computing_part(self.weight).float())
            probabilities_SE = logits_SE.softmax(dim=-1)
            if self.selection_bias_E is None:
                weights_SK, experts_SK = probabilities_SE.topk(self.chosen, dim=-1)
            else:
                raised_SE = probabilities_SE.detach() + self.selection_bias_E
                experts_SK = raised_SE.topk(self.chosen, dim=-1).indices
                weights_SK = probabilities_SE.gather(1, experts_SK)
            if self.normalise:
                weights_SK = weights_SK / weights_SK.sum(dim=-1, keepdim=True)
        return Routing(logits_SE, weights_SK, experts_SK)


class Experts(nn.Module):
    """SwiGLU feed-forwards in stacked matrices: gate_proj and up_proj (E, F, D), down_proj (E, D, F).

    Hugging Face's files hold one tensor an expert and matrix (`tsugiki.models.names`); transformers 5 stacks
    them in memory too, gate above up in one tensor, which can't be cut along F for tensor parallelism.
    """

    def __init__(self, width: int, moe: MixtureOfExperts) -> None:
        super().__init__()
        inwards = (moe.experts, moe.intermediate_size, width)
        outwards = (moe.experts, width, moe.intermediate_size)
        self.gate_proj = nn.Parameter(torch.full(inwards, math.nan))
        self.up_proj = nn.Parameter(torch.full(inwards, math.nan))
        self.down_proj = nn.Parameter(torch.full(outwards, math.nan))

    def forward(self, x_RD: Tensor, ends_E: Tensor) -> Tensor:
        """Each row through its expert, (R, D).

        Rows are in order of their experts; expert e has the rows from ends_E[e - 1] to ends_E[e] (int32). The
        experts are those that this module holds, and may be a part of all.
        """
        gate_RF = grouped_linear(x_RD, computing_part(self.gate_proj), ends_E)
        up_RF = grouped_linear(x_RD, computing_part(self.up_proj), ends_E)
        return grouped_linear(F.silu(gate_RF) * up_RF, computing_part(self.down_proj), ends_E)


class SharedGate(Linear):
    """How much of the shared expert's output a token takes: the sigmoid of one product, without a bias."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 1)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Factors in (0, 1), (B, T, 1)."""
        return F.linear(x_BTD, computing_part(self.weight)).sigmoid()


class SparseFeedForward(nn.Module):
    """A feed-forward block of experts; named `mlp` as the dense one is.

    With a shared expert, every token's output of it, times its gate, is added to that of the chosen experts
    (Qwen2-MoE; DeepSeekMoE, 2401.06066, section 3.2, without the gate).

    `compute` is `through_experts`; `training.parallel.expert` replaces it where a block's tokens or its
    experts lie on several devices.
    """

    def __init__(self, width: int, moe: MixtureOfExperts) -> None:
        super().__init__()
        self.gate = Router(width, moe)
        self.experts = Experts(width, moe)
        self.shared_expert = FeedForward(width, moe.shared_size) if moe.shared_size else None
        self.shared_expert_gate = SharedGate(width) if moe.shared_size else None
        self.compute = through_experts

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Routing]:
        """The contribution to the residual stream, (B, T, D), and how its tokens were routed."""
        routing: Routing = self.gate(x_BTD.flatten(0, 1))
        y_BTD = self.compute(self.experts, x_BTD, routing)
        shared_BTD = self.shared(x_BTD)
        return y_BTD if shared_BTD is None else y_BTD + shared_BTD, routing

    def shared(self, x_BTD: Tensor) -> Tensor | None:
        """What the shared expert adds, its gate included, (B, T, D); None where there is none."""
        if self.shared_expert is None or self.shared_expert_gate is None:
            return None
        shared_BTD: Tensor = self.shared_expert_gate(x_BTD) * self.shared_expert(x_BTD)
        return shared_BTD


def through_experts(experts: Callable[[Tensor, Tensor], Tensor], x_BTD: Tensor, routing: Routing) -> Tensor:
    """Every token through its experts, weighed and added up, (B, T, D); experts: as `Experts.forward`."""
    rows_RD, order_R, ends_E = sort_by_expert(x_BTD.flatten(0, 1), routing)
    return weigh(experts(rows_RD, ends_E), order_R, routing.weights_SK).view(x_BTD.shape)


def sort_by_expert(x_SD: Tensor, routing: Routing) -> tuple[Tensor, Tensor, Tensor]:
    """Rows for the experts (R, D), where each came from in token order (R), and where experts end (E, int32).

    Tokens are copied before they are sorted, so that the backward pass adds a token's K gradients in a fixed
    order, on any device.
    """
    chosen, experts = routing.experts_SK.shape[1], routing.logits_SE.shape[1]
    sorted_R, order_R = routing.experts_SK.flatten().sort(stable=True)
    numbers_E = torch.arange(experts, device=sorted_R.device)
    ends_E = torch.searchsorted(sorted_R, numbers_E, right=True, out_int32=True)
    return x_SD.repeat_interleave(chosen, dim=0)[order_R], order_R, ends_E


def weigh(y_RD: Tensor, order_R: Tensor, weights_SK: Tensor) -> Tensor:
    """Undo `sort_by_expert`, and add up each token's experts by their weights, (S, D)."""
    back_R = torch.empty_like(order_R)
    back_R[order_R] = torch.arange(len(order_R), device=order_R.device)
    y_SKD = y_RD[back_R].view(*weights_SK.shape, -1)
    return (weights_SK[..., None].to(y_SKD.dtype) * y_SKD).sum(dim=1)


def grouped_linear(x_RD: Tensor, weight_EFD: Tensor, ends_E: Tensor) -> Tensor:
    """Each group of rows times the transpose of its expert's matrix, (R, F).

    F.grouped_mm where it can (rows of a multiple of 16 bytes; bfloat16 on a GPU), else one product an expert,
    with the same numbers. grouped_mm is not on autocast's list, so its operands are cast here.
    """
    device = x_RD.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x_RD, weight_EFD = x_RD.to(dtype), weight_EFD.to(dtype)
    aligned = all(size * x_RD.element_size() % _GROUPED_BYTES == 0 for size in weight_EFD.shape[1:])
    if len(x_RD) and aligned and (device == "cpu" or x_RD.dtype == torch.bfloat16):
        return F.grouped_mm(x_RD, weight_EFD.transpose(-2, -1), offs=ends_E)
    lengths = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    groups = zip(torch.split(x_RD, lengths), weight_EFD, strict=True)
    return torch.cat([F.linear(rows, matrix_FD) for rows, matrix_FD in groups])


def expert_counts(routing: Routing, kept_S: Tensor | None = None) -> Tensor:
    """How many of its K choices fell on each expert, (E) int64; kept_S: only these tokens count (bool)."""
    experts = torch.arange(routing.logits_SE.shape[1], device=routing.experts_SK.device)
    chosen_SE = (routing.experts_SK[..., None] == experts).sum(dim=1)
    return chosen_SE.sum(dim=0) if kept_S is None else chosen_SE[kept_S].sum(dim=0)


def load_balancing_loss(routings: Sequence[Routing], kept_S: Tensor | None = None) -> Tensor:
    """E · sum over experts of f · P, over the tokens of all layers together: K where the load is even.

    f: the share of tokens that chose an expert (they add up to K). P: the mean probability the router gave
    it. Switch Transformer's equations 4 to 6 (2101.03961) for K choices, as transformers'
    `load_balancing_loss_func` has it, and so Drop-Upcycling's runs (coefficient 0.02). Imbalances of
    different layers can cancel out (transformers issue 28255): `layerwise_load_balancing_loss`.

    routings: of one layer at least. kept_S: only these tokens count (bool), where a batch is padded.
    """
    counts_E = torch.stack([expert_counts(routing, kept_S) for routing in routings]).sum(dim=0)
    sums_E = torch.stack([_probability_sums(routing, kept_S) for routing in routings]).sum(dim=0)
    tokens = sum(_tokens(routing, kept_S) for routing in routings)
    return balance_loss(counts_E, sums_E, tokens)


def layerwise_load_balancing_loss(routings: Sequence[Routing], kept_S: Tensor | None = None) -> Tensor:
    """The mean over layers of each layer's own `load_balancing_loss`: K where every layer's load is even.

    Megatron-Core's loss (`switch_load_balancing_loss_func`) is the sum over layers, divided by K. So a
    coefficient c of the mean of L layers pushes as Megatron's c · K / L does.
    """
    return torch.stack([load_balancing_loss([routing], kept_S) for routing in routings]).mean()


def balance_loss(counts_E: Tensor, probability_sums_E: Tensor, tokens: int | Tensor) -> Tensor:
    """E · sum of (counts / tokens) · (probability sums / tokens), the formula of `load_balancing_loss`.

    For whoever adds counts and tokens up over devices first (the global-batch loss of 2501.11873): counts
    carry no gradient, so adding them up needs no backward pass.
    """
    return len(counts_E) * ((counts_E / tokens) * (probability_sums_E / tokens)).sum()


def router_z_loss(routings: Sequence[Routing], kept_S: Tensor | None = None) -> Tensor:
    """The mean over layers and tokens of logsumexp(logits)², which keeps router logits small.

    ST-MoE's equation 5 (2202.08906; coefficient 1e-3 there). Computed in float32.
    """
    losses = []
    for routing in routings:
        squares_S = routing.logits_SE.float().logsumexp(dim=-1).square()
        losses.append(squares_S.mean() if kept_S is None else squares_S[kept_S].mean())
    return torch.stack(losses).mean()


def _probability_sums(routing: Routing, kept_S: Tensor | None) -> Tensor:
    probabilities_SE = routing.logits_SE.float().softmax(dim=-1)
    return (probabilities_SE if kept_S is None else probabilities_SE[kept_S]).sum(dim=0)


def _tokens(routing: Routing, kept_S: Tensor | None) -> int | Tensor:
    return len(routing.logits_SE) if kept_S is None else kept_S.sum()
