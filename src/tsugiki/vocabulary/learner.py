"""Learning merges on top of a tokenizer's own segmentation: continued byte-pair encoding.

New merges come after all merges of the base, so at encoding time the base's are applied first, and what a new
merge joins are pieces that the base leaves behind. The merges therefore have to be learnt on the base's
segmentation, not on raw bytes: pieces learnt apart and appended would often be unreachable (arXiv
2512.03989).

The segmentation lies in flat arrays of S symbols; words are linked lists through `next_S` and `previous_S`.
Every pair of neighbours is in the doubly linked list of its pair's occurrences, so one merge costs its
occurrences and no more, and a lazily updated heap gives the most frequent pair. Ties go to the pair with the
smaller left, then right id, so the result does not depend on the order of the words.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from tsugiki.vocabulary.pieces import MIXED_SCRIPTS, PieceTable
from tsugiki.vocabulary.words import Words

_WHOLE, _LEAD, _CONTINUATION = 1, 2, 3  # pieces.Kind; numba takes plain integers as constants
_NONE = -1
_LONGEST_NEW_PIECE_BYTES = 4 * 256  # Config.max_piece_characters

# Pieces are told apart by a polynomial hash of their bytes, modulo two primes below 2^31 so that products fit
# into 64 bits; `extend.py` compares the spelled pieces, so a collision would be reported and never pass.
_PRIME_1, _BASE_1 = 2147483647, 1000003
_PRIME_2, _BASE_2 = 2147483629, 69069


class Limits(NamedTuple):
    """When to stop and which pieces are allowed.

    wanted: new pieces worth keeping (whole ones, and the fragments that they are built on).
    minimum_count: occurrences in the corpus that a pair needs. maximum_characters: of a piece.
    ascii: whether a new piece may consist of ASCII alone.
    """

    wanted: int
    minimum_count: int
    maximum_characters: int
    ascii: bool


@dataclass(frozen=True)
class Merges:
    """What was learnt: each merge M is (left, right, target), in order.

    Targets from the base's size on are new, numbered as they appeared; a target may come from several merges.
    counts_M: how often each merge was made, which never grows from one to the next. pieces: how many ids
    there are now. token_S, next_S: the segmentation after all merges (-1: no symbol, end of the word).
    """

    merges_M3: NDArray[np.int32]
    counts_M: NDArray[np.int64]
    pieces: int
    token_S: NDArray[np.int32]
    next_S: NDArray[np.int64]


class _Corpus(NamedTuple):
    """The words as linked lists of symbols; changed by every merge."""

    token_S: NDArray[np.int32]
    next_S: NDArray[np.int64]
    previous_S: NDArray[np.int64]
    word_S: NDArray[np.int32]
    count_W: NDArray[np.int64]


class _Pairs(NamedTuple):
    """The pairs of neighbours that may be joined, and where each occurs.

    pair_S: the pair that starts at a symbol, or -1. later_S, earlier_S: the occurrences of one pair as a
    linked list. lefts, rights, counts, heads: lists by pair. number: (left, right) as one key -> pair, -1 if
    forbidden.
    """

    pair_S: NDArray[np.int64]
    later_S: NDArray[np.int64]
    earlier_S: NDArray[np.int64]
    lefts: Any
    rights: Any
    counts: Any
    heads: Any
    number: Any


class _Hashes(NamedTuple):
    """Hashes of the pieces' bytes, and the powers of the bases to join two of them."""

    first_P: NDArray[np.int64]
    second_P: NDArray[np.int64]
    powers_1: NDArray[np.int64]
    powers_2: NDArray[np.int64]


def learn_merges(
    words: Words,
    pieces: Sequence[bytes | None],
    table: PieceTable,
    script_of_codepoint: NDArray[np.int16],
    limits: Limits,
) -> Merges:
    """Learn merges until `limits.wanted` pieces are worth keeping, or no allowed pair is frequent enough.

    pieces: the bytes of the base's pieces by id, None for special ones. table: their properties, with room
    for the new ones (no more are learnt than fit); extended in place. script_of_codepoint: `Scripts.table`.
    """
    capacity = len(table.kind_P)
    first_P, second_P = np.zeros(capacity, dtype=np.int64), np.zeros(capacity, dtype=np.int64)
    for number, piece in enumerate(pieces):
        first_P[number], second_P[number] = _hash(piece)
    longest = int(table.bytes_P.max()) + _LONGEST_NEW_PIECE_BYTES
    hashes = _Hashes(
        first_P, second_P, _powers(_BASE_1, _PRIME_1, longest), _powers(_BASE_2, _PRIME_2, longest)
    )
    corpus = _link_words(words.token_S.astype(np.int32), words.word_S, words.count_W)
    merges_M3, counts_M, size = _learn(corpus, hashes, table, script_of_codepoint, limits, len(pieces))
    return Merges(merges_M3, counts_M, size, corpus.token_S, corpus.next_S)


def _hash(piece: bytes | None) -> tuple[int, int]:
    first = second = 0
    for byte in piece or b"":
        first = (first * _BASE_1 + byte + 1) % _PRIME_1
        second = (second * _BASE_2 + byte + 1) % _PRIME_2
    return first, second


def _powers(base: int, prime: int, count: int) -> NDArray[np.int64]:
    powers = [1]
    for _ in range(count):
        powers.append(powers[-1] * base % prime)
    return np.array(powers, dtype=np.int64)


def _link_words(token_S: NDArray[np.int32], word_S: NDArray[np.int32], count_W: NDArray[np.int64]) -> _Corpus:
    places_S = np.arange(len(token_S))
    is_last_S = np.append(word_S[1:] != word_S[:-1], True)
    next_S = np.where(is_last_S, _NONE, places_S + 1)
    previous_S = np.where(np.append(True, is_last_S[:-1]), _NONE, places_S - 1)
    return _Corpus(token_S, next_S, previous_S, word_S, count_W)


@nb.njit(cache=True)
def _joined_kind(left: int, right: int, table: PieceTable, limits: Limits) -> int:
    """The kind of left + right, or 0 where such a piece is not allowed."""
    kind_P = table.kind_P
    if kind_P[left] == _WHOLE and kind_P[right] == _WHOLE:
        one, other = table.script_P[left], table.script_P[right]
        is_too_long = table.length_P[left] + table.length_P[right] > limits.maximum_characters
        is_ascii = table.is_ascii_P[left] and table.is_ascii_P[right]
        is_mixed = MIXED_SCRIPTS in (one, other) or (one != other and 0 not in (one, other))
        return 0 if is_too_long or is_mixed or (is_ascii and not limits.ascii) else _WHOLE
    if kind_P[left] == _LEAD and kind_P[right] == _CONTINUATION:
        lacking = table.need_P[left] - table.length_P[right]
        return 0 if lacking < 0 else _WHOLE if lacking == 0 else _LEAD
    return 0


@nb.njit(cache=True)
def _describe_joined(  # noqa: PLR0917 - numba compiles no keyword-only arguments
    left: int,
    right: int,
    target: int,
    table: PieceTable,
    script_of_codepoint: NDArray[np.int16],
    limits: Limits,
) -> int:
    """Write the properties of the new piece left + right; its kind is returned."""
    joined = _joined_kind(left, right, table, limits)
    table.kind_P[target] = joined
    table.bytes_P[target] = table.bytes_P[left] + table.bytes_P[right]
    table.length_P[target] = table.length_P[left] + table.length_P[right]
    if table.kind_P[left] == _WHOLE:
        table.script_P[target] = max(table.script_P[left], table.script_P[right])  # equal, or one is 0
        table.is_ascii_P[target] = table.is_ascii_P[left] and table.is_ascii_P[right]
        return joined
    table.value_P[target] = table.value_P[left] << (6 * table.length_P[right]) | table.value_P[right]
    table.need_P[target] = table.need_P[left] - table.length_P[right]
    if joined == _WHOLE:
        table.length_P[target] = 1
        table.script_P[target] = script_of_codepoint[table.value_P[target]]
    return joined


@nb.njit(cache=True)
def _enter(place: int, corpus: _Corpus, pairs: _Pairs, table: PieceTable, limits: Limits) -> int:
    """Count the pair that starts at `place` and enter it into its list; its number, or -1 if not allowed."""
    left, right = corpus.token_S[place], corpus.token_S[corpus.next_S[place]]
    key = np.int64(left) << 32 | np.int64(right)
    if key not in pairs.number:
        if _joined_kind(left, right, table, limits) == 0:
            pairs.number[key] = np.int64(_NONE)
        else:
            pairs.number[key] = np.int64(len(pairs.counts))
            pairs.lefts.append(left)
            pairs.rights.append(right)
            pairs.counts.append(np.int64(0))
            pairs.heads.append(np.int64(_NONE))
    pair = pairs.number[key]
    if pair != _NONE:
        pairs.pair_S[place] = pair
        pairs.counts[pair] += corpus.count_W[corpus.word_S[place]]
        pairs.later_S[place] = pairs.heads[pair]
        if pairs.heads[pair] != _NONE:
            pairs.earlier_S[pairs.heads[pair]] = place
        pairs.heads[pair] = place
    return pair


@nb.njit(cache=True)
def _leave(place: int, corpus: _Corpus, pairs: _Pairs) -> None:
    """Take the pair that starts at `place`, if any, out of its list and its count."""
    if place == _NONE or pairs.pair_S[place] == _NONE:
        return
    pair, later, earlier = pairs.pair_S[place], pairs.later_S[place], pairs.earlier_S[place]
    pairs.counts[pair] -= corpus.count_W[corpus.word_S[place]]
    if earlier == _NONE:
        pairs.heads[pair] = later
    else:
        pairs.later_S[earlier] = later
    if later != _NONE:
        pairs.earlier_S[later] = earlier
    pairs.pair_S[place] = pairs.later_S[place] = pairs.earlier_S[place] = _NONE


@nb.njit(cache=True)
def _join_here(place: int, target: int, corpus: _Corpus, pairs: _Pairs) -> None:
    """Replace the symbol at `place` and the next one by `target`; the pairs around it leave their lists."""
    second, before = corpus.next_S[place], corpus.previous_S[place]
    _leave(before, corpus, pairs)
    _leave(place, corpus, pairs)
    _leave(second, corpus, pairs)
    after = corpus.next_S[second]
    corpus.token_S[place], corpus.token_S[second] = target, _NONE
    corpus.next_S[place] = after
    if after != _NONE:
        corpus.previous_S[after] = place


@nb.njit(cache=True)
def _join(  # noqa: PLR0917 - as above
    pair: int, target: int, corpus: _Corpus, pairs: _Pairs, table: PieceTable, limits: Limits
) -> Any:
    """Replace every occurrence of a pair by `target`; the pairs that became more frequent, each once."""
    places = [np.int64(0) for _ in range(0)]
    place = pairs.heads[pair]
    while place != _NONE:
        places.append(place)
        place = pairs.later_S[place]
    touched = {np.int64(_NONE): True}
    for occurrence in places:
        place = occurrence
        if pairs.pair_S[place] != pair:
            continue  # joined already, as part of a run
        # Runs such as aaa are joined from their left end, as an encoder does.
        while corpus.previous_S[place] != _NONE and pairs.pair_S[corpus.previous_S[place]] == pair:
            place = corpus.previous_S[place]
        while place != _NONE and pairs.pair_S[place] == pair:
            _join_here(place, target, corpus, pairs)
            if corpus.previous_S[place] != _NONE:
                touched[_enter(corpus.previous_S[place], corpus, pairs, table, limits)] = True
            if corpus.next_S[place] != _NONE:
                touched[_enter(place, corpus, pairs, table, limits)] = True
            place = corpus.next_S[place]
    return touched


@nb.njit(cache=True)
def _enter_all(corpus: _Corpus, table: PieceTable, limits: Limits) -> _Pairs:
    symbols = len(corpus.token_S)
    pairs = _Pairs(
        np.full(symbols, _NONE),
        np.full(symbols, _NONE),
        np.full(symbols, _NONE),
        [np.int32(0) for _ in range(0)],
        [np.int32(0) for _ in range(0)],
        [np.int64(0) for _ in range(0)],
        [np.int64(0) for _ in range(0)],
        {np.int64(_NONE): np.int64(_NONE)},
    )
    for place in range(symbols):
        if corpus.next_S[place] != _NONE:
            _enter(place, corpus, pairs, table, limits)
    return pairs


@nb.njit(cache=True)
def _next_pair(heap: Any, pairs: _Pairs, minimum_count: int) -> int:
    """Take the most frequent pair off the heap, or -1. An entry whose count has changed goes back or away."""
    while len(heap) > 0:
        negative, left, right, pair = heapq.heappop(heap)
        count = pairs.counts[pair]
        if count < minimum_count or -negative < count:
            continue  # too rare, or another entry of the heap has the present count
        if -negative == count:
            return pair
        heapq.heappush(heap, (-count, left, right, pair))
    return _NONE


@nb.njit(cache=True)
def _keep(piece: int, base: int, part_P: NDArray[np.int32], is_kept_P: NDArray[np.bool_]) -> int:
    """Mark a whole piece and the fragments it is built on as worth keeping; how many were not yet."""
    kept = 0
    while piece >= base and not is_kept_P[piece]:
        is_kept_P[piece] = True
        kept += 1
        piece = part_P[piece]
    return kept


@nb.njit(cache=True)
def _joined_hash(left: int, right: int, target: int, hashes: _Hashes, table: PieceTable) -> int:
    """The hash of left + right as one number; its halves are noted for `target`."""
    width = table.bytes_P[right]
    first = (hashes.first_P[left] * hashes.powers_1[width] + hashes.first_P[right]) % _PRIME_1
    second = (hashes.second_P[left] * hashes.powers_2[width] + hashes.second_P[right]) % _PRIME_2
    hashes.first_P[target], hashes.second_P[target] = first, second
    return first << 31 | second


@nb.njit(cache=True)
def _learn(  # noqa: PLR0917 - as above
    corpus: _Corpus,
    hashes: _Hashes,
    table: PieceTable,
    script_of_codepoint: NDArray[np.int16],
    limits: Limits,
    base: int,
) -> tuple[NDArray[np.int32], NDArray[np.int64], int]:
    capacity = len(table.kind_P)
    piece_of_hash = {hashes.first_P[one] << 31 | hashes.second_P[one]: np.int64(one) for one in range(base)}
    pairs = _enter_all(corpus, table, limits)
    heap = [
        (-pairs.counts[one], pairs.lefts[one], pairs.rights[one], one) for one in range(len(pairs.counts))
    ]
    heapq.heapify(heap)
    learnt = [np.int32(0) for _ in range(0)]
    counts = [np.int64(0) for _ in range(0)]
    part_P = np.full(
        capacity, _NONE, dtype=np.int32
    )  # a new piece's left part: the way down to its fragments
    is_kept_P = np.zeros(capacity, dtype=np.bool_)
    size, kept = base, 0
    while kept < limits.wanted and size < capacity:
        pair = _next_pair(heap, pairs, limits.minimum_count)
        if pair == _NONE:
            break
        left, right = pairs.lefts[pair], pairs.rights[pair]
        hashed = _joined_hash(left, right, size, hashes, table)
        target = piece_of_hash[hashed] if hashed in piece_of_hash else np.int64(size)
        if target < base:
            continue  # joining into a piece of the base would change text that uses no new piece
        if target == size:
            piece_of_hash[hashed] = target
            part_P[target] = left
            size += 1
            if _describe_joined(left, right, target, table, script_of_codepoint, limits) == _WHOLE:
                kept += _keep(target, base, part_P, is_kept_P)
        learnt.extend((left, right, np.int32(target)))
        counts.append(pairs.counts[pair])
        for one in _join(pair, target, corpus, pairs, table, limits):
            if one != _NONE:
                heapq.heappush(heap, (-pairs.counts[one], pairs.lefts[one], pairs.rights[one], one))
    return np.array(learnt, dtype=np.int32).reshape(-1, 3), np.array(counts, dtype=np.int64), size
