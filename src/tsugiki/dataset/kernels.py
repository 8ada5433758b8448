"""The loops over places, documents and tokens, compiled with numba (nogil, cached on disk).

Shapes: S sources, F phases, T sequence length, D documents of a unit, P pieces. Arrays that come from memory
maps are read-only, and their signatures say so.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

IGNORED = -100
"""A target that is not counted; the value that torch's cross entropy ignores by default."""

GROUP_DOCUMENTS = 256
"""Consecutive documents that are shuffled among themselves. Setting up a window costs one such shuffle."""

NEVER = np.int64(2**62)

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

_kernel: Any = nb.njit
_TOKENS = (
    nb.types.Array(nb.uint16, 1, "C", readonly=True),
    nb.types.Array(nb.uint32, 1, "C", readonly=True),
)
_OFFSETS = nb.types.Array(nb.int64, 1, "C", readonly=True)
_PIECES = nb.types.Array(nb.uint32, 2, "C", readonly=True)


@_kernel("uint64(uint64)", inline="always", cache=True)
def _mix(value: Any) -> Any:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@_kernel("void(uint64[::1], uint64, uint64, uint64[::1])", nogil=True, cache=True)
def permute(values: Any, size: Any, half_bits: Any, round_keys: Any) -> None:
    """Send every value (below `size`) through the Feistel network until it falls below `size`, in place."""
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    for place in range(values.size):
        value = values[place]
        while True:
            left, right = value >> half_bits, value & mask
            for number in range(round_keys.size):
                left, right = right, left ^ (_mix(right ^ round_keys[number]) & mask)
            value = (left << half_bits) | right
            if value < size:
                break
        values[place] = value


@_kernel("int64(int64, int64[:, ::1], int64[::1], int64[:, ::1], int64)", inline="always", cache=True)
def _first_place(target: Any, weights_FS: Any, starts_F: Any, owed_FS: Any, source: Any) -> Any:
    """The smallest number of places after which `source` is owed at least `target`."""
    last = starts_F.size - 1
    for phase in range(starts_F.size):
        owed = owed_FS[phase, source]
        if owed >= target:
            return starts_F[phase]
        weight = weights_FS[phase, source]
        if weight == 0:
            continue
        place = starts_F[phase] + (target - owed + weight - 1) // weight
        if phase == last or place <= starts_F[phase + 1]:
            return place
    return NEVER


@_kernel(
    "void(int64[::1], int64, int64, int64[:, ::1], int64[::1], int64[:, ::1], int64[::1], int64[::1])",
    nogil=True,
    cache=True,
)
def draw_places(  # noqa: PLR0917 (numba takes positions only)
    used_S: Any,
    first: Any,
    whole: Any,
    weights_FS: Any,
    starts_F: Any,
    owed_FS: Any,
    source_of_place: Any,
    use_of_place: Any,
) -> None:
    """Give the places first, first + 1, ... to sources: Tijdeman's algorithm (see `schedule`).

    used_S: places that each source has had so far, brought up to date. whole: what one place is worth;
    each row of weights_FS adds up to it. owed_FS: what each source is owed where each phase starts.
    """
    sources = used_S.size
    slack = whole // max(1, 2 * sources - 2)
    release_S = np.empty(sources, np.int64)
    deadline_S = np.empty(sources, np.int64)
    for source in range(sources):
        base = used_S[source] * whole
        release_S[source] = _first_place(base + slack, weights_FS, starts_F, owed_FS, source)
        deadline_S[source] = _first_place(base + whole - slack + 1, weights_FS, starts_F, owed_FS, source)
    for place in range(source_of_place.size):
        now = first + place + 1
        chosen = -1
        for source in range(sources):
            if release_S[source] <= now and (chosen < 0 or deadline_S[source] < deadline_S[chosen]):
                chosen = source
        source_of_place[place] = chosen
        use_of_place[place] = used_S[chosen]
        used_S[chosen] += 1
        base = used_S[chosen] * whole
        release_S[chosen] = _first_place(base + slack, weights_FS, starts_F, owed_FS, chosen)
        deadline_S[chosen] = _first_place(base + whole - slack + 1, weights_FS, starts_F, owed_FS, chosen)


@_kernel("int64[::1](int64, uint64)", nogil=True, cache=True)
def shuffled(count: Any, key: Any) -> Any:
    """The numbers 0..count-1 in an order chosen by `key`: Fisher and Yates with SplitMix64.

    The bias of the remainder is below count / 2^64.
    """
    order = np.arange(count)
    state = key
    for last in range(count - 1, 0, -1):
        state += _BASE
        other = np.int64(_mix(state) % np.uint64(last + 1))
        order[last], order[other] = order[other], order[last]
    return order


@_kernel(
    [
        nb.types.UniTuple(nb.int64, 2)(
            tokens,
            _OFFSETS,
            nb.int64,
            nb.int64,
            nb.uint64,
            nb.int64,
            nb.int64[::1],
            nb.int32[::1],
            nb.int64,
            nb.int64,
        )
        for tokens in _TOKENS
    ],
    nogil=True,
    cache=True,
)
def copy_group(  # noqa: PLR0917 (numba takes positions only)
    tokens: Any,
    offsets_D: Any,
    first: Any,
    count: Any,
    key: Any,
    skip: Any,
    out_T1: Any,
    document_ids_T1: Any,
    filled: Any,
    local: Any,
) -> Any:
    """Copy a group's documents, in the order of `key` and without the first `skip` tokens, into a window.

    The group is documents first..first+count-1 of the unit. Gives how far the window is filled and the
    number of the next document in it.
    """
    order = shuffled(count, key)
    for place in range(count):
        document = first + order[place]
        begin, end = offsets_D[document], offsets_D[document + 1]
        if skip >= end - begin:
            skip -= end - begin
            continue
        taken = min(end - begin - skip, out_T1.size - filled)
        for number in range(taken):
            out_T1[filled + number] = tokens[begin + skip + number]
            document_ids_T1[filled + number] = local
        filled += taken
        local += 1
        skip = 0
        if filled == out_T1.size:
            break
    return filled, local


@_kernel(
    "void(int64[::1], int32[::1], int64[::1], int64[::1], int32[::1])",
    nogil=True,
    cache=True,
)
def cut_window(tokens_T1: Any, document_ids_T1: Any, ids_T: Any, targets_T: Any, document_ids_T: Any) -> None:
    """Split T + 1 tokens into inputs and targets; a target in another document than its input is IGNORED."""
    for place in range(ids_T.size):
        ids_T[place] = tokens_T1[place]
        document_ids_T[place] = document_ids_T1[place]
        same = document_ids_T1[place + 1] == document_ids_T1[place]
        targets_T[place] = tokens_T1[place + 1] if same else IGNORED


@_kernel(
    [
        nb.void(
            tokens,
            _OFFSETS,
            _PIECES,
            nb.int64,
            nb.int64,
            nb.int64[::1],
            nb.int64[::1],
            nb.int32[::1],
        )
        for tokens in _TOKENS
    ],
    nogil=True,
    cache=True,
)
def copy_pieces(  # noqa: PLR0917 (numba takes positions only)
    tokens: Any,
    offsets_D: Any,
    pieces_P3: Any,
    first: Any,
    last: Any,
    ids_T: Any,
    targets_T: Any,
    document_ids_T: Any,
) -> None:
    """Copy pieces first..last-1 of a best-fit plan into a row; what is left over is padding.

    A piece is (document, offset in it, pairs): pairs of an input and the token that follows. Padding has
    input 0, no target, and a document number of its own.
    """
    filled = 0
    for piece in range(first, last):
        begin = offsets_D[pieces_P3[piece, 0]] + np.int64(pieces_P3[piece, 1])
        for number in range(np.int64(pieces_P3[piece, 2])):
            ids_T[filled] = tokens[begin + number]
            targets_T[filled] = tokens[begin + number + 1]
            document_ids_T[filled] = piece - first
            filled += 1
    for place in range(filled, ids_T.size):
        ids_T[place] = 0
        targets_T[place] = IGNORED
        document_ids_T[place] = last - first


@_kernel([nb.int64(_OFFSETS, nb.int64)], nogil=True, cache=True)
def count_pieces(offsets_D: Any, length: Any) -> Any:
    """How many pieces of at most `length` pairs the documents make."""
    count = 0
    for document in range(offsets_D.size - 1):
        pairs = offsets_D[document + 1] - offsets_D[document] - 1
        count += (max(pairs, 0) + length - 1) // length
    return count


@_kernel("int64(uint64[::1], int64[::1], int64)", inline="always", cache=True)
def _smallest_room(open_rooms: Any, newest: Any, pairs: Any) -> Any:
    """The smallest room of at least `pairs` that some bin has left, or one that no bin can have."""
    room = pairs
    while room < newest.size:
        if open_rooms[room >> 6] >> np.uint64(room & 63) == 0:
            room = ((room >> 6) + 1) << 6
        elif newest[room] >= 0:
            return room
        else:
            room += 1
    return newest.size


@_kernel([nb.int64(_OFFSETS, nb.int64, nb.uint32[:, ::1], nb.int64[::1])], nogil=True, cache=True)
def best_fit(offsets_D: Any, length: Any, pieces_P3: Any, bin_of_piece_P: Any) -> Any:
    """Cut documents into pieces and give each to a bin of `length` pairs; gives the number of bins.

    Best-fit decreasing: from the longest piece to the shortest, each goes where the least room is left over.
    pieces_P3 becomes (document, offset, pairs), longest first; bin_of_piece_P the bin of each.
    """
    starts = np.zeros(length + 2, np.int64)  # by length - pairs: where the pieces of that many pairs begin
    for document in range(offsets_D.size - 1):
        pairs = offsets_D[document + 1] - offsets_D[document] - 1
        while pairs > 0:
            starts[length - min(pairs, length) + 1] += 1
            pairs -= length
    for room in range(length + 1):
        starts[room + 1] += starts[room]
    for document in range(offsets_D.size - 1):
        pairs = offsets_D[document + 1] - offsets_D[document] - 1
        offset = 0
        while offset < pairs:
            taken = min(pairs - offset, length)
            place = starts[length - taken]
            starts[length - taken] += 1
            pieces_P3[place, 0] = document
            pieces_P3[place, 1] = offset
            pieces_P3[place, 2] = taken
            offset += taken
    newest = np.full(length + 1, -1, np.int64)  # by room left: the newest bin, and before each bin the next
    before = np.empty(pieces_P3.shape[0], np.int64)
    open_rooms = np.zeros((length >> 6) + 1, np.uint64)  # one bit a room: whether any bin has it left
    bins = 0
    for piece in range(pieces_P3.shape[0]):
        pairs = np.int64(pieces_P3[piece, 2])
        room = _smallest_room(open_rooms, newest, pairs)
        if room > length:
            number, room = bins, length
            bins += 1
        else:
            number = newest[room]
            newest[room] = before[number]
            if newest[room] < 0:
                open_rooms[room >> 6] &= ~(np.uint64(1) << np.uint64(room & 63))
        bin_of_piece_P[piece] = number
        left = room - pairs
        before[number] = newest[left]
        newest[left] = number
        open_rooms[left >> 6] |= np.uint64(1) << np.uint64(left & 63)
    return bins
