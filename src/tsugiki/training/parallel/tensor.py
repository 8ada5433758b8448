"""Tensor parallelism with sequence parallelism, as a plan for torch's `parallelize_module`.

Each matrix is cut over the processes of the tensor group: queries, keys, values, gate and up by their
outputs, o and down by their inputs (Shoeybi et al. 2019, arXiv 1909.08053), embedding and head by the
vocabulary.
Between them the residual stream is cut along the sequence (Korthikanti et al. 2022, arXiv 2205.05198): norms
see a part of the tokens, and each block gathers its input once and scatters its output.

Where there are fewer key-value heads than processes, several processes share one: each computes a part of its
keys and values, and gathers the rest from the others (their gradients are added up on the way back), so that
all have a copy of the head, and every weight still lies in one place.
"""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from tsugiki.models.decoder import Block, Decoder
from tsugiki.models.moe import SparseFeedForward
from tsugiki.training.parallel.collectives import gather
from tsugiki.training.parallel.expert import TIME

_FEATURES = 2
"""The dimension of keys and values (B, T, K H) before they are seen as heads."""


def spread_over_tensor_group(decoder: Decoder, mesh: DeviceMesh) -> None:
    """Cut the matrices of a decoder (or of a pipeline stage) over `mesh`, in place.

    Afterwards `Decoder.blocks` takes and gives streams of T / t tokens, and the head's weight is a DTensor
    that is cut by the vocabulary.
    """
    backbone = decoder.model
    if backbone.embed_tokens is not None:
        style = RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(TIME))
        parallelize_module(backbone.embed_tokens, mesh, style)
    if backbone.norm is not None:
        parallelize_module(backbone.norm, mesh, SequenceParallel(use_local_output=True))
    if decoder.lm_head is not None:
        parallelize_module(decoder.lm_head, mesh, ColwiseParallel())
    for block in backbone.layers.values():
        parallelize_module(block, mesh, _block_plan(block))  # type: ignore[arg-type]
    copies = mesh.size() // decoder.config.kv_heads
    if copies > 1:
        _copy_heads(decoder, _neighbours(mesh, copies))


def _neighbours(mesh: DeviceMesh, count: int) -> dist.ProcessGroup:
    """The `count` processes next to each other in the tensor group that share a key-value head.

    The tensor group is the innermost dimension, so they are next to each other among all processes too.
    """
    sizes = (dist.get_world_size() // count, count)
    return init_device_mesh(mesh.device_type, sizes, mesh_dim_names=("others", "copies")).get_group("copies")


def _copy_heads(decoder: Decoder, group: dist.ProcessGroup) -> None:
    def whole_head(_module: nn.Module, _inputs: tuple[Tensor, ...], part_BTE: Tensor) -> Tensor:
        return gather(part_BTE, _FEATURES, group)

    for block in decoder.model.layers.values():
        for projection in (block.self_attn.k_proj, block.self_attn.v_proj):  # type: ignore[union-attr]
            projection.register_forward_hook(whole_head)  # type: ignore[union-attr]


def _block_plan(block: Block) -> dict[str, ParallelStyle]:
    column, row = ColwiseParallel(), RowwiseParallel(output_layouts=Shard(TIME))
    norm = SequenceParallel(use_local_output=True)
    plan: dict[str, ParallelStyle] = {
        "input_layernorm": norm,
        "self_attn": _gathered(others=3),
        "self_attn.q_proj": column,
        "self_attn.k_proj": column,
        "self_attn.v_proj": column,
        "self_attn.o_proj": row,
        "post_attention_layernorm": norm,
    }
    sparse = isinstance(block.mlp, SparseFeedForward)  # experts and routers: see `expert`
    if not sparse or block.mlp.shared_expert is not None:
        dense = "mlp.shared_expert" if sparse else "mlp"
        plan |= {
            dense: _gathered(others=0),
            f"{dense}.gate_proj": column,
            f"{dense}.up_proj": column,
            f"{dense}.down_proj": row,
        }
    if block.self_attn.q_norm is not None:
        # (B, T, N, H): every process normalises its own heads with the same weight
        heads = SequenceParallel(sequence_dim=2, use_local_output=True)
        plan |= {"self_attn.q_norm": heads, "self_attn.k_norm": heads}
    return plan


def _gathered(others: int) -> PrepareModuleInput:
    """The first argument is gathered along the sequence; the `others` are passed on as they are."""
    rest = (None,) * others
    return PrepareModuleInput(
        input_layouts=(Shard(TIME), *rest),
        desired_input_layouts=(Replicate(), *rest),
        use_local_output=True,
    )
