"""The draws of Drop-Upcycling's released code, against what it does written down plainly."""

from __future__ import annotations

import pytest
import torch

from tsugiki.models.directory import load_decoder
from tsugiki.upcycling.config import Config

IDS = torch.randint(272, (2, 24), generator=torch.Generator().manual_seed(1))
F, D = 160, 64
MATRICES = {"gate_proj": ("w1", 0), "up_proj": ("w3", 0), "down_proj": ("w2", 1)}


def dense_matrix(stored, matrix, layer=0):
    return stored[f"model.layers.{layer}.mlp.{matrix}.weight"]


def logits(directory):
    with torch.inference_mode():
        return load_decoder(directory)(IDS)


def released(before, config, layers=2):
    """Routers and experts by name, drawn from torch's global stream in the order of the released code."""
    torch.manual_seed(config.seed)
    made = {}
    for layer in range(layers):
        rows = torch.rand(config.num_experts, D)
        rows = (rows - rows.mean()) * 0.02 * 12**0.5
        made[f"model.layers.{layer}.block_sparse_moe.gate.weight"] = rows.bfloat16()
    for layer in range(layers):
        for number in range(config.num_experts):
            perm = torch.randperm(F)
            for matrix in ("gate_proj", "down_proj", "up_proj"):
                word, dimension = MATRICES[matrix]
                weights = dense_matrix(before, matrix, layer).index_select(dimension, perm)
                chosen = torch.randperm(F)[: int(F * config.ratio)]
                place = (slice(None), chosen) if dimension else (chosen, slice(None))
                size = weights[place].shape
                if config.method == "noise":
                    weights[place] += torch.normal(mean=0, std=0.02, size=size).bfloat16()
                else:
                    mean, std = weights[place].mean().item(), weights[place].std().item()
                    weights[place] = torch.normal(mean=mean, std=std, size=size).bfloat16()
                made[f"model.layers.{layer}.block_sparse_moe.experts.{number}.{word}.weight"] = weights
    return made


@pytest.mark.parametrize("method", ["drop", "noise"])
def test_released_draws_are_those_of_the_released_code_to_the_bit(method, dense, upcycle, tensors):
    options = {"method": method, "draws": "released", "shared_indices": False, "seed": 1234}
    made = tensors(upcycle(dense, shard_bytes=300_000, **options))
    meant = released(tensors(dense), Config(model="dense", **options))
    assert all(torch.equal(made[name], tensor) for name, tensor in meant.items())
    assert len(meant) == 2 * (1 + 8 * 3)


def test_released_draws_with_nothing_changed_only_shuffle(make_dense, upcycle):
    model = make_dense(dtype=torch.float32)
    made = upcycle(model, draws="released", shared_indices=False, ratio=0)
    assert (logits(made) - logits(model)).abs().max() <= 1e-6
