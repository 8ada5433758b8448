from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tsugiki.upcycling import kernels

CHOSEN = np.array([1, 4, 5])


@pytest.fixture(scope="module")
def drawn():
    numbers = np.empty(4_000_000, np.float32)
    kernels.draw(np.uint64(11), numbers, len(numbers))
    return numbers.astype(np.float64)


def test_ziggurat_layers_have_equal_areas():
    edges, heights = kernels._tables()
    areas = edges[1:-1] * np.diff(heights[1:])
    assert len(areas) == 255
    assert areas == pytest.approx(np.full(255, kernels._AREA), rel=1e-8)
    tail = math.sqrt(math.pi / 2) * math.erfc(kernels._TAIL / math.sqrt(2))
    assert kernels._TAIL * heights[1] + tail == pytest.approx(kernels._AREA, rel=1e-9)
    assert edges[0] * heights[1] == pytest.approx(kernels._AREA, rel=1e-9)


def test_drawn_numbers_are_normal(drawn):
    assert stats.kstest(drawn, "norm").pvalue > 0.01
    for moment, value, deviation in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((drawn**moment).mean() - value) < 4 * math.sqrt(deviation / len(drawn)), moment


@pytest.mark.parametrize("edge", [1.0, 2.0, 3.0, kernels._TAIL, 4.0])
def test_drawn_numbers_have_the_tails_of_the_normal_distribution(drawn, edge):
    meant = stats.norm.sf(edge) * len(drawn)
    for side in (drawn > edge, drawn < -edge):
        assert abs(side.sum() - meant) < 4 * math.sqrt(meant)


def test_drawn_numbers_do_not_depend_on_those_before(drawn):
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / math.sqrt(len(drawn))
    other = np.empty(1_000_000, np.float32)
    kernels.draw(np.uint64(12), other, len(other))  # the next seed is another stream
    assert abs(np.corrcoef(drawn[: len(other)], other)[0, 1]) < 4 / math.sqrt(len(other))


def weights(rows=8, columns=6):
    return np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)


def test_rows_that_are_changed_do_not_depend_on_the_others():
    one, other = weights(), weights()
    kernels.change_rows(one, CHOSEN, np.uint64(3), 0.5, 2.0, False)
    kernels.change_rows(other, np.array([4]), np.uint64(3), 0.5, 2.0, False)
    assert (one[4] == other[4]).all()
    assert not (one[4] == one[5]).any()
    untouched = [row for row in range(8) if row not in CHOSEN]
    assert (one[untouched] == weights()[untouched]).all()


def test_columns_that_are_not_chosen_keep_their_bits():
    changed = weights()
    kernels.change_columns(changed, CHOSEN, np.uint64(3), 0.0, 1.0, False)
    same = changed == weights()
    assert same.all(axis=0).tolist() == [column not in CHOSEN for column in range(6)]
    assert not same[:, CHOSEN].any()


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("name", ["change_rows", "change_columns"])
def test_bfloat16_is_what_float32_rounds_to(name, add):
    exact = torch.randn(40, 30, generator=torch.Generator().manual_seed(1)).bfloat16()
    bits = exact.clone()
    wide = exact.float().numpy().copy()
    getattr(kernels, name)(wide, CHOSEN, np.uint64(9), 0.1, 0.3, add)
    getattr(kernels, f"{name}_bfloat16")(bits.view(torch.uint16).numpy(), CHOSEN, np.uint64(9), 0.1, 0.3, add)
    assert torch.equal(torch.from_numpy(wide).bfloat16(), bits)
    assert not torch.equal(bits, exact)
