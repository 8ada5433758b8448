"""Student's t distribution with real degrees of freedom: few clusters need it, and they are seldom whole."""

from __future__ import annotations

from functools import cache
from math import inf

from scipy.special import stdtr, stdtrit


@cache
def t_quantile(probability: float, degrees: float) -> float:
    """The t that T exceeds with probability 1 - `probability`; infinite without any degrees of freedom."""
    return float(stdtrit(degrees, probability)) if degrees > 0 else inf


def t_two_sided(statistic: float, degrees: float) -> float:
    """P(|T| >= |statistic|); 1 without any degrees of freedom."""
    return 2 * float(stdtr(degrees, -abs(statistic))) if degrees > 0 else 1.0
