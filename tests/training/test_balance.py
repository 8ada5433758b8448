"""Conventions of the load-balancing loss, against transformers and definitions; biases in place of it."""

import pytest
import torch

from tsugiki.errors import InputError
from tsugiki.models.config import MixtureOfExperts, preset
from tsugiki.models.moe import Router, Routing
from tsugiki.training.balance import CONVENTIONS, convention_of, convert_coefficient
from tsugiki.training.preparation import balancing_of
from tsugiki.training.routers import Balancing, Routers, next_biases
from tsugiki.training.stage import Config

SHAPE = preset("mixtral-nano")  # 2 layers, 4 experts, 2 of them for each token
LAYERS, EXPERTS, CHOSEN = 2, 4, 2
ROWS, LENGTH = 4, 8
ALL_COUNT = torch.ones(ROWS, LENGTH, dtype=torch.bool)
NAMES = list(CONVENTIONS)
SUMMED = [name for name in NAMES if name.startswith("megatron")]


def routing_of(logits_SE, chosen=CHOSEN):
    weights_SK, experts_SK = logits_SE.softmax(dim=-1).topk(chosen, dim=-1)
    return Routing(logits_SE, weights_SK, experts_SK)


def drawn(seed=0, scale=1.0):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(ROWS * LENGTH, EXPERTS, generator=draw) * scale).requires_grad_() for _ in range(LAYERS)
    ]


def loss_of(name, routings, counted_BT=ALL_COUNT, cuts=(ROWS,)):
    """The balance loss a counted token, by our training code, the rows cut into micro-batches."""
    routers = Routers(SHAPE, range(LAYERS), Balancing(balance=1.0, convention=name))
    total, start = 0.0, 0
    for rows in cuts:
        part = slice(start * LENGTH, (start + rows) * LENGTH)
        counted = counted_BT[start : start + rows]
        some = [Routing(*(each[part] for each in routing)) for routing in routings]
        total = total + routers.objective(some, counted, counted.sum(dim=1))
        start += rows
    return total / counted_BT.sum()


def by_transformers(logits, *, layer=None):
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    chosen = tuple(logits) if layer is None else (logits[layer],)
    return load_balancing_loss_func(chosen, EXPERTS, CHOSEN)


def by_megatron(logits):
    """`switch_load_balancing_loss_func` by its documented formula, added up over layers."""
    total = torch.zeros(())
    for logits_SE in logits:
        counts_E = torch.bincount(logits_SE.topk(CHOSEN).indices.flatten(), minlength=EXPERTS)
        sums_E = logits_SE.softmax(dim=-1).sum(dim=0)
        total = total + EXPERTS / (CHOSEN * len(logits_SE) ** 2) * (counts_E * sums_E).sum()
    return total


def even():
    experts_SK = torch.arange(ROWS * LENGTH * CHOSEN).view(-1, CHOSEN) % EXPERTS
    routing = Routing(torch.zeros(ROWS * LENGTH, EXPERTS), torch.full(experts_SK.shape, 0.5), experts_SK)
    return [routing] * LAYERS


def collapsed(expert=1):
    logits_SE = torch.full((ROWS * LENGTH, EXPERTS), -50.0)
    logits_SE[:, expert] = 50.0
    return [routing_of(logits_SE)] * LAYERS


@pytest.mark.parametrize("name", NAMES)
def test_convention_is_k_or_one_a_layer_where_the_load_is_even(name):
    expected = LAYERS * 1.0 if name in SUMMED else CHOSEN
    assert float(loss_of(name, even())) == pytest.approx(expected)
    assert CONVENTIONS[name].even(CHOSEN, LAYERS) == expected


@pytest.mark.parametrize("name", NAMES)
def test_convention_is_e_or_e_over_k_a_layer_where_all_tokens_choose_one(name):
    expected = LAYERS * EXPERTS / CHOSEN if name in SUMMED else EXPERTS
    assert float(loss_of(name, collapsed())) == pytest.approx(expected)
    assert CONVENTIONS[name].collapsed(EXPERTS, CHOSEN, LAYERS) == expected


def test_transformers_has_the_same_even_and_collapsed_values():
    zeros = [torch.zeros(64, EXPERTS) + 1e-6 * torch.randn(64, EXPERTS) for _ in range(LAYERS)]
    assert float(by_transformers(zeros)) == pytest.approx(CHOSEN, rel=1e-4)
    assert float(by_transformers([each.logits_SE for each in collapsed()])) == pytest.approx(EXPERTS)


def test_hugging_face_convention_is_what_transformers_computes_with_its_gradient():
    logits = drawn()
    ours = loss_of("hugging-face", [routing_of(each) for each in logits])
    theirs = by_transformers(logits)
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_layer_convention_is_the_mean_of_what_transformers_computes_of_each_layer():
    logits = drawn(1)
    expected = (by_transformers(logits, layer=0) + by_transformers(logits, layer=1)) / 2
    torch.testing.assert_close(loss_of("layer", [routing_of(each) for each in logits]), expected)


def test_sequence_conventions_are_means_over_sequences():
    logits = drawn(2)
    rows = [[each[row * LENGTH : (row + 1) * LENGTH] for each in logits] for row in range(ROWS)]
    routings = [routing_of(each) for each in logits]
    megatron = sum(by_megatron(row) for row in rows) / ROWS
    torch.testing.assert_close(loss_of("megatron-sequence", routings), megatron)
    torch.testing.assert_close(loss_of("sequence", routings), megatron * CHOSEN / LAYERS)


@pytest.mark.parametrize("name", ["megatron", "megatron-global"])
def test_megatron_conventions_are_its_formula_over_one_micro_batch(name):
    logits = drawn(3)
    torch.testing.assert_close(loss_of(name, [routing_of(each) for each in logits]), by_megatron(logits))


def test_layers_thrown_together_hide_imbalances_that_each_layer_shows():
    one, other = collapsed(0)[0], collapsed(1)[0]
    assert float(loss_of("hugging-face", [one, other])) == pytest.approx(2.0)
    assert float(loss_of("layer", [one, other])) == pytest.approx(4.0)


def test_only_sequences_do_not_depend_on_how_a_batch_is_cut_and_padding_never_counts():
    routings = [routing_of(each) for each in drawn(4, scale=3.0)]
    counted_BT = ALL_COUNT.clone()
    counted_BT[2, 3:] = False
    for name in NAMES:
        whole, cut = (float(loss_of(name, routings, counted_BT, cuts).detach()) for cuts in ((4,), (1, 3)))
        assert (whole == pytest.approx(cut, rel=1e-5)) == name.endswith("sequence"), name
        changed = [routing.logits_SE.detach().clone() for routing in routings]
        for logits_SE in changed:
            logits_SE.view(ROWS, LENGTH, EXPERTS)[2, 3:] = 7.0 * torch.arange(EXPERTS)
        again = float(loss_of(name, [routing_of(each) for each in changed], counted_BT))
        assert again == pytest.approx(whole, rel=1e-5), name


def test_global_batch_counts_the_micro_batches_so_far_and_forgets_them_after_the_step():
    routings = [routing_of(each) for each in drawn(5)]
    routers = Routers(SHAPE, range(LAYERS), Balancing(balance=1.0, convention="megatron-global"))
    halves = []
    for start in (0, 2):
        part = slice(start * LENGTH, (start + 2) * LENGTH)
        some = [Routing(*(each[part] for each in routing)) for routing in routings]
        halves.append(routers.objective(some, ALL_COUNT[:2], ALL_COUNT[:2].sum(dim=1)))
    expected = torch.zeros(())
    for routing in routings:  # f of the whole batch, P of the second half
        f_E = torch.bincount(routing.experts_SK.flatten(), minlength=EXPERTS) / len(routing.logits_SE)
        expected = expected + EXPERTS / CHOSEN * (f_E * routing.logits_SE[part].softmax(dim=-1).sum(0)).sum()
    torch.testing.assert_close(halves[1], expected)
    routers.take()
    torch.testing.assert_close(
        routers.objective(some, ALL_COUNT[2:], ALL_COUNT[2:].sum(dim=1)),
        loss_of("megatron", some, ALL_COUNT[2:], (2,)) * 2 * LENGTH,
    )


@pytest.mark.parametrize("given", NAMES)
@pytest.mark.parametrize("wanted", NAMES)
def test_converted_coefficient_pushes_as_hard_where_layers_and_sequences_are_loaded_alike(given, wanted):
    logits_SE = drawn(6)[0].detach()[:LENGTH].repeat(ROWS, 1).requires_grad_()  # alike in every row
    routings = [routing_of(logits_SE)] * LAYERS
    other = convert_coefficient(0.02, given, wanted, experts_per_token=CHOSEN, layers=LAYERS)
    (ours,), (theirs,) = (
        torch.autograd.grad(weight * loss_of(name, routings), logits_SE)
        for name, weight in ((given, 0.02), (wanted, other))
    )
    torch.testing.assert_close(ours, theirs)
    assert ours.abs().max() > 0


@pytest.mark.parametrize(("layers", "expected"), [(24, 1.67e-3), (28, 1.43e-3)])
def test_converted_coefficient_of_the_papers_models_is_that_of_the_reference(layers, expected):
    found = convert_coefficient(0.02, "hugging-face", "megatron", experts_per_token=2, layers=layers)
    assert found == pytest.approx(expected, rel=5e-3)
    back = convert_coefficient(found, "megatron", "hugging-face", experts_per_token=2, layers=layers)
    assert back == pytest.approx(0.02)


def test_unknown_convention_and_impossible_shapes_are_refused():
    with pytest.raises(InputError, match="megatron-global"):
        convention_of("megatorn-global")
    with pytest.raises(InputError, match="1 or more"):
        convert_coefficient(1.0, "layer", "megatron", experts_per_token=2, layers=0)


def config_of(**settings):
    return Config.model_validate({"model": "base", "data": {"d": 1.0}, "tokens": "1M", **settings})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 0.02),
        ({"balance_convention": "megatron"}, 0.02 * 2 / 32),
        ({"balance_convention": "megatron", "balance_loss": 0.01}, 0.01),
        ({"balance_bias": 0.001}, 0.0),
        ({"balance_bias": 0.001, "balance_loss": 1e-4}, 1e-4),
    ],
)
def test_models_own_weight_is_converted_and_left_out_where_biases_balance(settings, expected):
    found = balancing_of(config_of(**settings), preset("mixtral-8x7b"))
    assert found.balance == pytest.approx(expected)
    assert found.bias_rate == settings.get("balance_bias", 0.0)


def test_pipeline_stages_can_not_throw_layers_together():
    with pytest.raises(ValueError, match="take layer"):
        config_of(balance_convention="hugging-face", parallel={"pipeline": 2})


def test_next_biases_move_by_the_sign_of_the_load_error():
    biases_LE = torch.tensor([[0.5, 0.0, 0.0, 0.0], [0.0] * 4])
    counts_LE = torch.tensor([[10.0, 2.0, 6.0, 6.0], [3.0] * 4])
    moved_LE = next_biases(biases_LE, counts_LE, 0.25)
    assert moved_LE.tolist() == [[0.25, 0.25, 0.0, 0.0], [0.0] * 4]


def test_bias_decides_who_is_chosen_and_not_how_much_they_weigh():
    router = Router(8, MixtureOfExperts(experts=EXPERTS, experts_per_token=CHOSEN, intermediate_size=4))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        router.weight.copy_(torch.randn(router.weight.shape, generator=draw))
    x_SD = torch.randn(20, 8, generator=draw)
    plain = router(x_SD)
    router.selection_bias_E = torch.zeros(EXPERTS)
    zero = router(x_SD)
    assert torch.equal(zero.experts_SK, plain.experts_SK)
    assert torch.equal(zero.weights_SK, plain.weights_SK)
    router.selection_bias_E = torch.tensor([0.0, 0.0, 0.0, 2.0])  # more than any probability
    raised = router(x_SD)
    assert (raised.experts_SK[:, 0] == 3).all()
    probabilities_SK = raised.logits_SE.softmax(dim=-1).gather(1, raised.experts_SK)
    torch.testing.assert_close(
        raised.weights_SK, probabilities_SK / probabilities_SK.sum(dim=-1, keepdim=True)
    )
    raised.weights_SK[:, 0].sum().backward()
    assert router.weight.grad.abs().sum() > 0


def test_biases_even_out_a_lopsided_router_that_nobody_trains():
    """Algorithm 1 of arXiv 2408.15664 on fixed probabilities: the load becomes even, step by step."""
    moe = MixtureOfExperts(experts=EXPERTS, experts_per_token=CHOSEN, intermediate_size=4)
    router, draw = Router(8, moe), torch.Generator().manual_seed(1)
    with torch.no_grad():
        router.weight.copy_(torch.randn(router.weight.shape, generator=draw) * 0.3)
        router.weight[0] += 0.2
    x_SD = torch.randn(400, 8, generator=draw) + 0.5
    biases_LE, worst = torch.zeros(1, EXPERTS), []
    for _ in range(300):
        router.selection_bias_E = biases_LE[0]
        counts_E = torch.bincount(router(x_SD).experts_SK.flatten(), minlength=EXPERTS)
        worst.append(float(counts_E.max() / counts_E.float().mean()))
        biases_LE = next_biases(biases_LE, counts_E[None], 1e-3)
    assert worst[0] > 1.3
    assert worst[-1] < 1.05


def end_of_balancing(experts, chosen, rate, steps=250, tokens=512):
    """Load of the busiest expert over the mean, less 1: at the start, and over the last 50 steps.

    Softmax routers over skewed logits that nothing else moves; the mean over the steps of the last 50.
    """
    draw = torch.Generator().manual_seed(0)
    skew_E = torch.randn(experts, generator=draw) * 0.25
    biases_LE, excess = torch.zeros(1, experts), []
    for _ in range(steps):
        probabilities_SE = (torch.randn(tokens, experts, generator=draw) * 0.5 + skew_E).softmax(dim=-1)
        experts_SK = (probabilities_SE + biases_LE).topk(chosen, dim=-1).indices
        counts_E = torch.bincount(experts_SK.flatten(), minlength=experts)
        excess.append(float(counts_E.max() / counts_E.double().mean() - 1))
        biases_LE = next_biases(biases_LE, counts_E[None], rate)
    return excess[0], sum(excess[-50:]) / 50


@pytest.mark.parametrize(("experts", "chosen"), [(8, 2), (128, 8)])
def test_biases_even_out_a_softmax_router_with_steps_of_a_hundredth_of_its_mean_probability(experts, chosen):
    began, ended = end_of_balancing(experts, chosen, 0.01 / experts)
    _, coarse = end_of_balancing(experts, chosen, 0.01)
    assert ended < began / 3
    if experts > 8:
        assert coarse > 2 * ended  # a step as large as the probabilities only turns the load around
