"""Drawing normal numbers into weights, fast enough to keep up with a disk.

Marsaglia and Tsang's ziggurat ("The Ziggurat Method for Generating Random Variables", J. Stat. Software 5(8),
2000) with 256 layers, on the generator splitmix64 (Steele, Lea and Flood 2014). Every row of a matrix has a
stream of its own, which its number and the matrix's seed determine, so rows may be drawn in any order, by any
number of threads. But for one number in a hundred only products of 64-bit integers and of float32 numbers
decide, which are the same on every machine.

Bfloat16 weights are handled as their bits, uint16: neither numpy nor numba has the type.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_LAYERS = 256
_TAIL = 3.6541528853610088
_AREA = 0.00492867323399
"""Where the lowest layer's tail begins, and the area of each layer, for 256 layers: they solve
area = r f(r) + tail(r) and f(0) = f(x_255) + area / x_255, with f(x) = exp(-x²/2) (the article's table)."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 2.0**-53
_BLOCK = 1024  # 8 KiB of bits, in the first cache


def _tables() -> tuple[Any, Any]:
    """Right edges x_i of the layers, the widest (and virtual) one first, and the heights f(x_i)."""
    edges = np.zeros(_LAYERS + 1)
    edges[0], edges[1] = _AREA / math.exp(-0.5 * _TAIL**2), _TAIL
    for layer in range(2, _LAYERS):
        below = edges[layer - 1]
        edges[layer] = math.sqrt(-2 * math.log(_AREA / below + math.exp(-0.5 * below**2)))
    return edges, np.exp(-0.5 * edges**2)


_EDGES, _HEIGHTS = _tables()
_WIDTHS = _EDGES * 2.0**-52
_STEPS = (_EDGES[:-1] * 2.0**-23).astype(np.float32)
"""What 24 bits with a sign are multiplied by in each layer."""
_INSIDE = np.ceil(_EDGES[1:] / _EDGES[:-1] * 2.0**23).astype(np.int32)
"""Below this they lie in the part of the layer that is wholly under the curve."""


@njit("uint64(uint64)", nogil=True, cache=True, inline="always")
def _mixed(state: Any) -> Any:
    """The output function of splitmix64."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))


@njit("float64(uint64)", nogil=True, cache=True, inline="always")
def _unit(bits: Any) -> Any:
    """A number in (0, 1] of 53 of the bits."""
    return (np.float64(np.int64(bits >> np.uint64(11))) + 1.0) * _TO_UNIT


@njit("Tuple((uint64, float64))(uint64)", nogil=True, cache=True)
def _from_tail(state: Any) -> Any:
    """A number beyond _TAIL (Marsaglia 1964), and the state behind it."""
    while True:
        state += _GOLDEN
        x = -math.log(_unit(_mixed(state))) / _TAIL
        state += _GOLDEN
        y = -math.log(_unit(_mixed(state)))
        if y + y >= x * x:
            return state, x + _TAIL


@njit("float64(uint64, float64, uint64)", nogil=True, cache=True)
def _settle(layer: Any, x: Any, state: Any) -> Any:
    """What becomes of a number that its layer's width does not settle: one in a hundred.

    It goes on with a stream of its own, from `state`, so the others need not wait to see how long.
    """
    while abs(x) >= _EDGES[layer + np.uint64(1)]:
        if layer == 0:
            state, tail = _from_tail(state)
            return math.copysign(tail, x)
        state += _GOLDEN
        low, high = _HEIGHTS[layer], _HEIGHTS[layer + np.uint64(1)]
        if low + _unit(_mixed(state)) * (high - low) < math.exp(-0.5 * x * x):
            return x
        state += _GOLDEN
        bits = _mixed(state)
        layer = bits & np.uint64(255)
        x = np.float64(np.int64(bits) >> np.int64(11)) * _WIDTHS[layer]
    return x


@njit("void(int64, uint32, uint64, float32[::1])", nogil=True, cache=True)
def _settle_at(place: Any, word: Any, bits: Any, part: Any) -> None:
    """Put the number that follows from `word`, a half of `bits`, where it belongs."""
    layer = np.uint64(word) & np.uint64(255)
    x = np.float64(np.int32(word) >> np.int32(8)) * (_EDGES[layer] * 2.0**-23)
    part[place] = _settle(layer, x, _mixed(bits + np.uint64(1 + (place & 1)) * _GOLDEN))


@njit("void(uint64, float32[::1], int64)", nogil=True, cache=True)
def draw(seed: Any, out: Any, count: Any) -> None:
    """Write `count` standard normal numbers to `out`.

    Of 32 random bits 24 are a number with its sign (a branch on the sign would be guessed wrong half of the
    time), and 8 the layer. A block is gone through again and again, by loops without a branch, of which the
    compiler does several turns at once; only those that their layer doesn't settle are looked at singly.
    """
    bits = np.empty(_BLOCK // 2, np.uint64)
    words = bits.view(np.uint32)  # the lower half first, on all processors that torch runs on
    outside = np.empty(_BLOCK, np.uint8)
    eights = outside.view(np.uint64)
    state = seed
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        part = out[start : start + size]
        for place in range((size + 1) // 2):
            state += _GOLDEN
            bits[place] = _mixed(state)
        for place in range(size):
            number = np.int32(words[place]) >> np.int32(8)
            part[place] = np.float32(number) * _STEPS[words[place] & np.uint32(255)]
        for place in range(size):
            number = np.int32(words[place]) >> np.int32(8)
            outside[place] = abs(number) >= _INSIDE[words[place] & np.uint32(255)]
        for eight in range((size + 7) // 8):
            if eights[eight]:
                for place in range(8 * eight, min(8 * eight + 8, size)):
                    if outside[place]:
                        _settle_at(place, words[place], bits[place >> 1], part)


@njit("void(float32[::1], float64, float64)", nogil=True, cache=True)
def _scale(values: Any, mean: Any, std: Any) -> None:
    """From N(0, 1) to N(mean, std²), in place."""
    shift, factor = np.float32(mean), np.float32(std)
    for place in range(len(values)):
        values[place] = shift + factor * values[place]


@njit("void(float32[:, ::1], int64[::1], uint64, float64, float64, boolean)", nogil=True, cache=True)
def change_rows(weights: Any, chosen: Any, seed: Any, mean: Any, std: Any, add: Any) -> None:  # noqa: PLR0917 (a kernel)
    """Replace the chosen rows by draws from N(mean, std²), or add these to them; in place."""
    drawn = np.empty(weights.shape[1], np.float32)
    for row in chosen:
        draw(_mixed(seed + np.uint64(row) * _GOLDEN), drawn, len(drawn))
        _scale(drawn, mean, std)
        for column in range(len(drawn)):
            weights[row, column] = drawn[column] + weights[row, column] if add else drawn[column]


@njit("void(float32[:, ::1], int64[::1], uint64, float64, float64, boolean)", nogil=True, cache=True)
def change_columns(weights: Any, chosen: Any, seed: Any, mean: Any, std: Any, add: Any) -> None:  # noqa: PLR0917 (a kernel)
    """As `change_rows`, of columns."""
    drawn = np.empty(len(chosen), np.float32)
    for row in range(len(weights)):
        draw(_mixed(seed + np.uint64(row) * _GOLDEN), drawn, len(drawn))
        _scale(drawn, mean, std)
        for place in range(len(chosen)):
            column = chosen[place]
            weights[row, column] = drawn[place] + weights[row, column] if add else drawn[place]


@njit("void(float32[::1], uint16[::1])", nogil=True, cache=True)
def _round(values: Any, out: Any) -> None:
    """To bfloat16, to the nearest, ties to even; no value is a NaN."""
    bits = values.view(np.uint32)
    for place in range(len(bits)):
        odd = (bits[place] >> np.uint32(16)) & np.uint32(1)
        out[place] = (bits[place] + np.uint32(0x7FFF) + odd) >> np.uint32(16)


@njit("void(uint16[:, ::1], int64[::1], uint64, float64, float64, boolean)", nogil=True, cache=True)
def change_rows_bfloat16(weights: Any, chosen: Any, seed: Any, mean: Any, std: Any, add: Any) -> None:  # noqa: PLR0917 (a kernel)
    """As `change_rows`, of bfloat16's bits."""
    count = weights.shape[1]
    values = np.empty(count, np.float32)
    before = np.empty(count, np.uint32)
    old = before.view(np.float32)
    for row in chosen:
        draw(_mixed(seed + np.uint64(row) * _GOLDEN), values, count)
        _scale(values, mean, std)
        if add:
            for column in range(count):
                before[column] = np.uint32(weights[row, column]) << np.uint32(16)
            for column in range(count):
                values[column] += old[column]
        _round(values, weights[row])


@njit("void(uint16[:, ::1], int64[::1], uint64, float64, float64, boolean)", nogil=True, cache=True)
def change_columns_bfloat16(weights: Any, chosen: Any, seed: Any, mean: Any, std: Any, add: Any) -> None:  # noqa: PLR0917 (a kernel)
    """As `change_columns`, of bfloat16's bits."""
    count = len(chosen)
    values = np.empty(count, np.float32)
    before = np.empty(count, np.uint32)
    old = before.view(np.float32)
    rounded = np.empty(count, np.uint16)
    for row in range(len(weights)):
        draw(_mixed(seed + np.uint64(row) * _GOLDEN), values, count)
        _scale(values, mean, std)
        if add:
            for place in range(count):
                before[place] = np.uint32(weights[row, chosen[place]]) << np.uint32(16)
            for place in range(count):
                values[place] += old[place]
        _round(values, rounded)
        for place in range(count):
            weights[row, chosen[place]] = rounded[place]
