"""Tensor parallelism with sequence parallelism, as a plan for torch's `parallelize_module`.

Each matrix is cut over the processes of the tensor group: queries, keys, values, gate and up by their
outputs, o and down by their inputs (Shoeybi et al. 2019, arXiv 1909.08053), embedding and head by the
vocabulary.
Between them the residual stream is cut along the sequence (Korthikanti et al. 2022, arXiv 2205.05198): norms
see a part of the tokens, and each block gathers its input once and scatters its output.
"""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
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

TIME = 1
"""The dimension of the residual stream (B, T, D) that is cut."""


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
        "mlp": _gathered(others=0),
        "mlp.gate_proj": column,
        "mlp.up_proj": column,
        "mlp.down_proj": row,
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
