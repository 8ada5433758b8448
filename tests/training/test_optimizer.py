import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.training.optimizer import adamw, learning_rate
from tsugiki.training.planning import warmup_steps

SWALLOW = {"steps": 25_000, "peak": 1e-4, "minimum": 3.3e-6, "warmup_steps": 1000, "schedule": "cosine"}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1e-7),
        (499, 5e-5),
        (999, 1e-4),
        (1000, 1e-4),
        (1000 + 23999 // 3, 3.3e-6 + 0.75 * (1e-4 - 3.3e-6)),  # cos(pi/3) = 1/2
        (24_999, 3.3e-6),
    ],
)
def test_learning_rate_of_swallow_is_that_of_the_formula(step, expected):
    assert learning_rate(step, **SWALLOW) == pytest.approx(expected, rel=1e-4)


BY_HAND = {
    "cosine": [3, 6, 9, 9, 8.4976, 7.125, 5.25, 3.375, 2.0024, 1.5],  # 5.25 + 3.75 cos(30 degrees x 0..6)
    "linear": [3, 6, 9, 9, 9, 9, 7.125, 5.25, 3.375, 1.5],  # 7.5 less in four steps
    "1-sqrt": [3, 6, 9, 9, 9, 9, 5.25, 3.6967, 2.5048, 1.5],  # by sqrt of 1/4, 2/4, 3/4, 1
    "constant": [3, 6, 9, 9, 9, 9, 9, 9, 9, 9],
}
"""Ten steps, three of them warm-up, from 9 to 1.5; wsd decays in the last four."""


@pytest.mark.parametrize("name", BY_HAND)
def test_learning_rate_of_every_step_is_that_of_a_table_made_by_hand(name):
    given = {"steps": 10, "peak": 9.0, "minimum": 1.5, "warmup_steps": 3, "decay": 0.4}
    if name in {"linear", "1-sqrt"}:
        given |= {"schedule": "wsd", "decay_shape": name}
    else:
        given |= {"schedule": name}
    rates = [learning_rate(step, **given) for step in range(10)]
    assert rates == pytest.approx(BY_HAND[name], abs=1e-4)


def test_learning_rate_constant_stays_at_the_peak():
    rates = [learning_rate(step, **SWALLOW | {"schedule": "constant"}) for step in (1000, 13_000, 24_999)]
    assert rates == [1e-4] * 3


def test_learning_rate_wsd_falls_linearly_over_the_last_tenth():
    rates = [learning_rate(step, **SWALLOW | {"schedule": "wsd"}) for step in range(25_000)]
    assert rates[1000] == rates[22_499] == 1e-4
    assert rates[24_999] == pytest.approx(3.3e-6)
    assert rates[23_749] == pytest.approx((1e-4 + 3.3e-6) / 2, rel=1e-3)


@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 300),
    schedule=st.sampled_from(["cosine", "constant", "wsd"]),
)
def test_learning_rate_rises_then_never_rises_again_and_keeps_its_bounds(steps, warmup, schedule):
    rates = [
        learning_rate(step, steps=steps, peak=1.0, minimum=0.1, warmup_steps=warmup, schedule=schedule)
        for step in range(steps)
    ]
    assert all(0 < rate <= 1 for rate in rates)
    rising, falling = rates[:warmup], rates[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert all(rate >= 0.1 - 1e-12 for rate in falling)


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"), [(0, 50, 0), (0.1, 50, 5), (5, 50, 5), (0.5, 3, 2), (7.0, 9, 7)]
)
def test_warmup_steps_takes_a_number_of_steps_or_a_share(warmup, steps, expected):
    assert warmup_steps(warmup, steps) == expected


@pytest.mark.parametrize(
    ("decay_embeddings", "tied"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_adamw_decays_matrices_but_no_norms(decay_embeddings, tied):
    from dataclasses import replace

    decoder = Decoder(replace(preset("llama-nano"), tied_embeddings=tied))
    initialise(decoder, 0)
    optimizer = adamw(
        decoder.named_parameters(),
        learning_rate=1.0,
        betas=(0.9, 0.95),
        epsilon=1e-8,
        weight_decay=0.1,
        decay_embeddings=decay_embeddings,
    )
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = dict(decoder.named_parameters())
    assert len(decay_of) == len(names)
    for name, parameter in names.items():
        spared = "norm" in name or ("embed_tokens" in name and not decay_embeddings)
        assert decay_of[id(parameter)] == (0.0 if spared else 0.1), name


def test_adamw_leaves_a_row_that_never_occurs_alone():
    decoder = Decoder(preset("llama-nano"))
    initialise(decoder, 0)
    optimizer = adamw(
        decoder.named_parameters(),
        learning_rate=0.1,
        betas=(0.9, 0.95),
        epsilon=1e-8,
        weight_decay=0.5,
        decay_embeddings=False,
    )
    before = decoder.model.embed_tokens.weight.detach().clone()
    decoder(torch.tensor([[1, 2, 3]])).square().sum().backward()
    optimizer.step()
    moved = (decoder.model.embed_tokens.weight != before).any(dim=1).nonzero().flatten().tolist()
    assert moved == [1, 2, 3]


def test_adamw_one_step_is_the_published_update():
    weight = torch.nn.Parameter(torch.tensor([[2.0]]))
    module = torch.nn.Module()
    module.weight = weight
    optimizer = adamw(
        module.named_parameters(),
        learning_rate=0.1,
        betas=(0.9, 0.95),
        epsilon=1e-8,
        weight_decay=0.1,
        decay_embeddings=False,
    )
    for gradient in (0.5, -0.25):
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    first = 2.0 * (1 - 0.01) - 0.1 * 1.0
    m, v = 0.9 * 0.05 - 0.025, 0.95 * 0.0125 + 0.05 * 0.0625
    second = first * (1 - 0.01) - 0.1 * (m / (1 - 0.81)) / (math.sqrt(v / (1 - 0.9025)) + 1e-8)
    assert weight.item() == pytest.approx(second, rel=1e-6)


def test_wsd_decays_over_the_share_asked_for_in_either_shape():
    shared = {"steps": 101, "peak": 1.0, "minimum": 0.0, "warmup_steps": 0, "schedule": "wsd", "decay": 0.5}
    linear = [learning_rate(step, **shared) for step in range(101)]
    root = [learning_rate(step, **shared, decay_shape="1-sqrt") for step in range(101)]
    assert linear[:51] == root[:51] == [1.0] * 51
    assert linear[-1] == root[-1] == 0.0
    assert linear[75] == pytest.approx(0.5)
    assert root[75] == pytest.approx(1 - 0.5**0.5)
