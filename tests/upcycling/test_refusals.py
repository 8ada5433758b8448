"""Bad input: settings that contradict each other, models that can not be upcycled, tensors that don't fit."""

from __future__ import annotations

import hashlib

import pytest
import torch

from tsugiki.errors import InputError
from tsugiki.models.weights import write_weights
from tsugiki.upcycling.config import Config


def digest(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ratio": 1.5}, "less than or equal to 1"),
        ({"ratio": -0.1}, "greater than or equal to 0"),
        ({"ratio": float("nan")}, "ratio"),
        ({"experts_per_token": 9}, "more than all 8"),
        ({"granularity": 3}, "has to divide"),
        ({"granularity": 4, "shared_expert": "slices"}, "4 less 1 shared has to divide"),
        ({"granularity": 4, "shared_expert": "slices", "shared_slices": 4}, "leaves none of the 4 slices"),
        ({"shared_expert": "slices"}, "leaves none of the 1 slices"),
        ({"granularity": 2, "shared_slices": 2}, "of use with shared_expert: slices only"),
        ({"shared_expert": "copy", "draws": "released", "shared_indices": False}, "no shared expert"),
        ({"shared_expert": "copy", "target": "mixtral"}, "need each other"),
        ({"target": "qwen2-moe"}, "need each other"),
        ({"method": "branch-train-mix"}, "need each other"),
        ({"models": ("a",)}, "need each other"),
        ({"method": "branch-train-mix", "models": ("a", "b")}, "evenly"),
        ({"draws": "released"}, "shared_indices"),
        ({"layers": (1, 1)}, "twice"),
        ({"layers": ()}, "no layer"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Config(model="dense", **options)


@pytest.mark.parametrize(
    ("preset", "options", "said"),
    [
        ("mixtral-nano", {}, "has 4 experts already"),
        ("qwen3-moe-nano", {}, "has 8 experts already"),
        ("qwen2-moe-nano", {"shared_expert": "copy"}, "has 8 experts already"),
        ("qwen2-nano", {}, "without a shared one has qwen2's attention \\(biases"),
        ("qwen3-nano", {"shared_expert": "copy"}, "norms of queries and keys"),
        ("mistral-nano", {"shared_expert": "copy"}, "sliding window of 48 tokens"),
        ("llama-nano", {"target": "qwen3-moe"}, "norms of queries and keys"),
        ("qwen3-nano", {"target": "mixtral"}, "norms of queries and keys"),
        ("llama-nano", {"layers": (0,)}, "experts in every layer"),
        ("qwen3-nano", {"layers": (0, 2)}, "layers 0 to 1"),
        ("llama-nano", {"granularity": 3, "num_experts": 9, "experts_per_token": 3}, "can't be cut into 3"),
    ],
)
def test_models_that_no_layout_holds_are_refused_before_anything_is_written(
    preset, options, said, make_dense, upcycle, tmp_path
):
    with pytest.raises(InputError, match=said):
        upcycle(make_dense(preset), out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_every_missing_and_unknown_tensor_is_listed(make_dense, upcycle, tensors):
    model = make_dense()
    held = tensors(model)
    held["model.layers.0.mlp.other_proj.weight"] = held.pop("model.layers.0.mlp.up_proj.weight")
    held["model.layers.1.self_attn.q_proj.weight"] = torch.zeros(3, 3)
    write_weights(model, held)
    with pytest.raises(InputError) as caught:
        upcycle(model)
    for said in ("0.mlp.up_proj.weight is missing", "0.mlp.other_proj.weight is not known", "shape [3, 3]"):
        assert said in str(caught.value)


def test_the_source_is_never_overwritten(make_dense, upcycle, tmp_path):
    model = make_dense()
    before = digest(model)
    (tmp_path / "link").symlink_to(model)
    for out in (model, tmp_path / "link", model / ".." / "model"):
        with pytest.raises(InputError, match="overwrite"):
            upcycle(model, out=out)
    assert digest(model) == before


def test_models_that_differ_are_not_mixed(make_dense, upcycle):
    one, other = make_dense(), make_dense(heads=8, kv_heads=4, head_dim=8)
    with pytest.raises(InputError, match="another shape"):
        upcycle(one, other, method="branch-train-mix")
    with pytest.raises(InputError, match="F32 in"):
        upcycle(one, make_dense(dtype=torch.float32), method="branch-train-mix")


def test_weights_of_a_quantised_type_are_refused(make_dense, upcycle, tensors):
    model = make_dense()
    write_weights(model, {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors(model).items()})
    with pytest.raises(InputError, match="F8_E4M3"):
        upcycle(model)
