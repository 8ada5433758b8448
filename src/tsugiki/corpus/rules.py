"""Rules: a threshold on a feature. All of a document's failing reasons are kept, never only the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tsugiki.corpus.features import Features, feature_types
from tsugiki.errors import InputError, did_you_mean
from tsugiki.languages import LanguagePack


@dataclass(frozen=True)
class Rule:
    """Reject where `feature` is below (`<`) or above (`>`) the threshold; equality passes."""

    name: str
    feature: str
    sign: Literal["<", ">"]
    threshold: float

    @property
    def reason(self) -> str:
        """What is written into `rejected_by`, e.g. `letters<400`."""
        return f"{self.feature}{self.sign}{self.threshold:g}"

    def rejects(self, features: Features) -> bool:
        """Whether a document with these features fails the rule. Strict, as Swallow's."""
        value = features[self.feature]
        return value < self.threshold if self.sign == "<" else value > self.threshold


def rules_of(pack: LanguagePack, overrides: Mapping[str, float] | None = None) -> list[Rule]:
    """The rules of a pack, in its order, with some thresholds replaced.

    overrides: threshold by the rule's name; where a rule has two bounds, `name.min` and `name.max`.
    Raises InputError for a rule whose feature is not computed, an unknown override, or one that is no number.
    """
    known = feature_types(pack)
    rules = []
    for name, bound in pack.rules.items():
        if bound.feature not in known:
            raise InputError(
                f'the pack "{pack.code}" has a rule "{name}" on the feature "{bound.feature}", '
                "which is not computed for it",
                hint=did_you_mean(bound.feature, list(known)),
            )
        both = bound.min is not None and bound.max is not None
        if bound.min is not None:
            rules.append(Rule(f"{name}.min" if both else name, bound.feature, "<", bound.min))
        if bound.max is not None:
            rules.append(Rule(f"{name}.max" if both else name, bound.feature, ">", bound.max))
    return _overridden(rules, overrides or {}, pack)


def _overridden(rules: Sequence[Rule], overrides: Mapping[str, float], pack: LanguagePack) -> list[Rule]:
    names = [rule.name for rule in rules]
    for name, value in overrides.items():
        if name not in names:
            raise InputError(
                f'the pack "{pack.code}" has no rule "{name}" to override', hint=did_you_mean(name, names)
            )
        if not math.isfinite(value):
            raise InputError(f'the threshold of "{name}" is {value}', hint="give a finite number")
    return [
        Rule(rule.name, rule.feature, rule.sign, overrides.get(rule.name, rule.threshold)) for rule in rules
    ]


def failing(features: Features, rules: Sequence[Rule]) -> list[str]:
    """The reasons of every rule that rejects the document, in the pack's order."""
    return [rule.reason for rule in rules if rule.rejects(features)]
