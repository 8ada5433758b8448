"""Losses of routers: by definition, over any way of cutting a batch up; and what is logged of the load."""

import numpy as np
import pytest
import torch

from tsugiki.dataset.mixture import Batch
from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.moe import Routing, load_balancing_loss, router_z_loss
from tsugiki.training.compute import Compute
from tsugiki.training.counts import count
from tsugiki.training.preparation import balancing_of
from tsugiki.training.routers import Balancing, Routers, attach, routers_of
from tsugiki.training.stage import Config

SHAPE = preset("mixtral-nano")
ROWS, LENGTH = 3, 10


@pytest.fixture
def routings():
    draw = torch.Generator().manual_seed(1)
    found = []
    for _ in range(SHAPE.layers):
        logits_SE = torch.randn(ROWS * LENGTH, 4, generator=draw).requires_grad_()
        weights_SK, experts_SK = logits_SE.softmax(dim=-1).topk(2, dim=-1)
        found.append(Routing(logits_SE, weights_SK, experts_SK))
    return found


@pytest.fixture
def counted_BT():
    return torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(2)) < torch.tensor(
        [[0.9], [0.5], [0]]
    )


def rows_of(routings, start, stop):
    part = slice(start * LENGTH, stop * LENGTH)
    return [Routing(*(each[part] for each in routing)) for routing in routings]


def routers(balance=0.5, z=0.25, convention="sequence"):
    return Routers(SHAPE, range(SHAPE.layers), Balancing(balance, z, convention))


def test_the_objective_is_each_sequences_balance_and_the_z_loss_weighed_by_counted_tokens(
    routings, counted_BT
):
    expected = torch.zeros(())
    for row in range(2):  # the third has no counted token
        kept = counted_BT[row]
        for routing in rows_of(routings, row, row + 1):
            losses = 0.5 * load_balancing_loss([routing], kept) + 0.25 * router_z_loss([routing], kept)
            expected = expected + losses * kept.sum() / SHAPE.layers
    each = routers()
    found = each.objective(routings, counted_BT, counted_BT.sum(dim=1))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    ours, theirs = (
        torch.autograd.grad(value, routings[0].logits_SE, retain_graph=True)[0] for value in (found, expected)
    )
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert (ours[2 * LENGTH :] == 0).all()


def test_micro_batches_add_up_to_the_batch(routings, counted_BT):
    whole, parts = routers(), routers()
    tokens_B = counted_BT.sum(dim=1)
    expected = whole.objective(routings, counted_BT, tokens_B)
    found = sum(
        parts.objective(rows_of(routings, row, row + 1), counted_BT[row : row + 1], tokens_B[row : row + 1])
        for row in range(ROWS)
    )
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    counted = int(counted_BT.sum())
    ours, theirs = (each.figures(each.take(), counted) for each in (parts, whole))
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours["balance_loss"] > 2 * 0.9  # K where the load is even
    assert ours["dropped_tokens"] == 0
    assert float(whole.take().sum()) == 0  # forgotten


def test_the_load_is_the_busiest_experts_tokens_over_the_mean(counted_BT):
    experts_SK = torch.tensor([[0, 1]]).repeat(ROWS * LENGTH, 1)
    one = Routing(torch.zeros(ROWS * LENGTH, 4), torch.full((ROWS * LENGTH, 2), 0.5), experts_SK)
    other = one._replace(experts_SK=torch.tensor([[0, 1], [2, 3]]).repeat(ROWS * LENGTH // 2, 1))
    each = routers()
    everything = torch.ones_like(counted_BT)
    each.objective([one, other], everything, everything.sum(dim=1))
    figures = each.figures(each.take(), ROWS * LENGTH)
    assert (figures["expert_load_max"], figures["expert_load"]) == (2.0, 1.5)


def test_what_is_attached_to_a_stream_gets_its_gradient_beside_the_streams():
    x = torch.ones(2, 3, requires_grad=True)
    weight = torch.tensor(2.0, requires_grad=True)
    stream = attach(x * 1.0, 3.0 * weight)
    assert torch.equal(stream, x)
    (stream.sum() * 7).backward()
    assert torch.equal(x.grad, torch.full((2, 3), 7.0))
    assert float(weight.grad) == 3.0


def test_one_process_adds_the_routers_to_the_objective_and_not_to_the_cross_entropy():
    decoder = Decoder(SHAPE)
    initialise(decoder, 1)
    draw = np.random.default_rng(1)
    ids = draw.integers(0, SHAPE.vocabulary_size, (ROWS, LENGTH + 1))
    batch = Batch(ids[:, :-1], ids[:, 1:], np.zeros((ROWS, LENGTH), np.int32), np.zeros(ROWS, np.int64))
    plain, with_routers = (
        Compute(torch.device("cpu"), routers=each).loss(decoder, batch)
        for each in (None, routers_of(decoder, Balancing(1.0)))
    )
    assert torch.equal(plain.cross_entropy, with_routers.cross_entropy)
    assert float((with_routers.objective - plain.objective).detach()) / (ROWS * LENGTH) == pytest.approx(
        2.0, rel=0.1
    )
    assert routers_of(Decoder(preset("llama-nano")), Balancing(1.0, 1.0)) is None


@pytest.mark.parametrize(("asked", "expected"), [(None, 0.02), (0.0, 0.0), (0.3, 0.3)])
def test_the_weight_of_the_balance_is_the_models_own_unless_given(asked, expected):
    settings = {"model": "base", "data": {"d": 1.0}, "tokens": "1M", "balance_loss": asked}
    config = Config.model_validate(settings)
    assert balancing_of(config, preset("mixtral-8x7b")).balance == expected
    assert balancing_of(config, preset("llama-nano")).balance == (asked or 0.0)


def test_counts_are_by_source_and_leave_out_what_does_not_count():
    targets = np.array([[1, -100, 2], [3, 3, -100], [-100, -100, -100]])
    batch = Batch(targets.clip(0), targets, np.zeros((3, 3), np.int32), np.array([2, 0, 2]))
    counts = count(batch, np.array([9, 1, 2, 3], np.int32), sources=3)
    assert counts.tokens.tolist() == [3, 0, 6]
    assert counts.targets.tolist() == [2, 0, 2]
    assert counts.text_bytes.tolist() == [6, 0, 3]
