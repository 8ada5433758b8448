"""Connected components whose one array that grows with the corpus lies in a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.neardup import kernels
from tsugiki.corpus.neardup.bands import read_pairs
from tsugiki.corpus.neardup.units import blocks_of, create_array
from tsugiki.errors import InputError

Int64s = npt.NDArray[np.int64]

_BLOCK_NODES = 1 << 16


class Components:
    """Union-find over `count` nodes in a work file of 8 bytes a node.

    Roots are joined smaller above larger, so a component's root is its smallest node: the result depends on
    the set of edges only, never on their order. The file is made anew, and removed on leaving
    the `with` block.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self._parents = create_array(path, "<i8", (count,))
        for block in blocks_of(count, _BLOCK_NODES):
            self._parents[block] = np.arange(block.start, block.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._parents
        self.path.unlink(missing_ok=True)

    def union(self, edges: Int64s) -> None:
        """Join the nodes of each edge; shape (edges, 2). Raises InputError for a node out of range."""
        bad = kernels.union_edges(self._parents, edges)
        if bad >= 0:
            raise InputError(
                f"edge {edges[bad].tolist()} where the nodes are 0 to {self.count - 1}",
                hint="the edges were made from other units: delete them and run the command again",
            )

    def union_file(self, path: Path) -> None:
        """Join the nodes of all edges of a file (`bands.band_edges`), block by block."""
        for block in read_pairs(path):
            self.union(block)

    def union_files(self, paths: Iterable[Path]) -> None:
        """Join the nodes of all edges of several files."""
        for path in paths:
            self.union_file(path)

    def apart(self, pairs: Int64s) -> npt.NDArray[np.bool_]:
        """For each pair whether its nodes are not joined yet."""
        return np.asarray(kernels.apart(self._parents, pairs))

    def roots(self) -> Int64s:
        """For each node the smallest node of its component; a view of the file, good until the next union."""
        kernels.point_to_roots(self._parents)
        return self._parents
