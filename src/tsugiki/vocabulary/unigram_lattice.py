"""All segmentations of words into pieces: expected counts of pieces, and the best split of each piece.

A Unigram model gives a segmentation the product of its pieces' weights (Kudo 2018, arXiv 1804.10959). Sums
over all segmentations of a word are taken from left to right: `alpha` at a place is the sum over the
segmentations of the text before it. Pieces that end at a place are found in a trie of the pieces read
backwards. As in SentencePiece and `tokenizers` (EncodeOptimized, encode_optimized), a character that is no
piece of its own may also be taken as unknown.

Shapes: S characters of all words one after another, W words, P pieces, H slots of a hash table, N its nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from tsugiki.artifacts.processes import usable_cores

_NONE = -1
_ROOT = 0
_CODE_POINT_BITS = 21
_MIX = np.uint64(
    0x9E3779B97F4A7C15
)  # 2^64 divided by the golden ratio: Fibonacci hashing (Knuth, vol. 3, 6.4)
_MIXED_BITS = np.uint64(32)


class Trie(NamedTuple):
    """Pieces by their characters from the last to the first.

    key_H: node << 21 | code point, or -1 for a free slot; child_H: the node that it leads to. piece_N: the
    piece that ends at a node, or -1.
    """

    key_H: NDArray[np.int64]
    child_H: NDArray[np.int32]
    piece_N: NDArray[np.int32]


@dataclass(frozen=True)
class Lattices:
    """Distinct texts and how often each occurs. code_S: their code points; end_W: where each ends in them."""

    code_S: NDArray[np.uint32]
    end_W: NDArray[np.int64]
    count_W: NDArray[np.float64]

    @classmethod
    def of(cls, counts: Iterable[tuple[str, int]]) -> Lattices:
        """The lattices of (text, count); sorted, so that the order does not matter."""
        rows = sorted(counts)
        code_S, end_W = code_points([text for text, _ in rows])
        return cls(code_S, end_W, np.array([count for _, count in rows], dtype=np.float64))


class Expected(NamedTuple):
    """What is expected over all segmentations, weighted by their probability given the text.

    count_P: how often each piece is used. unknown: characters taken as unknown. log_likelihood: the sum over
    the texts of the logarithm of the sum of all segmentations' weights, in nats.
    """

    count_P: NDArray[np.float64]
    unknown: float
    log_likelihood: float


def code_points(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The code points of all texts one after another, and where each text ends."""
    code_S = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return code_S, np.cumsum([len(text) for text in texts], dtype=np.int64)


def build_trie(pieces: Sequence[str]) -> Trie:
    """The trie of different pieces, by their place."""
    code_S, end_P = code_points(pieces)
    slots = 1 << max(4, int(2 * len(code_S) + 1).bit_length())
    trie = Trie(
        np.full(slots, _NONE, dtype=np.int64),
        np.zeros(slots, dtype=np.int32),
        np.full(len(code_S) + 1, _NONE, dtype=np.int32),
    )
    _insert_all(code_S, end_P, trie)
    return trie


_PART_CHARACTERS = 250_000
_MOST_PARTS = 16


def expect(
    lattices: Lattices,
    trie: Trie,
    log_weight_P: NDArray[np.float64],
    unknown: float,
    *,
    workers: int | None = None,
) -> Expected:
    """Expected counts under the weights exp(log_weight_P); -inf leaves a piece out.

    unknown: the logarithm of the weight of a character that is no piece. workers: threads, as many as there
    are cores where none are given. The texts are cut into parts by their number alone and the parts' sums
    added in order, so the result does not depend on the threads.
    """
    parts = min(_MOST_PARTS, 1 + len(lattices.code_S) // _PART_CHARACTERS)
    borders = np.linspace(0, len(lattices.end_W), parts + 1).astype(np.int64).tolist()
    count_QP = np.zeros((parts, len(log_weight_P)))

    def of_part(part: int) -> tuple[float, float]:
        first, last = borders[part], borders[part + 1]
        begin = int(lattices.end_W[first - 1]) if first else 0
        end_W = lattices.end_W[first:last]
        return _expect(
            lattices.code_S[begin : int(end_W[-1]) if len(end_W) else begin],
            end_W - begin,
            lattices.count_W[first:last],
            trie,
            log_weight_P,
            unknown,
            count_QP[part],
        )

    if parts == 1:
        sums = [of_part(0)]
    else:
        with ThreadPoolExecutor(workers or usable_cores()) as pool:
            sums = list(pool.map(of_part, range(parts)))
    return Expected(count_QP.sum(axis=0), sum(one for one, _ in sums), sum(one for _, one in sums))


def best_splits(
    pieces: Sequence[str], trie: Trie, log_weight_P: NDArray[np.float64], unknown: float
) -> NDArray[np.float64]:
    """For each of `pieces` the log weight of its text's best segmentation into two or more parts.

    A single character's is `unknown`. A piece whose own weight is not below this is what the text gives.
    """
    code_S, end_Q = code_points(pieces)
    return _best_splits(code_S, end_Q, trie, log_weight_P, unknown)


@nb.njit(cache=True, nogil=True)
def _slot(node: int, code: int, trie: Trie) -> Any:
    """The slot that leads on from a node by a character, or a free one."""
    key = np.int64(node) << _CODE_POINT_BITS | np.int64(code)
    mask = len(trie.key_H) - 1
    slot = np.int64((np.uint64(key) * _MIX) >> _MIXED_BITS) & mask
    while trie.key_H[slot] not in (key, _NONE):
        slot = (slot + 1) & mask
    return slot


@nb.njit(cache=True, nogil=True)
def _step(node: int, code: int, trie: Trie, log_weight_P: NDArray[np.float64]) -> tuple[int, int]:
    """The node that a character leads to, and the piece that ends there and has a weight; each may be -1."""
    slot = _slot(node, code, trie)
    if trie.key_H[slot] == _NONE:
        return _NONE, _NONE
    child = trie.child_H[slot]
    piece = trie.piece_N[child]
    if piece == _NONE or log_weight_P[piece] == -np.inf:
        return child, _NONE
    return child, piece


@nb.njit(cache=True, nogil=True)
def _added(largest: float, total: float, term: float) -> tuple[float, float]:
    """A sum of exponentials, kept as its largest exponent and the sum over that one, with one term more."""
    if term > largest:
        return term, total * np.exp(largest - term) + 1.0
    return largest, total + np.exp(term - largest)


@nb.njit(cache=True, nogil=True)
def _insert_all(code_S: NDArray[np.uint32], end_P: NDArray[np.int64], trie: Trie) -> None:
    nodes, start = 1, 0
    for piece in range(len(end_P)):
        node = _ROOT
        for place in range(end_P[piece] - 1, start - 1, -1):
            slot = _slot(node, code_S[place], trie)
            if trie.key_H[slot] == _NONE:
                trie.key_H[slot] = np.int64(node) << _CODE_POINT_BITS | np.int64(code_S[place])
                trie.child_H[slot] = nodes
                nodes += 1
            node = trie.child_H[slot]
        trie.piece_N[node] = piece
        start = end_P[piece]


@nb.njit(cache=True, nogil=True)
def _forward(
    text: NDArray[np.uint32],
    trie: Trie,
    log_weight_P: NDArray[np.float64],
    unknown: float,
    alpha: NDArray[np.float64],
) -> None:
    """Fill log alpha at the places 0 to len(text)."""
    alpha[0] = 0.0
    for end in range(1, len(text) + 1):
        node, is_known = _ROOT, False
        largest, total = -np.inf, 0.0
        for start in range(end - 1, -1, -1):
            node, piece = _step(node, text[start], trie, log_weight_P)
            if node == _NONE:
                break
            if piece == _NONE:
                continue
            is_known = is_known or start == end - 1
            largest, total = _added(largest, total, alpha[start] + log_weight_P[piece])
        if not is_known:
            largest, total = _added(largest, total, alpha[end - 1] + unknown)
        alpha[end] = largest + np.log(total)


@nb.njit(cache=True, nogil=True)
def _expect(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    code_S: NDArray[np.uint32],
    end_W: NDArray[np.int64],
    count_W: NDArray[np.float64],
    trie: Trie,
    log_weight_P: NDArray[np.float64],
    unknown: float,
    count_P: NDArray[np.float64],
) -> tuple[float, float]:
    """Add to count_P; the expected number of unknown characters and the log-likelihood are returned."""
    longest = begin = 0
    for end in end_W:
        longest = max(longest, end - begin)
        begin = end
    alpha, visits = np.empty(longest + 1), np.empty(longest + 1)
    unknowns = log_likelihood = 0.0
    begin = 0
    for word in range(len(end_W)):
        text = code_S[begin : end_W[word]]
        begin = end_W[word]
        _forward(text, trie, log_weight_P, unknown, alpha)
        log_likelihood += count_W[word] * alpha[len(text)]
        # visits: how often a segmentation has a border at a place, from the right end to the left.
        visits[: len(text)] = 0.0
        visits[len(text)] = count_W[word]
        for end in range(len(text), 0, -1):
            node, is_known = _ROOT, False
            for start in range(end - 1, -1, -1):
                node, piece = _step(node, text[start], trie, log_weight_P)
                if node == _NONE:
                    break
                if piece == _NONE:
                    continue
                is_known = is_known or start == end - 1
                share = visits[end] * np.exp(alpha[start] + log_weight_P[piece] - alpha[end])
                visits[start] += share
                count_P[piece] += share
            if not is_known:
                share = visits[end] * np.exp(alpha[end - 1] + unknown - alpha[end])
                visits[end - 1] += share
                unknowns += share
    return unknowns, log_likelihood


@nb.njit(cache=True, nogil=True)
def _best_splits(
    code_S: NDArray[np.uint32],
    end_Q: NDArray[np.int64],
    trie: Trie,
    log_weight_P: NDArray[np.float64],
    unknown: float,
) -> NDArray[np.float64]:
    found_Q = np.empty(len(end_Q))
    begin = 0
    for number in range(len(end_Q)):
        text = code_S[begin : end_Q[number]]
        begin = end_Q[number]
        best = np.full(len(text) + 1, -np.inf)
        best[0] = 0.0
        for end in range(1, len(text) + 1):
            node, is_known = _ROOT, False
            for start in range(end - 1, -1, -1):
                node, piece = _step(node, text[start], trie, log_weight_P)
                if node == _NONE:
                    break
                if piece == _NONE or end - start == len(text):
                    continue
                is_known = is_known or start == end - 1
                best[end] = max(best[end], best[start] + log_weight_P[piece])
            if not is_known:
                best[end] = max(best[end], best[end - 1] + unknown)
        found_Q[number] = best[len(text)]
    return found_Q
