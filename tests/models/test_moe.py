from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tsugiki.models import moe as moe_module
from tsugiki.models.config import MixtureOfExperts, preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.moe import (
    Experts,
    Router,
    Routing,
    SparseFeedForward,
    balance_loss,
    expert_counts,
    grouped_linear,
    layerwise_load_balancing_loss,
    load_balancing_loss,
    router_z_loss,
)

MOE = MixtureOfExperts(experts=6, experts_per_token=2, intermediate_size=24)


def filled(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def routing_of(logits_SE, chosen=2):
    weights_SK, experts_SK = logits_SE.softmax(dim=-1).topk(chosen, dim=-1)
    return Routing(logits_SE, weights_SK, experts_SK)


def by_definition(block, x_BTD):
    """Token by token, expert by expert."""
    routing, rows = block.gate(x_BTD.flatten(0, 1)), []
    for token, (weights_K, experts_K) in zip(
        x_BTD.flatten(0, 1), zip(routing.weights_SK, routing.experts_SK, strict=True), strict=True
    ):
        total = torch.zeros_like(token)
        for weight, expert in zip(weights_K, experts_K, strict=True):
            gate, up, down = (
                matrix[expert]
                for matrix in (block.experts.gate_proj, block.experts.up_proj, block.experts.down_proj)
            )
            total = total + weight * (down @ (F.silu(gate @ token) * (up @ token)))
        rows.append(total)
    return torch.stack(rows).view_as(x_BTD)


@pytest.mark.parametrize("width", [16, 15])  # 15 numbers are no multiple of 16 bytes: the loop
@pytest.mark.parametrize("chosen", [1, 2, 6])
def test_block_equals_the_definition_in_values_and_gradients(width, chosen):
    block = filled(SparseFeedForward(width, replace(MOE, experts_per_token=chosen)))
    results = []
    for function in (lambda x: block(x)[0], lambda x: by_definition(block, x)):
        x_BTD = draw(2, 9, width).requires_grad_()
        y_BTD = function(x_BTD)
        block.zero_grad()
        y_BTD.square().sum().backward()
        gradients = [parameter.grad.clone() for parameter in block.parameters()]
        results.append([y_BTD.detach(), x_BTD.grad, *gradients])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_linear_grouped_and_looped_are_equal(dtype, monkeypatch):
    ends_E = torch.tensor([3, 3, 10, 17, 17], dtype=torch.int32)  # two experts have no rows
    results = []
    for bytes_wanted in (16, 10**9):
        monkeypatch.setattr(moe_module, "_GROUPED_BYTES", bytes_wanted)
        x_RD = draw(17, 16).to(dtype).requires_grad_()
        weight_EFD = draw(5, 24, 16, seed=2).to(dtype).requires_grad_()
        y_RF = grouped_linear(x_RD, weight_EFD, ends_E)
        y_RF.backward(draw(17, 24, seed=3).to(dtype))
        results.append((y_RF.detach(), x_RD.grad, weight_EFD.grad))
    for grouped, looped in zip(*results, strict=True):
        torch.testing.assert_close(grouped, looped)
        assert grouped.abs().max() > 0


def test_grouped_linear_without_rows_gives_none_and_zero_gradients():
    weight_EFD = draw(3, 8, 16).requires_grad_()
    y_RF = grouped_linear(torch.empty(0, 16), weight_EFD, torch.zeros(3, dtype=torch.int32))
    assert y_RF.shape == (0, 8)
    y_RF.sum().backward()
    assert not weight_EFD.grad.any()


def test_grouped_linear_under_autocast_computes_in_its_type():
    ends_E = torch.tensor([4, 9], dtype=torch.int32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert grouped_linear(draw(9, 16), draw(2, 8, 16), ends_E).dtype == torch.bfloat16


def test_block_gradient_that_is_one_number_for_all_is_taken():
    # The gradient of a sum has zero strides, which F.grouped_mm's backward pass refuses ("Invalid strides").
    block = filled(SparseFeedForward(16, MOE))
    block(draw(1, 8, 16))[0].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in block.parameters())


def test_block_gives_the_same_bits_twice_where_torch_is_told_to_be_deterministic():
    block, x_BTD = filled(SparseFeedForward(16, replace(MOE, experts_per_token=3))), draw(4, 40, 16)
    results = []
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            leaf_BTD = x_BTD.clone().requires_grad_()
            block.zero_grad()
            y_BTD, _ = block(leaf_BTD)
            y_BTD.square().sum().backward()
            results.append([y_BTD, leaf_BTD.grad, *(parameter.grad for parameter in block.parameters())])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_experts_in_two_parts_add_up_to_all():
    """Expert parallelism: each part of the experts computes the rows that are theirs."""
    whole, x_RD = filled(Experts(16, MOE)), draw(20, 16)
    ends_E = torch.tensor([2, 7, 7, 12, 15, 20], dtype=torch.int32)
    parts = []
    for first, rows in ((0, slice(0, 7)), (3, slice(7, 20))):
        part = Experts(16, replace(MOE, experts=3))
        for name, parameter in whole.named_parameters():
            getattr(part, name).data = parameter.data[first : first + 3]
        parts.append(part(x_RD[rows], ends_E[first : first + 3] - rows.start))
    torch.testing.assert_close(torch.cat(parts), whole(x_RD, ends_E))


@pytest.mark.parametrize("normalise", [True, False])
def test_router_softmax_is_over_all_experts_and_before_the_choice(normalise):
    router, x_SD = filled(Router(16, replace(MOE, normalise=normalise))), draw(30, 16)
    routing = router(x_SD)
    probabilities_SE = (x_SD @ router.weight.T).softmax(dim=-1)
    order_SE = probabilities_SE.argsort(dim=-1, descending=True)
    assert torch.equal(routing.experts_SK, order_SE[:, :2])
    expected_SK = probabilities_SE.gather(1, order_SE[:, :2])
    if normalise:
        expected_SK = expected_SK / expected_SK.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(routing.weights_SK, expected_SK)
    total_S = routing.weights_SK.sum(dim=-1)
    assert torch.allclose(total_S, torch.ones(30)) == normalise


@pytest.mark.parametrize("autocast", [False, True])
def test_router_computes_in_float32_whatever_the_models_type(autocast):
    router, x_SD = filled(Router(16, MOE)), draw(30, 16)
    if not autocast:
        router, x_SD = router.bfloat16(), x_SD.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        routing = router(x_SD)
    assert routing.logits_SE.dtype == routing.weights_SK.dtype == torch.float32
    exact_SE = x_SD.double() @ router.weight.double().T
    torch.testing.assert_close(routing.logits_SE.double(), exact_SE, atol=1e-5, rtol=0)


def test_decoder_hands_out_the_routing_of_its_sparse_layers_in_order():
    config = preset("qwen3-moe-nano")  # layer 0 is dense
    decoder = Decoder(replace(config, layers=3))
    initialise(decoder, 0)
    routings = []
    decoder(torch.arange(20).view(2, 10), routings=routings)
    assert [routing.logits_SE.shape for routing in routings] == [(20, 8), (20, 8)]
    assert [int(expert_counts(routing).sum()) for routing in routings] == [40, 40]


def test_expert_counts_are_those_of_a_loop_and_of_kept_tokens_only():
    routing = routing_of(draw(50, 6))
    kept_S = torch.arange(50) % 3 > 0
    for kept, rows in ((None, range(50)), (kept_S, kept_S.nonzero().flatten().tolist())):
        expected = [0] * 6
        for row in rows:
            for expert in routing.experts_SK[row].tolist():
                expected[expert] += 1
        assert expert_counts(routing, kept).tolist() == expected


@pytest.mark.parametrize("padded", [False, True])
def test_load_balancing_loss_equals_that_of_transformers(padded):
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    logits = [draw(24, 6, seed=seed).requires_grad_() for seed in range(3)]
    mask_BT = torch.ones(2, 12, dtype=torch.int64)
    mask_BT[1, 5:] = 0
    theirs = load_balancing_loss_func(tuple(logits), 6, 2, mask_BT if padded else None)
    ours = load_balancing_loss(
        [routing_of(each) for each in logits], mask_BT.flatten().bool() if padded else None
    )
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits), strict=True
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("family", ["mixtral-nano", "qwen3-moe-nano"])
def test_load_balancing_loss_of_a_model_is_the_one_transformers_adds(family):
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from tsugiki.models.names import stored_pieces

    decoder = Decoder(preset(family))
    initialise(decoder, 3)
    peer = AutoModelForCausalLM.from_config(CONFIG_MAPPING[decoder.config.family](**decoder.config.to_hf()))
    weights = decoder.state_dict()
    for name, pieces in stored_pieces(decoder.config, list(weights), fused=True).items():
        parts = [weights.pop(piece.name) for piece in pieces]
        weights[name] = torch.cat(parts, dim=-2) if len(parts) > 1 else parts[0]
    peer.load_state_dict(weights)
    ids_BT, routings = torch.arange(60).view(2, 30), []
    decoder(ids_BT, routings=routings)
    theirs = peer.eval()(ids_BT, output_router_logits=True)
    for routing, logits_SE in zip(routings, theirs.router_logits, strict=True):
        torch.testing.assert_close(routing.logits_SE, logits_SE, atol=1e-5, rtol=0)
    torch.testing.assert_close(load_balancing_loss(routings), theirs.aux_loss, atol=1e-5, rtol=0)


def test_load_balancing_loss_is_k_where_even_and_e_where_all_tokens_choose_the_same():
    even = Routing(torch.zeros(12, 6), torch.ones(12, 2), torch.arange(24).view(12, 2) % 6)
    assert float(load_balancing_loss([even])) == pytest.approx(2)
    logits_SE = torch.full((12, 6), -50.0)
    logits_SE[:, 1] = 50.0
    # One expert has all the probability and is chosen by all; of the second choice nobody cares.
    assert float(load_balancing_loss([routing_of(logits_SE)])) == pytest.approx(6)


def test_layerwise_loss_sees_the_imbalance_that_cancels_over_layers():
    logits_SE = torch.full((12, 4), -20.0)
    logits_SE[:, :2] = 20.0
    opposite = [routing_of(logits_SE), routing_of(logits_SE.flip(1))]
    assert float(load_balancing_loss(opposite)) == pytest.approx(2)
    assert float(layerwise_load_balancing_loss(opposite)) == pytest.approx(4)


def test_layerwise_loss_is_megatrons_times_k_over_layers():
    routings = [routing_of(draw(40, 6, seed=seed)) for seed in range(3)]
    megatron = torch.tensor(0.0)
    for routing in routings:  # E / (k T²) · sum of probability sums times counts, summed over layers
        counts_E = expert_counts(routing)
        sums_E = routing.logits_SE.softmax(dim=-1).sum(dim=0)
        megatron = megatron + 6 / (2 * 40**2) * (counts_E * sums_E).sum()
    torch.testing.assert_close(layerwise_load_balancing_loss(routings), megatron * 2 / 3)


def test_balance_loss_of_parts_added_up_is_that_of_the_whole():
    logits_SE = draw(60, 6)
    whole = load_balancing_loss([routing_of(logits_SE)])
    parts = [routing_of(part) for part in logits_SE.split([13, 47])]
    counts_E = sum(expert_counts(part) for part in parts)
    sums_E = sum(part.logits_SE.softmax(dim=-1).sum(dim=0) for part in parts)
    torch.testing.assert_close(balance_loss(counts_E, sums_E, 60), whole)


def test_router_z_loss_is_the_mean_square_of_the_log_partition():
    routings = [routing_of(draw(10, 6, seed=seed) * 3) for seed in range(2)]
    expected = [
        torch.log(torch.exp(row).sum()).item() ** 2 for routing in routings for row in routing.logits_SE
    ]
    assert float(router_z_loss(routings)) == pytest.approx(sum(expected) / 20, rel=1e-5)
    kept_S = torch.arange(10) < 4
    few = sum(expected[:4] + expected[10:14]) / 8
    assert float(router_z_loss(routings, kept_S)) == pytest.approx(few, rel=1e-5)


def test_losses_push_the_router_towards_balance():
    """Gradient steps on each loss alone bring it close to its optimum."""
    for loss, optimum in ((load_balancing_loss, 2.0), (router_z_loss, 0.0)):
        logits_SE = draw(64, 6) * 0.5 + torch.tensor([2.0, 1.0, 0.0, 0.0, -1.0, 0.0])
        distances = []
        for _ in range(200):
            logits_SE.requires_grad_()
            value = loss([routing_of(logits_SE)])
            distances.append(abs(value.item() - optimum))
            (gradient,) = torch.autograd.grad(value, logits_SE)
            logits_SE = (logits_SE - 20 * gradient).detach()
        assert distances[-1] < 0.25 * distances[0]
