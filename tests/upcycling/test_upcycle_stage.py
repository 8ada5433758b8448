"""The stage as the workflow calls it: proof, facts, forecast; and proof that notices what is wrong."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch

from tsugiki.artifacts.contract import ArtifactType, Forecast, Inputs, open_workspace
from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.manifest import read_manifest
from tsugiki.errors import InputError, StageError
from tsugiki.models.weights import write_weights
from tsugiki.upcycling import stage
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.convert import open_conversion
from tsugiki.upcycling.experts import neuron_sums, scale_of
from tsugiki.upcycling.measures import expected
from tsugiki.upcycling.proof import prove

IDS = torch.randint(272, (2, 32), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def run(tmp_path):
    """Run the stage; gives its outcome, whose facts are fit for a manifest."""

    def go(*models, root=None, **options):
        root = root or tmp_path / "sparse"
        names = ["base", *(f"model-{number}" for number in range(1, len(models)))]
        config = Config(model="base", models=tuple(names[1:]), **options)
        paths = {name: (path,) for name, path in zip(names, models, strict=True)}
        out = open_workspace(root)
        try:
            outcome = stage.run(config, Inputs(paths), out)
        finally:
            out.metrics.close()
        json.dumps([dict(outcome.counts), dict(outcome.facts)], allow_nan=False)
        return outcome

    return go


@pytest.fixture(scope="module")
def wide(make_dense):
    """Wide enough for theory, which is about many neurons."""
    return make_dense(hidden_size=128, intermediate_size=1024, head_dim=32)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"ratio": 0.5}, 0.5),
        ({"ratio": 0.25}, 0.75),
        ({"ratio": 1.0}, 0.0),
        ({"ratio": 0.5, "shared_indices": False}, 0.125),
        ({"ratio": 0.5, "shared_indices": False, "draws": "released"}, 0.125),
        ({"method": "naive"}, 1.0),
    ],
)
def test_measured_figures_are_those_of_theory(options, kept, wide, run):
    facts = run(wide, **options).facts
    measured, meant = facts["measured"], facts["expected"]
    assert (meant["kept"], meant["alike"]) == (kept, kept**2)
    exact = options.get("shared_indices", True)
    assert measured["intact_share"] == pytest.approx(kept, abs=1 / 1024 if exact else 0.02)
    assert measured["cosine_dense"] == pytest.approx(kept, abs=0.03)
    assert measured["cosine_experts"] == pytest.approx(kept**2, abs=0.03)
    assert measured["norm"] == pytest.approx(meant["norm"], abs=0.03)
    assert meant["norm"] == pytest.approx(math.sqrt((1 + kept**2) / 2), abs=5e-3)  # two weights, nearly equal
    assert facts["function"]["max_abs_logit_difference"] <= 1e-6
    assert facts["transformers_parity"]["max_abs_difference"] <= 1e-6
    assert len(facts["layers"]) == 2


def test_fine_grained_figures_are_those_of_theory(wide, run):
    facts = run(wide, granularity=4, num_experts=16, experts_per_token=8).facts
    assert facts["measured"]["intact_share"] == 0.5
    assert facts["measured"]["cosine_dense"] == pytest.approx(0.5, abs=0.05)
    assert facts["measured"]["cosine_experts"] == pytest.approx(0.25, abs=0.05)
    assert facts["measured"]["norm"] == pytest.approx(facts["expected"]["norm"], abs=0.05)
    assert facts["function"]["max_abs_logit_difference"] <= 1e-6


def test_a_shared_expert_is_in_the_facts_with_its_proof(wide, run):
    outcome = run(wide, shared_expert="slices", granularity=4, num_experts=12, experts_per_token=6)
    facts = outcome.facts
    assert facts["family"] == "qwen2_moe"
    parameters = 3 * 128 * 256 + 128
    assert facts["shared_expert"] == {
        "made_as": "slices", "slices": 1, "width": 256, "parameters": parameters, "gate": 0.5, "scale": 2.0,
        "experts_scale": pytest.approx(3.0),
    }  # fmt: skip
    assert (facts["measured"]["shared_intact"], facts["measured"]["intact_share"]) == (1.0, 0.5)
    assert facts["measured"]["norm"] == pytest.approx(facts["expected"]["norm"], abs=0.05)
    assert facts["function"]["max_abs_logit_difference"] <= 1e-6
    assert facts["transformers_parity"]["max_abs_difference"] <= 1e-6
    assert outcome.counts["active_parameters"] < outcome.counts["parameters"]


def test_branch_train_mix_is_measured_without_theory(make_dense, run):
    facts = run(make_dense(seed=1), make_dense(seed=2), method="branch-train-mix").facts
    assert facts["function"]["max_abs_logit_difference"] is None
    assert facts["expected"] == {"kept": None, "alike": None, "norm": None}
    assert facts["measured"]["intact_share"] == 1.0
    assert facts["result"]["max_abs_logit_difference"] > 1e-3


def test_forecast_is_what_comes_out(dense, run, tmp_path):
    outcome = run(dense)
    config = Config(model="base")
    given = Forecast(
        ArtifactType.MODEL, {}, {"model_config": read_json(dense / "config.json"), "tokenizer": "t"}
    )
    forecast = stage.estimate(config, {"base": given})
    assert {name: outcome.counts[name] for name in forecast.counts} == dict(forecast.counts)
    made = read_json(tmp_path / "sparse" / "config.json")
    assert {**forecast.facts["model_config"], "bos_token_id": 0} == {**made, "bos_token_id": 0}
    weights = (tmp_path / "sparse" / "model.safetensors").stat().st_size
    assert forecast.disk_bytes == pytest.approx(weights, rel=0.01)
    assert outcome.counts["active_parameters"] - outcome.counts["active_parameters_on_cards"] == 2 * 64 * 6


def test_forecast_names_models_that_can_not_be_mixed(dense, qwen):
    shapes = {name: read_json(path / "config.json") for name, path in (("a", dense), ("b", qwen))}
    given = {
        name: Forecast(ArtifactType.MODEL, facts={"model_config": shape}) for name, shape in shapes.items()
    }
    config = Config(model="a", models=("b",), method="branch-train-mix")
    (problem,) = stage.estimate(config, given).problems
    assert (problem.where, "another shape" in problem.message) == ("models.0", True)


def test_threads_are_no_part_of_the_identity():
    one, other = Config(model="m", workers=1), Config(model="m", workers=8)
    assert one.identity_payload() == other.identity_payload()
    assert one.identity_payload() != Config(model="m", ratio=0.4).identity_payload()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.layers.1.self_attn.o_proj.weight", "with every neuron kept"),
        ("model.norm.weight", "with every neuron kept"),
        ("model.layers.0.block_sparse_moe.experts.3.w2.weight", "of the neurons are as in the dense model"),
    ],
)
def test_proof_notices_a_weight_that_is_not_what_it_should_be(name, said, dense, upcycle, tensors):
    made = upcycle(dense)
    held = tensors(made)
    held[name] *= 1.0625
    write_weights(made, held)
    conversion = open_conversion([dense], made / "none", Config(model="dense"))
    with pytest.raises(StageError, match=said):
        prove(conversion, [dense], made, IDS)


def test_proof_notices_experts_in_each_others_place(dense, upcycle, tensors):
    made = upcycle(dense, ratio=0)
    held = tensors(made)
    gate, up = (f"model.layers.0.block_sparse_moe.experts.2.{word}.weight" for word in ("w1", "w3"))
    held[gate], held[up] = held[up], held[gate]
    write_weights(made, held)
    with pytest.raises(StageError, match="1.0000 to 1.0000 were meant to be"):
        prove(open_conversion([dense], made / "none", Config(model="dense", ratio=0)), [dense], made, IDS)


def test_sums_give_the_mean_and_deviation_of_any_neurons():
    matrix = torch.randn(300, 40, generator=torch.Generator().manual_seed(1)).bfloat16()
    for dimension in (0, 1):
        chosen = torch.tensor([3, 7, 20, 39])
        part = matrix.index_select(dimension, chosen).double()
        mean, std = neuron_sums(matrix, dimension).mean_and_std(chosen)
        assert mean == pytest.approx(float(part.mean()), rel=1e-9)
        assert std == pytest.approx(float(part.std()), rel=1e-9)
        assert neuron_sums(matrix, dimension).mean_and_std(torch.empty(0, dtype=torch.int64)) == (0.0, 0.0)


@pytest.mark.parametrize("granularity", [1, 2, 3, 4, 7, 8, 32])
def test_scales_of_slices_multiply_to_the_granularity(granularity):
    exact = [scale_of(matrix, granularity, "exact") for matrix in ("gate_proj", "up_proj", "down_proj")]
    assert exact[0] == 1.0
    assert math.prod(exact) == pytest.approx(granularity)
    if granularity & (granularity - 1) == 0:
        assert all(math.frexp(scale)[0] == 0.5 for scale in exact)
    cubes = [scale_of(matrix, granularity, "cube-root") for matrix in ("gate_proj", "up_proj", "down_proj")]
    assert cubes == pytest.approx([granularity ** (1 / 3)] * 3)


def test_theory_rounds_the_number_of_neurons_down():
    assert expected(Config(model="m", ratio=0.5), 161).kept == 1 - 80 / 161
    assert expected(Config(model="m", method="noise"), 160).kept is None


def tsugiki(*words):
    command = [sys.executable, "-m", "tsugiki", "upcycle", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_command_makes_an_artifact_that_goes_on_and_refuses_its_own_source(dense, tmp_path):
    out = tmp_path / "sparse"
    done = tsugiki(out, "--model", dense, "--ratio", "0.25", "--workers", 1)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(out)
    assert manifest.kind == "upcycle"
    assert manifest.facts["measured"]["intact_share"] == 0.75
    assert len(manifest.files["model.safetensors"].sha256) == 64
    again = tsugiki(tmp_path / "again", "--model", out)
    assert again.returncode != 0
    assert "has 8 experts already" in again.stderr
    over = tsugiki(dense, "--model", dense, "--rebuild")
    assert over.returncode == InputError.exit_code
    assert "is what is read" in over.stderr or "is, or holds, what is read" in over.stderr
    assert (dense / "config.json").exists()
