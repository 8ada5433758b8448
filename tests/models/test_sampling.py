"""Draws from the most likely tokens alone are those from all of them, sorted."""

from __future__ import annotations

import pytest
import torch

from tsugiki.models.sampling import _draw_from_head, _draw_sorted, draw


def logits_of(kind: str) -> torch.Tensor:
    """(60, 2000): peaked, flat, of few distinct values (as bfloat16 has), with tokens that can't be."""
    values = torch.randn(60, 2000, generator=torch.Generator().manual_seed(1))
    if kind == "peaked":
        return values * 6
    if kind == "equals":
        return (values * 6).round()
    if kind == "forbidden":
        return (values * 6).masked_fill(values < 1, -torch.inf)
    return values


@pytest.mark.parametrize("kind", ["peaked", "flat", "equals", "forbidden"])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.2, 0.95), (1.0, 1.0), (0.7, 0.5), (1.3, 1e-9)])
def test_draw_equals_the_draw_from_all_tokens_sorted(kind, temperature, top_p):
    logits = logits_of(kind)
    for seed in range(5):
        uniforms = torch.rand(60, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        expected = _draw_sorted(logits, uniforms, temperature, 2000, top_p)
        assert draw(logits, uniforms, temperature=temperature, top_p=top_p).tolist() == expected.tolist()


def test_draw_row_alone_equals_the_row_among_others():
    logits, uniforms = logits_of("peaked"), torch.linspace(0, 0.999, 60).double()
    together = draw(logits, uniforms, temperature=0.8, top_p=0.9)
    alone = [
        draw(logits[row : row + 1], uniforms[row : row + 1], temperature=0.8, top_p=0.9) for row in range(60)
    ]
    assert together.tolist() == torch.cat(alone).tolist()


def test_draw_peaked_rows_are_decided_by_the_head_and_flat_ones_are_not():
    uniforms = torch.linspace(0, 0.999, 60).double()
    assert _draw_from_head(logits_of("peaked"), uniforms, 0.2, 0.95)[1].all()
    assert not _draw_from_head(logits_of("flat"), uniforms, 1.0, 0.95)[1].any()
