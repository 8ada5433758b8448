"""Copies that are cut into several experts: the function is kept, slices lie where Megatron-Core has them."""

from __future__ import annotations

import pytest
import torch

from tsugiki.models.directory import check_parity, load_decoder, read_config

IDS = torch.randint(272, (2, 24), generator=torch.Generator().manual_seed(1))
F = 160
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


@pytest.mark.parametrize("granularity", [2, 4, 5])
def test_fine_grained_experts_keep_the_function_with_whole_copies_chosen(granularity, make_dense, upcycle):
    model = make_dense(dtype=torch.float32)
    options = {"num_experts": 4 * granularity, "experts_per_token": 2 * granularity, "method": "naive"}
    made = upcycle(model, granularity=granularity, **options)
    assert (logits(made) - logits(model)).abs().max() <= 1e-6
    assert check_parity(made, IDS).max_abs_difference <= 1e-6
    assert read_config(made).intermediate_size == F // granularity
    routings = []
    with torch.inference_mode():
        load_decoder(made).hidden(IDS, routings=routings)
    for routing in routings:
        groups = (routing.experts_SK // granularity).sort(dim=1).values.view(-1, 2, granularity)
        assert (groups == groups[..., :1]).all()
        assert (groups[:, 0, 0] != groups[:, 1, 0]).all()
    unscaled = upcycle(model, granularity=granularity, scaling="none", **options)
    assert (logits(unscaled) - logits(model)).abs().max() > 1e-3


def test_cube_roots_scale_all_three_matrices_and_keep_the_function_only_nearly(make_dense, upcycle, tensors):
    model = make_dense(dtype=torch.float32)
    options = {"num_experts": 8, "experts_per_token": 8, "granularity": 8, "method": "naive"}
    made = upcycle(model, scaling="cube-root", **options)
    for matrix, (_, dimension) in MATRICES.items():
        part = dense_matrix(tensors(model), matrix).narrow(dimension, 3 * (F // 8), F // 8)
        assert torch.equal(expert(tensors(made), matrix, 3), part * 2)
    difference = (logits(made) - logits(model)).abs().max()
    without = (logits(upcycle(model, scaling="none", **options)) - logits(model)).abs().max()
    assert 1e-4 < difference < without / 3


def test_slices_follow_one_another_in_every_copy(dense, upcycle, tensors):
    made, before = (
        tensors(upcycle(dense, method="naive", granularity=4, experts_per_token=4)),
        tensors(dense),
    )
    gate, down = dense_matrix(before, "gate_proj"), dense_matrix(before, "down_proj")
    for number in range(8):
        rows = slice(number % 4 * 40, number % 4 * 40 + 40)
        assert torch.equal(expert(made, "gate_proj", number), gate[rows])
        assert torch.equal(expert(made, "up_proj", number), dense_matrix(before, "up_proj")[rows] * 2)
        assert torch.equal(expert(made, "down_proj", number), down[:, rows] * 2)  # powers of two: exact


def test_drop_and_granularity_together_redraw_a_share_of_each_slice(dense, upcycle, tensors):
    made = tensors(upcycle(dense, granularity=2, ratio=0.25))
    gate = dense_matrix(tensors(dense), "gate_proj")
    for number in range(8):
        kept = same_neurons(
            expert(made, "gate_proj", number), gate[number % 2 * 80 : number % 2 * 80 + 80], "gate_proj"
        )
        assert int(kept.sum()) == 60
