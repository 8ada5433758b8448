"""Thresholds on stored features, as they are written into `rejected_by`, over whole columns."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.rules import Rule

Compare = Callable[[Any, float], npt.NDArray[np.bool_]]
SIGNS: Final[Mapping[str, Compare]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_REASON: Final = re.compile(r"(?P<feature>\w+)(?P<sign>[<>]=?)(?P<value>[-+.\w]+)")


@dataclass(frozen=True)
class Cut:
    """A document is rejected where `feature` `sign` `value` holds, e.g. `letters<400`."""

    name: str
    feature: str
    sign: str
    value: float

    @property
    def reason(self) -> str:
        """As in `rejected_by`."""
        return f"{self.feature}{self.sign}{self.value:g}"

    def rejects(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which of the values (NaN: not computed) are rejected; shape as given. NaN never is."""
        return SIGNS[self.sign](values, self.value)

    def margin(self, value: float) -> float:
        """How far a value lies on the rejected side, as a share of the threshold; negative: it passes.

        A threshold of 0 has no scale: the distance itself then.
        """
        distance = self.value - value if self.sign.startswith("<") else value - self.value
        return distance / (abs(self.value) or 1.0)


def split_reason(reason: str) -> tuple[str, str, str] | None:
    """(feature, sign, value) of a rule's reason such as `letters<400`; None for any other reason.

    Reasons with a prefix (`cleaned:letters<400`, `host:ng_share>0.005`) are not a rule's.
    """
    match = _REASON.fullmatch(reason)
    return (match["feature"], match["sign"], match["value"]) if match else None


def cut_of(rule: Rule) -> Cut:
    """A rule as a cut. Its reason says whether the threshold itself is rejected (`ng_share>=0.05`)."""
    parts = split_reason(rule.reason)
    return Cut(rule.name, rule.feature, parts[1] if parts else rule.sign, float(rule.threshold))
