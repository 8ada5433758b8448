"""Tasks that ask the same questions: their clusters are drawn together in an average.

What is shared is data, in shared_items.toml: tasks whose items can be told to be the same from their ids, or
whose clusters are (subjects). Variants of one task (`gsm8k`, `gsm8k@published`) always share their items.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

from tsugiki.evaluation.comparing.judging import MOST_DRAWS, Judged, Settings
from tsugiki.evaluation.items import stable_integer
from tsugiki.evaluation.statistics.averages import joint_task_draws

_FILE: Final = Path(__file__).with_name("shared_items.toml")
_VARIANT: Final = "@"


@dataclass(frozen=True)
class Shared:
    """Tasks with common items: `key` finds in a cluster's name what is the same in all of them."""

    name: str
    tasks: tuple[str, ...]
    key: re.Pattern[str]


@cache
def shared_items() -> tuple[Shared, ...]:
    """The entries of shared_items.toml."""
    data = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(Shared(one["name"], tuple(one["tasks"]), re.compile(one["key"])) for one in data["shared"])


def cluster_keys(task: str, dataset: str, clusters: Sequence[str]) -> list[str]:
    """A name of each cluster that is the same in every task that shares it.

    Unknown clusters of tasks with common items, and those of other tasks, have names of their own.
    """
    plain = task.split(_VARIANT, maxsplit=1)[0]
    entry = next((one for one in shared_items() if plain in one.tasks), None)
    keys = []
    for cluster in clusters:
        found = entry.key.fullmatch(cluster) if entry is not None else None
        own = f"{plain}\t{dataset}\t{cluster}"
        keys.append(f"{entry.name}\t{found['key']}" if entry is not None and found is not None else own)
    return keys


def drawn_together(judged: Sequence[Judged], settings: Settings) -> tuple[list[Judged], list[list[str]]]:
    """The same judgements, with joint draws for tasks that share clusters, and the names of such tasks.

    Corpus metrics, which are drawn by other sums, stay on their own.
    """
    keys = [_keys(one) for one in judged]
    sets = _components(keys)
    found = list(judged)
    for members in sets:
        tasks = [(judged[place].sums, keys[place]) for place in members]
        names = [f"{judged[place].group.task} {judged[place].group.dataset}" for place in members]
        draws = joint_task_draws(
            [(sums, own) for sums, own in tasks if sums is not None],
            settings.columns,
            draws=min(settings.draws, MOST_DRAWS),
            seed=stable_integer(settings.seed, "shared items", *names),
        )
        for place, one in zip(members, draws, strict=True):
            found[place] = replace(judged[place], draws=one)
    return found, [[judged[place].group.task for place in members] for members in sets]


def _keys(one: Judged) -> list[str]:
    """Keys of the clusters in the order of the sums; empty for what is not drawn by them."""
    if one.sums is None:
        return []
    group = one.group
    return cluster_keys(group.task, group.dataset, sorted({str(name) for name in group.clusters}))


def _components(keys: Sequence[Sequence[str]]) -> list[list[int]]:
    """Places that share a key, directly or through others; single ones are left out."""
    first: dict[str, int] = {}
    group = list(range(len(keys)))
    for place, own in enumerate(keys):
        for key in own:
            other = group[first.setdefault(key, place)]
            if other != group[place]:
                low, high = sorted((other, group[place]))
                group = [low if one == high else one for one in group]
    members: dict[int, list[int]] = {}
    for place, one in enumerate(group):
        members.setdefault(one, []).append(place)
    return [places for places in members.values() if len(places) > 1]
