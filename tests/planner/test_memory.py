"""The planner's memory: worked values, sums by hand, and what has to hold for every layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.models.config import DecoderConfig, preset
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.layout import Layout, Workload, layout_problems
from tsugiki.planner.memory import StageMemory, busiest, memory
from tsugiki.planner.parameters import stage_parameters
from tsugiki.planner.published import published_estimate
from tsugiki.planner.verdict import verdict

GIB = 2**30
MEGATRON = KERNELS["megatron-lm"]
LLAMA_8B = preset("llama-3.1-8b")
MIXTRAL = preset("mixtral-8x7b")
QWEN_MOE = preset("qwen3-30b-a3b")
SHARED = preset("qwen2-57b-a14b")


def workload(model: DecoderConfig = LLAMA_8B, length: int = 8192, batch: int = 1024, **more) -> Workload:
    return Workload(model, length, batch, **more)


@pytest.mark.parametrize(
    ("name", "degrees", "states", "activations"),
    [  # parallelism-and-memory.md, section 7.3: (tensor, pipeline, context, data, micro-batch), GiB
        ("llama-3.1-8b", (4, 2, 1, 2, 2), 11.218, 20.750),
        ("llama-3.1-8b", (1, 1, 2, 4, 1), 56.091, 22.645),
        ("llama-3.1-8b", (2, 1, 1, 4, 2), 33.654, 45.289),
    ],
)
def test_published_estimate_worked_values_agree_to_a_thousandth(name, degrees, states, activations) -> None:
    tensor, pipeline, context, data, micro_batch = degrees
    layout = Layout(data, tensor, pipeline, context, micro_batch=micro_batch)
    found = published_estimate(workload(preset(name)), layout)
    assert found[0] / GIB == pytest.approx(states, abs=1e-3)
    assert found[1] / GIB == pytest.approx(activations, abs=1e-3)


def test_published_estimate_of_70b_agrees_with_the_figure_of_the_float8_study() -> None:
    layout = Layout(data=2, tensor=4, pipeline=8)
    states, activations = published_estimate(workload(preset("llama-3-70b")), layout)
    assert states / GIB == pytest.approx(26.84, abs=5e-3)
    assert activations / GIB == pytest.approx(51.62, abs=1e-2)
    assert (states + activations) / (94 * GIB) == pytest.approx(0.835, abs=1e-3)


@pytest.mark.parametrize(
    "name",
    ["llama-3.1-8b", "mixtral-8x7b", "qwen2-57b-a14b", "qwen3-30b-a3b", "qwen2.5-0.5b", "qwen3-8b"],
)
@pytest.mark.parametrize(("pipeline", "chunks"), [(1, 1), (2, 1), (4, 1), (2, 2)])
def test_parameters_of_all_stages_are_those_of_the_model(name, pipeline, chunks) -> None:
    model = preset(name)
    layout = Layout(pipeline=pipeline, chunks=chunks, schedule="interleaved" if chunks > 1 else "1f1b")
    held = sum(stage_parameters(workload(model), layout, stage).total for stage in range(pipeline))
    twice = model.vocabulary_size * model.hidden_size if model.tied_embeddings and pipeline > 1 else 0
    assert held == model.parameters + twice


def test_parameters_under_tensor_parallelism_copy_norms_and_routers_only() -> None:
    model = MIXTRAL
    copied = (
        model.layers * (2 * model.hidden_size + model.hidden_size * model.moe.experts) + model.hidden_size
    )
    held = stage_parameters(workload(model), Layout(tensor=4), 0).total
    assert held == pytest.approx((model.parameters - copied) / 4 + copied)


def test_a_shared_expert_is_cut_by_tensor_and_stays_where_experts_are_spread() -> None:
    width, moe = SHARED.hidden_size, SHARED.moe
    shared = SHARED.layers * 3 * width * moe.shared_size
    experts = SHARED.layers * 3 * width * moe.intermediate_size * moe.experts
    held = stage_parameters(workload(SHARED), Layout(data=8, tensor=4, expert=8, expert_tensor=1), 0)
    assert held.experts == experts / 8
    copied = SHARED.layers * width * (2 + moe.experts + 1) + width
    cut = SHARED.parameters - experts - copied
    assert held.dense == pytest.approx(cut / 4 + copied)
    without = replace(SHARED, family="mixtral", intermediate_size=2560, moe=replace(
        moe, normalise=True, shared_size=0
    ))  # fmt: skip
    other = stage_parameters(workload(without), Layout(data=8, tensor=4, expert=8, expert_tensor=1), 0)
    biases = SHARED.layers * SHARED.head_dim * (SHARED.heads + 2 * SHARED.kv_heads)
    assert held.dense - other.dense == (shared + biases) / 4 + SHARED.layers * width


def test_tensor_parallelism_has_to_divide_the_shared_expert() -> None:
    odd = replace(SHARED, moe=replace(SHARED.moe, shared_size=20482))
    layout = Layout(data=1024, tensor=4)
    (found,) = (
        problem for problem in layout_problems(workload(odd), layout) if "shared expert" in problem.message
    )
    assert found.message == "tensor: 4 does not divide the width of the shared expert (20482)"
    assert not [one for one in layout_problems(workload(SHARED), layout) if "shared" in one.message]


def test_experts_are_divided_by_expert_and_expert_tensor_degrees() -> None:
    layout = Layout(data=8, tensor=2, expert=4, expert_tensor=1)
    one = 3 * MIXTRAL.hidden_size * MIXTRAL.moe.intermediate_size
    assert stage_parameters(workload(MIXTRAL), layout, 0).experts == MIXTRAL.layers * one * 8 / 4
    assert layout.experts_sharing == 8 * 2 / 4


@pytest.mark.parametrize(
    ("sharding", "per_parameter"),
    [("none", 18), ("optimizer", 6 + 12 / 8), ("gradients", 2 + 16 / 8), ("weights", 18 / 8)],
)
def test_states_by_sharding_are_those_of_the_table(sharding, per_parameter) -> None:
    stage = busiest(workload(), Layout(data=4, context=2, sharding=sharding), MEGATRON)
    states = stage.weights + stage.gradients + stage.optimizer
    assert states == pytest.approx(per_parameter * LLAMA_8B.parameters)


@pytest.mark.parametrize(
    ("more", "per_parameter"),
    [({"gradient_bytes": 2}, 4 + 12 / 2), ({"precision": "float32"}, 8 + 8 / 2)],
)
def test_states_by_precision_are_those_of_the_table(more, per_parameter) -> None:
    stage = busiest(workload(**more), Layout(data=2), MEGATRON)
    assert stage.weights + stage.gradients + stage.optimizer == pytest.approx(
        per_parameter * LLAMA_8B.parameters
    )


def test_float8_keeps_copies_of_matrices_and_smaller_inputs() -> None:
    plain, small = (busiest(workload(precision=p), Layout(data=8), MEGATRON) for p in ("bfloat16", "float8"))
    matrices = stage_parameters(workload(), Layout(data=8), 0).matrices
    assert small.weights - plain.weights == 2 * matrices
    # of 41 s b h, the inputs of QKV, o and the feed-forward (2 each) and the product (2 f/h = 7) halve
    assert small.activations / plain.activations == pytest.approx((41 - (2 + 2 + 2 + 7) / 2) / 41)


def test_float8_of_torchao_takes_the_memory_of_bfloat16() -> None:
    layout = Layout(data=8, sharding="weights")
    for name in ("torchtitan", "tsugiki"):
        assert busiest(workload(precision="float8"), layout, KERNELS[name]) == busiest(
            workload(), layout, KERNELS[name]
        )


def test_activations_of_a_dense_layer_are_equation_12() -> None:
    stage = busiest(workload(), Layout(tensor=2, context=2), MEGATRON)
    assert stage.activations == 8192 / 2 * 4096 * (12 + 4 * 8 / 32 + 8 * 14336 / 4096) / 2 * 32


@pytest.mark.parametrize("context", [2, 4])
def test_gathered_keys_are_kept_and_a_mask_where_no_kernel_takes_them(context) -> None:
    ours, layout = KERNELS["tsugiki"], Layout(context=context, sharding="weights")
    tokens = 8192 / context * LLAMA_8B.layers
    keys = 2 * LLAMA_8B.kv_heads * LLAMA_8B.head_dim * 2  # bytes of a token's keys and values

    def kept(kernels, precision="bfloat16"):
        return busiest(workload(precision=precision), layout, kernels).activations / tokens

    masked, apart = replace(ours, masks_gathered=True), replace(ours, gathers_keys=False)
    # two pieces of a row of 2c see, with the process that has the first, 2c + 1 pieces; two are its own
    assert kept(ours) - kept(apart) == pytest.approx(keys * (2 * context - 1) / 2)
    # a mask of bfloat16 numbers, one for each token of the row, and its keys once
    assert kept(masked) - kept(apart) == pytest.approx(8192 * 2 + keys * (context - 1))
    assert kept(ours, "float32") == kept(masked, "float32")


@pytest.mark.parametrize(
    ("layout", "stage", "micro_batches"),
    [
        (Layout(pipeline=4), 0, 4),
        (Layout(pipeline=4), 3, 1),
        (Layout(pipeline=4, data=512), 0, 2),  # only two micro-batches there are
        (Layout(pipeline=4, schedule="gpipe", data=128), 3, 8),
        (Layout(pipeline=4, schedule="interleaved", chunks=2), 0, (2 * 3 + 4 + 1) / 2),
        (Layout(pipeline=4, schedule="interleaved", chunks=2), 3, (4 + 1) / 2),
    ],
)
def test_activations_in_flight_follow_the_schedule(layout, stage, micro_batches) -> None:
    found = memory(workload(), layout, MEGATRON)[stage].activations
    one = memory(workload(), Layout(), MEGATRON)[0].activations / 4  # a stage has a quarter of the layers
    assert found == pytest.approx(one * micro_batches)


def test_interleaved_first_stage_is_the_published_factor_times_1f1b() -> None:
    plain = memory(workload(), Layout(pipeline=4), MEGATRON)[0].activations
    layout = Layout(pipeline=4, schedule="interleaved", chunks=4)
    # 1 + (p - 1)/(p V), less a chunk: 2 (p - 1) + (V - 1) p + 1 = p V (1 + (p - 1)/(p V)) exactly
    assert memory(workload(), layout, MEGATRON)[0].activations == pytest.approx(plain * (1 + 3 / 16))


def test_full_recomputation_keeps_the_input_of_each_layer_and_one_layer_at_work() -> None:
    layout = Layout(tensor=2, recompute="full")
    stage, plain = (busiest(workload(), one, MEGATRON) for one in (layout, Layout(tensor=2)))
    assert stage.activations == 2 * 8192 * 4096 / 2 * 32
    layer = plain.activations / 32 - 2 * 8192 * 4096 / 2
    assert stage.working == pytest.approx(plain.working + layer)


def test_selective_recomputation_of_attention_changes_nothing_under_flash_attention() -> None:
    plain, selective = (busiest(workload(), Layout(recompute=r), MEGATRON) for r in ("none", "selective"))
    assert selective.activations == plain.activations


@pytest.mark.parametrize("name", ["torchtitan", "tsugiki"])
def test_selective_recomputation_of_products_lies_between_none_and_full(name) -> None:
    layout = Layout(data=8, sharding="weights")
    none, selective, full = (
        busiest(workload(), replace(layout, recompute=r), KERNELS[name]).activations
        for r in ("none", "selective", "full")
    )
    assert full < 0.8 * selective < 0.8 * none


def test_last_stage_has_logits_and_the_first_has_token_ids() -> None:
    first, middle, last = memory(workload(batch=48), Layout(pipeline=3), MEGATRON)
    assert first.inputs > 0
    assert first.logits == middle.logits == middle.inputs == last.inputs == 0
    assert last.logits == 8192 * (6 * 128256 + 4 * 4096)


def test_fused_cross_entropy_holds_one_chunk_of_logits_and_the_gradients() -> None:
    chunked = replace(MEGATRON, logit_chunk=2**20, logit_bytes=12.0)
    stage = busiest(workload(), Layout(), chunked)
    hidden = 2 * 8192 * 4096  # a copy, its gradient, and the norm's input
    assert stage.logits == 12 * 2**20 + 2 * 128256 * 4096 + 3 * hidden


def test_sparse_layer_keeps_the_chosen_experts_columns_and_its_routing() -> None:
    model, moe = MIXTRAL, MIXTRAL.moe
    stage = busiest(workload(model), Layout(data=8, expert=8, expert_tensor=1), MEGATRON)
    h, q = model.hidden_size, moe.experts_per_token
    attention = 12 * h + 4 * model.kv_heads * model.head_dim  # a H = h
    routed = 2 * q * h * 2 + 2 * 4 * moe.experts
    token = attention + 8 * q * moe.intermediate_size + routed
    assert stage.activations == pytest.approx(8192 * model.layers * token)
    web_tool = replace(MEGATRON, routed_copies=False)
    alone = busiest(workload(model), Layout(data=8, expert=8, expert_tensor=1), web_tool).activations
    mlp_of_the_web_tool = 2 * (h + 4 * q * moe.intermediate_size)
    assert alone == pytest.approx(8192 * model.layers * (attention - 2 * h + mlp_of_the_web_tool))


def test_sparse_layer_keeps_the_shared_experts_columns_and_output_once() -> None:
    moe, layout = SHARED.moe, Layout(data=8, expert=8, expert_tensor=1)
    without = replace(SHARED, family="qwen3_moe", moe=replace(moe, shared_size=0))
    found, other = (
        busiest(workload(model), layout, MEGATRON).activations / (8192 * SHARED.layers)
        for model in (SHARED, without)
    )
    norms = 2 * SHARED.head_dim * (SHARED.heads + SHARED.kv_heads)  # which Qwen2-MoE lacks
    assert found - other + norms == pytest.approx(8 * moe.shared_size + 2 * SHARED.hidden_size)
    skewed = replace(MEGATRON, routing_imbalance=1.5)
    uneven = busiest(workload(SHARED), layout, skewed).activations / (8192 * SHARED.layers)
    routed = 2 * moe.experts_per_token * SHARED.hidden_size * 2
    more = 0.5 * (8 * moe.experts_per_token * moe.intermediate_size + routed)
    assert uneven - found == pytest.approx(more)


def test_routing_imbalance_scales_what_experts_hold() -> None:
    layout = Layout(data=8, expert=8)
    even, uneven = (
        busiest(workload(QWEN_MOE), layout, replace(MEGATRON, routing_imbalance=r)).activations
        for r in (1.0, 1.2)
    )
    assert 1.05 < uneven / even < 1.2


def test_fsdp_gathers_whole_layers_beside_its_shards() -> None:
    titan = KERNELS["torchtitan"]
    stage = busiest(workload(batch=64), Layout(data=64, sharding="weights"), titan)
    assert stage.weights == pytest.approx(4 * LLAMA_8B.parameters / 64)
    parameters = stage_parameters(workload(), Layout(), 0)
    assert stage.gathered == 2 * (parameters.root + 2 * parameters.layer) + 6 * parameters.layer


def test_tied_embedding_is_held_by_both_ends_of_a_pipeline() -> None:
    model = preset("qwen2.5-0.5b")
    ends = memory(workload(model), Layout(pipeline=2, sharding="none"), MEGATRON)
    embedding = model.vocabulary_size * model.hidden_size
    assert min(one.weights for one in ends) > 2 * embedding


def layouts() -> st.SearchStrategy[Layout]:
    degree = st.sampled_from([1, 2, 4, 8])
    return st.builds(
        Layout,
        data=degree,
        tensor=degree,
        pipeline=degree,
        context=degree,
        micro_batch=st.sampled_from([1, 2, 4]),
        recompute=st.sampled_from(["none", "selective", "full"]),
        sharding=st.sampled_from(["none", "optimizer", "gradients", "weights"]),
    )


@settings(max_examples=200, deadline=None)
@given(layouts(), st.sampled_from(sorted(KERNELS)), st.sampled_from([LLAMA_8B, MIXTRAL]))
def test_every_layout_has_the_busiest_stage_of_all_and_positive_parts(layout, name, model) -> None:
    work = workload(model)
    stages = memory(work, layout, KERNELS[name])
    assert len(stages) == layout.pipeline
    assert all(value >= 0 for stage in stages for _, value in stage.parts())
    assert all(stage.total == pytest.approx(sum(value for _, value in stage.parts())) for stage in stages)
    assert busiest(work, layout, KERNELS[name]).total == max(stage.total for stage in stages)


@settings(max_examples=100, deadline=None)
@given(layouts(), st.sampled_from(["tensor", "context"]))
def test_more_parallelism_never_needs_more_states_or_activations(layout, dimension) -> None:
    work = workload()
    more = replace(layout, **{dimension: getattr(layout, dimension) * 2})
    before, after = (busiest(work, one, MEGATRON) for one in (layout, more))
    assert after.activations <= before.activations
    assert after.weights + after.optimizer <= before.weights + before.optimizer


def test_verdict_bands_are_at_80_and_90_percent_of_the_counted_tensors() -> None:
    stage = StageMemory(0, *([0.0] * 11))
    shares = (0.80, 0.801, 0.90, 0.901)
    found = [verdict(replace(stage, weights=share * 100), 100.0) for share in shares]
    assert found == ["safe", "probe", "probe", "refuse"]
    assert verdict(replace(stage, weights=70.0, working=31.0), 100.0) == "refuse"


def test_legal_layout_of_the_shipped_runs_has_no_problems() -> None:
    assert not list(layout_problems(workload(), Layout(2, 4, 2, micro_batch=2), gpus=16))
