"""Student's t distribution with real degrees of freedom: few clusters need it, and they are seldom whole.

The one home of these quantiles: the evaluation's intervals, the study's regressions, the report and the
benchmarks read them here. scipy is loaded when a function is called.
"""

from __future__ import annotations

from functools import cache
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray


@cache
def t_quantile(probability: float, degrees: float) -> float:
    """The t that T exceeds with probability 1 - `probability`; infinite without any degrees of freedom."""
    return float(t_quantiles(probability, degrees))


def t_quantiles(probability: float, degrees: ArrayLike) -> NDArray[np.float64]:
    """`t_quantile` of an array of degrees, of any shape."""
    from scipy.special import stdtrit

    degrees = np.asarray(degrees, dtype=np.float64)
    found = stdtrit(np.where(degrees > 0, degrees, 1.0), probability)
    return np.asarray(np.where(degrees > 0, found, inf))


def t_two_sided(statistic: float, degrees: float) -> float:
    """P(|T| >= |statistic|); 1 without any degrees of freedom."""
    return float(t_tests(statistic, degrees)) if degrees > 0 else 1.0


def t_tests(statistic: ArrayLike, degrees: ArrayLike) -> NDArray[np.float64]:
    """`t_two_sided` of arrays, for degrees above 0; NaN stays NaN."""
    from scipy.special import stdtr

    return np.asarray(2 * stdtr(degrees, -np.abs(np.asarray(statistic))), dtype=np.float64)
