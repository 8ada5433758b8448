"""What a reader has to know of the intervals: where they are wide on purpose, or may be too narrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tsugiki.evaluation.comparing.groups import Group
from tsugiki.evaluation.comparing.judging import Judged
from tsugiki.evaluation.statistics.estimates import cluster_sums, ratio_of_sums
from tsugiki.evaluation.statistics.freedom import carrying_clusters

FEW: Final = 20
"""With fewer clusters, intervals are wider than many would need: they cover 96 to 99 % in simulations."""
CARRYING: Final = 4.0
"""Where no more than so many clusters carry the spread, what was not seen may matter more than what was."""


def notes_of(judged: Sequence[Judged]) -> list[str]:
    """Sentences on the tasks whose intervals are to be read with care, one for each reason."""
    unknown, few, carried = [], [], []
    for one in judged:
        group, clusters = one.group, int(one.summary["clusters"])
        name = group.task if group.task == group.dataset else f"{group.task} on {group.dataset}"
        if not group.clusters_known:
            unknown.append(name)
        if clusters < len(group.clusters) and not group.measure.corpus:
            if clusters < FEW:
                few.append(f"{name} ({clusters})")
            elif _carried(group):
                carried.append(name)
    return [
        *_said(
            unknown,
            "which items share a passage, subject or source is not known: they are taken for independent, "
            "and the intervals may be too narrow",
        ),
        *_said(few, f"fewer than {FEW} clusters: the intervals are wide on purpose, and tests reject rarely"),
        *_said(
            carried,
            "nearly all of the spread is in a few clusters: the intervals are wide on purpose, and where "
            "clusters are large and answers rare they may still miss more often than they say",
        ),
    ]


def _said(names: Sequence[str], words: str) -> list[str]:
    return [f"{', '.join(names)}: {words}."] if names else []


def _carried(group: Group) -> bool:
    """Whether no more than CARRYING clusters carry the spread of some model's score."""
    sums = cluster_sums(group.numerator_IM, group.denominator_I, group.clusters)
    carrying_M = carrying_clusters(sums, ratio_of_sums(sums))
    return bool(((carrying_M > 0) & (carrying_M <= CARRYING)).any())
