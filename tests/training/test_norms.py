"""Norms by layer: of the model that trains, before clipping."""

import pytest
import torch

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training.norms import groups_of, row_of, squares_by_group


def test_norms_by_group_are_those_of_its_tensors_and_add_up_to_the_whole():
    decoder = Decoder(preset("llama-nano"))
    initialise(decoder, 0)
    decoder(torch.randint(0, 512, (2, 16))).square().mean().backward()
    parameters = dict(decoder.named_parameters())
    row = row_of(squares_by_group(parameters, 2), 2, scale=0.5)
    assert list(row["weight"]) == groups_of(2) == ["layer 0", "layer 1", "embedding", "norm", "head"]
    for group, prefix in (("layer 1", "model.layers.1."), ("embedding", "model.embed"), ("head", "lm_head")):
        held = [parameter for name, parameter in parameters.items() if name.startswith(prefix)]
        weights = torch.cat([parameter.detach().flatten() for parameter in held])
        gradients = torch.cat([parameter.grad.flatten() for parameter in held])
        assert row["weight"][group] == pytest.approx(float(weights.norm()), rel=1e-5)
        assert row["gradient"][group] == pytest.approx(float(gradients.norm()) / 0.5, rel=1e-5)
    whole = sum(value**2 for value in row["weight"].values()) ** 0.5
    assert whole == pytest.approx(  # sums of float32
        float(torch.cat([p.detach().flatten() for p in parameters.values()]).norm()), rel=1e-4
    )


def test_run_writes_norms_whose_sum_is_the_norm_before_clipping(tmp_path, run_stage, scratch):
    run_stage(tmp_path / "run", {**scratch, "tokens": 2048, "norms_every_steps": 4, "clip": 0.1})
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl", event="norms")
    steps = {row["step"]: row for row in read_metrics(tmp_path / "run" / "metrics.jsonl", last_by="step")}
    assert [row["after_step"] for row in rows] == [4, 8]
    for row in rows:
        whole = sum(value**2 for value in row["gradient"].values()) ** 0.5
        assert whole == pytest.approx(steps[row["after_step"]]["gradient_norm"], rel=1e-4)


def test_spike_no_more_is_trained_and_exported_as_a_plain_model(tmp_path, run_stage, scratch):
    model = {**scratch["model"], "spike_no_more": True}
    outcome = run_stage(tmp_path / "run", {**scratch, "model": model, "tokens": 4096})
    assert outcome.facts["parity"]["max_abs_difference"] <= 1e-4
    assert outcome.facts["final_loss"] < outcome.facts["first_loss"]
    config = outcome.facts["model_config"]
    assert "embedding_scale" not in config
    assert config["initializer_range"] == pytest.approx((2 / (5 * 32)) ** 0.5)
