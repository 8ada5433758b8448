"""The part of a model that this process trains: a decoder, or a pipeline stage of one, spread over groups.

Its forward pass goes from token ids, or from the stage before, to the loss, or to the stage after; FSDP,
tensor, sequence and context parallelism happen inside.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from tsugiki.dataset.packing import IGNORED
from tsugiki.models.attention import DocumentLayout
from tsugiki.models.decoder import Decoder
from tsugiki.models.moe import Routing, SparseFeedForward
from tsugiki.models.sharding import named_parameters
from tsugiki.training.checkpoint import TIED_COPY
from tsugiki.training.loss import LossSums, head_loss
from tsugiki.training.parallel.collectives import gather
from tsugiki.training.parallel.context import SequencePart, attend_across
from tsugiki.training.parallel.continuing import Offer, offer
from tsugiki.training.parallel.expert import TIME, even_cut, spread_sparse_block
from tsugiki.training.parallel.head import Piece, head_loss_across
from tsugiki.training.parallel.mesh import World
from tsugiki.training.parallel.recompute import CONTEXTS, Recompute
from tsugiki.training.parallel.tensor import spread_over_tensor_group
from tsugiki.training.placement import box_of
from tsugiki.training.routers import Routers, attach

_STACKED = 3
"""Dimensions of the experts' matrices, stacked."""


class Trainee(nn.Module):
    """A decoder or a stage of one, with the loss; given whole rows, it takes its part of the tokens."""

    def __init__(
        self,
        decoder: Decoder,
        world: World,
        *,
        document_masking: bool,
        z_loss: float,
        routers: Routers | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.world = world
        self.document_masking = document_masking
        self.z_loss = z_loss
        self.routers = routers
        self.scale = 1.0
        """Factor of the objective: 1 / counted targets of the whole batch."""
        self.cross_entropies: list[Tensor] = []
        """Cross entropy of each micro-batch since the list was emptied, in nats (last stage)."""
        self.z_losses: list[Tensor] = []
        """The same of the z-loss."""
        self.pieces: int | None = None
        """Where tokens are asked for instead of a loss (`continuing`): how many the tokenizer has."""
        self.offers: list[Offer] = []
        """The tokens that each micro-batch offered since the list was emptied (last stage)."""
        self.host_documents: list[Tensor] = []
        """Document ids of the micro-batches to come, in the host's memory: nothing waits for the device."""

    def forward(self, x: Tensor, document_ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The objective (1), or the residual stream for the next stage.

        x: token ids (B, T) on the first stage, else the stream (B, T / (c t), D). document_ids_BT,
        targets_BT: of the whole rows.
        """
        host_BT = self.host_documents.pop(0) if self.host_documents else document_ids_BT
        part, layout, positions_BQ = self._part(host_BT, document_ids_BT.device)
        if self.decoder.model.embed_tokens is not None and part is not None:
            x = x[:, part.places_Q]
        routings: list[Routing] = []
        x_BQD = self.decoder.blocks(self.decoder.embed(x), positions_BQ, layout=layout, routings=routings)
        if self.routers is not None and routings and self.pieces is None:
            counted_BT = targets_BT != IGNORED
            mine_BQ = self._routed(counted_BT, part)
            if torch.is_grad_enabled():
                share = self.routers.objective(routings, mine_BQ, counted_BT.sum(dim=1)) * self.scale
                x_BQD = attach(x_BQD, share)
            else:
                self.routers.watch(routings, mine_BQ)
        if self.decoder.model.norm is None:
            return x_BQD
        hidden_BQD = self.decoder.model.norm(x_BQD)
        targets_BQ = targets_BT if part is None else targets_BT[:, part.places_Q]
        if self.pieces is not None:
            self.offers.append(self._offer(hidden_BQD, targets_BQ, self.pieces))
            return hidden_BQD.new_zeros(1)
        sums = self._loss(hidden_BQD, targets_BQ.flatten())
        self.cross_entropies.append(sums.cross_entropy)
        self.z_losses.append(sums.z_loss)
        return torch.stack([sums.objective])  # FSDP2 wants no view

    def _routed(self, counted_BT: Tensor, part: SequencePart | None) -> Tensor:
        """Which of the tokens count that the router sees here: a part of those of the norms under tensor."""
        counted_BQ = counted_BT if part is None else counted_BT[:, part.places_Q]
        return counted_BQ.chunk(self.world.parallel.tensor, dim=TIME)[self.world.rank_in("tensor")]

    def _part(
        self, document_ids_BT: Tensor, device: torch.device
    ) -> tuple[SequencePart | None, DocumentLayout | None, Tensor]:
        length = document_ids_BT.shape[1]
        documents_BT = document_ids_BT if self.document_masking else None
        if self.world.parallel.context > 1:
            part = SequencePart.of(self.world.group("context"), length, documents_BT, device)
            return part, part, part.positions_BQ  # type: ignore[return-value]  # `attend_across` takes it
        if documents_BT is None:
            return None, None, torch.arange(length, device=device)[None]
        layout = DocumentLayout.from_ids(documents_BT, device)
        return None, layout, layout.positions_BT

    def _offer(self, hidden_BQD: Tensor, targets_BQ: Tensor, pieces: int) -> Offer:
        weight = self.decoder.head_weight_VD
        if not isinstance(weight, DTensor):
            return offer(hidden_BQD, weight, targets_BQ, first=0, pieces=pieces)
        hidden_BQD = gather(hidden_BQD, TIME, self.world.group("tensor"))
        first = box_of(weight).offset[0]
        return offer(hidden_BQD, weight.to_local(), targets_BQ, first=first, pieces=pieces)

    def _loss(self, hidden_BQD: Tensor, targets_N: Tensor) -> LossSums:
        weight = self.decoder.head_weight_VD
        if not isinstance(weight, DTensor):
            return head_loss(
                hidden_BQD.flatten(0, 1), weight, targets_N, z_loss=self.z_loss, scale=self.scale
            )
        group = self.world.group("tensor")
        hidden_BQD = gather(hidden_BQD, TIME, group)
        return head_loss_across(
            hidden_BQD.flatten(0, 1),
            weight.to_local(),
            targets_N,
            Piece(group, box_of(weight).offset[0]),
            z_loss=self.z_loss,
            scale=self.scale,
        )


def spread(trainee: Trainee, *, bfloat16: bool, recompute: Recompute) -> None:
    """Cut and wrap the model in place, as the layout says: tensor, context, recomputation, FSDP."""
    world, decoder = trainee.world, trainee.decoder
    if world.parallel.tensor > 1:
        spread_over_tensor_group(decoder, world.mesh["tensor"])
    sparse = [module for module in decoder.modules() if isinstance(module, SparseFeedForward)]
    for experts in sparse:
        spread_sparse_block(experts, world)
    for number, block in decoder.model.layers.items():
        if world.parallel.context > 1:
            block.self_attn.attend = attend_across  # type: ignore[union-attr]
        if recompute != "none":
            wrapped = checkpoint_wrapper(block, context_fn=CONTEXTS[recompute])
            decoder.model.layers[number] = wrapped
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bfloat16 else None, reduce_dtype=torch.float32 if bfloat16 else None
    )
    # a pipeline keeps weights gathered from its first backward pass on (torch's stages): to drop them after
    # each forward pass would only gather them once more
    reshard = world.parallel.pipeline == 1
    for experts in sparse:
        if bfloat16:  # routers decide in float32 (`models.moe.Router`)
            _shard(experts.gate, world.weights, MixedPrecisionPolicy(), reshard=reshard)
        if world.experts is not None:
            _shard(experts.experts, world.expert_weights, policy, reshard=reshard)
    for module in decoder.model.layers.values():
        _shard(module, world.weights, policy, reshard=reshard)
    _shard(trainee, world.weights, policy, reshard=False)


def drop_gathered(trainee: Trainee) -> None:
    """Let go of the whole weights that a forward pass left gathered.

    A backward pass does so itself. Without one they would be used again, though the process's own part may
    have been changed meanwhile: by a checkpoint that is gone back to.
    """
    for module in trainee.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _shard(module: nn.Module, mesh: DeviceMesh, policy: MixedPrecisionPolicy, *, reshard: bool) -> None:
    """FSDP over `mesh`, or only copies of the gradients where it has one process."""
    processes = mesh.shape[-1]

    def placement(parameter: nn.Parameter) -> Shard:
        return Shard(even_cut(parameter, processes) if parameter.ndim == _STACKED else 0)

    fully_shard(
        module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard, shard_placement_fn=placement
    )
    # gradients are sums over the batch: the objective is divided by its targets already
    module.set_gradient_divide_factor(1.0)  # type: ignore[operator]
    module.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]  # gloo has no other; see training-stack.md, section 2


def named_parts(trainees: Iterable[Trainee]) -> dict[str, nn.Parameter]:
    """All parameters of this process's stages, by their names in the decoder and in the model's files."""
    parts = {}
    for trainee in trainees:
        tied = trainee.decoder.config.tied_embeddings
        for name, parameter in named_parameters(trainee.decoder).items():
            parts[TIED_COPY if tied and name == "lm_head.weight" else name] = parameter
    return parts
