"""What is written, compared with what the methods' definitions say, and read back by transformers."""

from __future__ import annotations

import hashlib

import pytest
import torch

from tsugiki.artifacts.files import read_json
from tsugiki.models.directory import check_parity, load_decoder, read_config
from tsugiki.models.weights import read_headers
from tsugiki.upcycling.config import Config
from tsugiki.upcycling.draws import chosen_neurons, router_rows

IDS = torch.randint(272, (2, 24), generator=torch.Generator().manual_seed(1))
F, D = 160, 64
MATRICES = {"gate_proj": ("w1", 0), "up_proj": ("w3", 0), "down_proj": ("w2", 1)}


def expert(stored, matrix, number=0, layer=0):
    return stored[f"model.layers.{layer}.block_sparse_moe.experts.{number}.{MATRICES[matrix][0]}.weight"]


def dense_matrix(stored, matrix, layer=0):
    return stored[f"model.layers.{layer}.mlp.{matrix}.weight"]


def logits(directory):
    with torch.inference_mode():
        return load_decoder(directory)(IDS)


def same_neurons(one, other, matrix):
    return (one == other).all(dim=1 - MATRICES[matrix][1])


def digest(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_kept_neurons_keep_the_function(dense, upcycle):
    for options in ({"method": "naive"}, {"method": "drop", "ratio": 0}, {"method": "noise", "ratio": 0}):
        made = upcycle(dense, **options)
        assert (logits(made) - logits(dense)).abs().max() <= 1e-6
        assert check_parity(made, IDS).max_abs_difference <= 1e-6


def test_names_and_types_on_disk_are_mixtrals(dense, upcycle, tensors):
    made = upcycle(dense, num_experts=3)
    before, after = tensors(dense), tensors(made)
    trunk = {name: tensor for name, tensor in before.items() if ".mlp." not in name}
    assert all(torch.equal(after[name], tensor) for name, tensor in trunk.items())
    moe = "model.layers.{}.block_sparse_moe."
    names = {moe.format(layer) + "gate.weight" for layer in range(2)} | {
        f"{moe.format(layer)}experts.{number}.{matrix}.weight"
        for layer in range(2)
        for number in range(3)
        for matrix in ("w1", "w2", "w3")
    }
    assert after.keys() == trunk.keys() | names
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    config = read_json(made / "config.json")
    assert config["architectures"] == ["MixtralForCausalLM"]
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (3, 2)
    assert (config["torch_dtype"], config["router_aux_loss_coef"]) == ("bfloat16", 0.02)


def test_qwen3_becomes_qwen3_moe_in_the_chosen_layers_only(qwen, upcycle, tensors):
    made = upcycle(qwen, method="naive", layers=(1,))
    assert (logits(made) - logits(qwen)).abs().max() <= 2e-6
    assert check_parity(made, IDS).max_abs_difference <= 1e-6
    config = read_json(made / "config.json")
    assert config["architectures"] == ["Qwen3MoeForCausalLM"]
    assert (config["mlp_only_layers"], config["norm_topk_prob"]) == ([0], True)
    after = tensors(made)
    assert after["model.layers.1.mlp.experts.7.gate_proj.weight"].shape == (192, 64)
    assert torch.equal(
        after["model.layers.0.mlp.up_proj.weight"], tensors(qwen)["model.layers.0.mlp.up_proj.weight"]
    )


def test_tied_embeddings_and_float16_survive(make_dense, upcycle):
    tied = make_dense(tied_embeddings=True, dtype=torch.float16)
    made = upcycle(tied, method="naive")
    assert "lm_head.weight" not in read_headers(made)
    assert (logits(made) - logits(tied)).abs().max() <= 1e-6
    assert not torch.equal(logits(upcycle(tied)), logits(tied))


def test_mistrals_window_goes_on(make_dense, upcycle):
    model = make_dense("mistral-nano", dtype=torch.float32)
    made = upcycle(model, method="naive")
    assert read_config(made).sliding_window == 48
    assert check_parity(made, IDS).max_abs_difference <= 1e-6


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.99, 1.0])
def test_drop_redraws_one_set_of_neurons_with_the_statistics_of_what_it_replaces(
    ratio, dense, upcycle, tensors
):
    made = upcycle(dense, ratio=ratio, num_experts=2, seed=3)
    before, after = tensors(dense), tensors(made)
    for layer in range(2):
        for number in range(2):
            sets = []
            for matrix, (_, dimension) in MATRICES.items():
                old, new = dense_matrix(before, matrix, layer), expert(after, matrix, number, layer)
                kept = same_neurons(old, new, matrix)
                changed = (~kept).nonzero().squeeze(1)
                assert len(changed) == int(ratio * F)
                sets.append(changed.tolist())
                replaced = old.index_select(dimension, changed).double()
                drawn = new.index_select(dimension, changed).double()
                error = replaced.std() / drawn.numel() ** 0.5
                assert abs(drawn.mean() - replaced.mean()) < 5 * error
                assert drawn.std() == pytest.approx(float(replaced.std()), rel=5 / (2 * drawn.numel()) ** 0.5)
            assert sets[0] == sets[1] == sets[2]


def test_statistics_are_those_of_the_chosen_neurons_alone(make_dense, upcycle, tensors):
    model = make_dense(dtype=torch.float32)
    config = Config(model="dense", ratio=0.5, seed=3)
    chosen = chosen_neurons(config, 0, 0, "up_proj", F)
    decoder = load_decoder(model)
    up = decoder.model.layers["0"].mlp.up_proj.weight
    with torch.no_grad():
        up.zero_()
        up[chosen] = 5.0 + torch.randn(len(chosen), D, generator=torch.Generator().manual_seed(1))
    from tsugiki.models.directory import save_model
    from tsugiki.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model)
    save_model(decoder, tokenizer, model)
    drawn = expert(tensors(upcycle(model, ratio=0.5, seed=3)), "up_proj")[chosen]
    assert float(drawn.mean()) == pytest.approx(5, abs=0.1)
    assert float(drawn.std()) == pytest.approx(1, abs=0.1)


def test_sets_of_neurons_differ_between_layers_and_experts_and_by_matrix_where_asked():
    config = Config(model="dense")
    sets = {
        tuple(chosen_neurons(config, layer, number, "up_proj", F).tolist())
        for layer in range(3)
        for number in range(8)
    }
    assert len(sets) == 24
    apart = Config(model="dense", shared_indices=False)
    each = [set(chosen_neurons(apart, 0, 0, matrix, 4096).tolist()) for matrix in MATRICES]
    assert len(set.union(*each)) / 4096 == pytest.approx(1 - 0.5**3, abs=0.03)


def test_experts_are_distinct_and_an_expert_does_not_depend_on_how_many_there_are(dense, upcycle, tensors):
    few, many = (tensors(upcycle(dense, num_experts=count)) for count in (3, 5))
    for matrix in MATRICES:
        assert all(
            torch.equal(expert(few, matrix, number), expert(many, matrix, number)) for number in range(3)
        )
        assert not torch.equal(expert(many, matrix, 3), expert(many, matrix, 4))
    assert not torch.equal(expert(few, "up_proj", 0, layer=0), expert(few, "up_proj", 0, layer=1))


def test_neither_threads_nor_files_change_the_weights(dense, upcycle, tensors):
    one = upcycle(dense, workers=1)
    assert digest(one) == digest(upcycle(dense, workers=5))
    cut = upcycle(dense, shard_bytes=100_000, workers=3)
    assert len(list(cut.glob("*.safetensors"))) > 5
    whole = tensors(one)
    assert all(torch.equal(whole[name], tensor) for name, tensor in tensors(cut).items())
    assert tensors(cut).keys() == whole.keys()
    assert digest(upcycle(dense, seed=1))["model.safetensors"] != digest(one)["model.safetensors"]


def test_noise_is_added_to_the_chosen_neurons_with_its_own_deviation(make_dense, upcycle, tensors):
    model = make_dense(dtype=torch.float32)
    made = tensors(upcycle(model, method="noise", noise_std=0.3, num_experts=2))
    for matrix, (_, dimension) in MATRICES.items():
        added = expert(made, matrix) - dense_matrix(tensors(model), matrix)
        changed = (added != 0).any(dim=1 - dimension)
        assert int(changed.sum()) == F // 2
        part = added.index_select(dimension, changed.nonzero().squeeze(1))
        assert float(part.std()) == pytest.approx(0.3, rel=0.05)
        assert abs(float(part.mean())) < 0.02


def test_branch_train_mix_averages_the_trunk_and_keeps_each_models_experts(make_dense, upcycle, tensors):
    models = [make_dense(seed=seed) for seed in (1, 2, 3, 4)]
    made = tensors(upcycle(*models, method="branch-train-mix"))
    sources = [tensors(model) for model in models]
    for name in ("model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight", "lm_head.weight"):
        assert torch.equal(made[name], torch.stack([source[name] for source in sources]).mean(dim=0))
    for number in range(8):
        for matrix in MATRICES:
            assert torch.equal(expert(made, matrix, number, 1), dense_matrix(sources[number // 2], matrix, 1))


ROUTERS = {
    "rand": (0.5, 12**-0.5, (0, 1)),
    "rand-mean0": (0, 12**-0.5, (-0.51, 0.51)),
    "normal-0.02": (0, 0.02, None),
    "normal-0.289": (0, 0.2886751, None),
    "rand-mean0-0.02": (0, 0.02, (-0.036, 0.036)),
}


@pytest.mark.parametrize("start", ROUTERS)
def test_routers_begin_as_their_names_say(start, dense, upcycle, tensors):
    mean, std, ends = ROUTERS[start]
    rows = router_rows(start, 64, 512, torch.Generator().manual_seed(1))
    assert float(rows.std()) == pytest.approx(std, rel=0.02)
    assert float(rows.mean()) == pytest.approx(mean, abs=3 * std / rows.numel() ** 0.5)
    if ends:
        assert ends[0] <= float(rows.min())
        assert float(rows.max()) <= ends[1]
    if "mean0" in start:
        assert abs(float(rows.mean())) < 1e-6
    first, second = (
        tensors(upcycle(dense, router=start))[f"model.layers.{layer}.block_sparse_moe.gate.weight"]
        for layer in (0, 1)
    )
    assert first.shape == (8, D)
    assert not torch.equal(first, second)
