"""The planner against what the trainer builds: a real decoder here, fake processes in `planner verify`."""

from __future__ import annotations

import json

import pytest
import torch

from tsugiki.cli import app
from tsugiki.commands import planner_verify
from tsugiki.commands.planner_verify import CASES, Case, Compared
from tsugiki.errors import InputError, StageError
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.planner.kernels import KERNELS
from tsugiki.planner.layout import Layout, Workload
from tsugiki.planner.memory import memory
from tsugiki.training.loss import head_loss
from tsugiki.training.optimizer import adamw

NANOS = ["llama-nano", "mistral-nano", "qwen2-nano", "qwen3-nano", "mixtral-nano"]
NANOS += ["qwen2-moe-nano", "qwen3-moe-nano"]


@pytest.mark.parametrize("name", NANOS)
def test_states_of_one_process_are_what_is_allocated_byte_for_byte(name) -> None:
    shape = preset(name)
    decoder = Decoder(shape)
    initialise(decoder, 0)
    optimizer = adamw(
        decoder.named_parameters(),
        learning_rate=1e-3,
        betas=(0.9, 0.95),
        epsilon=1e-8,
        weight_decay=0.1,
        decay_embeddings=False,
    )
    ids = torch.randint(0, shape.vocabulary_size, (2, 64), generator=torch.Generator().manual_seed(0))
    loss = head_loss(decoder.hidden(ids).flatten(0, 1), decoder.head_weight_VD, ids.flatten())
    loss.objective.backward()
    for parameter in decoder.parameters():
        if parameter.grad is None:  # an expert that no token was sent to
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    (stage,) = memory(
        Workload(shape, 64, 2, "float32"), Layout(micro_batch=2, sharding="weights"), KERNELS["tsugiki"]
    )
    parameters = list(decoder.parameters())
    assert stage.weights == sum(one.nbytes for one in parameters)
    assert stage.gradients == sum(one.grad.nbytes for one in parameters)
    moments = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert stage.optimizer == sum(one.nbytes for one in moments)


def test_fake_processes_hold_what_was_planned() -> None:
    case = Case("llama-nano", (2, 2, 1, 4), 512, 16)
    (built,) = planner_verify._built(case, 2)
    ((states, activations),) = planner_verify._planned(case, 2)
    assert states == built.weights + built.gradients + built.moments
    assert activations == pytest.approx(built.activations, rel=0.05)


def test_cases_reach_from_tiny_to_70b_on_512_processes() -> None:
    sizes = [torch.tensor(case.degrees).prod().item() for case in CASES]
    assert min(sizes) <= 2
    assert max(sizes) == 512
    assert {case.recompute for case in CASES} == {"none", "selective", "full"}


def test_verify_that_finds_a_difference_fails_and_shows_it(monkeypatch, capsys) -> None:
    other = Compared(CASES[0], "data 2", 2, 0, 1000.0, 1000, 110.0, 100.0)
    monkeypatch.setattr(planner_verify, "compare", lambda _: [other])
    monkeypatch.setattr(planner_verify, "CASES", CASES[:1])
    with pytest.raises(StageError, match="1 of 1 stages differ"):
        app(["planner", "verify", "--json"], exit_on_error=False, result_action="return_value")
    (row,) = json.loads(capsys.readouterr().out)
    assert row["holds"] is False
    assert row["ratio"] == pytest.approx(1.1)
    with pytest.raises(StageError):
        app(["planner", "verify"], exit_on_error=False, result_action="return_value")
    assert "10.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("planned_states", "planned_activations", "holds"),
    [(1000.0, 104.0, True), (1000.0, 106.0, False), (1001.0, 100.0, False)],
)
def test_compared_holds_where_states_are_equal_and_activations_near(
    planned_states, planned_activations, holds
) -> None:
    assert Compared(CASES[0], "", 2, 0, planned_states, 1000, planned_activations, 100.0).holds == holds


def test_verify_of_a_model_that_is_not_in_the_grid_is_refused() -> None:
    with pytest.raises(InputError, match="no layout was asked for"):
        app(["planner", "verify", "--model", "gpt-2"], exit_on_error=False, result_action="return_value")
