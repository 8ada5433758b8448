"""Loss spikes: found where they are, undone, their data left out, and the accounts exact all the same."""

import json
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.errors import StageError
from tsugiki.training import engine
from tsugiki.training.loop import Counters
from tsugiki.training.settings import SpikeRule
from tsugiki.training.spikes import DataSteps, LeftOut, judge, limit

RULE = {"window": 8, "patience": 2, "threshold": 6, "skip_steps": 6}


@pytest.fixture
def train(run_stage, scratch):
    """A nano run from scratch into a directory: that, and its outcome."""

    def go(directory, **settings):
        return directory, run_stage(directory, {**scratch, **settings})

    return go


@pytest.fixture
def disturb(monkeypatch):
    """Let the engine's n-th step go wrong in some way; the steps are counted over rewinds."""

    def arrange(at, spoil):
        calls = [0]
        real = engine.Alone.train

        def train(self, batch, clip, counted):
            calls[0] += 1
            if calls[0] in at:
                return spoil(self, lambda: real(self, batch, clip, counted))
            return real(self, batch, clip, counted)

        monkeypatch.setattr(engine.Alone, "train", train)
        return calls

    return arrange


def harm_weights(alone, step):
    """Weights that were lost: the loss of this step and of those to come is high."""
    with torch.no_grad():
        for parameter in alone.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return step()


def break_gradient(alone, step):
    hook = next(iter(alone.parameters.values())).register_hook(lambda gradient: gradient * float("nan"))
    try:
        return step()
    finally:
        hook.remove()


def test_steady_losses_are_no_spike():
    counters, rule = Counters(), SpikeRule(**RULE)
    losses = [3 + 0.1 * (-1) ** number - 0.001 * number for number in range(60)]
    assert not any(judge(rule, counters, loss, finite=True, settled=True) for loss in losses)
    assert counters.window == losses[-8:]


def test_one_high_loss_is_no_spike_and_two_in_a_row_are():
    counters, rule = Counters(), SpikeRule(**RULE)
    for loss in [3.0, 3.1, 2.9, 3.0, 3.05, 2.95, 3.0]:
        assert judge(rule, counters, loss, finite=True, settled=True) is None
    assert judge(rule, counters, 9.0, finite=True, settled=True) is None
    assert judge(rule, counters, 3.0, finite=True, settled=True) is None
    assert counters.high == 0
    assert judge(rule, counters, 9.0, finite=True, settled=True) is None
    assert judge(rule, counters, 9.0, finite=True, settled=True) == "loss spike"
    assert 9.0 not in counters.window  # a high loss does not become the usual one


def test_rise_during_the_warm_up_or_where_told_to_ignore_is_no_spike():
    for rule, settled in ((SpikeRule(**RULE), False), (SpikeRule(**RULE, action="ignore"), True)):
        counters = Counters(window=[3.0, 3.1] * 4)
        assert not any(judge(rule, counters, 30.0, finite=True, settled=settled) for _ in range(9))


def test_loss_that_is_not_finite_is_told_at_once():
    counters = Counters()
    assert judge(SpikeRule(**RULE), counters, float("nan"), finite=False, settled=False) == "not finite"
    assert counters.not_finite == 1
    judge(SpikeRule(**RULE), counters, 3.0, finite=True, settled=False)
    assert counters.not_finite == 0


@given(st.lists(st.floats(0.1, 20), min_size=8, max_size=8))
def test_limit_is_above_the_median_by_robust_deviations(losses):
    rule = SpikeRule(**RULE)
    middle = statistics.median(losses)
    deviation = 1.4826 * statistics.median(abs(loss - middle) for loss in losses)
    assert limit(rule, losses) == pytest.approx(middle + max(6 * deviation, 0.05 * middle))
    assert limit(rule, losses[:3]) == float("inf")


def test_data_steps_left_out_take_spare_ones_and_all_others_their_own(tmp_path):
    data = DataSteps(SpikeRule(**RULE), tmp_path / "spikes.json", "a run")
    data.leave_out("loss spike", 14, 10)  # steps 10..14 take spare steps 0..4
    data.leave_out("loss spike", 12, 10)  # again: 10..12 take 5..7, 13 and 14 keep what they have
    data.leave_out("not finite", 20, 20)
    data.leave_out("loss spike", 40, 10)  # no more than six steps at a time
    found = [data.of(step, 100) for step in range(45)]
    expected = list(range(45))
    expected[10:15] = [105, 106, 107, 103, 104]
    expected[20] = 108
    expected[35:41] = range(109, 115)
    assert found == expected
    data.write()
    assert DataSteps.read(data.rule, tmp_path, "a run").left_out == data.left_out
    assert DataSteps.read(data.rule, tmp_path, "another run").left_out == []  # other settings, begun anew


def test_data_left_out_too_often_ends_with_an_error(tmp_path):
    data = DataSteps(SpikeRule(**RULE, most=1), tmp_path / "spikes.json")
    data.leave_out("not finite", 3, 3)
    with pytest.raises(StageError, match="step 6: not finite, after 1 of 1 times"):
        data.leave_out("not finite", 5, 5)


SETTINGS = {"spikes": RULE, "checkpoint_every_steps": 3, "tokens": 8192, "warmup": 2}


def test_run_with_a_spike_goes_back_leaves_the_data_out_and_ends_as_well(tmp_path, train, disturb):
    undisturbed, before = train(tmp_path / "plain", **SETTINGS)
    disturb({20}, harm_weights)
    directory, outcome = train(tmp_path / "spiked", **SETTINGS)
    (one,) = [LeftOut(**row) for row in outcome.facts["left_out"]]
    assert one.kind == "loss spike"
    assert (one.step, one.back_to, one.first, one.stop) == (20, 18, 18, 21)
    assert one.loss > one.usual_loss
    assert outcome.counts["tokens"] == before.counts["tokens"] == 8192
    assert outcome.facts["final_loss"] == pytest.approx(before.facts["final_loss"], rel=0.05)
    rows = read_metrics(directory / "metrics.jsonl", last_by="step")
    assert [row["step"] for row in rows] == list(range(1, 33))
    same = read_metrics(undisturbed / "metrics.jsonl", last_by="step")
    assert [row["loss"] for row in rows[:18]] == [row["loss"] for row in same[:18]]
    assert rows[18]["loss"] != same[18]["loss"]  # other data
    (event,) = read_metrics(directory / "metrics.jsonl", event="left out")
    assert event["back_to"] == 18
    assert "other data" in (directory / "log.txt").read_text()


def test_gradient_that_is_not_finite_is_not_taken_and_its_data_left_out(tmp_path, train, disturb):
    disturb({11}, break_gradient)
    directory, outcome = train(tmp_path / "run", **SETTINGS)
    (one,) = [LeftOut(**row) for row in outcome.facts["left_out"]]
    assert (one.kind, one.step, one.back_to, one.first, one.stop) == ("not finite", 10, 10, 10, 11)
    assert outcome.counts["tokens"] == 8192
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if row.get("step") == 11]
    assert [row["gradient_norm"] is None for row in rows] == [True, False]


def test_gradients_that_stay_not_finite_go_back_and_then_end(tmp_path, train, disturb):
    disturb(set(range(11, 200)), break_gradient)
    with pytest.raises(StageError, match="step 7: not finite") as caught:
        train(tmp_path / "run", **SETTINGS)
    assert "learning_rate" in caught.value.hint
    left_out = json.loads((tmp_path / "run" / "work" / "spikes.json").read_text())["left_out"]
    assert [(one["step"], one["back_to"]) for one in left_out] == [(10, 10), (10, 9), (9, 9), (9, 6), (6, 6)]
    assert [path.name[-2:] for path in (tmp_path / "run" / "work").glob("checkpoint-*")] == ["06"]


@pytest.mark.parametrize("action", ["stop", "ignore"])
def test_other_actions_end_at_the_first_gradient_that_is_not_finite(tmp_path, train, disturb, action):
    disturb({5}, break_gradient)
    with pytest.raises(StageError, match="step 5: not finite"):
        train(tmp_path / "run", **{**SETTINGS, "spikes": {**RULE, "action": action}})


def test_run_killed_after_a_rewind_leaves_the_same_data_out(tmp_path, train, disturb, monkeypatch):
    calls = disturb({20}, harm_weights)
    whole, first = train(tmp_path / "whole", **SETTINGS)

    class Killed(BaseException):
        pass

    calls[0] = 0
    spoilt = engine.Alone.train

    def until_killed(self, batch, clip, counted):
        if calls[0] == 25:
            raise Killed
        return spoilt(self, batch, clip, counted)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Alone, "train", until_killed)
        with pytest.raises(Killed):
            train(tmp_path / "killed", **SETTINGS)
    again, second = train(tmp_path / "killed", **SETTINGS)
    assert len(second.facts["left_out"]) == 1
    assert second.facts["left_out"] == first.facts["left_out"]
    assert second.facts["final_loss"] == first.facts["final_loss"]
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
