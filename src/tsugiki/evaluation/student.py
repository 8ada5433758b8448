"""Student's t distribution with real degrees of freedom: few clusters need it, and they are seldom whole.

P(|T| >= t) = I_x(df / 2, 1 / 2) with x = df / (df + t^2), I the regularised incomplete beta function
(Abramowitz and Stegun 1964, 26.7.1), which is computed by its continued fraction (26.5.8).
"""

from __future__ import annotations

from math import exp, inf, lgamma, log, sqrt
from statistics import NormalDist

_NORMAL_FROM = 1e6
"""Degrees of freedom from which the t quantile is the normal one to six digits."""
_TINY = 1e-300
_TERMS = 500


def t_quantile(probability: float, degrees: float) -> float:
    """The t that T exceeds with probability 1 - `probability`, for probability >= 0.5; infinite for df 0."""
    if degrees <= 0:
        return inf
    if degrees >= _NORMAL_FROM:
        return NormalDist().inv_cdf(probability)
    outside = 2 * (1 - probability)
    low, high = 0.0, 1.0
    for _ in range(80):  # halves the bracket to the last bit; I_x rises with x
        middle = (low + high) / 2
        if _incomplete_beta(degrees / 2, 0.5, middle) < outside:
            low = middle
        else:
            high = middle
    x = (low + high) / 2
    return sqrt(degrees * (1 - x) / x) if x > 0 else inf


def t_two_sided(statistic: float, degrees: float) -> float:
    """P(|T| >= |statistic|); 1 without any degrees of freedom."""
    if degrees <= 0:
        return 1.0
    if degrees >= _NORMAL_FROM:
        return 2 * NormalDist().cdf(-abs(statistic))
    return _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + statistic * statistic))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b); the fraction converges fast for x < (a + 1) / (a + b + 2), else 1 - I_{1-x}(b, a)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1 - x)) / a
    return front * _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 / (1 + d1 / (1 + d2 / (1 + ...))) by the modified method of Lentz (Thompson and Barnett 1986)."""
    value, c, d = 1.0, 1.0, 0.0
    for index in range(1, _TERMS):
        half = index // 2
        if index % 2 == 0:
            term = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        else:
            term = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        d = 1 + term * d
        d = 1 / (d if abs(d) > _TINY else _TINY)
        c = 1 + term / c
        c = c if abs(c) > _TINY else _TINY
        value *= c * d
        if abs(c * d - 1) < 1e-15:  # noqa: PLR2004 (the last bit of a double)
            break
    return 1 / value
