"""Attention by blocks of queries: values and gradients are those of the definition."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tsugiki.models import attention
from tsugiki.models.attention import DocumentLayout, attend
from tsugiki.models.block_attention import LONGEST, QUERIES, SHORTEST, attend_blocks, blocks_of, is_for_blocks


def draw(heads, time, width=8, batch=1, seed=0):
    """(B, N, T, H) over memory in the order (B, T, N, H), as projections leave it."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, heads, width, generator=generator).transpose(1, 2).requires_grad_()


def by_definition(q, k, v):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    unseen = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(unseen, -torch.inf).softmax(dim=-1) @ v


def assert_same(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs):
    found, exact = ours(*inputs), theirs(*inputs)
    torch.testing.assert_close(found, exact, atol=2e-6, rtol=1e-4)
    grad = torch.randn(exact.shape, generator=torch.Generator().manual_seed(9))
    gradients = [torch.autograd.grad(out, inputs, grad) for out in (found, exact)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.sampled_from([(1, 1), (4, 4), (6, 2)]), st.integers(1, 3))
def test_attend_blocks_values_and_gradients_are_those_of_the_definition(time, heads, batch):
    inputs = [draw(number, time, batch=batch, seed=seed) for seed, number in enumerate((*heads, heads[1]))]
    assert_same(attend_blocks, by_definition, inputs)


def test_attend_blocks_of_other_memory_orders():
    inputs = [draw(2, 150, batch=2, seed=seed).detach().contiguous().requires_grad_() for seed in range(3)]
    assert_same(attend_blocks, by_definition, inputs)


def test_attend_blocks_of_large_scores_stay_finite():
    q, k, v = (draw(2, 130, seed=seed) for seed in range(3))
    found, exact = attend_blocks(100 * q, 100 * k, v), by_definition(100 * q, 100 * k, v)
    torch.testing.assert_close(found, exact, atol=1e-2, rtol=0)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(found.sum(), (q, k, v)))


@pytest.mark.parametrize("length", [1, QUERIES, QUERIES + 1, 585, 1024])
def test_blocks_cover_every_query_once_and_waste_little(length):
    blocks = blocks_of(2, length)
    assert [block.begin for block in blocks] == [0, *(block.end for block in blocks[:-1])]
    assert blocks[-1].end == 2 * length
    assert {block.first for block in blocks} == {0, length}
    scores = sum((block.end - block.begin) * (block.end - block.first) for block in blocks)
    assert scores <= length * (length + QUERIES)


def watch(monkeypatch):
    """The lengths that go to blocks."""
    taken, original = [], attention.attend_blocks

    def note(q, k, v):
        taken.append(q.shape[2])
        return original(q, k, v)

    monkeypatch.setattr(attention, "attend_blocks", note)
    return taken


def test_attend_takes_blocks_for_documents_of_middle_length_only(monkeypatch):
    taken = watch(monkeypatch)
    lengths = [SHORTEST - 1, SHORTEST, LONGEST, LONGEST + 1]
    numbers = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None]
    inputs = [draw(2, sum(lengths), seed=seed) for seed in range(3)]
    layout = DocumentLayout.from_ids(numbers)
    assert_same(
        lambda q, k, v: attend(q, k, v, layout),
        lambda q, k, v: attention._attend_masked(q, k, v, layout, None),
        inputs,
    )
    assert taken == [SHORTEST, LONGEST]


def test_attend_takes_torchs_kernel_where_nothing_learns_or_somebody_looks_on(monkeypatch):
    taken = watch(monkeypatch)
    inputs = [draw(2, SHORTEST, batch=2, seed=seed) for seed in range(3)]
    trained = attend(*inputs)
    assert taken == [SHORTEST]
    with torch.no_grad():
        torch.testing.assert_close(attend(*inputs), trained)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attend(*inputs)
    with FlopCounterMode(display=False):
        attend(*inputs)
    attend(*inputs, window=50)
    assert taken == [SHORTEST]


def test_attend_blocks_gives_the_same_bits_again():
    inputs = [draw(4, 300, width=32, seed=seed) for seed in range(3)]
    results = [torch.autograd.grad(attend_blocks(*inputs).square().sum(), inputs) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_is_for_blocks_wants_plain_float32_that_learns():
    x = draw(1, SHORTEST)
    assert is_for_blocks(x)
    assert not is_for_blocks(x.detach())
    assert not is_for_blocks(x.double())
    assert not is_for_blocks(torch.nn.Parameter(x.detach()))
