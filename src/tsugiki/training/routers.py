"""Losses of the routers of a mixture of experts, and how evenly its tokens fall on the experts.

The load-balancing loss is that of a convention (`balance.CONVENTIONS`); the z-loss is, per sparse layer,
    z = mean over tokens of logsumexp(logits)²                         (ST-MoE, arXiv 2202.08906, equation 5)
and a mean over layers (Megatron-Core adds layers up: its coefficient is ours divided by their number). Only
counted tokens take part (those with a target: padding has none), and a sequence or micro-batch weighs as much
as it has of them. By default the balance is measured over one sequence, not over a micro-batch as in Hugging
Face's modeling code: so it does not depend on how a batch is cut up, and all layouts have the same loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tsugiki.models.config import DecoderConfig
from tsugiki.models.moe import Router, Routing, SparseFeedForward
from tsugiki.training.balance import CONVENTIONS, ConventionName
from tsugiki.training.routing import Watched, entropy

if TYPE_CHECKING:
    import torch.distributed as dist

    from tsugiki.models.decoder import Decoder

_LOSSES = 2
"""Numbers before those of the layers in what `Routers.take` gives: the sums of both losses."""


@dataclass(frozen=True)
class Balancing:
    """How the load is kept even: weights of both losses, the convention of the balance, the biases' rate.

    bias_rate: of balancing without a loss (`balance.next_biases`); 0: there are no biases.
    """

    balance: float = 0.0
    z: float = 0.0
    convention: ConventionName = "sequence"
    bias_rate: float = 0.0


class Routers:
    """What the routers of a part of a model did since the last `take`, and their biases.

    groups: of the processes that share each sequence. data: of those that have other rows of the batch; with
    `groups` they are all that hold the same layers. gates: the routers themselves, by layer.
    """

    def __init__(
        self,
        shape: DecoderConfig,
        layers: Sequence[int],
        balancing: Balancing,
        *,
        groups: Sequence[dist.ProcessGroup] = (),
        data: Sequence[dist.ProcessGroup] = (),
        gates: Mapping[int, Router] | None = None,
    ) -> None:
        sparse = [layer for layer in range(shape.layers) if shape.is_sparse(layer)]
        self.balancing, self.groups, self.data = balancing, tuple(groups), tuple(data)
        self.experts = shape.moe.experts if shape.moe else 0
        self.chosen = shape.moe.experts_per_token if shape.moe else 0
        self.sparse, self.layers = sparse, len(sparse)
        self._places = [place for place, layer in enumerate(sparse) if layer in set(layers)]
        self._gates = {sparse.index(layer): gate for layer, gate in (gates or {}).items()}
        self._sums = torch.zeros(_LOSSES + self.layers * (self.experts + 1))
        self._so_far: tuple[Tensor, Tensor] | None = None
        self._watched = torch.zeros(self.layers, Watched.width(self.experts))
        self.counts_LE = torch.zeros(self.layers, self.experts)
        """Tokens of the last step's whole batch by expert, after `figures`."""

    def objective(self, routings: Sequence[Routing], counted_BQ: Tensor, tokens_B: Tensor) -> Tensor:
        """This process's share of the routers' part of the objective, summed over counted tokens (scalar).

        routings: of the sparse layers here, in order, each for the tokens (B, Q) of this process. counted_BQ:
        which of those tokens count. tokens_B: how many count in each whole sequence. The shares of all
        processes add up to the whole.
        """
        kept_SE = counted_BQ.flatten()[:, None].float()
        rows = counted_BQ.shape
        chosen_LBE, given_LBE, entropies_L = [], [], []
        z_sum = torch.zeros((), device=counted_BQ.device)
        for routing in routings:
            logits_SE = routing.logits_SE.float()
            chosen_SE = torch.zeros_like(logits_SE).scatter_(1, routing.experts_SK, 1.0) * kept_SE
            chosen_LBE.append(chosen_SE.unflatten(0, rows).sum(dim=1))  # type: ignore[no-untyped-call]
            probabilities_SE = logits_SE.softmax(dim=-1)
            given_SE = probabilities_SE * kept_SE
            given_LBE.append(given_SE.unflatten(0, rows).sum(dim=1))  # type: ignore[no-untyped-call]
            partitions_S = logits_SE.logsumexp(dim=-1)
            z_sum = z_sum + (partitions_S.square() * kept_SE[:, 0]).sum()
            with torch.no_grad():
                entropies_L.append((entropy(logits_SE, probabilities_SE) * kept_SE[:, 0]).sum())
        counts_LBE = torch.stack(chosen_LBE)
        self._note(counts_LBE.sum(dim=1), torch.stack(entropies_L))
        balance_sum = self._balance(counts_LBE, torch.stack(given_LBE), tokens_B)
        z_mean = z_sum / self.layers
        self._sums[0] += balance_sum.detach()
        self._sums[1] += z_mean.detach()
        return self.balancing.balance * balance_sum + self.balancing.z * z_mean

    def _balance(self, counts_LBE: Tensor, given_LBE: Tensor, tokens_B: Tensor) -> Tensor:
        """The balance loss by its convention, summed over the counted tokens here.

        counts_LBE: of this process, with no gradient. given_LBE: probabilities, added up over tokens.
        """
        convention = CONVENTIONS[self.balancing.convention]
        if convention.scope != "sequence":  # one group of tokens in place of one a sequence
            counts_LBE, given_LBE = (x.sum(dim=1, keepdim=True) for x in (counts_LBE, given_LBE))
            tokens_B = tokens_B.sum()[None]
        for group in self.groups:
            torch.distributed.all_reduce(counts_LBE, group=group)
        if convention.scope == "batch":
            counts_LBE, tokens_B = self._of_the_batch(counts_LBE, tokens_B)
        shares_LBE = counts_LBE / tokens_B.clamp_min(1)[:, None]
        if convention.together:
            shares_LBE = shares_LBE.mean(dim=0, keepdim=True)
        scale = 1 / self.chosen if convention.summed else 1 / self.layers
        return self.experts * scale * (shares_LBE * given_LBE).sum()

    def _of_the_batch(self, counts_LBE: Tensor, tokens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Counts and tokens of all data-parallel processes, and of the step's micro-batches so far."""
        counts_LBE, tokens_B = counts_LBE.clone(), tokens_B.clone()
        for group in self.data:
            for tensor in (counts_LBE, tokens_B):
                torch.distributed.all_reduce(tensor, group=group)
        before = self._so_far
        self._so_far = (
            (counts_LBE, tokens_B) if before is None else (before[0] + counts_LBE, before[1] + tokens_B)
        )
        return self._so_far

    def _note(self, counts_LE: Tensor, entropies_L: Tensor) -> None:
        self._sums = self._sums.to(counts_LE.device)
        all_layers = self._sums[_LOSSES:].view(self.layers, self.experts + 1)
        all_layers[self._places] += torch.cat([counts_LE, entropies_L[:, None]], dim=1)

    def take(self) -> Tensor:
        """What `figures` needs, of this process, and forget it; the sums of all processes are the run's."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        self._so_far = None
        return sums

    def figures(self, sums: Tensor, counted: int) -> Mapping[str, float]:
        """Figures of a step of `counted` tokens: both losses (before their weights), and the experts' load.

        expert_load_max: the tokens of the most loaded expert over the mean, in the layer where that is
        largest; expert_load: the mean over layers. load_entropy, router_entropy: of how tokens fall on
        experts, and of a token's probabilities, 1 where all experts are equal; means over layers.
        dead_experts: of all layers together, those that no token chose. Every token goes through all its
        experts: none is dropped.
        """
        tokens = max(1, counted)
        all_layers = sums[_LOSSES:].view(self.layers, self.experts + 1)
        loads_LE, entropies_L = all_layers[:, :-1], all_layers[:, -1]
        self.counts_LE = loads_LE
        worst_L = loads_LE.amax(dim=1) / loads_LE.mean(dim=1).clamp_min(1e-9)
        even = max(torch.tensor(float(self.experts)).log().item(), 1e-9)
        shares_LE = loads_LE / loads_LE.sum(dim=1, keepdim=True).clamp_min(1)
        found: dict[str, Any] = {
            "balance_loss": float(sums[0]) / tokens,
            "router_z_loss": float(sums[1]) / tokens,
            "expert_load": float(worst_L.mean()),
            "expert_load_max": float(worst_L.max()),
            "load_entropy": float(torch.special.entr(shares_LE).sum(dim=1).mean()) / even,
            "router_entropy": float(entropies_L.mean()) / tokens / even,
            "dead_experts": int((loads_LE == 0).sum()),
            "dropped_tokens": 0,
        }
        return found

    def next_biases(self, biases_LE: Tensor) -> Tensor:
        """The biases after the step whose `figures` were asked last."""
        counts_LE = self.counts_LE.to(biases_LE.device)
        return next_biases(biases_LE, counts_LE, self.balancing.bias_rate)

    def set_biases(self, biases_LE: Tensor | None) -> None:
        """Give the routers here their biases (of all sparse layers), or take them away."""
        for place, gate in self._gates.items():
            device = gate.weight.device
            gate.selection_bias_E = None if biases_LE is None else biases_LE[place].to(device)

    @torch.no_grad()
    def watch(self, routings: Sequence[Routing], counted_BQ: Tensor) -> None:
        """Note how tokens that nothing is learned from are routed, until `take_watched`."""
        kept_S = counted_BQ.flatten()
        self._watched = self._watched.to(kept_S.device)
        for place, routing in zip(self._places, routings, strict=True):
            self._watched[place] += Watched.row(routing, kept_S)

    def take_watched(self) -> Tensor:
        """What was watched, of this process, for `Watched`, and forget it."""
        watched, self._watched = self._watched, torch.zeros_like(self._watched)
        return watched


def routers_of(
    decoder: Decoder,
    balancing: Balancing,
    *,
    groups: Sequence[dist.ProcessGroup] = (),
    data: Sequence[dist.ProcessGroup] = (),
) -> Routers | None:
    """The routers of a decoder, or of a part of one; None for a dense model."""
    if decoder.config.moe is None:
        return None
    gates: dict[int, Router] = {}
    for number, block in decoder.model.layers.items():
        feed_forward = block.mlp
        if isinstance(feed_forward, SparseFeedForward):
            gates[int(number)] = feed_forward.gate
    layers = [int(layer) for layer in decoder.model.layers]
    return Routers(decoder.config, layers, balancing, groups=groups, data=data, gates=gates)


def next_biases(biases_LE: Tensor, counts_LE: Tensor, rate: float) -> Tensor:
    """Biases after a step: an expert with less than the mean load gains `rate`, one with more loses it.

    b + rate · sign(mean load - load), auxiliary-loss-free load balancing (arXiv 2408.15664, algorithm 1;
    DeepSeek-V3, arXiv 2412.19437, section 2.1.2: rate 1e-3). biases_LE: added to the router's probabilities
    when experts are chosen, and to nothing else. counts_LE: tokens of the whole batch that chose each expert.
    An expert whose load is the mean keeps its bias.
    """
    counts_LE = counts_LE.double()
    errors_LE = counts_LE.mean(dim=1, keepdim=True) - counts_LE
    return biases_LE + rate * torch.sign(errors_LE).to(biases_LE.dtype)


def watched(routers: Iterable[Routers], add_up: Callable[[Tensor], Any] | None = None) -> Watched:
    """What the routers of this process's parts watched, added up over all processes by `add_up`."""
    parts = list(routers)
    total = torch.stack([part.take_watched() for part in parts]).sum(dim=0).double()
    if add_up is not None:
        add_up(total)
    return Watched.of(total.cpu(), parts[0].experts)


class Attached(torch.autograd.Function):
    """Gives back a stream as it is, and in the backward pass starts the gradient of a loss that rides on it.

    A pipeline stage has no other way to add to the objective (Megatron's `MoEAuxLossAutoScaler` does so too):
    its output is the stream, and the objective's gradient begins with 1, as this one does.
    """

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, loss: Tensor) -> Tensor:
        """The stream."""
        ctx.save_for_backward(loss)
        return x_BTD.view_as(x_BTD)

    @staticmethod
    def backward(ctx: Any, grad_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """The stream's gradient as it is, and 1."""
        (loss,) = ctx.saved_tensors
        return grad_BTD, torch.ones_like(loss)


def attach(x_BTD: Tensor, loss: Tensor) -> Tensor:
    """The stream, with a loss attached whose gradient goes back with the stream's."""
    attached: Tensor = Attached.apply(x_BTD, loss)  # type: ignore[no-untyped-call]
    return attached
