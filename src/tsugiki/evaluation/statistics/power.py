"""What a number of questions can show, and how many would be needed. All from normal approximations.

Miller 2024 ("Adding error bars to evals", arXiv 2411.00640), section 5: with omega^2 the variance of the
paired differences between items and sigma^2 / K what sampling an answer K times adds within an item,

    n = (z_{alpha/2} + z_power)^2 (omega^2 + sigma_A^2 / K_A + sigma_B^2 / K_B) / difference^2.

With omega^2 = 1 / 9, a difference of 0.03, alpha 0.05, power 0.8 and no noise within items that is 969.
"""

from __future__ import annotations

from math import ceil, isfinite, sqrt
from statistics import NormalDist

from tsugiki.errors import DataError

_LARGEST = 10**12


def required_items(difference: float, variance: float, *, level: float = 0.05, power: float = 0.8) -> int:
    """Items for a two-sided test at `level` to find this difference with this power.

    variance: of the paired difference of one item, noise within the item included (omega^2 + sigma^2 / K
    terms). Raises DataError for a difference of 0 or a power or level outside of 0 to 1.
    """
    _check(difference, level, power)
    return min(ceil(_quantiles(level, power) ** 2 * variance / difference**2), _LARGEST)


def more_items(
    items: int, standard_error: float, difference: float, *, level: float = 0.05, power: float = 0.8
) -> int | None:
    """Items that would be needed, from the error that `items` of them have shown; None where none is known.

    The observed error holds the discordance, the correlation of the two models and the clusters of these
    items; more items are taken to come in clusters of the same kind.
    """
    if not isfinite(standard_error):
        return None
    return required_items(difference, items * standard_error**2, level=level, power=power)


def power_of(difference: float, standard_error: float, *, level: float = 0.05) -> float | None:
    """The chance that a two-sided test at `level` finds a true difference of this size.

    None without an error.
    """
    if not isfinite(standard_error):
        return None
    if standard_error <= 0:
        return 1.0
    normal = NormalDist()
    threshold, shift = normal.inv_cdf(1 - level / 2), abs(difference) / standard_error
    return normal.cdf(shift - threshold) + normal.cdf(-shift - threshold)


def detectable_difference(items: float, variance: float, *, level: float = 0.05, power: float = 0.8) -> float:
    """The true difference that so many items of this variance find with this power."""
    _check(1.0, level, power)
    return _quantiles(level, power) * sqrt(variance / items)


def paired_variance(first: float, second: float, correlation: float) -> float:
    """The variance of the difference of two scores on an item, from their variances and correlation."""
    return first + second - 2 * correlation * sqrt(first * second)


def _quantiles(level: float, power: float) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)


def _check(difference: float, level: float, power: float) -> None:
    if difference == 0 or not isfinite(difference):
        raise DataError(
            f"a difference of {difference} can't be planned for",
            hint="say which difference matters, e.g. 0.05",
        )
    if not (0 < level < 1 and 0 < power < 1):
        raise DataError(
            f"the level {level} or the power {power} is not between 0 and 1", hint="use 0.05 and 0.8"
        )
