"""Hashed n-grams and the linear model over them, compiled with numba (nogil, cached on disk).

No fast-math: sums run in a fixed order and the exponential is our own, of products and sums alone, so that a
score is the same number on every machine.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

UInt32s = npt.NDArray[np.uint32]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Shape = tuple[int, int, int, int]
"""(shortest and longest character n-gram, longest word n-gram or 0, bits of a bucket's number)."""

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_WORDS = np.uint64(0xD6E8FEB86659FD93)  # keeps word n-grams apart from character n-grams
_ONE = np.uint64(1)
_SPACE = np.uint32(0x20)
_DIGIT = np.uint32(0x30)
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01  # ln 2 in two parts (fdlibm), so that k·high is exact
_LN2_LOW = 1.90821492927058770002e-10
_LARGEST = 40.0  # sigmoid(40) is 1 to the last bit
_TERMS = 14

_kernel: Any = nb.njit


@_kernel("uint64(uint64)", inline="always", cache=True)
def _mix(value: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@_kernel("float64(float64)", nogil=True, cache=True)
def sigmoid(z: float) -> float:
    """1 / (1 + exp(-z)), to about one unit in the last place."""
    x = -min(max(z, -_LARGEST), _LARGEST)
    k = np.floor(x * _LOG2_E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = 1.0
    for n in range(_TERMS, 0, -1):  # Taylor's series by Horner's rule; |r| <= ln(2)/2
        total = 1.0 + total * r / n
    power = 1.0
    for _ in range(abs(int(k))):
        power *= 2.0
    total = total * power if k >= 0 else total / power
    return 1.0 / (1.0 + total)


@_kernel("uint32[::1](uint32[::1])", nogil=True, cache=True)
def normalised(symbols: UInt32s) -> UInt32s:
    """Code points as the model sees them: ASCII in lower case, every digit 0, white space one space.

    So neither line breaks (which some sources keep and others lose) nor dates tell the sets apart.
    """
    out = np.empty(symbols.size, np.uint32)
    size = 0
    for i in range(symbols.size):
        c = symbols[i]
        if 0x41 <= c <= 0x5A:  # noqa: PLR2004 (A to Z)
            c += np.uint32(32)
        elif 0x30 <= c <= 0x39 or 0xFF10 <= c <= 0xFF19:  # noqa: PLR2004 (digits)
            c = _DIGIT
        elif (
            c <= 0x20  # noqa: PLR2004 (control characters and space)
            or 0x7F <= c <= 0xA0  # noqa: PLR2004
            or 0x2000 <= c <= 0x200B  # noqa: PLR2004
            or c in (0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF)
        ):
            if size == 0 or out[size - 1] == _SPACE:
                continue
            c = _SPACE
        out[size] = c
        size += 1
    if size and out[size - 1] == _SPACE:
        size -= 1
    return out[:size].copy()


@_kernel("int64[:, ::1](uint32[::1])", nogil=True, cache=True)
def word_spans(symbols: UInt32s) -> Int64s:
    """(start, stop) of each run without a space; the text is normalised, so single spaces part them."""
    count = 1
    for i in range(symbols.size):
        count += symbols[i] == _SPACE
    out = np.empty((count, 2), np.int64)
    size = 0
    start = 0
    for i in range(symbols.size + 1):
        if i == symbols.size or symbols[i] == _SPACE:
            if i > start:
                out[size, 0] = start
                out[size, 1] = i
                size += 1
            start = i + 1
    return out[:size].copy()


@_kernel("uint32[::1](uint32[::1], UniTuple(int64, 4))", nogil=True, cache=True)
def buckets_of(symbols: UInt32s, shape: Shape) -> UInt32s:
    """The bucket of every n-gram: characters by place and then n, then words by place and then n."""
    first, last, words, bits = shape
    shift = np.uint64(64 - bits)
    spans = word_spans(symbols) if words else np.empty((0, 2), np.int64)
    out = np.empty(symbols.size * (last - first + 1) + spans.shape[0] * words, np.uint32)
    size = 0
    mixed = np.empty(symbols.size, np.uint64)
    for i in range(symbols.size):
        mixed[i] = _mix(np.uint64(symbols[i]) + _BASE)
    for i in range(symbols.size):
        state = np.uint64(0)
        for n in range(1, min(last, symbols.size - i) + 1):
            state = state * _BASE + mixed[i + n - 1]
            if n >= first:
                out[size] = ((state + np.uint64(n)) * _MIX_1) >> shift
                size += 1
    hashes = np.empty(spans.shape[0], np.uint64)
    for k in range(spans.shape[0]):
        state = _WORDS
        for i in range(spans[k, 0], spans[k, 1]):
            state = state * _BASE + mixed[i]
        hashes[k] = _mix(state)
    for k in range(spans.shape[0]):
        state = _WORDS
        for n in range(1, min(words, spans.shape[0] - k) + 1):
            state = state * _BASE + hashes[k + n - 1]
            out[size] = (_mix(state + np.uint64(n))) >> shift
            size += 1
    return out[:size]


@_kernel("Tuple((uint32[::1], int32[::1]))(uint32[::1], int64)", nogil=True, cache=True)
def counted(buckets: UInt32s, bits: int) -> tuple[UInt32s, Int32s]:
    """The distinct buckets in the order in which they are first seen, and how often each is seen."""
    size = 16
    while size < 2 * buckets.size and size < 2 << bits:
        size *= 2
    mask = np.uint64(size - 1)
    table = np.full(size, -1, np.int32)
    distinct = np.empty(buckets.size, np.uint32)
    counts = np.empty(buckets.size, np.int32)
    found = 0
    for i in range(buckets.size):
        bucket = buckets[i]
        slot = (np.uint64(bucket) * _BASE >> np.uint64(32)) & mask
        while table[slot] >= 0 and distinct[table[slot]] != bucket:
            slot = (slot + _ONE) & mask
        if table[slot] < 0:
            table[slot] = found
            distinct[found] = bucket
            counts[found] = 1
            found += 1
        else:
            counts[table[slot]] += 1
    return distinct[:found], counts[:found]


@_kernel("float64(uint32[::1], float32[::1], float64, UniTuple(int64, 4))", nogil=True, cache=True)
def logit(symbols: UInt32s, weights: Float32s, bias: float, shape: Shape) -> float:
    """Bias + sum of weight·sqrt(count/total): features of length 1 (Hellinger) for texts of any length."""
    buckets = buckets_of(symbols, shape)
    distinct, counts = counted(buckets, shape[3])
    total = 0.0
    for i in range(distinct.size):
        total += np.float64(weights[distinct[i]]) * np.sqrt(np.float64(counts[i]))
    return bias + total / np.sqrt(max(1.0, np.float64(buckets.size)))


@_kernel(
    "float64(uint32[::1], int64[::1], int64[::1], float64[::1], float64[::1], float32[::1], float32[::1],"
    " float64[::1], float64, float64, UniTuple(int64, 4))",
    nogil=True,
    cache=True,
)
def train_epoch(  # noqa: PLR0917 (a kernel takes no keywords)
    symbols: UInt32s,
    offsets: Int64s,
    order: Int64s,
    labels: Float64s,
    importance: Float64s,
    weights: Float32s,
    squares: Float32s,
    bias: Float64s,
    rate: float,
    decay: float,
    shape: Shape,
) -> float:
    """One pass of AdaGrad (Duchi et al. 2011) over documents; returns the mean loss.

    symbols, offsets: all documents end to end. weights and squares (sums of squared gradients) are changed in
    place, and so is bias = (bias, its sum of squares). decay: L2, on the features of the document at hand.
    """
    loss = 0.0
    for document in order:
        text = symbols[offsets[document] : offsets[document + 1]]
        buckets = buckets_of(text, shape)
        distinct, counts = counted(buckets, shape[3])
        scale = 1.0 / np.sqrt(max(1.0, np.float64(buckets.size)))
        z = bias[0]
        for i in range(distinct.size):
            z += np.float64(weights[distinct[i]]) * np.sqrt(np.float64(counts[i])) * scale
        answer = sigmoid(z)
        error = (answer - labels[document]) * importance[document]
        right = answer if labels[document] > 0.5 else 1.0 - answer  # noqa: PLR2004
        loss -= importance[document] * np.log(max(right, 1e-300))
        for i in range(distinct.size):
            b = distinct[i]
            gradient = error * np.sqrt(np.float64(counts[i])) * scale + decay * np.float64(weights[b])
            squares[b] += np.float32(gradient * gradient)
            weights[b] -= np.float32(rate * gradient / (np.sqrt(np.float64(squares[b])) + 1e-8))
        bias[1] += error * error
        bias[0] -= rate * error / (np.sqrt(bias[1]) + 1e-8)
    return loss / max(1, order.size)


@_kernel("void(uint32[::1], float64[::1], UniTuple(int64, 4))", nogil=True, cache=True)
def add_features(symbols: UInt32s, sums: Float64s, shape: Shape) -> None:
    """Add a text's features to `sums`, one place a bucket."""
    buckets = buckets_of(symbols, shape)
    distinct, counts = counted(buckets, shape[3])
    scale = 1.0 / np.sqrt(max(1.0, np.float64(buckets.size)))
    for i in range(distinct.size):
        sums[distinct[i]] += np.sqrt(np.float64(counts[i])) * scale
