"""Which matrices a float8 recipe covers, what planning says of it, and how recipes are named."""

import importlib.util
from dataclasses import replace

import pytest
import torch

from tsugiki.artifacts.contract import ArtifactType, Forecast
from tsugiki.errors import RecipeError
from tsugiki.models.config import MixtureOfExperts, preset
from tsugiki.models.decoder import Decoder
from tsugiki.models.layers import Linear
from tsugiki.training.planning import layout_problems
from tsugiki.training.precision import recipes
from tsugiki.training.precision.recipes import (
    MEASURED,
    TORCHAO_NAMES,
    float8_problems,
    our_name,
    selection,
    speed_against_bfloat16,
)
from tsugiki.training.stage import Config, estimate

LLAMA_3_8B = "llama-3-8b"


def config_of(**more):
    return Config.model_validate(
        {
            "model": "base",
            "data": {"a": 1.0},
            "tokens": "10B",
            "sequence_length": 4096,
            "batch_tokens": 64 * 4096,
            "warmup": 10,
            "precision": "float8-rowwise",
            "hardware": "h100-80gb",
            "parallel": {"data": 8},
            **more,
        }
    )


def inputs_of(shape):
    counts = {"parameters": shape.parameters, "vocabulary_size": shape.vocabulary_size}
    model = Forecast(ArtifactType.MODEL, counts, {"model_config": shape.to_hf(), "tokenizer": "t"})
    text = Forecast(ArtifactType.DOCUMENTS, {"documents": 10**6, "bytes": 10**12})
    return {"base": model, "a": text}


def problems_of(shape, **more):
    """Problems of the recipe's precision, as planning lists them, by severity."""
    found = estimate(config_of(**more), inputs_of(shape)).problems
    return [
        (problem.severity, problem.message)
        for problem in found
        if problem.where == "precision" and "torch.compile" not in problem.message
    ]


# names


@pytest.mark.parametrize(("ours", "theirs"), TORCHAO_NAMES.items())
def test_torchaos_names_are_understood_and_stored_as_ours(ours, theirs):
    assert our_name(theirs) == our_name(f"float8-{theirs}") == our_name(ours) == ours
    given, plain = (config_of(precision=name) for name in (theirs, ours))
    assert given.precision == ours
    assert given.identity_payload() == plain.identity_payload()


@pytest.mark.parametrize("name", ["float8", "fp8", "delayed", 8])
def test_names_that_are_no_recipe_are_refused(name):
    with pytest.raises((RecipeError, ValueError), match="precision"):
        config_of(precision=name)


def test_options_of_execution_are_no_part_of_the_identity_and_those_of_the_recipe_are():
    plain = config_of().identity_payload()
    execution = {"float8_products": "exact", "float8_measure_every_steps": 7, "float8_min_sqnr": 1.0}
    assert config_of(**execution).identity_payload() == plain
    for change in (
        {"float8_fallback": False},
        {"float8_skip_small": True},
        {"float8_high_layers": {"first": 2}},
    ):
        assert config_of(**change).identity_payload() != plain


# which matrices


def test_the_layers_at_the_ends_stay_high_and_all_seven_matrices_of_the_others_do_not():
    shape = preset("llama-2-7b")
    chosen = selection(config_of(float8_high_layers={"first": 2, "last": 3}), shape)
    layers = {int(matrix.name.split(".")[2]) for matrix in chosen.float8}
    assert layers == set(range(2, 29))
    assert len(chosen.float8) == 27 * 7
    assert len(chosen.high) == 5 * 7
    assert chosen.share == pytest.approx(27 / 32)


def test_the_sizes_are_those_of_the_decoders_matrices():
    import torch

    from tsugiki.models.decoder import Decoder

    shape = replace(preset("llama-nano"), layers=2, vocabulary_size=64)
    with torch.device("meta"):
        decoder = Decoder(shape)
    found = selection(config_of(float8_high_layers={"first": 0, "last": 0}), shape).float8
    named = {
        name.removesuffix(".weight"): tuple(weight.shape)
        for name, weight in decoder.named_parameters()
        if weight.ndim == 2 and "layers" in name
    }
    assert {matrix.name: (matrix.outputs, matrix.inputs) for matrix in found} == named


def test_small_matrices_follow_torchaos_own_filter():
    import torch
    from torchao.float8 import _auto_filter_for_recipe

    sizes = (512, 1024, 1040, 2048, 2064, 4096, 4112, 14336)
    for ours, theirs in list(TORCHAO_NAMES.items())[:2]:
        keep = _auto_filter_for_recipe(theirs, [])
        for n in sizes:
            for k in sizes:
                with torch.device("meta"):
                    module = torch.nn.Linear(k, n)
                matrix = recipes.Matrix("m", n, k, "outputs")
                assert matrix.is_small(ours) == (not keep(module, "m")), (ours, n, k)


def test_skipping_small_matrices_leaves_key_and_value_projections_high():
    shape = preset(LLAMA_3_8B)
    kept, skipped = (selection(config_of(float8_skip_small=skip), shape) for skip in (False, True))
    assert {matrix.name.rpartition(".")[2] for matrix in skipped.small} == {"k_proj", "v_proj"}
    assert not kept.small
    assert len(kept.float8) == len(skipped.float8) + len(skipped.small)
    assert skipped.share < kept.share


# what planning says


def test_a_model_that_fits_has_nothing_but_its_small_matrices_told():
    (problem,) = problems_of(preset(LLAMA_3_8B))
    assert problem[0] == "warning"
    assert "self_attn.k_proj" in problem[1]
    assert "57 more are so small" in problem[1]
    assert not problems_of(preset(LLAMA_3_8B), float8_skip_small=True)
    assert not problems_of(preset(LLAMA_3_8B), precision="bfloat16")


def test_the_forecast_says_that_its_gain_was_measured_with_a_compiler():
    def told(**more):
        return sum("torch.compile" in one.message for one in estimate(config_of(**more), inputs).problems)

    inputs = inputs_of(preset(LLAMA_3_8B))
    assert told() == 1
    assert told(precision="bfloat16") == told(hardware="a100-80gb") == told(compile=True) == 0


@pytest.mark.parametrize("hardware", ["a100-40gb", "a100-80gb"])
def test_hardware_without_float8_is_an_error(hardware):
    found = problems_of(preset(LLAMA_3_8B), hardware=hardware, float8_skip_small=True)
    assert [severity for severity, _ in found] == ["error"]
    assert f"{hardware}: it has no float8 products" in found[0][1]


def test_a_cpu_is_told_to_emulate():
    found = problems_of(preset(LLAMA_3_8B), hardware="cpu", parallel={}, device="cpu", float8_skip_small=True)
    assert [severity for severity, _ in found] == ["warning"]
    assert "emulated" in found[0][1]


def test_sizes_that_are_no_multiple_of_16_are_refused_with_the_names_of_the_matrices_on_a_cpu_too():
    shape = replace(preset("llama-nano"), layers=4, hidden_size=40, intermediate_size=100)
    errors = [
        message
        for severity, message in problems_of(shape, hardware="cpu", parallel={})
        if severity == "error"
    ]
    assert len(errors) == 2
    assert "layers.1.mlp.gate_proj" in errors[0]
    assert "100" in errors[0]
    assert "inputs" in errors[1]
    high = replace(shape, layers=2)
    (only,) = [m for s, m in problems_of(high, hardware="cpu", parallel={}) if s == "error"]
    assert "no matrix of the 2 layers is left" in only


def test_tensor_parallelism_is_refused_where_a_process_would_hold_an_odd_part():
    shape = replace(preset(LLAMA_3_8B), intermediate_size=14336 + 32)
    parallel = {"data": 2, "tensor": 4}
    errors = [message for severity, message in problems_of(shape, parallel=parallel) if severity == "error"]
    assert any("3592 outputs in each of 4 processes" in message for message in errors)
    assert any("3592 inputs in each of 4 processes" in message for message in errors)
    assert not [m for s, m in problems_of(shape, parallel={"data": 4, "tensor": 2}) if s == "error"]


def test_tokens_of_a_micro_batch_have_to_be_a_multiple_of_16_unless_gradients_are_kept_high():
    more = {"sequence_length": 4104, "batch_tokens": 8 * 4104}
    shape = preset(LLAMA_3_8B)
    errors = [message for severity, message in problems_of(shape, **more) if severity == "error"]
    assert any("4104 tokens of a micro-batch" in message for message in errors)
    more["precision"] = "float8-rowwise-gw-hp"
    assert not [message for severity, message in problems_of(shape, **more) if severity == "error"]


def test_a_mixture_of_experts_is_told_how_little_is_in_float8():
    experts = MixtureOfExperts(experts=8, experts_per_token=2, intermediate_size=14336)
    shape = replace(preset("llama-2-7b"), family="mixtral", intermediate_size=14336, moe=experts)
    found = [message for severity, message in problems_of(shape) if "experts" in message]
    assert len(found) == 1
    # attention 4 h^2 of 30 of 32 layers, against 2 experts of 3 h f
    share = 30 / 32 * 4 * 4096**2 / (4 * 4096**2 + 6 * 4096 * 14336)
    assert f"{100 * share:.0f} % of the layers' multiplications" in found[0]


def test_a_shared_expert_is_in_float8_as_a_dense_feed_forward_is():
    shape = preset("qwen1.5-moe-a2.7b")
    found = {matrix.name: matrix for matrix in recipes.matrices_of(shape, 3)}
    with torch.device("meta"):
        modules = dict(Decoder(shape, layers=[3]).named_modules())
    linear = {name: one for name, one in modules.items() if type(one) is Linear and ".layers." in name}
    assert found.keys() == linear.keys()
    for name, matrix in found.items():
        assert (matrix.outputs, matrix.inputs) == (linear[name].out_features, linear[name].in_features)
    assert found["model.layers.3.mlp.shared_expert.down_proj"].cut == "inputs"


def test_without_torchao_the_plan_says_what_to_install(monkeypatch):
    monkeypatch.setattr(recipes, "find_spec", lambda _: None)
    found = [
        problem
        for problem in float8_problems(config_of(), preset(LLAMA_3_8B), 1)
        if problem.severity == "here"
    ]
    assert len(found) == 1
    assert "tsugiki[float8]" in found[0].hint
    assert importlib.util.find_spec("torchao") is not None


def test_other_precisions_have_no_float8_problems():
    odd = replace(preset("llama-nano"), hidden_size=40)
    assert not list(float8_problems(config_of(precision="bfloat16"), odd, 1))
    assert not [p for p in layout_problems(config_of(precision="float32"), odd) if p.where == "precision"]


# speed


def test_the_measured_gains_are_those_of_the_reference():
    gains = {(one.hardware, one.precision): round(100 * (one.gain - 1), 1) for one in MEASURED}
    assert gains == {
        ("h100", "float8-tensorwise"): 25.0,
        ("h100", "float8-rowwise"): 10.0,
        ("mi300x", "float8-tensorwise"): 14.7,
        ("mi300x", "float8-rowwise-gw-hp"): 13.5,
        ("mi300x", "float8-rowwise"): 9.6,
    }


@pytest.mark.parametrize("precision", TORCHAO_NAMES)
def test_the_forecast_of_float8_is_faster_by_the_share_that_is_in_it(precision):
    shape = preset(LLAMA_3_8B)
    inputs = inputs_of(shape)
    plain = estimate(config_of(precision="bfloat16"), inputs).seconds
    faster = estimate(config_of(precision=precision), inputs).seconds
    share = selection(config_of(precision=precision), shape).share
    assert share == pytest.approx(30 / 32)
    # rowwise's gain for all: weights are gathered in bfloat16, which the 25 % of tensorwise were not
    assert plain / faster == pytest.approx(1 + (6768 / 6150 - 1) * share)
    slower = estimate(config_of(precision=precision, hardware="cpu", parallel={}), inputs).seconds
    assert (
        slower > 2.5 * estimate(config_of(precision="bfloat16", hardware="cpu", parallel={}), inputs).seconds
    )
    assert speed_against_bfloat16(config_of(precision="bfloat16"), shape, "h100-80gb") == 1.0


def test_the_memory_of_float8_is_that_of_bfloat16():
    shape = preset(LLAMA_3_8B)
    float8, bfloat16 = (
        estimate(config_of(precision=name), inputs_of(shape)).memory_bytes
        for name in ("float8-rowwise", "bfloat16")
    )
    assert float8 == bfloat16
