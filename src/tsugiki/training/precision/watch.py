"""How well float8 keeps the numbers of a step: for each matrix its weights, activations and gradients.

SQNR, the signal-to-quantisation-noise ratio, is 10 log10(sum x^2 / sum (x - q)^2) in dB, q being x rounded as
the product rounds it. A Gaussian tensor has about 31 dB in E4M3 and 25 dB in E5M2; outliers that push the
other numbers out of the format's range lower it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tsugiki.training.placement import local_part

ROLES = ("weights", "activations", "gradients")
"""The operands of a layer's products; gradients are those of its outputs."""

_COUNT, _SIGNAL, _NOISE, _SATURATED, _UNDERFLOWED = range(5)
SUMS = 5

EXACT_DECIBELS = 200.0
"""Stands for the ratio of numbers that were kept exactly: JSON has no infinity."""


@dataclass(frozen=True)
class Quality:
    """Of one operand. sqnr: in dB, None where all numbers are 0 or some are not finite.

    saturated: the share of the numbers at the format's limit (scales are set from the largest number, so that
    one is among them). underflowed: the share that are not 0 and became 0. largest: the largest absolute
    value.
    """

    sqnr: float | None
    saturated: float
    underflowed: float
    largest: float


@dataclass(frozen=True)
class Float8Report:
    """One step: the quality of every operand, by matrix and role."""

    matrices: Mapping[str, Mapping[str, Quality]]

    @property
    def worst(self) -> tuple[str, str, float] | None:
        """Matrix, role and dB of the operand that is kept worst, or None where nothing was measured."""
        found = [
            (quality.sqnr, name, role)
            for name, roles in self.matrices.items()
            for role, quality in roles.items()
            if quality.sqnr is not None
        ]
        if not found:
            return None
        sqnr, name, role = min(found)
        return name, role, sqnr

    @property
    def figures(self) -> dict[str, float]:
        """The worst of all matrices, by the names of the metrics."""
        worst = self.worst
        found = {} if worst is None else {"float8_sqnr": worst[2]}
        for role in ROLES:
            qualities = [roles[role] for roles in self.matrices.values() if role in roles]
            ratios = [quality.sqnr for quality in qualities if quality.sqnr is not None]
            if ratios:
                found[f"float8_sqnr_{role}"] = min(ratios)
            if qualities:
                found[f"float8_underflowed_{role}"] = max(quality.underflowed for quality in qualities)
                found[f"float8_saturated_{role}"] = max(quality.saturated for quality in qualities)
        return found

    def row(self) -> dict[str, Any]:
        """The metrics row: the worst operand, and for each all of `Quality` in its order."""
        worst = self.worst
        return {
            "worst": None if worst is None else {"matrix": worst[0], "operand": worst[1], "sqnr": worst[2]},
            "columns": ["sqnr", "saturated", "underflowed", "largest"],
            "matrices": {
                name: {role: _rounded(quality) for role, quality in roles.items()}
                for name, roles in self.matrices.items()
            },
        }

    def warning(self, threshold: float) -> str | None:
        """What a person is told where the worst operand is below `threshold` dB."""
        worst = self.worst
        if worst is None or worst[2] >= threshold:
            return None
        name, role, sqnr = worst
        return (
            f"float8 keeps the {role} of {name} at {sqnr:.1f} dB, below {threshold:g}: keep such layers high "
            "(float8_high_layers), take precision: float8-rowwise-gw-hp, or train in bfloat16"
        )


class Gauge:
    """Measures the operands of one forward and backward pass of one matrix."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.largest: dict[str, Tensor] = {}

    @torch.no_grad()
    def take(self, product: Any, x_SI: Tensor, w_OI: Tensor, y_SO: Tensor) -> None:
        """Measure activations and weights now, and the gradient of `y_SO` when it comes."""
        config = product.config
        self._measure(product, "activations", x_SI, config.cast_config_input)
        self._measure(product, "weights", w_OI, config.cast_config_weight)
        if y_SO.requires_grad:
            cast = config.cast_config_grad_output
            y_SO.register_hook(  # type: ignore[no-untyped-call]
                lambda grad_SO: self._measure(product, "gradients", grad_SO, cast)
            )

    @torch.no_grad()
    def _measure(self, product: Any, role: str, x: Tensor, cast: Any) -> None:
        rounded = local_part(rounded_to_float8(x, cast, product))
        x = local_part(x).float()
        largest = x.abs().amax()
        # relative to the largest number: squares of small gradients would leave float32's range
        unit = largest.clamp(min=torch.finfo(torch.float32).tiny)
        data = rounded._data.float()  # type: ignore[attr-defined]  # noqa: SLF001 (torchao has no other way)
        noise = (x - data / rounded._scale) / unit  # type: ignore[attr-defined]  # noqa: SLF001
        limit = torch.finfo(cast.target_dtype).max
        sums = (
            torch.full((), x.numel(), device=x.device),
            (x / unit).square().sum().double() * unit.double().square(),
            noise.square().sum().double() * unit.double().square(),
            (data.abs() == limit).sum(),
            ((data == 0) & (x != 0)).sum(),
        )
        self.sums[role] = torch.stack([one.double() for one in sums])
        self.largest[role] = largest.double()


def rounded_to_float8(x: Tensor, cast: Any, product: Any) -> Tensor:
    """A matrix rounded as the product rounds it, with the sum along its last dimension: torchao's tensor."""
    from torchao.float8.float8_scaling_utils import get_maybe_axiswise_dim, hp_tensor_to_float8_dynamic

    return hp_tensor_to_float8_dynamic(
        x,
        cast.target_dtype,
        product.products,
        scaling_granularity=cast.scaling_granularity,
        axiswise_dim=get_maybe_axiswise_dim(-1, cast.scaling_granularity),
        round_scales_to_power_of_2=product.config.round_scales_to_power_of_2,
    )


def stacked(gauges: Mapping[str, Gauge], names: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """Sums (matrices, roles, SUMS) and maxima (matrices, roles), float64; 0 where nothing is here.

    Sums are added up over processes, of maxima the largest is taken.
    """
    sums = torch.zeros(len(names), len(ROLES), SUMS, dtype=torch.float64, device=device)
    maxima = torch.zeros(len(names), len(ROLES), dtype=torch.float64, device=device)
    places = {name: place for place, name in enumerate(names)}
    for name, gauge in gauges.items():
        for role, found in gauge.sums.items():
            sums[places[name], ROLES.index(role)] = found
            maxima[places[name], ROLES.index(role)] = gauge.largest[role]
    return sums, maxima


def report_of(names: Sequence[str], sums: Tensor, maxima: Tensor) -> Float8Report:
    """The report, from the tensors of `stacked`."""
    matrices: dict[str, dict[str, Quality]] = {}
    for name, roles, largest in zip(names, sums.tolist(), maxima.tolist(), strict=True):
        for role, found, most in zip(ROLES, roles, largest, strict=True):
            if found[_COUNT]:
                matrices.setdefault(name, {})[role] = Quality(
                    _decibels(found[_SIGNAL], found[_NOISE]),
                    found[_SATURATED] / found[_COUNT],
                    found[_UNDERFLOWED] / found[_COUNT],
                    most,
                )
    return Float8Report(matrices)


def _decibels(signal: float, noise: float) -> float | None:
    if not (math.isfinite(signal) and math.isfinite(noise)) or signal <= 0:
        return None
    return min(EXACT_DECIBELS, 10 * math.log10(signal / noise)) if noise > 0 else EXACT_DECIBELS


def _rounded(quality: Quality) -> list[float | None]:
    values = (quality.sqnr, quality.saturated, quality.underflowed, quality.largest)
    return [float(f"{x:.4g}") if x is not None and math.isfinite(x) else None for x in values]
