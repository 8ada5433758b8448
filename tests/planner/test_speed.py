"""The planner's speed: costs by hand, and what has to hold whatever the layout."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.models.config import preset
from tsugiki.planner.devices import ACCELERATORS
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.layout import Layout, Workload
from tsugiki.planner.speed import Bench, Tuning, model_flops, size_share, step_time

LLAMA = Workload(preset("llama-3.1-8b"), 8192, 1024)
MIXTRAL = Workload(preset("mixtral-8x7b"), 4096, 1024)
H100, MEGATRON = ACCELERATORS["h100-80gb"], KERNELS["megatron-lm"]
IDEAL = Tuning(products=1.0, memory=1.0, links=1.0, network=1.0, link_latency=1e-12, network_latency=1e-12)


def time(layout: Layout, workload: Workload = LLAMA, **more):
    return step_time(workload, layout, MEGATRON, replace(H100, **more))


def test_model_flops_are_those_of_the_reference_and_legacy_an_eighth_more() -> None:
    assert model_flops(LLAMA) / 1024 == pytest.approx(4.216e14, rel=1e-3)
    assert model_flops(LLAMA, legacy=True) / model_flops(LLAMA) == pytest.approx(1.125, abs=1e-3)


def test_size_share_is_calculons_table_and_rises_between() -> None:
    assert [size_share(x) for x in (1e6, 1e9, 16e9, 128e9, 1e15)] == [0.6, 0.6, 0.9, 0.95, 0.95]
    assert size_share(4e9) == pytest.approx(0.75)


def test_tensor_cost_is_ten_collectives_of_the_stream_six_of_them_waited_for() -> None:
    found = step_time(LLAMA, Layout(tensor=2), MEGATRON, H100, replace(IDEAL, busy_links=0.0)).tensor
    one = 0.5 * 2 * 8192 * 4096 / 450e9
    assert found == pytest.approx(1024 * 32 * 6 * one)


def test_tensor_group_beyond_the_node_is_as_slow_as_the_network() -> None:
    inside, beyond = time(Layout(tensor=8)), time(Layout(tensor=8), node=4)
    assert beyond.tensor > 1.4 * inside.tensor
    assert beyond.products == inside.products


def test_group_that_spans_nodes_shares_the_network_of_its_processes_there() -> None:
    bench = Bench(LLAMA, Layout(), MEGATRON, H100, IDEAL)
    assert bench.bandwidth(16, 1) == 8 * 50e9
    assert bench.bandwidth(16, 4) == 2 * 50e9
    assert bench.bandwidth(16, 8) == bench.bandwidth(16, 1, ring=False) == 50e9
    assert bench.bandwidth(8, 1) == 450e9


def test_data_exchange_is_six_bytes_a_parameter_less_what_compute_hides() -> None:
    slow = {"network_bandwidth": 1e8, "node": 1}
    found = step_time(
        LLAMA, Layout(data=8), MEGATRON, replace(H100, **slow), replace(IDEAL, busy_network=0.0)
    )
    one = (found.seconds - found.data - found.optimizer) / 128  # a micro-batch
    volume = 6 * LLAMA.model.parameters * 7 / 8
    assert found.data == pytest.approx(volume / 1e8 - one, rel=1e-3)


def test_bubble_is_a_share_of_the_stages_and_shrinks_with_chunks() -> None:
    plain = time(Layout(pipeline=4, data=16))
    busy = plain.seconds - plain.bubble - plain.data - plain.optimizer
    # the stages that wait have no head to compute, so less than (p - 1) / m
    assert 0.8 * 3 / 64 < plain.bubble / busy <= 3 / 64
    chunked = time(Layout(pipeline=4, data=16, chunks=4, schedule="interleaved"))
    assert chunked.bubble == pytest.approx(plain.bubble / 4, rel=0.05)
    assert chunked.pipeline == pytest.approx(4 * plain.pipeline)


def test_full_recomputation_costs_a_forward_pass_more() -> None:
    plain, again = time(Layout(tensor=2)), time(Layout(tensor=2, recompute="full"))
    assert again.products == pytest.approx(plain.products * 4 / 3)
    assert again.attention == pytest.approx(plain.attention * 4.5 / 3.5)


def test_plain_data_parallelism_sends_four_bytes_twice_and_no_weights() -> None:
    layout = Layout(data=8)
    slow = {"network_bandwidth": 1e7, "node": 1}
    shared, plain = time(layout, **slow), time(replace(layout, sharding="none"), **slow)
    assert plain.data / shared.data == pytest.approx(8 / 6, rel=0.02)


def test_experts_exchange_tokens_and_slower_across_nodes() -> None:
    whole = time(Layout(data=8), MIXTRAL)
    inside = time(Layout(data=8, expert=8, expert_tensor=1), MIXTRAL)
    beyond = time(Layout(data=8, expert=8, expert_tensor=1), MIXTRAL, node=2)
    assert whole.expert == 0 < inside.expert < beyond.expert / 3
    assert inside.gradients < whole.gradients


def test_a_shared_expert_takes_the_time_of_a_dense_feed_forward_of_its_width() -> None:
    layout = Layout(data=8, tensor=2, expert=8, expert_tensor=1)
    model = replace(preset("qwen2-57b-a14b"), layers=4)

    def seconds(shared: int, tensor: int = 2, **more):
        family = "qwen2_moe" if shared else "qwen3_moe"
        shape = replace(model, family=family, moe=replace(model.moe, shared_size=shared, **more))
        return time(replace(layout, tensor=tensor), Workload(shape, 4096, 64))

    one, two, none = seconds(10240), seconds(20480), seconds(0)
    assert two.products > one.products > none.products
    # The 4 layers as dense ones of the same width: no experts, but the shared one's products.
    dense = replace(model, family="qwen2", intermediate_size=10240, moe=None)
    attention = replace(dense, intermediate_size=2)
    thick, thin = (time(layout, Workload(shape, 4096, 64)).products for shape in (dense, attention))
    assert one.products - none.products == pytest.approx(thick - thin, rel=0.05)
    assert one.tensor > none.tensor
    assert one.expert == none.expert


def test_sharded_weights_are_gathered_where_nothing_hides_it() -> None:
    layout = Layout(data=8, sharding="weights")
    hidden, exposed = time(layout), time(layout, network_bandwidth=1e8, node=1)
    assert hidden.weights < 0.05 * hidden.products
    assert exposed.weights > exposed.products


def test_float8_speeds_matrix_products_only() -> None:
    plain, fast = time(Layout(tensor=2)), time(Layout(tensor=2), replace(LLAMA, precision="float8"))
    assert 1.5 < plain.products / fast.products < 1.8
    assert plain.attention == fast.attention


def test_window_shortens_attention() -> None:
    model = replace(LLAMA.model, family="mistral", sliding_window=1024, rope_scaling=None)
    windowed = time(Layout(), replace(LLAMA, model=model)).attention
    assert windowed / time(Layout()).attention == pytest.approx((1024 - 1024**2 / 16384) / 4096)


@settings(max_examples=150, deadline=None)
@given(
    st.builds(
        Layout,
        data=st.sampled_from([1, 2, 8, 64]),
        tensor=st.sampled_from([1, 2, 8]),
        pipeline=st.sampled_from([1, 2, 4]),
        context=st.sampled_from([1, 2, 4]),
        micro_batch=st.sampled_from([1, 2]),
        recompute=st.sampled_from(["none", "selective", "full"]),
        sharding=st.sampled_from(["none", "optimizer", "weights"]),
    ),
    st.sampled_from([LLAMA, MIXTRAL]),
    st.sampled_from(sorted(ACCELERATORS)),
    st.sampled_from(sorted(KERNELS)),
)
def test_every_step_takes_longer_than_its_operations_at_the_peak(layout, workload, device, name) -> None:
    accelerator = ACCELERATORS[device]
    found = step_time(workload, layout, KERNELS[name], accelerator)
    assert all(seconds >= 0 for seconds in vars(found).values())
    least = model_flops(workload) / layout.world / accelerator.peak_flops
    assert found.seconds > least


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(["products", "memory", "links", "network"]), st.sampled_from([LLAMA, MIXTRAL]))
def test_a_larger_share_reached_is_never_slower(name, workload) -> None:
    layout = Layout(data=16, tensor=2, pipeline=2, context=2)
    slow, fast = Tuning(), replace(Tuning(), **{name: 1.0})
    assert (
        step_time(workload, layout, MEGATRON, H100, fast).seconds
        <= step_time(workload, layout, MEGATRON, H100, slow).seconds
    )
