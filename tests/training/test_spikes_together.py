"""Loss spikes in several processes: one of them goes wrong, and all of them come to the same judgement."""

from __future__ import annotations

import os

import pytest
import torch

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.training import engine

RULE = {"window": 8, "patience": 2, "threshold": 6, "skip_steps": 6}
SETTINGS = {"spikes": RULE, "checkpoint_every_steps": 3, "tokens": 8192, "warmup": 2, "threads": 1}
LAYOUTS = {"data": {"data": 2}, "tensor": {"tensor": 2}, "pipeline": {"pipeline": 2}}

HARM = """
def harm(parameters, step):
    import torch
    with torch.no_grad():
        for name, parameter in parameters.items():
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            local.copy_(torch.randn(local.shape, generator=torch.Generator().manual_seed(1)))
    return step()
"""
BREAK = """
def harm(parameters, step):
    # Where the gradient is measured, and not by hooks: FSDP sets gradients itself.
    from tsugiki.training import engine
    from tsugiki.training.parallel import together

    def broken(*arguments):
        gradient = next(iter(parameters.values())).grad
        (gradient.to_local() if hasattr(gradient, "to_local") else gradient).fill_(float("nan"))
        return real(*arguments)

    module, name = (together, "own_squares") if "RANK" in os.environ else (engine, "clip_gradients")
    real = getattr(module, name)
    setattr(module, name, broken)
    try:
        return step()
    finally:
        setattr(module, name, real)
"""
LATE = HARM.replace("    return step()", "    return result").replace(
    "    import torch", "    import torch\n    result = step()"
)
BREAK_WEIGHTS = """
def harm(parameters, step):
    import torch
    result = step()
    with torch.no_grad():
        weight = next(iter(parameters.values()))
        (weight.to_local() if hasattr(weight, "to_local") else weight)[-1].fill_(float("nan"))
    return result
"""
CUSTOMISE = """
import os, sys
if os.environ.get("RANK") == "1":
    from tsugiki.training.parallel import together
    calls, real = [0], together.Together.train

    def train(self, *arguments, **more):
        calls[0] += 1
        step = lambda: real(self, *arguments, **more)
        return harm(self.parameters, step) if calls[0] == {at} else step()

    together.Together.train = train
"""


@pytest.fixture
def disturb(monkeypatch, tmp_path):
    """Let the engine's n-th step go wrong: in the second of several processes, or in the only one."""

    def arrange(harm, at):
        place = tmp_path / "customised"
        place.mkdir()
        (place / "sitecustomize.py").write_text("import os\n" + harm + CUSTOMISE.replace("{at}", str(at)))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))
        found: dict = {"os": os}
        exec(harm, found)  # noqa: S102 (the same function in this process)
        calls, real = [0], engine.Alone.train

        def train(self, *arguments, **more):
            calls[0] += 1

            def step():
                return real(self, *arguments, **more)

            return found["harm"](self.parameters, step) if calls[0] == at else step()

        monkeypatch.setattr(engine.Alone, "train", train)

    return arrange


def rows_of(directory):
    return read_metrics(directory / "metrics.jsonl", last_by="step")


CASES = [
    *((layout, HARM, 20, "loss spike", 3) for layout in LAYOUTS),
    *((layout, BREAK, 11, "not finite", 3) for layout in LAYOUTS),
    ("data", LATE, 32, "loss spike", 3),  # the last update, which has no loss of its own
    ("tensor", BREAK_WEIGHTS, 12, "not finite", 3),  # just before a checkpoint
    ("pipeline", LATE, 14, "loss spike", 20),  # before the first checkpoint: all begin again
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "harm", "at", "kind", "every"), CASES, ids=[f"{one[0]}-{one[3]}-at-{one[2]}" for one in CASES]
)
def test_one_process_that_goes_wrong_takes_all_back_as_one_process_does(
    layout, harm, at, kind, every, tmp_path, run_stage, scratch, disturb
) -> None:
    disturb(harm, at)
    settings = {**scratch, **SETTINGS, "checkpoint_every_steps": every}
    alone = run_stage(tmp_path / "alone", settings)
    together = run_stage(
        tmp_path / "together",
        {**settings, "parallel": LAYOUTS[layout], "micro_batch_tokens": 64},
    )
    (expected,), (one,) = alone.facts["left_out"], together.facts["left_out"]
    assert one["kind"] == expected["kind"] == kind
    names = ("step", "back_to", "first", "stop", "spare")
    assert [one[name] for name in names] == [expected[name] for name in names]
    assert together.counts["tokens"] == alone.counts["tokens"] == 8192
    losses = [[row["loss"] for row in rows_of(tmp_path / name)] for name in ("together", "alone")]
    assert len(losses[0]) == 32
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert torch.isfinite(torch.tensor(losses[0])).all()
