"""Layers compiled by torch.compile: the same losses as without, in every layout."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.training.stage import Config

SHORT = {"tokens": 2560, "validation": ["english"], "validation_bytes": 2000, "validation_points": 2}
FLOAT8 = {
    "precision": "float8-tensorwise",
    "float8_high_layers": {"first": 1, "last": 0},
    "float8_measure_every_steps": 3,
}


def losses(directory):
    return [row["loss"] for row in read_metrics(directory / "metrics.jsonl", last_by="step")]


def held_out(outcome):
    return [row["bits_per_byte"] for row in outcome.facts["validation"]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # the compiler reads what torch warns of reading
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"model": {"preset": "mixtral-nano"}},
        FLOAT8,
        {"parallel": {"data": 2}, "recompute": "full", "precision": "bfloat16"},
        {"parallel": {"pipeline": 2}},
    ],
    ids=str,
)
def test_compiled_layers_have_the_losses_of_uncompiled_ones(more, tmp_path, run_stage, scratch):
    settings = {**scratch, **SHORT, **more}
    plain = run_stage(tmp_path / "plain", settings)
    compiled = run_stage(tmp_path / "compiled", {**settings, "compile": True})
    tolerance = 2e-5 if more.get("precision", "float32") == "float32" else 5e-3
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=tolerance)
    assert held_out(compiled) == pytest.approx(held_out(plain), rel=tolerance)


@pytest.mark.parametrize("degree", ["tensor", "context"])
def test_compiled_layers_on_several_processes_are_refused(degree, scratch):
    with pytest.raises(ValidationError, match=f"compile: true with parallel {degree} 2"):
        Config.model_validate({**scratch, "compile": True, "parallel": {degree: 2}})


def test_compiled_layers_and_selective_recomputation_are_refused(scratch):
    with pytest.raises(ValidationError, match="choose by themselves"):
        Config.model_validate({**scratch, "compile": True, "recompute": "selective"})


@pytest.mark.slow  # it imports the compiler
def test_compiling_without_a_compiler_says_what_is_missing(tmp_path):
    program = (
        "import torch\n"
        "from tsugiki.errors import DependencyError\n"
        "from tsugiki.training.compiling import check_compiler\n"
        "try:\n    check_compiler(torch.device('cpu'))\n"
        "except DependencyError as error:\n    print(error, error.hint)\n"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "CXX": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert "install a C++ compiler" in found.stdout
