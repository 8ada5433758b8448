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

from tsugiki.upcycling.config import Config, Scaling

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


def slice_number(config: Config, expert: int) -> int:
    """Which slice of the dense feed-forward an expert begins with, from 0.

    All slices that the shared expert does not keep back, in order, again and again (Megatron-Core's order):
    the slices of one copy are `copy_experts` experts in succession.
    """
    return config.slices_kept_back + expert % config.copy_experts


def slice_of(matrix: Tensor, dimension: int, number: int, granularity: int) -> Tensor:
    """The neurons of one slice of the dense matrix, a view."""
    width = matrix.shape[dimension] // granularity
    return matrix.narrow(dimension, number * width, width)


def shared_part(matrix: Tensor, dimension: int, config: Config) -> Tensor:
    """The neurons of the dense matrix that the shared expert has: all, or the first slices; a view."""
    if config.shared_expert == "copy":
        return matrix
    width = matrix.shape[dimension] // config.granularity
    return matrix.narrow(dimension, 0, config.slices_kept_back * width)


def shared_matrix(matrix: Tensor, name: str, config: Config) -> Tensor:
    """The shared expert's matrix of this name, scaled by `shared_gain`, in memory of its own."""
    scale = scale_of(name, shared_gain(config), config.scaling)
    return shared_part(matrix, NEURON_DIMENSION[name], config).contiguous().clone().mul_(scale)


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


SHARED_GATE = 0.5
"""The sigmoid of a gate whose weights are 0: what every token takes of the shared expert at the beginning."""


def routed_gain(config: Config) -> float:
    """By how much the outputs of chosen experts have to grow so that all parts add up to the dense output.

    Chosen are c copies of `copy_experts` slices each, with equal weights 1 / (c `copy_experts`), so together
    they give 1 / `copy_experts` of the sum of their slices: they have to grow by `copy_experts` (arXiv
    2410.07524, of a softmax over the chosen experts). Where a shared expert has a copy of all slices, and
    gives half of the output (`SHARED_GATE` times all of it), the chosen ones give the other half.
    """
    return config.copy_experts * (1 - SHARED_GATE if config.shared_expert == "copy" else 1.0)


def shared_gain(config: Config) -> float:
    """By how much the shared expert's output has to grow: a part that it alone has is halved by its gate."""
    return 1 / SHARED_GATE if config.shared_expert == "slices" else 1.0


def keeps_function(config: Config) -> bool:
    """Whether the mixture computes what the dense model does as long as every neuron is kept."""
    return config.scaling == "exact" or (routed_gain(config) == 1 and shared_gain(config) == 1)


def scale_of(matrix: str, gain: float, scaling: Scaling) -> float:
    """What a matrix is multiplied by, so that the output of its feed-forward grows by `gain`.

    "cube-root" spreads the gain evenly over the three matrices, as the paper of granularity and Megatron-Core
    do; but SiLU(c x) is not c SiLU(x), so gate_proj is better left alone. "exact" gives up and down a factor
    each; for a power of two these are powers of two, by which every floating-point number is multiplied
    without rounding.
    """
    if gain == 1 or scaling == "none":
        return 1.0
    if scaling == "cube-root":
        return gain ** (1 / 3)
    if matrix == "gate_proj":
        return 1.0
    mantissa, exponent = math.frexp(gain)
    if mantissa == 0.5:  # noqa: PLR2004 (a power of two)
        half = int((exponent - 1) / 2)
        return 2.0 ** (exponent - 1 - half if matrix == "down_proj" else half)
    return math.sqrt(gain)


def whole_scale(gain: float, scaling: Scaling) -> float:
    """The product of the scales of all three matrices: `gain`, or what `scaling` makes of it."""
    return math.prod(scale_of(matrix, gain, scaling) for matrix in NEURON_DIMENSION)
