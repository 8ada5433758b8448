"""What a sweep asks, from the words of a command line: `hiragana_share=0.15,0.2`, `letters>5000`, a rule set.

A scenario is a change of the corpus' thresholds: some are taken away, some put in their place.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tsugiki.corpus.config import QUALITY
from tsugiki.corpus.inspection.artifact import Corpus, rule_cuts
from tsugiki.corpus.inspection.cuts import Cut
from tsugiki.errors import InputError, did_you_mean

OFF: Final = "off"
MOST_SCENARIOS: Final = 2000

_SETTING: Final = re.compile(r"\s*(?P<name>[\w.]+)\s*(?:(?P<sign><=|>=|<|>|=)\s*(?P<values>.*))?", re.DOTALL)
_RANGE_PARTS: Final = 3
_MOST_VALUES: Final = 1000


@dataclass(frozen=True)
class Setting:
    """One `--set`: the cuts that it replaces, and those to try (None: no such rule)."""

    name: str
    replaced: tuple[Cut, ...]
    tried: tuple[Cut | None, ...]


@dataclass(frozen=True)
class Scenario:
    """A change of the thresholds. `values` names it: threshold by the setting's name, None for `off`."""

    title: str
    removed: tuple[Cut, ...] = ()
    added: tuple[Cut, ...] = ()
    values: dict[str, float | None] = field(default_factory=dict)


def parse_setting(text: str, corpus: Corpus) -> Setting | str:
    """A setting, or the name of a feature where no threshold is given.

    `name=v1,v2` replaces a rule's threshold, by the rule's name or that of its feature; `feature<v` and
    `feature>v` reject where that holds and replace a rule on the same side, if there is one. A value is a
    number, a range `first:last:step`, or `off`.
    Raises InputError for unknown names, values that are no numbers, and `=` where the side is not clear.
    """
    match = _SETTING.fullmatch(text)
    if match is None:
        raise InputError(f'"{text}" is not a threshold', hint="write hiragana_share=0.15,0.2 or letters>5000")
    name, sign, values = _our_name(match["name"], corpus), match["sign"], match["values"]
    if sign is None:
        return _feature(name, corpus)
    if sign == "=":
        rule = _rule(name, corpus)
        return Setting(rule.name, (rule,), _cuts(rule, values, text))
    feature = _feature(name, corpus)
    same_side = tuple(c for c in corpus.cuts if c.feature == feature and c.sign[0] == sign[0])
    title = same_side[0].name if same_side else f"{feature}{sign}"
    return Setting(title, same_side, _cuts(Cut(title, feature, sign, math.nan), values, text))


def _our_name(name: str, corpus: Corpus) -> str:
    """Swallow's code calls a share a fraction (`hiragana_fraction`); so may a user who comes from there."""
    share = name.replace("_fraction", "_share")
    known = {*corpus.features, *(cut.name for cut in corpus.cuts)}
    return share if name not in known and share in known else name


def _rule(name: str, corpus: Corpus) -> Cut:
    exact = [cut for cut in corpus.cuts if cut.name == name]
    found = exact or [cut for cut in corpus.cuts if cut.feature == name or cut.name.startswith(f"{name}.")]
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(f"{cut.name}={cut.value:g}" for cut in found)
        raise InputError(f'"{name}" has {len(found)} bounds', hint=f"say which one: {names}")
    if name in corpus.features:
        raise InputError(
            f'no rule reads "{name}", so it is not clear which side is rejected',
            hint=f"write '{name}<0.1' to reject what is below, or '{name}>0.1' to reject what is above",
        )
    known = [*(cut.name for cut in corpus.cuts), *corpus.features]
    raise InputError(
        f'there is no rule or feature "{name}" in {corpus.directory}', hint=did_you_mean(name, known)
    )


def _feature(name: str, corpus: Corpus) -> str:
    if name in corpus.features:
        return name
    rules = {cut.name: cut.feature for cut in corpus.cuts}
    if name in rules:
        return rules[name]
    raise InputError(
        f'there is no feature "{name}" in {corpus.directory}',
        hint=did_you_mean(name, [*corpus.features, *rules]),
    )


def _cuts(pattern: Cut, values: str, text: str) -> tuple[Cut | None, ...]:
    numbers = [number for part in values.split(",") for number in _numbers(part.strip(), text)]
    return tuple(
        None if number is None else Cut(pattern.name, pattern.feature, pattern.sign, number)
        for number in dict.fromkeys(numbers)
    )


def _numbers(part: str, text: str) -> list[float | None]:
    if part == OFF:
        return [None]
    try:
        numbers = [float(piece) for piece in part.split(":")]
    except ValueError:
        numbers = []
    if not all(map(math.isfinite, numbers)) or len(numbers) not in {1, _RANGE_PARTS}:
        raise InputError(
            f'"{part}" in "{text}" is not a number',
            hint="write numbers (0.15,0.2), a range with its step (0.1:0.3:0.05), or off",
        )
    if len(numbers) == 1:
        return [numbers[0]]
    first, last, step = numbers
    if step <= 0 or last < first or (last - first) / step > _MOST_VALUES:
        raise InputError(
            f'"{part}" in "{text}" is not a range',
            hint=f"first <= last, a positive step, at most {_MOST_VALUES} values: 0.1:0.3:0.05",
        )
    # rounded, so that 0.1 + 2 * 0.1 is 0.3
    count = math.floor((last - first) / step + 1e-9) + 1
    return [round(first + index * step, 12) for index in range(count)]


def scenarios_of(settings: Sequence[Setting], *, grid: bool = False) -> list[Scenario]:
    """One scenario a value, the other thresholds as they were; with `grid` one for each combination.

    Raises InputError where a rule is set twice, or the grid is too large to be read.
    """
    names = [setting.name for setting in settings]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f'"{name}" is set twice', hint="give all its values at once: name=0.1,0.2")
    if not grid:
        return [_scenario([(one, cut)]) for one in settings for cut in one.tried]
    size = math.prod(len(one.tried) for one in settings)
    if size > MOST_SCENARIOS:
        raise InputError(
            f"the grid has {size:,} combinations; {MOST_SCENARIOS:,} are the most",
            hint="try fewer values, or leave --grid away",
        )
    choices = [[(one, cut) for cut in one.tried] for one in settings]
    return [_scenario(list(combination)) for combination in itertools.product(*choices)]


def _scenario(choices: Sequence[tuple[Setting, Cut | None]]) -> Scenario:
    titles = [f"{setting.name} off" if cut is None else cut.reason for setting, cut in choices]
    return Scenario(
        title=", ".join(titles),
        removed=tuple(old for setting, _ in choices for old in setting.replaced),
        added=tuple(cut for _, cut in choices if cut is not None),
        values={setting.name: None if cut is None else cut.value for setting, cut in choices},
    )


def without_each_rule(corpus: Corpus) -> list[Scenario]:
    """A scenario a rule, in which it is taken away: what each of them decides."""
    return [Scenario(f"{cut.reason} off", (cut,), (), {cut.name: None}) for cut in corpus.cuts]


def rule_set_scenario(name: str, corpus: Corpus) -> Scenario:
    """The pack's rules replaced by those of `pack`, `none` or a named set; a classifier's threshold stays.

    Raises InputError for an unknown set, and where a rule of the set reads a feature that is not stored.
    """
    cuts = rule_cuts(corpus.pack, name, {})
    missing = sorted({cut.feature for cut in cuts} - set(corpus.features))
    if missing:
        raise InputError(
            f'the rules "{name}" read features that {corpus.directory} does not hold: {", ".join(missing)}',
            hint="run the corpus stage again with this version of Tsugiki",
        )
    # the classifier's threshold belongs to no set of rules
    kept = [cut for cut in corpus.cuts if _same(cut, cuts) or cut.feature == QUALITY]
    return Scenario(
        title=f"rules {name}",
        removed=tuple(cut for cut in corpus.cuts if cut not in kept),
        added=tuple(cut for cut in cuts if not _same(cut, kept)),
    )


def _same(cut: Cut, others: Sequence[Cut]) -> bool:
    key = (cut.feature, cut.sign, cut.value)
    return any((one.feature, one.sign, one.value) == key for one in others)
