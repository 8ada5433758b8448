"""Harm of every kind, and where a run goes on: from weights that were good, whatever went wrong and when."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.errors import StageError
from tsugiki.training import engine
from tsugiki.training.norms import are_finite
from tsugiki.training.optimizer import adamw
from tsugiki.training.spikes import LeftOut

RULE = {"window": 8, "patience": 2, "threshold": 6, "skip_steps": 6}
SETTINGS = {"spikes": RULE, "checkpoint_every_steps": 3, "tokens": 8192, "warmup": 2}
"""32 steps."""


@pytest.fixture
def train(run_stage, scratch, tmp_path):
    """A nano run from scratch: its directory, and its outcome."""

    def go(**settings):
        return tmp_path / "run", run_stage(tmp_path / "run", {**scratch, **SETTINGS, **settings})

    return go


@pytest.fixture
def disturb(monkeypatch):
    """Do something to the engine before or after its n-th step; the steps are counted over rewinds."""

    def arrange(at, before=None, after=None):
        calls = [0]
        real = engine.Alone.train

        def train(self, *arguments):
            calls[0] += 1
            if before is not None and calls[0] in at:
                before(self)
            result = real(self, *arguments)
            if after is not None and calls[0] in at:
                after(self)
            return result

        monkeypatch.setattr(engine.Alone, "train", train)

    return arrange


@torch.no_grad()
def lose_weights(alone):
    for parameter in alone.parameters.values():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


@torch.no_grad()
def break_weights(alone):
    next(iter(alone.parameters.values())).fill_(float("nan"))


def left_out(outcome):
    return [LeftOut(**row) for row in outcome.facts["left_out"]]


def rows_of(directory):
    return read_metrics(directory / "metrics.jsonl", last_by="step")


@pytest.mark.parametrize("part", ["weight", "exp_avg", "exp_avg_sq"])
def test_state_that_is_not_finite_reaches_no_checkpoint_though_no_loss_shows_it(part, train, disturb):
    # the row of a token that no text has: neither loss nor gradient ever sees it
    def break_row(alone):
        parameter = alone.parameters["model.embed_tokens.weight"]
        state = parameter.detach() if part == "weight" else alone.optimizer.state[parameter][part]
        state[unseen] = float("nan")

    unseen = 3
    disturb({11}, before=break_row)
    model = {"preset": "llama-nano", "hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    directory, outcome = train(model={**model, "tied_embeddings": False}, keep_every_steps=3)
    (one,) = left_out(outcome)
    assert (one.kind, one.step, one.back_to, one.first, one.stop) == ("not finite", 11, 9, 9, 12)
    assert outcome.counts["tokens"] == 8192
    kept = sorted((directory / "checkpoints").glob("checkpoint-*"))
    assert [path.name[-2:] for path in kept] == [f"{step:02d}" for step in range(3, 31, 3)]
    for path in [*(place / "part-00000.safetensors" for place in kept), directory / "model.safetensors"]:
        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(path).values()), path


def test_are_finite_looks_at_weights_and_both_moments():
    weight = torch.nn.Parameter(torch.ones(3, 4))
    settings = {"learning_rate": 0.1, "betas": (0.9, 0.95), "epsilon": 1e-8, "weight_decay": 0.1}
    optimizer = adamw([("weight", weight)], **settings, decay_embeddings=False)
    empty = torch.nn.Parameter(torch.ones(0, 4))  # a process may hold none of a small matrix
    assert are_finite({"weight": weight, "empty": empty}, optimizer)
    weight.grad = torch.ones(3, 4)
    optimizer.step()
    assert are_finite({"weight": weight}, optimizer)
    for tensor in (weight.detach(), *(optimizer.state[weight][name] for name in ("exp_avg", "exp_avg_sq"))):
        for damage in (float("nan"), float("inf"), -float("inf")):
            before = tensor[1, 2].item()
            tensor[1, 2] = damage
            assert not are_finite({"weight": weight}, optimizer)
            tensor[1, 2] = before
    assert are_finite({"weight": weight}, optimizer)


def test_checkpoint_whose_own_loss_was_the_first_high_one_is_not_gone_back_to(train, disturb):
    disturb({18}, after=lose_weights)  # the update before the checkpoint
    _, outcome = train()
    (one,) = left_out(outcome)
    assert (one.step, one.back_to, one.first, one.stop) == (19, 15, 15, 20)
    assert outcome.facts["final_loss"] < one.usual_loss


def test_no_checkpoint_is_made_while_losses_are_high(train, disturb):
    # one after every step, two are kept: the third from behind is the one to go back to
    disturb({18}, after=lose_weights)
    _, outcome = train(checkpoint_every_steps=1)
    (one,) = left_out(outcome)
    assert (one.step, one.back_to) == (19, 17)


def test_second_spike_after_the_same_checkpoint_goes_to_an_earlier_one(train, disturb):
    disturb({20, 23}, before=lose_weights)  # step 20, and step 20 again
    directory, outcome = train()
    first, second = left_out(outcome)
    assert (first.step, first.back_to) == (20, 18)
    assert (second.step, second.back_to) == (20, 15)
    assert [row["step"] for row in rows_of(directory)] == list(range(1, 33))


@pytest.mark.parametrize("at", [31, 32])
def test_harm_of_the_last_steps_is_found_before_the_model_is_written(at, train, disturb):
    disturb({at}, after=lose_weights)
    directory, outcome = train(checkpoint_every_steps=4)
    (one,) = left_out(outcome)
    assert (one.kind, one.step, one.back_to) == ("loss spike", 31, 28)
    assert one.loss > 2 * one.usual_loss
    assert outcome.counts["tokens"] == 8192
    assert outcome.facts["final_loss"] < one.usual_loss + 0.2
    assert len(rows_of(directory)) == 32


def test_validation_that_is_not_finite_is_recorded_as_none(train, monkeypatch):
    real = engine.Alone.measure

    def measure(self, held_out):
        return float("nan") if held_out.name == "english" else real(self, held_out)

    monkeypatch.setattr(engine.Alone, "measure", measure)
    measured = {"validation": ["english"], "validation_bytes": 1000, "validation_points": 1}
    directory, outcome = train(tokens=1024, **measured)
    assert [row["bits_per_byte"] for row in outcome.facts["validation"]] == [None, None]
    assert "english nan bits per byte" in (directory / "log.txt").read_text()


def test_one_bad_batch_at_the_end_is_no_harm(train, disturb, monkeypatch):
    def high(alone):
        alone.high = True

    disturb({32}, before=high)
    real = engine.Alone.train

    def train_high(self, *arguments):
        result = real(self, *arguments)
        if getattr(self, "high", False):
            return engine.StepResult(3 * result.nats, result.counted, result.gradient_norm)
        return result

    monkeypatch.setattr(engine.Alone, "train", train_high)
    _, outcome = train()
    assert left_out(outcome) == []


def test_weights_that_the_last_update_broke_are_not_written(train, disturb):
    disturb({32}, after=break_weights)
    directory, outcome = train()
    (one,) = left_out(outcome)
    assert (one.kind, one.step, one.back_to) == ("not finite", 31, 30)
    assert all(
        bool(tensor.isfinite().all()) for tensor in load_file(directory / "model.safetensors").values()
    )


@torch.no_grad()
def blow_up(alone):
    """All weights are finite, and no loss is."""
    alone.parameters["model.norm.weight"].fill_(3e38)


@pytest.mark.parametrize("harm", [break_weights, blow_up])
def test_weights_that_broke_before_a_validation_are_found_before_it(harm, train, disturb):
    disturb({16}, after=harm)
    measured = {"validation": ["english"], "validation_bytes": 1000, "validation_points": 2}
    directory, outcome = train(**measured)
    (one,) = left_out(outcome)
    assert (one.kind, one.step, one.back_to) == ("not finite", 15, 15)
    assert [row["step"] for row in outcome.facts["validation"]] == [0, 16, 32]
    assert len(read_metrics(directory / "metrics.jsonl", event="validation")) == 3


def test_harm_before_the_first_checkpoint_begins_again_with_other_data(train, disturb):
    disturb({14}, after=lose_weights)
    measured = {"validation": ["english"], "validation_bytes": 1000, "validation_points": 1}
    directory, outcome = train(checkpoint_every_steps=20, **measured)
    (one,) = left_out(outcome)
    assert (one.step, one.back_to, one.first, one.stop) == (15, 0, 10, 16)
    assert outcome.counts["tokens"] == 8192
    rows = rows_of(directory)
    before = read_metrics(directory / "metrics.jsonl")
    first = next(row for row in before if row.get("step") == 1)
    assert rows[0]["loss"] == first["loss"]  # the same weights as before
    assert [row["step"] for row in outcome.facts["validation"]] == [0, 32]
    assert "back to the start" in (directory / "log.txt").read_text()


def test_gradients_that_break_before_the_first_checkpoint_begin_again(train, disturb):
    disturb({2}, after=break_weights)
    _, outcome = train()
    first, second = left_out(outcome)
    assert (first.step, first.back_to) == (2, 2)  # other data first, as if they had done it
    assert (second.step, second.back_to) == (2, 0)
    assert outcome.counts["tokens"] == 8192


def test_spike_with_nothing_good_to_go_back_to_is_lived_with_and_recorded(train, disturb):
    disturb({27}, after=lose_weights)  # just before the only checkpoint that is kept
    with pytest.raises(StageError, match="the loss did not fall"):
        train(keep_checkpoints=1, checkpoint_every_steps=9)


@pytest.fixture
def lived_with(train, disturb):
    """A trained model that lost its weights where nothing can be undone, and trained on."""
    disturb({18}, after=lose_weights)
    return train(keep_checkpoints=1, checkpoint_every_steps=9, tokens=40_960)


def test_spike_that_is_lived_with_is_in_metrics_manifest_and_log(lived_with):
    directory, outcome = lived_with
    first, one = left_out(outcome)
    assert (first.step, first.back_to) == (19, 18)  # it may have been the data: tried once
    assert (one.kind, one.step, one.back_to) == ("loss spike", 19, 20)
    assert one.first == one.stop  # no data were left out
    assert one.loss > one.usual_loss
    event = read_metrics(directory / "metrics.jsonl", event="left out")[-1]
    assert (event["seen_at"], event["back_to"]) == (20, 20)
    assert (directory / "log.txt").read_text().count("nothing good to go back to") == 1
    assert outcome.counts["tokens"] == 40_960


def test_most_counts_only_what_left_data_out(tmp_path):
    from tsugiki.training.settings import SpikeRule
    from tsugiki.training.spikes import DataSteps

    data = DataSteps(SpikeRule(**RULE, most=1), tmp_path / "spikes.json")
    for step in (3, 5, 9):
        data.live_with("loss spike", step, loss=9.0, usual_loss=3.0)
    one = data.leave_out("loss spike", 12, 10)
    assert (one.first, one.stop, one.spare) == (10, 13, 0)
    assert [data.of(step, 100) for step in (3, 9, 10, 12)] == [3, 9, 100, 102]
    with pytest.raises(StageError, match="after 1 of 1 times"):
        data.leave_out("loss spike", 20, 18)
    data.write()
    assert json.loads((tmp_path / "spikes.json").read_text())["left_out"][0]["back_to"] == 4


@pytest.mark.parametrize("preset", ["llama-nano", "mixtral-nano"])
def test_losses_beside_the_cross_entropy_that_are_not_finite_are_written_as_none(preset, train, disturb):
    disturb({11}, before=break_weights)
    model = {"preset": preset, "hidden_size": 32, "head_dim": 8}
    directory, outcome = train(model=model, z_loss=1e-4)
    assert [one.kind for one in left_out(outcome)] == ["not finite"] * 2
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if row.get("step") == 11]
    assert [row["z_loss"] is None for row in rows] == [True, True, False]
    assert outcome.counts["tokens"] == 8192


def test_norms_of_weights_that_the_update_broke_are_written_as_none(train, disturb):
    @torch.no_grad()
    def overflow(alone):
        alone.parameters["model.embed_tokens.weight"][0, 0] = float("inf")
        alone.parameters["model.norm.weight"][0] = float("nan")

    disturb({12}, after=overflow)  # the norms are taken after the update, before anything else is looked at
    directory, outcome = train(norms_every_steps=12, tokens=4096)
    assert [one.kind for one in left_out(outcome)] == ["not finite"]
    broken, mended = read_metrics(directory / "metrics.jsonl", event="norms")
    assert [name for name, norm in broken["weight"].items() if norm is None] == ["embedding", "norm"]
    assert None not in mended["weight"].values()
