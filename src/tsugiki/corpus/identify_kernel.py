"""py3langid's automaton and naive Bayes as one compiled loop over the library's own model.

The library walks its automaton byte by byte in Python; here the same walk, the same counts and the same sums
run in numba (nogil). The model file, its reading and its meaning stay the library's. `tables_of` compares
answers with the library's and gives None where they differ, so another version of the library with other
internals costs speed, not correctness.

Three things make it fast. The weights are binary16 fractions of a small range, so they are whole numbers of
2^-k and add up exactly as integers, 16 at a time. All features that occur equally often share a factor
log(1 + count), so it is multiplied once. And the automaton remembers no more than its longest feature, so
four parts of a text can be walked side by side while the memory is slow to answer.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
from py3langid.langid import LanguageIdentifier

_kernel: Any = nb.njit

_CHAINS = 4
_LEAST_CHAINED = 256  # bytes; shorter texts are walked in one go
_GROUPS = 16  # counts below this are summed in groups of equal counts
_LANES = 32  # of 16 bits: a vector register of 512 bits, or two of 256
_SPREAD = np.uint32(2654435761)  # Knuth's multiplier: 2^32 over the golden ratio
_TOLERANCE = 1e-4  # the library adds up in 32 bits, which moves its own probabilities by up to 5e-5
_LARGEST_INT16 = 32767
_ROW = 256

_CHECKED_TEXTS = (
    "",
    "a",
    "\0\x7f",
    "THE SERVICE IS RESTARTED",
    "Edit the configuration file and restart the service before you go on with the next step. " * 9,
    "設定ファイルを編集して、もう一度はじめから起動します。ソフトウェアの説明です。" * 9,
    "编辑配置文件并重新启动服务，然后再继续下一步。\n설정 파일을 편집하고 서비스를 다시 시작하십시오. " * 9,
    "Bearbeiten Sie die Datei über das Menü. Отредактируйте файл. Chỉnh sửa tệp cấu hình. फ़ाइल बदलें। " * 9,
    "".join(map(chr, range(1, 0x800))),
)


@dataclass(frozen=True)
class Tables:
    """The model.

    moves: the next state for each letter of each distinct row, uint32, 256 a row. rows: the row of each
    state, uint16. features: the feature that each state ends, int32, -1 for none. weights: whole numbers of
    1/scale, int16, shape (features, classes rounded up to whole vector registers). prior: float64, shape
    (classes,). memory: the most bytes that a state depends on. labels: one for each class. aliases: shape
    (pairs, 2), classes with the same label, the second of which is added to the first.
    """

    moves: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint16]
    features: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int16]
    scale: float
    prior: npt.NDArray[np.float64]
    memory: int
    labels: tuple[str, ...]
    aliases: npt.NDArray[np.int64]

    def probabilities(self, text: str) -> npt.NDArray[np.float64]:
        """The probability of each class, shape (classes,); all equal for a text without features.

        As py3langid 0.4 does: capitals alone are lowered, the text is composed (NFC), and the logarithms are
        divided by the square root of the number of bytes before they are made probabilities.
        """
        if text.isupper():
            text = text.lower()
        packed = unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass")
        letters = np.frombuffer(packed, np.uint8)
        probabilities: npt.NDArray[np.float64] = _probabilities(
            letters,
            self.moves,
            self.rows,
            self.features,
            self.memory,
            self.weights,
            self.scale,
            self.prior,
            self.aliases,
        )
        return probabilities


def tables_of(model: LanguageIdentifier) -> Tables | None:
    """The tables of the library's model; None if it is not built as this module expects."""
    try:
        tables = _read(model)
        if tables is None or not all(_agrees(tables, model, text) for text in _CHECKED_TEXTS):
            return None
    except (AttributeError, IndexError, TypeError, ValueError):  # another version, other internals
        return None
    return tables


def _agrees(tables: Tables, model: LanguageIdentifier, text: str) -> bool:
    """Whether every label's probability is the library's, but for its rounding."""
    found = dict(zip(reversed(tables.labels), reversed(tables.probabilities(text)), strict=True))
    return all(abs(found[label] - score) <= _TOLERANCE for label, score in model.rank(text))


def _read(model: LanguageIdentifier) -> Tables | None:
    weights = np.asarray(model.nb_ptc)
    moves = np.array(model.tk_nextmove).astype(np.uint32, copy=False)
    rows = np.asarray(model.tk_row)
    if weights.dtype != np.float16 or rows.max() > np.iinfo(np.uint16).max:
        return None
    halves = np.arange(1 << 16, dtype=np.uint16)
    used = np.zeros(1 << 16, bool)
    used[weights.view(np.uint16)] = True
    values = halves.view(np.float16).astype(np.float64)
    largest = float(np.abs(values[used]).max())
    if not math.isfinite(largest):
        return None
    scale = 2.0 ** math.floor(math.log2(_LARGEST_INT16 / max(largest, 1.0)))
    whole = np.where(used, values, 0.0) * scale
    if (whole != np.round(whole)).any():
        return None
    padded = np.zeros((weights.shape[0], -(-weights.shape[1] // _LANES) * _LANES), np.int16)
    padded[:, : weights.shape[1]] = whole.astype(np.int16)[weights.view(np.uint16)]
    return Tables(
        moves=moves,
        rows=rows.astype(np.uint16),
        features=np.asarray(model.tk_output, np.int32),
        weights=padded,
        scale=scale,
        prior=np.asarray(model.nb_pc, np.float64),
        memory=_depth(moves, rows.astype(np.int64)),
        labels=tuple(map(str, model.nb_classes)),
        aliases=np.asarray(model._alias_pairs, np.int64).reshape(-1, 2),  # noqa: SLF001 (checked by answers)
    )


def _depth(moves: npt.NDArray[np.uint32], rows: npt.NDArray[np.int64]) -> int:
    """The most letters that lead from the first state to another by the shortest way.

    An automaton that searches for words (Aho and Corasick 1975) is in the state of the longest beginning of a
    word that it has just read, so it forgets whatever lies further back than the longest word.
    """
    table = moves.reshape(-1, _ROW)
    seen = np.zeros(rows.size, bool)
    seen[0] = True
    frontier = np.zeros(1, np.int64)
    depth = 0
    while True:
        reached = np.zeros(rows.size, bool)
        reached[table[np.unique(rows[frontier])]] = True
        frontier = np.flatnonzero(reached & ~seen)
        if not frontier.size:
            return depth
        seen |= reached
        depth += 1


_BYTES = nb.types.Array(nb.uint8, 1, "C", readonly=True)


@_kernel(
    nb.int32[::1](_BYTES, nb.uint32[::1], nb.uint16[::1], nb.int32[::1], nb.int64), nogil=True, cache=True
)
def _walk(letters: Any, moves: Any, rows: Any, features: Any, memory: int) -> Any:
    """The feature that ends at each byte, in no order, -1 for none.

    No branch depends on the text, so the processor looks up the next states of all chains at once.
    """
    chains = _CHAINS if letters.size >= max(_LEAST_CHAINED, _CHAINS * memory) else 1
    length = letters.size // chains
    states = np.zeros(chains, np.int64)
    for chain in range(1, chains):
        for i in range(chain * length - memory, chain * length):
            states[chain] = moves[(np.int64(rows[states[chain]]) << 8) + np.int64(letters[i])]
    out = np.empty(letters.size, np.int32)
    for i in range(length):
        for chain in range(chains):
            place = chain * length + i
            state = np.int64(moves[(np.int64(rows[states[chain]]) << 8) + np.int64(letters[place])])
            states[chain] = state
            out[place] = features[state]
    state = states[chains - 1]
    for place in range(chains * length, letters.size):  # what the division left over
        state = np.int64(moves[(np.int64(rows[state]) << 8) + np.int64(letters[place])])
        out[place] = features[state]
    return out


@_kernel(nb.types.UniTuple(nb.int32[::1], 2)(nb.int32[::1]), nogil=True, cache=True)
def _counted(features: Any) -> Any:
    """The distinct features that are not -1, and how often each occurs."""
    size = 16
    while size < 2 * features.size:
        size *= 2
    mask = np.uint32(size - 1)
    places = np.full(size, np.int32(-1), np.int32)
    keys = np.empty(features.size, np.int32)
    counts = np.zeros(features.size, np.int32)
    found = 0
    for i in range(features.size):
        feature = features[i]
        if feature < 0:
            continue
        slot = ((np.uint32(feature) * _SPREAD) >> np.uint32(8)) & mask
        while places[slot] >= 0 and keys[places[slot]] != feature:
            slot = (slot + np.uint32(1)) & mask
        if places[slot] < 0:
            places[slot] = found
            keys[found] = feature
            found += 1
        counts[places[slot]] += 1
    return keys[:found], counts[:found]


@_kernel(
    nb.float64[::1](nb.int32[::1], nb.int32[::1], nb.int16[:, ::1], nb.float64, nb.float64[::1]),
    nogil=True,
    cache=True,
)
def _scores(keys: Any, counts: Any, weights: Any, scale: float, prior: Any) -> Any:
    """Prior + sum of log(1 + count) · weight / scale for each class; zeros where there are no features."""
    classes = weights.shape[1]
    groups = np.zeros((_GROUPS, classes), np.int32)
    used = np.zeros(_GROUPS, np.bool_)
    out = np.zeros(classes, np.float64)
    for i in range(keys.size):
        key = keys[i]
        count = counts[i]
        if count < _GROUPS:
            used[count] = True
            for k in range(classes):
                groups[count, k] += weights[key, k]
        else:
            factor = math.log1p(np.float64(count))
            for k in range(classes):
                out[k] += factor * weights[key, k]
    for count in range(1, _GROUPS):
        if used[count]:
            factor = math.log1p(np.float64(count))
            for k in range(classes):
                out[k] += factor * groups[count, k]
    if keys.size:
        for k in range(prior.size):
            out[k] = out[k] / scale + prior[k]
    return out[: prior.size]


@_kernel(
    nb.float64[::1](
        _BYTES,
        nb.uint32[::1],
        nb.uint16[::1],
        nb.int32[::1],
        nb.int64,
        nb.int16[:, ::1],
        nb.float64,
        nb.float64[::1],
        nb.int64[:, ::1],
    ),
    nogil=True,
    cache=True,
)
def _probabilities(  # noqa: PLR0917 (numba has no keyword arguments)
    letters: Any,
    moves: Any,
    rows: Any,
    features: Any,
    memory: int,
    weights: Any,
    scale: float,
    prior: Any,
    aliases: Any,
) -> Any:
    keys, counts = _counted(_walk(letters, moves, rows, features, memory))
    out = _scores(keys, counts, weights, scale, prior)
    temperature = 1.0 / math.sqrt(max(letters.size, 1))
    most = out.max()
    total = 0.0
    for k in range(out.size):
        out[k] = math.exp((out[k] - most) * temperature)
        total += out[k]
    for k in range(out.size):
        out[k] /= total
    for pair in range(aliases.shape[0]):
        out[aliases[pair, 0]] += out[aliases[pair, 1]]
        out[aliases[pair, 1]] = 0.0
    return out
