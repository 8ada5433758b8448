from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.models import attention
from tsugiki.models.attention import DocumentLayout, attend


def draw(heads, time, width=8, batch=1, seed=0):
    return torch.randn(batch, heads, time, width, generator=torch.Generator().manual_seed(seed))


def reference(q, k, v, allowed):
    """Softmax over the allowed keys, by the definition; allowed: (B, T, keys) or (T, keys)."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    allowed = allowed if allowed.dim() == 2 else allowed[:, None]
    return scores.masked_fill(~allowed, -torch.inf).softmax(dim=-1) @ v


def band(queries, keys, window):
    """A query at place p sees the keys p - window + 1 .. p; the last query stands at the last key."""
    places = torch.arange(queries)[:, None] + keys - queries
    others = torch.arange(keys)[None]
    return (others <= places) & (others > places - window)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 20), st.integers(1, 45), st.integers(1, 12))
def test_attend_window_sees_the_last_keys_only(queries, earlier, window, block):
    keys = queries + earlier
    q, k, v = draw(4, queries), draw(2, keys, seed=1), draw(2, keys, seed=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_WINDOW_BLOCK", block)
        seen = attend(q, k, v, window=window)
    torch.testing.assert_close(seen, reference(q, k, v, band(queries, keys, window)), atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 25), min_size=2, max_size=6), st.integers(1, 30), st.booleans())
def test_attend_window_within_documents(lengths, window, masked):
    time = sum(lengths)
    numbers = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    documents_BT = torch.stack((numbers, numbers.flip(0)))
    q, k, v = draw(2, time, batch=2), draw(2, time, batch=2, seed=1), draw(2, time, batch=2, seed=2)
    same = documents_BT[:, :, None] == documents_BT[:, None, :]
    expected = reference(q, k, v, same & band(time, time, window))
    layout = DocumentLayout.from_ids(documents_BT)
    seen = attention._attend_masked(q, k, v, layout, window) if masked else attend(q, k, v, layout, window)
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=0)


def test_attend_window_gradients_equal_those_of_the_definition(monkeypatch):
    monkeypatch.setattr(attention, "_WINDOW_BLOCK", 4)
    inputs = [draw(4, 30), draw(2, 30, seed=1), draw(2, 30, seed=2)]
    gradients = []
    for function in (
        lambda q, k, v: attend(q, k, v, window=6),
        lambda q, k, v: reference(q, k, v, band(30, 30, 6)),
    ):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        function(*leaves).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [None, 30, 99])
def test_attend_window_as_long_as_the_sequence_is_plain_causal_attention(window):
    q, k, v = draw(4, 30), draw(2, 30, seed=1), draw(2, 30, seed=2)
    assert torch.equal(attend(q, k, v, window=window), attend(q, k, v))


def test_attend_window_computes_no_scores_far_outside_it(monkeypatch):
    seen = []
    original = attention._sdpa

    def watch(q, k, v, **options):
        seen.append(q.shape[2] * k.shape[2])
        return original(q, k, v, **options)

    monkeypatch.setattr(attention, "_sdpa", watch)
    q = draw(1, 4096)
    attend(q, q, q, window=64)
    assert sum(seen) <= 4096 * (64 + attention._WINDOW_BLOCK)
