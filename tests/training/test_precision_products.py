"""Float8 products: against torchao's public way, against float32, and what may go wrong in them."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from tsugiki.dataset.mixture import Batch
from tsugiki.errors import DependencyError, InputError
from tsugiki.models.config import MixtureOfExperts, preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.layers import Linear
from tsugiki.models.products import linear
from tsugiki.training.compute import Compute
from tsugiki.training.precision.products import Float8Product, emulates, recipe_of, use_float8
from tsugiki.training.precision.recipes import TORCHAO_NAMES
from tsugiki.training.precision.watch import ROLES, Gauge, report_of, rounded_to_float8, stacked
from tsugiki.training.stage import Config

RECIPES = tuple(TORCHAO_NAMES)
CPU = torch.device("cpu")
E4M3_LARGEST = 448.0


def decibels(wanted, found):
    noise = (wanted.double() - found.double()).square().sum()
    return float(10 * torch.log10(wanted.double().square().sum() / noise))


def product_of(precision, *, emulate=True):
    return Float8Product(*recipe_of(precision, emulate=emulate))


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def passed(multiply, x, w, grad=None):
    """Output and gradients; without `grad` those of the sum of the squared outputs."""
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    y = multiply(x, w)
    (y.float().square().sum() / 2 if grad is None else (y * grad).float().sum()).backward()
    return y.detach(), x.grad, w.grad


@pytest.mark.parametrize("emulate", [True, False])
@pytest.mark.parametrize(
    ("precision", "gate"),
    [("float8-tensorwise", 21.0), ("float8-rowwise", 23.0), ("float8-rowwise-gw-hp", 25.0)],
)
def test_products_of_gaussian_numbers_keep_the_recipes_signal_to_noise_ratios(precision, gate, emulate):
    # weight gradients of a quadratic loss: the output's own noise comes back in them
    x, w = gaussian(8, 64, 256, seed=1), gaussian(512, 256, seed=2) / 16
    wanted = passed(torch.nn.functional.linear, x, w)
    y, grad_x, grad_w = passed(product_of(precision, emulate=emulate), x, w)
    assert y.dtype == torch.bfloat16
    assert decibels(wanted[0], y) >= 25
    assert decibels(wanted[1], grad_x) >= 20
    assert gate <= decibels(wanted[2], grad_w) < gate + 7


def test_only_gw_hp_keeps_the_weight_gradient_of_a_given_output_gradient_in_bfloat16():
    x, w, grad = gaussian(256, 64, seed=1), gaussian(128, 64, seed=2), gaussian(256, 128, seed=3)
    wanted = passed(torch.nn.functional.linear, x, w, grad)[2]
    found = {name: decibels(wanted, passed(product_of(name), x, w, grad.bfloat16())[2]) for name in RECIPES}
    assert found["float8-tensorwise"] < found["float8-rowwise"] < 32
    assert found["float8-rowwise-gw-hp"] > 45


@pytest.mark.parametrize("precision", RECIPES)
def test_emulated_and_exact_products_are_the_same_recipe(precision):
    x, w, grad = gaussian(64, 64, seed=4), gaussian(48, 64, seed=5), gaussian(64, 48, seed=6).bfloat16()
    exact = passed(product_of(precision, emulate=False), x, w, grad)
    emulated = passed(product_of(precision), x, w, grad)
    others = [passed(product_of(name), x, w, grad) for name in RECIPES if name != precision]
    for number, (ours, theirs) in enumerate(zip(emulated, exact, strict=True)):
        assert decibels(theirs, ours) > 45, number  # bfloat16's own rounding of the results
    assert all(min(map(decibels, exact, other)) < 35 for other in others)


E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def by_definition(x, along, dtype=E4M3, *, powers_of_2=True):
    """Rounded to float8 and back, in float64: one scale, or one for each vector along a dimension."""
    largest = x.abs().amax() if along is None else x.abs().amax(along, keepdim=True)
    scale = torch.finfo(dtype).max / largest.double()
    if powers_of_2:
        scale = 2.0 ** scale.log2().floor()
    return (x * scale.float()).to(dtype).double() / scale


def products_by_definition(precision, x, w, grad):
    """Output and both gradients in float64, from the definition of a recipe."""
    if precision == "float8-tensorwise":
        one = {"along": None, "powers_of_2": False}
        x, w, grad = by_definition(x, **one), by_definition(w, **one), by_definition(grad, dtype=E5M2, **one)
        return x @ w.T, grad @ w, grad.T @ x
    output = by_definition(x, 1) @ by_definition(w, 1).T  # sums go along the inputs
    if precision == "float8-rowwise":
        grad_x = by_definition(grad, 1) @ by_definition(w, 0)
        return output, grad_x, by_definition(grad, 0).T @ by_definition(x, 0)
    return output, by_definition(grad, 1) @ by_definition(w, None), grad.double().T @ x.double()


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("emulate", [True, False])
def test_products_are_those_of_operands_rounded_by_the_recipes_definition(precision, emulate):
    sizes = ((64, 96), (48, 96), (64, 48))
    x, w, grad = (gaussian(*size, seed=20 + number).bfloat16().float() for number, size in enumerate(sizes))
    found = passed(product_of(precision, emulate=emulate), x, w, grad.bfloat16())
    for wanted, ours in zip(products_by_definition(precision, x, w, grad), found, strict=True):
        assert decibels(wanted, ours) > 54  # the rounding of the result to bfloat16


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("emulate", [True, False])
def test_products_are_those_of_torchaos_converted_modules_to_the_bit(precision, emulate):
    from dataclasses import replace

    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    class Holder(torch.nn.Module):
        def __init__(self, weight):
            super().__init__()
            self.linear = torch.nn.Linear(64, 48, bias=False)
            self.linear.weight = torch.nn.Parameter(weight.clone())

    # theirs in the types that ours hands on: float32 where products are emulated, else bfloat16
    dtype = torch.float32 if emulate else torch.bfloat16
    x, w = gaussian(2, 32, 64, seed=7).bfloat16(), gaussian(48, 64, seed=8).bfloat16()
    holder = Holder(w.to(dtype))
    name = TORCHAO_NAMES[precision]
    convert_to_float8_training(
        holder, config=replace(Float8LinearConfig.from_recipe_name(name), emulate=emulate)
    )
    theirs_x = x.to(dtype, copy=True).requires_grad_()
    theirs = holder.linear(theirs_x)
    theirs.backward(theirs.detach().bfloat16().to(dtype))
    x, w = x.float().detach().requires_grad_(), w.float().requires_grad_()
    ours = product_of(precision, emulate=emulate)(x, w)
    ours.backward(ours.detach())
    assert torch.equal(ours, theirs.bfloat16())
    assert torch.equal(x.grad, theirs_x.grad.bfloat16().float())
    assert torch.equal(w.grad, holder.linear.weight.grad.bfloat16().float())


@pytest.mark.parametrize("precision", RECIPES)
def test_autocast_around_a_product_changes_nothing(precision):
    x, w = gaussian(32, 64, seed=9), gaussian(48, 64, seed=10)
    plain = passed(product_of(precision), x, w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = passed(product_of(precision), x, w)
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("emulate", [True, False])
def test_generation_in_inference_mode_has_the_same_numbers(precision, emulate):
    x, w = gaussian(1, 5, 64, seed=9), gaussian(48, 64, seed=10)
    product = product_of(precision, emulate=emulate)
    with torch.inference_mode():
        inside = product(x.bfloat16(), w)
    assert torch.equal(inside, product(x, w))


def test_a_bias_and_further_dimensions_are_as_in_a_plain_product():
    x, w, bias = gaussian(2, 3, 16, 32, seed=11), gaussian(16, 32, seed=12), gaussian(16, seed=13)
    product = product_of("float8-rowwise")
    assert torch.equal(product(x, w, bias), product(x, w) + bias.bfloat16())
    assert product(x, w).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("emulate", [True, False])
def test_huge_and_tiny_operands_stay_finite(precision, emulate):
    x, w, grad = gaussian(64, 64, seed=15), gaussian(48, 64, seed=14), torch.ones(64, 48).bfloat16()
    for factor in (1e30, 1e-30):
        found = passed(product_of(precision, emulate=emulate), x, w * factor, grad)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in found)


@pytest.mark.parametrize("precision", RECIPES)
@pytest.mark.parametrize("damage", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_not_clamped_away(precision, damage):
    x = gaussian(32, 64, seed=16)
    x[3, 5] = damage
    y = product_of(precision)(x, gaussian(48, 64, seed=17))
    assert not bool(torch.isfinite(y[3]).any())


def test_numbers_beyond_the_format_are_clamped_before_the_cast():
    product = product_of("float8-rowwise")  # scales are powers of two: without a clamp 448 may be passed
    x = torch.full((16, 16), 449.0)
    rounded = rounded_to_float8(x, product.config.cast_config_input, product)
    assert float(rounded._data.float().max()) <= E4M3_LARGEST
    assert bool(torch.isfinite(rounded.to_original_precision()).all())


# what the gauge sees


def measured(precision, x, w, grad):
    product, gauge = product_of(precision), Gauge()
    product.gauge = gauge
    passed(product, x, w, grad)
    assert product.gauge is None  # one pass only
    return report_of(["m"], *stacked({"m": gauge}, ["m"], CPU)).matrices["m"]


def test_the_gauge_finds_the_ratios_of_the_operands_as_they_are_rounded():
    x, w, grad = gaussian(64, 64, seed=1), gaussian(48, 64, seed=2), gaussian(64, 48, seed=3).bfloat16()
    found = measured("float8-tensorwise", x, w, grad)
    for role, tensor, dtype in (
        ("activations", x.bfloat16().float(), torch.float8_e4m3fn),
        ("weights", w.bfloat16().float(), torch.float8_e4m3fn),
        ("gradients", grad.float(), torch.float8_e5m2),
    ):
        scale = torch.finfo(dtype).max / tensor.abs().max()
        rounded = (tensor * scale).to(dtype).float() / scale
        assert found[role].sqnr == pytest.approx(decibels(tensor, rounded), abs=1e-3)
        assert found[role].largest == float(tensor.abs().max())
        assert found[role].underflowed == pytest.approx(
            float(((rounded == 0) & (tensor != 0)).float().mean())
        )
    assert 30 < found["activations"].sqnr < 33
    assert 24 < found["gradients"].sqnr < 27


def test_outliers_are_seen_as_noise_and_underflow_and_rowwise_scales_help():
    x = gaussian(64, 64, seed=1)
    x[0, 0] = 1e6
    others = gaussian(48, 64, seed=2), gaussian(64, 48, seed=3).bfloat16()
    one_scale, scale_a_row = (measured(name, x, *others)["activations"] for name in RECIPES[:2])
    assert one_scale.underflowed > 0.9
    assert scale_a_row.underflowed < 0.05
    assert one_scale.largest == scale_a_row.largest == pytest.approx(1e6, rel=1e-2)


def test_gradients_far_below_float32s_squares_are_measured():
    x, w = gaussian(64, 64, seed=1), gaussian(48, 64, seed=2)
    tiny = (gaussian(64, 48, seed=3) * 1e-30).bfloat16()
    found = measured("float8-rowwise", x, w, tiny)["gradients"]
    assert found.largest < 1e-28
    assert found.sqnr is None or found.sqnr < 5  # torchao's scales end at an amax of 1e-12: they are lost
    assert found.underflowed > 0.5


def test_all_zero_operands_have_no_ratio_and_no_division_by_zero():
    found = measured(
        "float8-rowwise", torch.zeros(16, 16), gaussian(16, 16, seed=1), torch.zeros(16, 16).bfloat16()
    )
    assert found["activations"].sqnr is None
    assert found["gradients"].sqnr is None
    assert found["activations"].underflowed == 0


def test_measuring_changes_no_number():
    x, w = gaussian(32, 64, seed=1), gaussian(48, 64, seed=2)
    plain = passed(product_of("float8-rowwise"), x, w)
    product = product_of("float8-rowwise")
    product.gauge = Gauge()
    assert all(torch.equal(a, b) for a, b in zip(plain, passed(product, x, w), strict=True))


def test_sums_of_processes_are_added_and_names_without_a_process_are_left_out():
    def gauged(x):
        product, gauge = product_of("float8-tensorwise"), Gauge()
        product.gauge = gauge
        product(x, gaussian(16, 16, seed=1))
        return gauge

    halves = [gaussian(16, 16, seed=2), 3 * gaussian(16, 16, seed=3)]
    parts = [stacked({"a": gauged(x)}, ["a", "b"], CPU) for x in halves]
    sums = parts[0][0] + parts[1][0]
    maxima = torch.maximum(parts[0][1], parts[1][1])
    report = report_of(["a", "b"], sums, maxima)
    assert set(report.matrices) == {"a"}
    assert set(report.matrices["a"]) == set(ROLES[:2])  # no backward pass
    both = torch.cat(halves).bfloat16().float()
    assert report.matrices["a"]["activations"].largest == float(both.abs().max())


# decoders


def config_of(**more):
    return Config.model_validate(
        {
            "model": {"preset": "llama-nano"},
            "tokenizer": {"train": "a", "size": 320},
            "data": {"a": 1.0},
            "tokens": 16384,
            "precision": "float8-rowwise",
            **more,
        }
    )


SHAPE = {"vocabulary_size": 64, "hidden_size": 32, "intermediate_size": 64, "layers": 4, "heads": 2,
         "kv_heads": 2, "head_dim": 16}  # fmt: skip


def decoder_of(**more):
    from dataclasses import replace

    shape = replace(preset("llama-nano"), **{**SHAPE, **more})
    decoder = Decoder(shape)
    initialise(decoder, 1)
    return decoder


def in_float8(decoder):
    return {
        name
        for name, module in decoder.named_modules()
        if isinstance(module, Linear) and isinstance(module.multiply, Float8Product)
    }


def test_a_decoder_keeps_ends_head_embedding_and_norms_high_and_its_parameters_the_same_objects():
    decoder = decoder_of()
    before = {name: (id(parameter), parameter.clone()) for name, parameter in decoder.named_parameters()}
    float8 = use_float8(config_of(), decoder.config, [decoder], CPU)
    assert float8.precision == "float8-rowwise"
    found = in_float8(decoder)
    assert {name.split(".")[2] for name in found} == {"1", "2"}
    assert len(found) == 2 * 7
    assert decoder.lm_head is None or "lm_head" not in found
    assert float8.fall_back()
    assert not in_float8(decoder)
    assert float8.precision == "bfloat16"
    assert not float8.fall_back()
    for name, parameter in decoder.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert all(module.multiply is linear for module in decoder.modules() if isinstance(module, Linear))


def test_routers_and_experts_of_a_mixture_stay_high_and_it_learns():
    experts = MixtureOfExperts(experts=4, experts_per_token=2, intermediate_size=64)
    decoder = decoder_of(family="mixtral", moe=experts)
    use_float8(config_of(), decoder.config, [decoder], CPU)
    found = {name.rpartition(".")[2] for name in in_float8(decoder)}
    assert found == {"q_proj", "k_proj", "v_proj", "o_proj"}
    ids_BT = np.arange(64, dtype=np.int64).reshape(2, 32)
    batch = Batch(ids_BT, (ids_BT + 1) % 64, np.zeros((2, 32), np.int32), np.zeros(2, np.int64))
    sums = Compute(CPU, bfloat16=True).loss(decoder, batch)
    sums.objective.backward()
    assert float(sums.cross_entropy.detach()) / 64 == pytest.approx(math.log(64), rel=0.05)
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in decoder.parameters())


def test_other_precisions_and_no_watching_leave_everything_alone():
    decoder = decoder_of()
    assert use_float8(config_of(precision="bfloat16"), decoder.config, [decoder], CPU) is None
    float8 = use_float8(config_of(), decoder.config, [decoder], CPU)
    assert float8.report(CPU) is None
    float8.fall_back()
    float8.watch()
    assert float8.report(CPU) is None


def test_without_torchao_the_error_says_how_to_install_it(monkeypatch):
    recipe_of.cache_clear()
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(DependencyError, match="torchao") as caught:
        recipe_of("float8-rowwise", emulate=True)
    assert "tsugiki[float8]" in caught.value.hint
    recipe_of.cache_clear()


def test_the_core_does_not_import_torchao():
    script = (
        "import sys; from tsugiki.training import job, stage; "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'torchao']"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_gpu_without_float8_is_refused_unless_products_are_emulated(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100-SXM4-40GB")
    cuda = torch.device("cuda", 0)
    with pytest.raises(InputError, match=r"A100.*8\.9"):
        emulates("auto", cuda)
    assert emulates("emulated", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert not emulates("auto", cuda)
    assert emulates("auto", CPU)
    assert not emulates("exact", CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", RECIPES)
def test_products_on_a_gpu_agree_with_the_emulation(precision):
    x, w = gaussian(256, 512, seed=1), gaussian(384, 512, seed=2)
    grad = gaussian(256, 384, seed=3).bfloat16()
    expected = passed(product_of(precision), x, w, grad)
    found = passed(product_of(precision, emulate=False), x.cuda(), w.cuda(), grad.cuda())
    for ours, theirs in zip(found, expected, strict=True):
        assert decibels(theirs, ours.cpu()) > 40
