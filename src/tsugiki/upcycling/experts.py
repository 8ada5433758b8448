"""From a dense feed-forward's matrix to that of one expert.

Shapes: D model width, F width of the dense feed-forward, f that of an expert (F / granularity). gate_proj and
up_proj are (F, D), a neuron is a row; down_proj is (D, F), a neuron is a column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tsugiki.upcycling.config import Scaling

NEURON_DIMENSION = {"gate_proj": 0, "up_proj": 0, "down_proj": 1}
"""Along which dimension of each matrix the neurons lie."""

_ROWS = 256  # a part of a matrix that stays in the processor's cache while it is summed up


@dataclass(frozen=True)
class NeuronSums:
    """Of every neuron of a matrix the sum of its weights and of their squares, (F) in float64 each.

    From these, mean and standard deviation of any set of neurons follow without reading the matrix again.
    weights: how many a neuron has (D).
    """

    sums_F: Tensor
    squares_F: Tensor
    weights: int

    def mean_and_std(self, chosen: Tensor) -> tuple[float, float]:
        """Mean and unbiased standard deviation of all weights of the chosen neurons.

        Those of the weights that are overwritten, not of the whole matrix (Drop-Upcycling, section 3.2).
        """
        count = len(chosen) * self.weights
        if count < 2:  # noqa: PLR2004 (of one number there is no deviation)
            return (float(self.sums_F[chosen].sum()), 0.0) if count else (0.0, 0.0)
        mean = float(self.sums_F[chosen].sum()) / count
        excess = float(self.squares_F[chosen].sum()) - count * mean**2
        return mean, math.sqrt(max(excess, 0.0) / (count - 1))


def neuron_sums(matrix: Tensor, dimension: int) -> NeuronSums:
    """Sum up a matrix neuron by neuron, some rows at a time; dimension: along which neurons lie."""
    sums, squares = [], []
    for part in torch.split(matrix, _ROWS):
        exact = part.double()
        sums.append(exact.sum(1 - dimension))
        squares.append(exact.square().sum(1 - dimension))
    if dimension == 0:
        return NeuronSums(torch.cat(sums), torch.cat(squares), matrix.shape[1])
    return NeuronSums(torch.stack(sums).sum(0), torch.stack(squares).sum(0), matrix.shape[0])


def slice_of(matrix: Tensor, dimension: int, expert: int, granularity: int) -> Tensor:
    """The neurons of the dense matrix that an expert begins with, a view.

    The slices 0 to granularity - 1 in order, again and again (Megatron-Core's order): the slices of one copy
    of the feed-forward are `granularity` experts in succession.
    """
    width = matrix.shape[dimension] // granularity
    return matrix.narrow(dimension, expert % granularity * width, width)


def change_neurons(
    matrix: Tensor, dimension: int, chosen: Tensor, seed: int, normal: tuple[float, float], *, add: bool
) -> None:
    """Replace the chosen neurons' weights by draws from N(mean, std²), or add these to them; in place.

    matrix: contiguous, on the CPU, float32, bfloat16 or float16. Drawn in float32 and then rounded.
    """
    from tsugiki.upcycling import kernels

    if not len(chosen):
        return
    arguments = (chosen.numpy(), np.uint64(seed), *normal, add)
    if matrix.dtype == torch.bfloat16:
        bits = matrix.view(torch.uint16).numpy()
        change = kernels.change_columns_bfloat16 if dimension else kernels.change_rows_bfloat16
        change(bits, *arguments)
        return
    change = kernels.change_columns if dimension else kernels.change_rows
    exact = matrix.float()
    change(exact.numpy(), *arguments)
    if exact is not matrix:
        matrix.copy_(exact)


def scale_of(matrix: str, granularity: int, scaling: Scaling) -> float:
    """What the weights of a slice are multiplied by, so that the slices of a copy add up again.

    A copy's slices are weighed by 1 / granularity each where weights are normalised, so their outputs have
    to grow by `granularity` (arXiv 2410.07524, of a softmax over the chosen experts). "cube-root" spreads
    that evenly over the three matrices, as the paper and Megatron-Core do; but SiLU(c x) is not c SiLU(x),
    so gate_proj is better left alone. "exact" gives up and down a factor each; for a power of two these are
    powers of two, by which every floating-point number is multiplied without rounding.
    """
    if granularity == 1 or scaling == "none":
        return 1.0
    if scaling == "cube-root":
        return granularity ** (1 / 3)
    if matrix == "gate_proj":
        return 1.0
    exponent = granularity.bit_length() - 1
    if granularity == 1 << exponent:
        half = exponent // 2
        return float(1 << (exponent - half if matrix == "down_proj" else half))
    return math.sqrt(granularity)
