"""Losses of the routers of a mixture of experts, and how evenly its tokens fall on the experts.

Per sparse layer and sequence, over its n counted tokens (those with a target: padding has none), with E
experts of which each token goes through K:
    balance = E · sum over experts of (tokens that chose it / n) · (mean probability it was given)
which is K where the load is even (Switch Transformer, arXiv 2101.03961, equations 4 to 6, for K choices).
    z       = mean over tokens of logsumexp(logits)²                   (ST-MoE, arXiv 2202.08906, equation 5)
Both are means over the sparse layers and over the counted tokens of the batch, a sequence weighing as much as
it has tokens. The balance is measured over one sequence (as DeepSeek-V3's, arXiv 2412.19437, section 2.1.2,
and Megatron-Core's "seq_aux_loss"), not over a micro-batch as in Hugging Face's modeling code: so it does not
depend on how a batch is cut up, and every layout trains on the same loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tsugiki.models.config import DecoderConfig
from tsugiki.models.moe import Routing

if TYPE_CHECKING:
    import torch.distributed as dist

    from tsugiki.models.decoder import Decoder


class Routers:
    """What the routers of a part of a model did since the last `take`.

    balance, z: weights of the two losses in the objective. groups: of the processes that share each sequence.
    """

    def __init__(
        self,
        shape: DecoderConfig,
        layers: Sequence[int],
        *,
        balance: float,
        z: float,
        groups: Sequence[dist.ProcessGroup] = (),
    ) -> None:
        sparse = [layer for layer in range(shape.layers) if shape.is_sparse(layer)]
        self.balance, self.z, self.groups = balance, z, tuple(groups)
        self.experts = shape.moe.experts if shape.moe else 0
        self.layers = len(sparse)
        self._places = [place for place, layer in enumerate(sparse) if layer in set(layers)]
        self._sums = torch.zeros(2 + self.layers * self.experts)

    def objective(self, routings: Sequence[Routing], counted_BQ: Tensor, tokens_B: Tensor) -> Tensor:
        """This process's share of the routers' part of the objective, summed over counted tokens (scalar).

        routings: of the sparse layers here, in order, each for the tokens (B, Q) of this process. counted_BQ:
        which of those tokens count. tokens_B: how many count in each whole sequence. The shares of all
        processes add up to the whole.
        """
        kept_SE = counted_BQ.flatten()[:, None].float()
        rows = counted_BQ.shape
        chosen_LBE, given_LBE = [], []
        z_sum = torch.zeros((), device=counted_BQ.device)
        for routing in routings:
            logits_SE = routing.logits_SE.float()
            chosen_SE = torch.zeros_like(logits_SE).scatter_(1, routing.experts_SK, 1.0) * kept_SE
            chosen_LBE.append(chosen_SE.unflatten(0, rows).sum(dim=1))  # type: ignore[no-untyped-call]
            given_SE = logits_SE.softmax(dim=-1) * kept_SE
            given_LBE.append(given_SE.unflatten(0, rows).sum(dim=1))  # type: ignore[no-untyped-call]
            z_sum = z_sum + (logits_SE.logsumexp(dim=-1).square() * kept_SE[:, 0]).sum()
        counts_LBE = torch.stack(chosen_LBE)
        self._note(counts_LBE.sum(dim=1))
        for group in self.groups:
            torch.distributed.all_reduce(counts_LBE, group=group)
        shares_LBE = counts_LBE / tokens_B.clamp_min(1)[:, None]
        balance_sum = self.experts * (shares_LBE * torch.stack(given_LBE)).sum()
        self._sums = self._sums.to(counted_BQ.device)
        self._sums[0] += balance_sum.detach() / self.layers
        self._sums[1] += z_sum.detach() / self.layers
        return (self.balance * balance_sum + self.z * z_sum) / self.layers

    def _note(self, counts_LE: Tensor) -> None:
        self._sums = self._sums.to(counts_LE.device)
        all_layers = self._sums[2:].view(self.layers, self.experts)
        all_layers[self._places] += counts_LE

    def take(self) -> Tensor:
        """What `figures` needs, of this process, and forget it; the sums of all processes are the run's."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        return sums

    def figures(self, sums: Tensor, counted: int) -> Mapping[str, float]:
        """Figures of a step of `counted` tokens: both losses (before their weights), and the experts' load.

        expert_load_max: the tokens of the most loaded expert over the mean, in the layer where that is
        largest; expert_load: the mean over layers. Every token goes through all its experts: none is dropped.
        """
        loads_LE = sums[2:].view(self.layers, self.experts)
        worst_L = loads_LE.amax(dim=1) / loads_LE.mean(dim=1).clamp_min(1e-9)
        tokens = max(1, counted)
        found: dict[str, Any] = {
            "balance_loss": float(sums[0]) / tokens,
            "router_z_loss": float(sums[1]) / tokens,
            "expert_load": float(worst_L.mean()),
            "expert_load_max": float(worst_L.max()),
            "dropped_tokens": 0,
        }
        return found


def routers_of(
    decoder: Decoder, *, balance: float, z: float, groups: Sequence[dist.ProcessGroup] = ()
) -> Routers | None:
    """The routers of a decoder, or of a part of one; None for a dense model."""
    if decoder.config.moe is None:
        return None
    layers = [int(layer) for layer in decoder.model.layers]
    return Routers(decoder.config, layers, balance=balance, z=z, groups=groups)


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
