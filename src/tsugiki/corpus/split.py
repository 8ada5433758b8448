"""The held-out split by page cluster, and the proof that no near-duplicate of a held-out page is trained on.

Documents that are alike (Jaccard similarity of their character n-grams at or above a threshold) form groups;
a group is held out as a whole. Pairs come from a loose banding of the MinHash signatures, and the signatures
estimate their similarity. Then every held-out document is compared exactly, n-gram by n-gram, with *all*
training documents; a pair that the estimate missed joins its groups and the choice is made again, until none
is left. Only the held-out documents' n-grams are in memory: the training documents stream past them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsugiki.corpus import kernels
from tsugiki.corpus.duplicates import components
from tsugiki.errors import StageError

LOOSE_ROWS = 5
"""Hashes a band: with 160 bands a pair of similarity 0.5 is proposed with probability 0.994, 0.3 with 0.32.
"""

_ROUNDS = 20

Shingles = Callable[[Sequence[int]], Iterable[npt.NDArray[np.uint64]]]
"""Gives the sorted n-gram hashes of the documents with these (ascending) indices, one after another."""

Pairs = npt.NDArray[np.int64]
Propose = Callable[[npt.NDArray[np.uint64]], Pairs]


@dataclass(frozen=True)
class Split:
    """Which documents are held out, and how far they are from the others.

    similarity, containment: one value a held-out document, in the order of `held_out`: the largest Jaccard
    similarity to any training document, and the largest share of its n-grams that one holds.
    """

    held_out: tuple[int, ...]
    groups: int
    largest_group: int
    rounds: int
    similarity: tuple[float, ...]
    containment: tuple[float, ...]


def split_by_group(
    ids: Sequence[str],
    shingles: Shingles,
    signatures: npt.NDArray[np.uint32],
    propose: Propose,
    *,
    wanted: int,
    threshold: float,
    seed: int,
) -> Split:
    """Hold out about `wanted` documents, in whole groups.

    ids, signatures (documents, hashes): one entry a document. shingles: the n-grams of any of them. propose:
    pairs of documents with an equal band key, from keys of shape (documents, bands).
    Raises StageError where no group is small enough to be held out, or where the proof can't be brought.
    """
    hashes = signatures.shape[1]
    rows = min(LOOSE_ROWS, hashes)
    pairs = propose(kernels.band_keys(signatures, hashes // rows, rows))
    edges = _alike(pairs, signatures, threshold)
    for rounds in range(1, _ROUNDS + 1):
        roots = components(len(ids), edges)
        chosen = choose_groups(ids, roots, wanted, seed)
        if not chosen:
            raise _no_group(roots, wanted, threshold)
        nearest = _nearest(chosen, len(ids), shingles, threshold)
        if not nearest.alike:
            sizes = np.bincount(roots)
            return Split(
                held_out=tuple(chosen),
                groups=int((sizes > 0).sum()),
                largest_group=int(sizes.max()),
                rounds=rounds,
                similarity=tuple(nearest.similarity.tolist()),
                containment=tuple(nearest.containment.tolist()),
            )
        edges = np.concatenate([edges, np.array(nearest.alike, np.int64)])
    raise StageError(
        f"after {_ROUNDS} rounds held-out documents still have training documents with a similarity of "
        f"{threshold:g} or more",
        hint="raise heldout_similarity, or lower heldout",
    )


def _no_group(roots: npt.NDArray[np.int64], wanted: int, threshold: float) -> StageError:
    sizes = np.bincount(roots)
    smallest = int(sizes[sizes > 0].min()) if sizes.size else 0
    return StageError(
        f"no group of similar documents is small enough to hold out {wanted} of {roots.size} documents: at a "
        f"similarity of {threshold:g} the smallest of {int((sizes > 0).sum())} groups has {smallest}",
        hint="raise heldout (the share), or heldout_similarity, or add pages",
    )


def choose_groups(ids: Sequence[str], roots: npt.NDArray[np.int64], wanted: int, seed: int) -> list[int]:
    """Whole groups in the order of a hash of (seed, group) as long as they fit into `wanted` documents.

    A group is named by its smallest document id, so neither the order of the documents nor the number of
    workers matters. Groups too large for what is left are passed over: templated manuals chain into a giant
    group, which belongs into training. Returns the sorted indices of the documents.
    """
    members: dict[int, list[int]] = {}
    for index, root in enumerate(roots.tolist()):
        members.setdefault(root, []).append(index)
    named = sorted(
        (hashlib.blake2b(f"{seed}\n{min(ids[i] for i in group)}".encode(), digest_size=8).digest(), group)
        for group in members.values()
    )
    chosen: list[int] = []
    for _, group in named:
        if len(chosen) + len(group) <= min(wanted, len(ids) - 1):
            chosen += group
    return sorted(chosen)


def _alike(pairs: Pairs, signatures: npt.NDArray[np.uint32], threshold: float) -> Pairs:
    """The pairs whose signatures agree in at least this share of their hashes."""
    kept = [
        pair for pair in pairs.tolist() if (signatures[pair[0]] == signatures[pair[1]]).mean() >= threshold
    ]
    return np.array(kept, np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class _Nearest:
    similarity: npt.NDArray[np.float64]
    containment: npt.NDArray[np.float64]
    alike: list[tuple[int, int]]


def _nearest(held_out: Sequence[int], documents: int, shingles: Shingles, threshold: float) -> _Nearest:
    """Compare exactly: an inverted index of the held-out documents' n-grams, every other one as a query."""
    sets = list(shingles(held_out))
    sizes = np.array([one.size for one in sets], np.int64)
    values = np.concatenate(sets)
    owners = np.repeat(np.arange(len(sets), dtype=np.int32), sizes)
    order = np.argsort(values, kind="stable")
    values, owners = values[order], owners[order]
    similarity = np.zeros(len(sets))
    containment = np.zeros(len(sets))
    alike = []
    train = np.setdiff1d(np.arange(documents), np.array(held_out)).tolist()
    for document, query in zip(train, shingles(train), strict=True):
        common = kernels.overlaps(query, values, owners, len(sets))
        jaccard = common / (sizes + query.size - common)
        np.maximum(similarity, jaccard, out=similarity)
        np.maximum(containment, common / sizes, out=containment)
        alike += [(held_out[i], document) for i in np.flatnonzero(jaccard >= threshold).tolist()]
    return _Nearest(similarity, containment, alike)


def histogram(values: Sequence[float], bins: int = 20) -> list[dict[str, float | int]]:
    """How many values lie in each of `bins` equal intervals of [0, 1]; the last one is closed."""
    counts, bounds = np.histogram(np.array(values, np.float64), bins=bins, range=(0.0, 1.0))
    return [
        {"from": round(float(low), 4), "to": round(float(high), 4), "documents": int(count)}
        for low, high, count in zip(bounds[:-1], bounds[1:], counts, strict=True)
    ]
