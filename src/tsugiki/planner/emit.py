"""A layout as a framework wants it: flags of Megatron-LM and of torchtitan, lines of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tsugiki.errors import InputError
from tsugiki.models.config import DecoderConfig
from tsugiki.planner.layout import Layout, Workload

_MEGATRON_FSDP = {"gradients": "optim_grads", "weights": "optim_grads_params"}
"""Megatron-FSDP's names (Megatron-LM, docs of its custom FSDP)."""
TITAN_SCHEDULES = {"1f1b": "1F1B", "gpipe": "GPipe", "interleaved": "Interleaved1F1B"}


def megatron_flags(workload: Workload, layout: Layout) -> list[str]:
    """Arguments of Megatron-LM's pretrain_gpt.py: the model, the layout and the batch; no data, no rates.

    Raises InputError for a precision or a schedule that it has no flags for.
    """
    if layout.schedule == "gpipe" and layout.pipeline > 1:
        raise InputError("Megatron-LM has no GPipe schedule", hint="use --schedule 1f1b,interleaved")
    if workload.precision == "float32":
        raise InputError("Megatron-LM trains in 16 bits", hint="use --precision bfloat16 or float8")
    return [*_megatron_model(workload.model), *_megatron_layout(workload, layout)]


def _megatron_model(model: DecoderConfig) -> Iterator[str]:
    yield f"--num-layers {model.layers}"
    yield f"--hidden-size {model.hidden_size}"
    yield f"--ffn-hidden-size {model.intermediate_size}"
    yield f"--num-attention-heads {model.heads}"
    yield f"--kv-channels {model.head_dim}"
    if model.kv_heads != model.heads:
        yield f"--group-query-attention --num-query-groups {model.kv_heads}"
    yield f"--vocab-size {model.vocabulary_size} --make-vocab-size-divisible-by 1"
    yield f"--max-position-embeddings {model.max_positions}"
    yield f"--swiglu --normalization RMSNorm --norm-epsilon {model.norm_eps:g} --disable-bias-linear"
    yield f"--position-embedding-type rope --rotary-base {model.rope_theta:g}"
    yield "--attention-dropout 0.0 --hidden-dropout 0.0 --use-flash-attn"
    if model.features.qkv_biases:
        yield "--add-qkv-bias"
    if model.features.qk_norms:
        yield "--qk-layernorm"
    if not model.tied_embeddings:
        yield "--untie-embeddings-and-output-weights"
    if model.moe is not None:
        yield f"--num-experts {model.moe.experts} --moe-router-topk {model.moe.experts_per_token}"
        yield f"--moe-ffn-hidden-size {model.moe.intermediate_size} --moe-grouped-gemm"
        yield "--moe-token-dispatcher-type alltoall --moe-router-load-balancing-type aux_loss"
        yield f"--moe-aux-loss-coeff {model.moe.balance_coefficient:g}"
        if not model.moe.normalise:  # by default the softmax is over the chosen experts
            yield "--moe-router-pre-softmax"
        if model.moe.shared_size:
            yield f"--moe-shared-expert-intermediate-size {model.moe.shared_size} --moe-shared-expert-gate"


def _megatron_layout(workload: Workload, layout: Layout) -> Iterator[str]:
    yield f"--seq-length {workload.sequence_length}"
    yield f"--micro-batch-size {layout.micro_batch} --global-batch-size {workload.batch}"
    yield f"--tensor-model-parallel-size {layout.tensor}"
    if layout.tensor > 1:
        yield "--sequence-parallel"
    yield f"--pipeline-model-parallel-size {layout.pipeline}"
    if layout.chunks > 1:
        per_chunk = workload.model.layers // (layout.pipeline * layout.chunks)
        yield f"--num-layers-per-virtual-pipeline-stage {per_chunk}"
    yield f"--context-parallel-size {layout.context}"
    if workload.model.moe is not None:
        yield f"--expert-model-parallel-size {layout.expert}"
        yield f"--expert-tensor-parallel-size {layout.experts_tensor}"
    yield "--bf16"
    if workload.precision == "float8":
        yield "--fp8-format hybrid --fp8-amax-history-len 1024 --fp8-amax-compute-algo max"
    if workload.gradient_bytes == 2:  # noqa: PLR2004
        yield "--grad-reduce-in-bf16"
    if layout.sharding != "none":
        yield "--use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather"
    if layout.sharding in _MEGATRON_FSDP:
        yield f"--use-megatron-fsdp --data-parallel-sharding-strategy {_MEGATRON_FSDP[layout.sharding]}"
        yield "--no-gradient-accumulation-fusion --ckpt-format fsdp_dtensor"
    if layout.recompute == "full":
        yield "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
    elif layout.recompute == "selective":
        yield "--recompute-granularity selective"


def titan_flags(workload: Workload, layout: Layout) -> list[str]:
    """Arguments of torchtitan's train.py (0.3, which reads no TOML): the layout and the batch.

    The model comes from its user's --module and --config, and so does float8 (a converter in the
    configuration). With a pipeline, a local batch is all micro-batches of a step; without, gradients are
    accumulated up to the global batch. Activation checkpointing is a subcommand, so it comes last.

    Raises InputError for experts that are spread and cut as well: expert parallelism takes the tensor
    processes too (torchtitan's `ParallelismConfig.expert_parallel_degree`).
    """
    pipelined = layout.pipeline > 1
    moe = workload.model.moe is not None
    if moe and layout.expert > 1 and layout.experts_tensor > 1:
        raise InputError(
            f"torchtitan does not cut experts that it spreads; here each is cut in {layout.experts_tensor}",
            hint="give --expert-tensor 1",
        )
    shard = layout.data if layout.shard is None else layout.shard
    parallel: dict[str, Any] = {
        "data_parallel_replicate_degree": layout.data // shard,
        "data_parallel_shard_degree": shard,
        "tensor_parallel_degree": layout.tensor,
        "pipeline_parallel_degree": layout.pipeline,
        "context_parallel_degree": layout.context,
    }
    if pipelined:
        parallel["pipeline_parallel_schedule"] = TITAN_SCHEDULES[layout.schedule]
        parallel["pipeline_parallel_microbatch_size"] = layout.micro_batch
        parallel["pipeline_parallel_layers_per_stage"] = workload.model.layers // (
            layout.pipeline * layout.chunks
        )
    if moe:
        parallel["expert_parallel_degree"] = layout.expert
    local = layout.micro_batch * (layout.micro_batches(workload) if pipelined else 1)
    return [
        f"--training.seq_len {workload.sequence_length}",
        f"--training.local_batch_size {local} --training.global_batch_size {workload.batch}",
        *(f"--parallelism.{name} {value}" for name, value in parallel.items()),
        *(["--training.disable_cuda_graphs"] if pipelined else []),  # it refuses the two together
        "--compile.enable",
        f"activation_checkpoint:{layout.recompute}",
    ]


def recipe_settings(workload: Workload, layout: Layout, hardware: str | None = None) -> dict[str, Any]:
    """The keys of a train stage that say this layout, as `tsugiki schema train` has them.

    hardware: the device's name, where `plan` knows it.
    """
    names = ("data", "tensor", "pipeline", "context", "expert")
    parallel: dict[str, Any] = {
        name: getattr(layout, name) for name in names if getattr(layout, name) > 1 or name == "data"
    }
    if layout.shard is not None:
        parallel["shard"] = layout.shard
    if layout.schedule != "1f1b":
        parallel["schedule"] = layout.schedule
    if layout.chunks > 1:
        parallel["chunks"] = layout.chunks
    settings: dict[str, Any] = {
        "sequence_length": workload.sequence_length,
        "batch_tokens": workload.step_tokens,
        "parallel": parallel,
        "micro_batch_tokens": layout.micro_batch * workload.sequence_length,
        "precision": "float8-rowwise" if workload.precision == "float8" else workload.precision,
    }
    if layout.recompute != "none":
        settings["recompute"] = layout.recompute
    if hardware is not None:
        settings["hardware"] = hardware
    return settings


def recipe_lines(settings: Mapping[str, Any]) -> list[str]:
    """`recipe_settings` as lines of YAML."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            inner = ", ".join(f"{name}: {one}" for name, one in value.items())
            lines.append(f"{key}: {{{inner}}}")
        else:
            lines.append(f"{key}: {value}")
    return lines
