"""Near-duplicate clusters: connected components of documents that share a MinHash band, and whom to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Keep = Literal["newest", "longest", "first"]


def components(count: int, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each of `count` nodes the smallest node of its connected component.

    Union by smallest root with path halving: the result depends on the set of edges only, not on its order.
    """
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for left, right in edges.tolist():
        a, b = root(left), root(right)
        if a != b:
            parent[max(a, b)] = min(a, b)
    return np.array([root(node) for node in range(count)], np.int64)


@dataclass(frozen=True)
class Candidate:
    """What the choice within a cluster looks at."""

    id: str
    date: str | None
    characters: int


def survivors(documents: Sequence[Candidate], roots: npt.NDArray[np.int64], keep: Keep) -> list[int]:
    """For each document the index of its cluster's survivor.

    newest: the latest date, then the longest, then the smallest id; longest: the longest, then the latest;
    first: the smallest id. A total order over ids, so the order of the documents does not matter.
    """
    best: dict[int, int] = {}
    for index, root in enumerate(roots.tolist()):
        if root not in best or _preferred(documents[index], documents[best[root]], keep):
            best[root] = index
    return [best[root] for root in roots.tolist()]


def _preferred(left: Candidate, right: Candidate, keep: Keep) -> bool:
    orders: dict[Keep, Callable[[Candidate], tuple[str | int, ...]]] = {
        "newest": lambda document: (document.date or "", document.characters),
        "longest": lambda document: (document.characters, document.date or ""),
        "first": lambda _: (),
    }
    rank = orders[keep]
    return rank(left) > rank(right) or (rank(left) == rank(right) and left.id < right.id)
