"""Programs: how likely is it that one of k passes?"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb

from tsugiki.errors import DataError


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that of k programs, drawn without replacement from `samples`, at least one is right.

    1 - C(n - c, k) / C(n, k), the unbiased estimator of Chen et al. 2021, arXiv 2107.03374, equation 1, in
    exact integers. Raises DataError where k programs can't be drawn.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise DataError(
            f"pass@{k} of {passed} right programs among {samples} is not defined",
            hint="1 <= k <= samples and 0 <= passed <= samples",
        )
    return 1 - comb(samples - passed, k) / comb(samples, k)


def mean_pass_at_k(passed: Sequence[Sequence[bool]], k: int) -> float:
    """The mean of pass@k over problems, each with its own samples. Raises DataError for no problem."""
    if not passed:
        raise DataError("pass@k was asked for without a problem", hint="score at least one")
    return sum(pass_at_k(len(samples), sum(samples), k) for samples in passed) / len(passed)


def answered_at_k(outputs: Sequence[Sequence[str]]) -> float:
    """The share of problems of which at least one output is not blank (Swallow's answer@10)."""
    if not outputs:
        raise DataError("answer@k was asked for without a problem", hint="score at least one")
    return sum(any(text.strip() for text in samples) for samples in outputs) / len(outputs)
