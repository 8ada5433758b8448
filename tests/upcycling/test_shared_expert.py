"""Mixtures with a shared expert: what is written, that the function is kept, and that the proof notices."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tsugiki.artifacts.files import read_json
from tsugiki.errors import StageError
from tsugiki.models.config import preset
from tsugiki.models.directory import check_parity, load_decoder, read_config
from tsugiki.models.generation import generate
from tsugiki.models.weights import read_headers, write_weights
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.convert import open_conversion
from tsugiki.upcycling.counts import parameter_counts, published_flops_per_token
from tsugiki.upcycling.experts import keeps_function, routed_gain, scale_of, shared_gain
from tsugiki.upcycling.planning import estimate
from tsugiki.upcycling.proof import prove
from tsugiki.upcycling.shapes import upcycled_shape

IDS = torch.randint(272, (2, 32), generator=torch.Generator().manual_seed(1))
F_, D = 160, 64
COPY = {"shared_expert": "copy"}
SLICES = {"shared_expert": "slices", "granularity": 4, "num_experts": 12, "experts_per_token": 6}
WAYS = {
    "copy": COPY,
    "copy-of-fine-grained": {**COPY, "granularity": 4, "num_experts": 16, "experts_per_token": 8},
    "copy-of-fifths": {**COPY, "granularity": 5, "num_experts": 15, "experts_per_token": 5},
    "one-slice-of-four": SLICES,
    "two-slices-of-four": {**SLICES, "shared_slices": 2},
    "one-slice-of-five": {**SLICES, "granularity": 5, "num_experts": 8, "experts_per_token": 4},
}


def logits(directory):
    with torch.inference_mode():
        return load_decoder(directory)(IDS)


def named(stored, layer=0):
    """The tensors of a layer's feed-forward, by the rest of their names."""
    start = f"model.layers.{layer}.mlp."
    return {name.removeprefix(start): tensor for name, tensor in stored.items() if name.startswith(start)}


@pytest.fixture(scope="module")
def dense32(make_dense):
    return make_dense(dtype=torch.float32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", [{"method": "naive"}, {"ratio": 0.0}, {"method": "noise", "ratio": 0.0}])
def test_kept_neurons_keep_the_function_in_our_decoder_and_in_transformers(way, method, dense32, upcycle):
    made = upcycle(dense32, **WAYS[way], **method)
    assert (logits(made) - logits(dense32)).abs().max() <= 1e-6
    assert check_parity(made, IDS).max_abs_difference <= 1e-6
    assert read_config(made).family == "qwen2_moe"


@pytest.mark.parametrize("way", WAYS)
def test_without_scaling_the_function_is_lost_by_what_the_parts_add_up_to(way, dense32, upcycle):
    """One layer's output against the sum of its parts: the derivation of the gains, by hand."""
    made = upcycle(dense32, **WAYS[way], method="naive", scaling="none")
    assert (logits(made) - logits(dense32)).abs().max() > 1e-3
    config = Config(model="dense", **WAYS[way])
    mixture, dense = (load_decoder(one).model.layers["1"].mlp for one in (made, dense32))
    x = torch.randn(1, 40, D, generator=torch.Generator().manual_seed(2))
    width = F_ // config.granularity
    kept_back = config.slices_kept_back * width

    def slices(begin, end):
        gate, up, down = dense.gate_proj.weight, dense.up_proj.weight, dense.down_proj.weight
        return F.linear(F.silu(F.linear(x, gate[begin:end])) * F.linear(x, up[begin:end]), down[:, begin:end])

    with torch.no_grad():
        shared = slices(0, F_ if config.shared_expert == "copy" else kept_back)
        meant = 0.5 * shared + slices(kept_back, F_) / config.copy_experts
        torch.testing.assert_close(mixture(x)[0], meant, atol=1e-6, rtol=1e-5)
        whole = shared_gain(config) * 0.5 * shared
        whole = whole + routed_gain(config) * slices(kept_back, F_) / config.copy_experts
        torch.testing.assert_close(whole, dense(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("preset_name", "biases"), [("llama-nano", False), ("qwen2-nano", True)])
def test_names_types_and_weights_on_disk_are_qwen2_moes(preset_name, biases, make_dense, upcycle, tensors):
    source = make_dense(preset_name)
    before = tensors(source)
    if biases:
        drawn = torch.Generator().manual_seed(3)
        before |= {
            name: torch.randn(tensor.shape, generator=drawn).bfloat16()
            for name, tensor in before.items()
            if name.endswith(".bias")
        }
        write_weights(source, before)
    made = upcycle(source, **COPY, num_experts=3, layers=(1,))
    after, config = tensors(made), read_json(made / "config.json")
    assert (config["architectures"], config["model_type"]) == (["Qwen2MoeForCausalLM"], "qwen2_moe")
    assert (config["shared_expert_intermediate_size"], config["moe_intermediate_size"]) == (F_, F_)
    assert (config["norm_topk_prob"], config["mlp_only_layers"]) == (True, [0])
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    matrices = ("gate_proj", "up_proj", "down_proj")
    names = {"gate.weight", "shared_expert_gate.weight"}
    names |= {f"shared_expert.{matrix}.weight" for matrix in matrices}
    names |= {f"experts.{number}.{matrix}.weight" for number in range(3) for matrix in matrices}
    assert named(after, 1).keys() == names
    for matrix in matrices:
        assert torch.equal(
            named(after, 1)[f"shared_expert.{matrix}.weight"], named(before, 1)[f"{matrix}.weight"]
        )
    gate = named(after, 1)["shared_expert_gate.weight"]
    assert gate.shape == (1, D)
    assert not gate.any()
    trunk = {name: tensor for name, tensor in before.items() if "layers.1.mlp." not in name}
    assert all(torch.equal(after[name], tensor) for name, tensor in trunk.items())
    added = after.keys() - trunk.keys() - {f"model.layers.1.mlp.{name}" for name in names}
    meant = set() if biases else {
        f"model.layers.{layer}.self_attn.{one}_proj.bias" for layer in range(2) for one in "qkv"
    }  # fmt: skip
    assert added == meant
    assert not any(after[name].any() for name in added)
    assert (logits(upcycle(source, **COPY, method="naive")) - logits(source)).abs().max() <= 1e-6


def test_shared_slices_are_the_first_and_experts_begin_with_the_others(dense, upcycle, tensors):
    made = named(tensors(upcycle(dense, **SLICES, shared_slices=2, method="naive")))
    before = named(tensors(dense))
    assert made["shared_expert.gate_proj.weight"].shape == (80, D)
    assert torch.equal(made["shared_expert.gate_proj.weight"], before["gate_proj.weight"][:80])
    assert torch.equal(made["shared_expert.up_proj.weight"], before["up_proj.weight"][:80])
    assert torch.equal(made["shared_expert.down_proj.weight"], before["down_proj.weight"][:, :80] * 2)
    for number in range(12):
        rows = slice(80 + number % 2 * 40, 120 + number % 2 * 40)
        assert torch.equal(made[f"experts.{number}.gate_proj.weight"], before["gate_proj.weight"][rows])
        assert torch.equal(
            made[f"experts.{number}.down_proj.weight"], before["down_proj.weight"][:, rows] * 2
        )
        assert torch.equal(made["gate.weight"][number], made["gate.weight"][number // 2 * 2])
    assert not torch.equal(made["gate.weight"][0], made["gate.weight"][2])


def test_drop_changes_a_share_of_the_chosen_experts_and_nothing_of_the_shared_one(dense, upcycle, tensors):
    before = named(tensors(dense))
    for options, part, grain in ((COPY, F_, 1), (SLICES, F_ // 4, 4)):
        made = named(tensors(upcycle(dense, **options, ratio=0.5)))
        assert torch.equal(made["shared_expert.gate_proj.weight"], before["gate_proj.weight"][:part])
        gate = before["gate_proj.weight"][F_ // 4 :] if grain > 1 else before["gate_proj.weight"]
        width = F_ // grain
        same = (made["experts.0.gate_proj.weight"] == gate[:width]).all(dim=1)
        assert int(same.sum()) == width // 2
    halved = named(tensors(upcycle(dense, **COPY, ratio=0.5)))["experts.1.down_proj.weight"]
    kept = (halved == before["down_proj.weight"] / 2).all(dim=0)
    assert int(kept.sum()) == F_ // 2


def test_branch_train_mix_averages_the_shared_expert_as_the_trunk(make_dense, upcycle, tensors):
    models = [make_dense(seed=seed) for seed in (1, 2)]
    made = named(tensors(upcycle(*models, **COPY, method="branch-train-mix", num_experts=4)))
    sources = [named(tensors(model)) for model in models]
    for matrix in ("gate_proj", "up_proj", "down_proj"):
        mean = torch.stack([source[f"{matrix}.weight"] for source in sources]).mean(dim=0)
        assert torch.equal(made[f"shared_expert.{matrix}.weight"], mean)
    assert torch.equal(made["experts.3.gate_proj.weight"], sources[1]["gate_proj.weight"])


def test_neither_threads_nor_files_nor_a_second_run_change_the_weights(dense, upcycle, tensors, tmp_path):
    one = upcycle(dense, **SLICES, workers=1)
    cut = upcycle(dense, **SLICES, workers=5, shard_bytes=60_000, out=tmp_path / "cut")
    whole = tensors(one)
    assert len(list(cut.glob("*.safetensors"))) > 5
    for path in sorted(cut.glob("*.safetensors"))[::2]:
        path.unlink()
    (cut / "config.json").unlink()
    again = upcycle(dense, **SLICES, shard_bytes=60_000, out=cut)
    assert tensors(again).keys() == whole.keys()
    assert all(torch.equal(whole[name], tensor) for name, tensor in tensors(again).items())


@pytest.mark.parametrize(
    ("gain", "scales"),
    [
        (0.5, (1, 1, 0.5)),
        (1.0, (1, 1, 1)),
        (2.0, (1, 1, 2)),
        (8.0, (1, 2, 4)),
        (3.0, (1, 3**0.5, 3**0.5)),
        (1.5, (1, 1.5**0.5, 1.5**0.5)),
    ],
)
def test_scales_multiply_to_the_gain_and_powers_of_two_stay_so(gain, scales):
    found = tuple(scale_of(matrix, gain, "exact") for matrix in ("gate_proj", "up_proj", "down_proj"))
    assert found == pytest.approx(scales, rel=1e-15)
    assert math.prod(found) == pytest.approx(gain, rel=1e-15)


def test_gains_are_those_of_the_parts():
    def gains(**options):
        config = Config(model="m", **options)
        return routed_gain(config), shared_gain(config), keeps_function(config)

    assert gains() == (1, 1, True)
    assert gains(scaling="none") == (1, 1, True)
    assert gains(granularity=4, num_experts=8, experts_per_token=4) == (4, 1, True)
    assert gains(**COPY) == (0.5, 1, True)
    assert gains(**COPY, scaling="cube-root") == (0.5, 1, False)
    assert gains(**SLICES) == (3, 2, True)
    assert gains(**SLICES, scaling="none") == (3, 2, False)
    assert gains(**{**SLICES, "granularity": 2, "num_experts": 8, "experts_per_token": 2}) == (1, 2, True)


# Proof.
def proved(dense, made, **options):
    config = Config(model="dense", **options)
    return prove(open_conversion([dense], made, config), [dense], made, IDS)


@pytest.mark.parametrize("way", ["copy", "copy-of-fine-grained", "one-slice-of-four", "two-slices-of-four"])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_measured_figures_are_those_of_theory(way, ratio, make_dense, upcycle):
    wide = make_dense(hidden_size=128, intermediate_size=1024, head_dim=32, dtype=torch.float32)
    proof = proved(wide, upcycle(wide, **WAYS[way], ratio=ratio), **WAYS[way], ratio=ratio)
    assert proof.function_difference <= 1e-6
    for layer in proof.layers:
        assert (layer.intact_share, layer.shared_intact) == (1 - ratio, 1.0)
        assert layer.cosine_dense == pytest.approx(1 - ratio, abs=0.06)
        assert layer.cosine_experts == pytest.approx((1 - ratio) ** 2, abs=0.06)
        assert layer.norm == pytest.approx(layer.expected_norm, abs=0.03)
    if ratio == 0:
        assert proof.result_difference <= 1e-6
        assert proof.layers[0].expected_norm == pytest.approx(1, abs=1e-3)


def test_a_shared_expert_keeps_the_mixture_nearer_to_the_dense_model(make_dense, upcycle):
    wide = make_dense(hidden_size=128, intermediate_size=1024, head_dim=32, dtype=torch.float32)
    plain, shared = (proved(wide, upcycle(wide, **options), **options) for options in ({}, COPY))
    assert shared.divergence < 0.5 * plain.divergence
    # Two equal weights, half of the neurons kept: a quarter of each part's square, and twice their overlap.
    meant = math.sqrt(0.25 * (1 + 0.25) / 2 + 0.25 + 0.25)
    assert shared.layers[0].norm == pytest.approx(meant, abs=0.02)


@pytest.mark.parametrize("harm", ["shared_expert.up_proj", "shared_expert_gate", "self_attn.k_proj.bias"])
def test_proof_notices_a_changed_shared_expert_gate_or_bias(harm, dense32, upcycle, tensors):
    made = upcycle(dense32, **COPY)
    assert proved(dense32, made, **COPY).function_difference <= 1e-6
    held = tensors(made)
    (name,) = [name for name in held if harm in name and "layers.1." in name]
    held[name].view(-1)[3] += 0.5
    write_weights(made, held)
    with pytest.raises(StageError, match="differ from the dense model's"):
        proved(dense32, made, **COPY)


def test_proof_notices_a_single_neuron_of_the_shared_expert_that_is_not_the_dense_models(
    dense32, upcycle, tensors
):
    made = upcycle(dense32, **COPY)
    held = tensors(made)
    gate = held["model.layers.1.mlp.shared_expert.gate_proj.weight"]
    gate[7, 3] += 2.0**-18  # the logits are within their tolerance
    write_weights(made, held)
    with pytest.raises(StageError, match=r"layer 1: 0.9938 of the shared expert's neurons"):
        proved(dense32, made, **COPY)


# Counts, plans and use.
def test_counts_are_those_of_the_parts():
    dense = preset("llm-jp-1.5b")
    h, f, layers = dense.hidden_size, dense.intermediate_size, dense.layers
    biases = layers * dense.head_dim * (dense.heads + 2 * dense.kv_heads)
    copy = parameter_counts(upcycled_shape(dense, Config(model="m", **COPY)))
    plain = parameter_counts(upcycled_shape(dense, Config(model="m")))
    shared = layers * (3 * h * f + h) + biases
    assert (copy.total - plain.total, copy.active - plain.active) == (shared, shared)
    options = {"shared_expert": "slices", "granularity": 4, "num_experts": 24, "experts_per_token": 3}
    shape = upcycled_shape(dense, Config(model="m", **options))
    slices = parameter_counts(shape)
    assert (
        slices.active - dense.parameters == layers * h * (24 + 1) + biases
    )  # router and gate: no more is met
    assert slices.total - slices.active == layers * 21 * 3 * h * f // 4
    assert published_flops_per_token(shape, 4096) == pytest.approx(published_flops_per_token(dense, 4096))


def test_forecast_has_the_shape_and_the_bytes_that_are_written(dense, upcycle):
    from tsugiki.artifacts.contract import ArtifactType, Forecast

    given = Forecast(ArtifactType.MODEL, {}, {"model_config": read_json(dense / "config.json")})
    forecast = estimate(Config(model="base", **SLICES), {"base": given})
    made = upcycle(dense, **SLICES)
    assert forecast.facts["model_config"]["shared_expert_intermediate_size"] == 40
    stored = read_headers(made)
    assert forecast.disk_bytes == sum(entry.bytes for entry in stored.values())
    assert forecast.counts["parameters"] == sum(math.prod(entry.shape) for entry in stored.values())


def test_what_was_made_generates_as_the_dense_model_does(dense32, upcycle):
    made, dense = load_decoder(upcycle(dense32, **COPY, method="naive")), load_decoder(dense32)
    assert generate(made, [5, 9, 33], 24) == generate(dense, [5, 9, 33], 24)
    shape = replace(made.config, bos_id=None, eos_id=None)
    assert shape == replace(upcycled_shape(dense.config, Config(model="m", **COPY)), bos_id=None, eos_id=None)
