"""Rules: a threshold on a feature. All of a document's failing reasons are kept, never only the first."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tsugiki.corpus.feature_names import Features, feature_names
from tsugiki.errors import InputError, did_you_mean
from tsugiki.languages import Bound, LanguagePack

_REJECTS = {"<": operator.lt, ">": operator.gt, ">=": operator.ge}


@dataclass(frozen=True)
class Rule:
    """Reject where `feature` is below (`<`) or above (`>`) the threshold; equality passes but for `>=`."""

    name: str
    feature: str
    sign: Literal["<", ">", ">="]
    threshold: float

    @property
    def reason(self) -> str:
        """What is written into `rejected_by`, e.g. `letters<400`."""
        return f"{self.feature}{self.sign}{self.threshold:g}"

    def rejects(self, features: Features) -> bool:
        """Whether a document with these features fails the rule. Strict, as Swallow's."""
        return _REJECTS[self.sign](features[self.feature], self.threshold)


def rules_of(
    pack: LanguagePack, overrides: Mapping[str, float] | None = None, rule_set: str | None = None
) -> list[Rule]:
    """The rules of a pack, in its order, with some thresholds replaced.

    overrides: threshold by the rule's name; where a rule has two bounds, `name.min` and `name.max`.
    rule_set: one of the pack's named sets instead of its default rules.
    Raises InputError for an unknown set, rules (of any set) whose features are not computed, an unknown
    override, or one that is no number.
    """
    _check_features(pack)
    if rule_set is not None and rule_set not in pack.rule_sets:
        raise InputError(
            f'the pack "{pack.code}" has no set of rules "{rule_set}"',
            hint=did_you_mean(rule_set, list(pack.rule_sets)),
        )
    bounds = pack.rules if rule_set is None else pack.rule_sets[rule_set]
    rules = [rule for name, bound in bounds.items() for rule in _rules_of_bound(name, bound)]
    return _overridden(rules, overrides or {}, pack)


def _rules_of_bound(name: str, bound: Bound) -> list[Rule]:
    given: list[tuple[str, Literal["<", ">", ">="], float | None]] = [
        ("min", "<", bound.min),
        ("max", ">", bound.max),
        ("below", ">=", bound.below),
    ]
    found = [(key, sign, value) for key, sign, value in given if value is not None]
    return [
        Rule(f"{name}.{key}" if len(found) > 1 else name, bound.feature, sign, value)
        for key, sign, value in found
    ]


def _check_features(pack: LanguagePack) -> None:
    """Every set's rules read features that are computed; else an InputError that names all that do not."""
    integers, floats = feature_names(pack)
    known = integers + floats
    sets = {"rules": pack.rules, **{f"rule_sets.{name}": rules for name, rules in pack.rule_sets.items()}}
    faults = [
        (f'{where}.{name} reads "{bound.feature}"', bound.feature)
        for where, rules in sets.items()
        for name, bound in rules.items()
        if bound.feature not in known
    ]
    if faults:
        raise InputError(
            f'the pack "{pack.code}" has rules on features that are not computed for it: '
            + "; ".join(fault for fault, _ in faults),
            hint=did_you_mean(faults[0][1], known),
        )


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
