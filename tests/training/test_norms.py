"""Norms by layer: of the model that trains, before clipping."""

import pytest
import torch

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training.norms import (
    LEAST_RATIO,
    epsilon_warning,
    groups_of,
    medians_of,
    moments_by_group,
    row_of,
    squares_by_group,
)
from tsugiki.training.optimizer import adamw


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


def stepped(epsilon, steps=3):
    """A decoder and its optimizer after some steps on a few of its tokens."""
    decoder = Decoder(preset("llama-nano"))
    initialise(decoder, 0)
    parameters = dict(decoder.named_parameters())
    optimizer = adamw(
        parameters.items(),
        learning_rate=1e-3,
        betas=(0.9, 0.95),
        epsilon=epsilon,
        weight_decay=0.1,
        decay_embeddings=False,
    )
    for number in range(steps):
        optimizer.zero_grad()
        ids = torch.randint(0, 100, (2, 16), generator=torch.Generator().manual_seed(number))
        decoder(ids).square().mean().backward()
        optimizer.step()
    return parameters, optimizer


def test_medians_of_second_moments_over_epsilon_are_those_of_the_numbers(monkeypatch):
    monkeypatch.setattr("tsugiki.training.norms._NUMBERS_AT_ONCE", 1000)
    parameters, optimizer = stepped(1e-8)
    found = medians_of(moments_by_group(parameters, optimizer, 2), 2)
    assert list(found) == ["all", *groups_of(2)]
    for group, prefix in (("all", ""), ("layer 1", "model.layers.1."), ("embedding", "model.embed")):
        seconds = torch.cat(
            [
                optimizer.state[p]["exp_avg_sq"].flatten()
                for n, p in parameters.items()
                if n.startswith(prefix)
            ]
        )
        ratios = (seconds[seconds > 0] / (1 - 0.95**3)).double().sqrt() / 1e-8
        assert found[group] == pytest.approx(float(ratios.median()), rel=0.05)
    unseen = optimizer.state[parameters["model.embed_tokens.weight"]]["exp_avg_sq"] == 0
    assert unseen.any(dim=1).sum() > 400  # rows without a gradient do not count
    assert epsilon_warning(found) is None


def test_epsilon_that_is_not_small_is_warned_of():
    parameters, optimizer = stepped(1.0)
    found = medians_of(moments_by_group(parameters, optimizer, 2), 2)
    assert found["all"] < LEAST_RATIO
    assert "lower epsilon" in epsilon_warning(found)


def test_medians_before_the_first_step_are_none_at_all():
    parameters, optimizer = stepped(1e-8, steps=0)
    assert medians_of(moments_by_group(parameters, optimizer, 2), 2) == {}
    assert epsilon_warning({}) is None


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{"data": 2}, {"tensor": 2}, {"pipeline": 2}])
def test_norms_and_medians_of_several_processes_are_those_of_one(tmp_path, run_stage, scratch, layout):
    settings = {**scratch, "tokens": 1024, "norms_every_steps": 2, "epsilon": 1e-3}
    run_stage(tmp_path / "one", settings)
    run_stage(tmp_path / "two", {**settings, "parallel": layout, "micro_batch_tokens": 64})
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl", event="norms") for name in ("one", "two"))
    assert [row["after_step"] for row in two] == [2, 4]
    for expected, found in zip(one, two, strict=True):
        for name, tolerance in (("gradient", 1e-3), ("weight", 1e-4), ("second_moment_over_epsilon", 0.05)):
            assert found[name] == pytest.approx(expected[name], rel=tolerance)
    for name in ("one", "two"):
        assert "AdamW's epsilon is not small" in (tmp_path / name / "log.txt").read_text()


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
