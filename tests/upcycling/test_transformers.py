"""What is written is loaded by transformers in a process of its own: no name is missing, the logits are ours.

The installed transformers (5) always; transformers 4, whose names in memory are others, where
TSUGIKI_TRANSFORMERS4_PYTHON names the Python of an environment that has it:

    python3 -m venv /tmp/transformers4
    /tmp/transformers4/bin/pip install "transformers<5" torch==2.13.0 numpy
    TSUGIKI_TRANSFORMERS4_PYTHON=/tmp/transformers4/bin/python pytest tests/upcycling/test_transformers.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from tsugiki.models.directory import load_decoder

MODELS = {
    "mixtral": ("llama-nano", {}),
    "mixtral-window": ("mistral-nano", {"method": "noise"}),
    "mixtral-fine-grained": ("llama-nano", {"granularity": 4, "num_experts": 16, "experts_per_token": 8}),
    "qwen3-moe": ("qwen3-nano", {}),
    "qwen2-moe": ("qwen2-nano", {"shared_expert": "copy"}),
    "qwen2-moe-of-llama": (
        "llama-nano",
        {"shared_expert": "slices", "granularity": 4, "num_experts": 12, "experts_per_token": 6},
    ),
    "qwen3-moe-one-layer": ("qwen3-nano", {"layers": (1,), "num_experts": 5, "experts_per_token": 3}),
}
PYTHONS = {"5": sys.executable, "4": os.environ.get("TSUGIKI_TRANSFORMERS4_PYTHON", "")}

LOAD = """
import json, sys
import torch, transformers
from transformers import AutoModelForCausalLM

ids, directories = json.loads(sys.argv[1]), sys.argv[2:]
found = {"version": transformers.__version__}
for directory in directories:
    model, info = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    with torch.inference_mode():
        logits = model.float().eval()(torch.tensor(ids)).logits
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    keys = {kind: sorted(map(str, info[kind])) for kind in kinds}
    found[directory] = {"class": type(model).__name__, "logits": logits.tolist(), **keys}
print(json.dumps(found))
"""
IDS = torch.randint(272, (2, 64), generator=torch.Generator().manual_seed(1))  # longer than Mistral's window


@pytest.fixture(scope="module")
def made(make_dense, upcycle_into, tmp_path_factory):
    """Directory and our logits of every model."""
    root = tmp_path_factory.mktemp("mixtures")
    found = {}
    for name, (preset, options) in MODELS.items():
        shape = {"intermediate_size": 192} if preset == "qwen3-nano" else {}
        upcycle_into(root / name, make_dense(preset, **shape), shard_bytes=300_000, **options)
        with torch.inference_mode():
            found[name] = (root / name, load_decoder(root / name)(IDS))
    return found


@pytest.fixture(scope="module", params=PYTHONS)
def loaded(request, made):
    """What one version of transformers found in every model."""
    if not PYTHONS[request.param]:
        pytest.skip("TSUGIKI_TRANSFORMERS4_PYTHON names no Python")
    directories = [str(directory) for directory, _ in made.values()]
    command = [PYTHONS[request.param], "-c", LOAD, json.dumps(IDS.tolist()), *directories]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"].startswith(f"{request.param}.")
    return found


@pytest.mark.parametrize("name", MODELS)
def test_transformers_finds_every_weight_and_computes_the_same(name, loaded, made):
    directory, ours_BTV = made[name]
    theirs = loaded[str(directory)]
    assert (theirs["missing_keys"], theirs["unexpected_keys"], theirs["mismatched_keys"]) == ([], [], [])
    families = {"mixtral": "Mixtral", "qwen2": "Qwen2Moe", "qwen3": "Qwen3Moe"}
    assert theirs["class"] == f"{families[name.split('-')[0]]}ForCausalLM"
    assert (torch.tensor(theirs["logits"]) - ours_BTV).abs().max() <= 1e-5
