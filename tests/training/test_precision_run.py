"""The train stage in float8: what it records, and falling back to bfloat16 for good."""

import json

import pytest
from safetensors.torch import load_file

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.errors import InputError
from tsugiki.training.checkpoint_files import STATE
from tsugiki.training.engine import Alone
from tsugiki.training.precision.watch import ROLES


@pytest.fixture(scope="module")
def settings(scratch):
    """Four layers, so that two are in float8."""
    model = {**scratch["model"], "layers": 4, "heads": 4, "kv_heads": 2}
    return {**scratch, "model": model, "precision": "rowwise", "float8_measure_every_steps": 10}


def rows(directory, **wanted):
    return read_metrics(directory / "metrics.jsonl", **wanted)


def test_a_run_in_float8_records_what_is_in_force_and_how_well_numbers_are_kept(
    tmp_path, run_stage, settings
):
    outcome = run_stage(tmp_path, {**settings, "prompts": ["graft language"], "prompt_tokens": 8})
    assert len(outcome.facts["samples"]) > 1  # generation works in float8 too
    steps = rows(tmp_path, last_by="step")
    assert {row["precision"] for row in steps} == {"float8-rowwise"}
    measured = [row for row in steps if "float8_sqnr_weights" in row]
    assert [row["step"] for row in measured] == [1, 11, 21]
    for row in measured:
        assert row["float8_sqnr"] == min(row[f"float8_sqnr_{role}"] for role in ROLES)
        for role in ("weights", "activations", "gradients"):
            assert 30 < row[f"float8_sqnr_{role}"] < 33
            assert 0 <= row[f"float8_underflowed_{role}"] < 0.05
    events = [row for row in rows(tmp_path) if row.get("event") == "float8"]
    assert [row["after_step"] for row in events] == [1, 11, 21]
    matrices = events[0]["matrices"]
    assert {name.split(".")[2] for name in matrices} == {"1", "2"}
    assert len(matrices) == 14
    ratios = [operands[role][0] for operands in matrices.values() for role in operands]
    assert events[0]["worst"]["sqnr"] == pytest.approx(min(ratios), abs=0.01)
    facts = outcome.facts
    assert facts["float8"]["products"] == "emulated"
    assert "float8-rowwise, products emulated" in (tmp_path / "log.txt").read_text()
    assert facts["precision"] == facts["precision_at_end"] == "float8-rowwise"
    assert {name: facts["float8"][name] for name in ("matrices", "high", "small", "share")} == {
        "matrices": 14, "high": 14, "small": 0, "share": 0.5,
    }  # fmt: skip
    assert facts["float8"]["worst"]["sqnr"] == min(row["worst"]["sqnr"] for row in events)
    # 31 dB are above the default threshold, and below another
    assert "below" not in (tmp_path / "log.txt").read_text()
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_badly_kept_numbers_are_warned_of_with_the_matrix(tmp_path, run_stage, settings):
    run_stage(tmp_path, {**settings, "float8_min_sqnr": 40})
    log = (tmp_path / "log.txt").read_text()
    assert "step 11: float8 keeps the" in log
    assert "dB, below 40: keep such layers high" in log
    assert "model.layers." in log


class Killed(BaseException):
    pass


def falling_back(monkeypatch, *, after, killed_after=None):
    """Engines that fall back after so many steps of a process, and that die later."""
    train, count = Alone.train, [0]

    def disturbed(engine, *arguments):
        if count[0] == killed_after:
            raise Killed
        result = train(engine, *arguments)
        count[0] += 1
        if count[0] == after:
            assert engine.fall_back()
        return result

    monkeypatch.setattr(Alone, "train", disturbed)


def test_a_run_that_fell_back_goes_on_in_bfloat16_when_resumed_to_the_bit(
    tmp_path, run_stage, settings, monkeypatch
):
    undisturbed, resumed, plain = (tmp_path / name for name in ("undisturbed", "resumed", "plain"))
    with monkeypatch.context() as patch:
        falling_back(patch, after=8)
        outcome = run_stage(undisturbed, settings)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        falling_back(patch, after=8, killed_after=17)
        run_stage(resumed, settings)
    (state,) = (resumed / "work").glob(f"checkpoint-*10/{STATE}")  # whole before the next one begins
    assert json.loads(state.read_text())["counters"]["precision"] == "bfloat16"
    again = run_stage(resumed, settings)
    assert "this run fell back from float8-rowwise before" in (resumed / "log.txt").read_text()
    for one in (outcome, again):
        assert one.facts["precision"] == "float8-rowwise"
        assert one.facts["precision_at_end"] == "bfloat16"
    precisions = [row["precision"] for row in rows(undisturbed, last_by="step")]
    assert precisions[:7] == ["float8-rowwise"] * 7
    assert set(precisions[8:]) == {"bfloat16"}
    ours, theirs = ([row["loss"] for row in rows(path, last_by="step")] for path in (resumed, undisturbed))
    assert ours == theirs
    ours, theirs = (load_file(path / "model.safetensors") for path in (resumed, undisturbed))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert not [row for row in rows(undisturbed) if row.get("event") == "float8" and row["after_step"] > 8]
    run_stage(plain, settings)
    later = [row["loss"] for row in rows(plain, last_by="step")][8:]
    assert later != [row["loss"] for row in rows(undisturbed, last_by="step")][8:]


@pytest.mark.parametrize("fallback", [True, False])
def test_a_spike_winds_back_and_goes_on_in_bfloat16_where_the_recipe_says_so(
    tmp_path, run_stage, settings, monkeypatch, fallback
):
    train, count = Alone.train, [0]

    def spoiled(engine, *arguments):
        count[0] += 1
        if count[0] == 20:
            for parameter in engine.parameters.values():
                parameter.data.mul_(-3)  # the weights of this step are lost
        return train(engine, *arguments)

    monkeypatch.setattr(Alone, "train", spoiled)
    rule = {"window": 8, "patience": 2, "threshold": 6, "skip_steps": 6}
    more = {"spikes": rule, "checkpoint_every_steps": 3, "tokens": 8192, "float8_fallback": fallback}
    outcome = run_stage(tmp_path, {**settings, **more})
    (left_out,) = outcome.facts["left_out"]
    assert left_out["fell_back"] == fallback
    wound_back = left_out["back_to"]
    precisions = [row["precision"] for row in rows(tmp_path, last_by="step")]
    later = "bfloat16" if fallback else "float8-rowwise"
    assert precisions == ["float8-rowwise"] * wound_back + [later] * (32 - wound_back)
    assert outcome.facts["precision_at_end"] == later


def test_matrices_that_float8_can_not_multiply_are_refused_before_any_work(tmp_path, run_stage, settings):
    model = {**settings["model"], "intermediate_size": 100}
    with pytest.raises(InputError, match=r"multiples of 16; layers\.1\.mlp\.gate_proj") as caught:
        run_stage(tmp_path, {**settings, "model": model})
    assert "bfloat16" in caught.value.hint


@pytest.mark.slow
def test_several_processes_measure_what_one_does(tmp_path, run_stage, settings):
    settings = {**settings, "precision": "float8-rowwise-gw-hp", "float8_measure_every_steps": 100}
    run_stage(tmp_path / "one", {**settings, "micro_batch_tokens": 128})
    outcome = run_stage(tmp_path / "two", {**settings, "parallel": {"data": 2}, "micro_batch_tokens": 128})
    one, two = (
        next(row for row in rows(tmp_path / name) if row.get("event") == "float8") for name in ("one", "two")
    )
    assert one["matrices"].keys() == two["matrices"].keys()
    for name, operands in one["matrices"].items():
        assert two["matrices"][name]["weights"] == operands["weights"]
    assert outcome.facts["precision_at_end"] == "float8-rowwise-gw-hp"
