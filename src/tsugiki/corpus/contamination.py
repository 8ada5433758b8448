"""Decontamination: which benchmark items stand in a document, by character n-grams.

Texts are compared without case, width, white space, punctuation and symbols (NFKC, lower case, Unicode
categories L, M and N only), so it works without spaces, and line breaks hide nothing. Each string of an item
is a *part*; its n-grams lie in a table of 64-bit hashes. An item is hit where at least `share` of a part's
characters are covered by n-grams that stand in the document too.

- Covered characters, not n-grams, are counted (as Llama 2 does with tokens, arXiv:2307.09288, A.6, whose
  "dirty" samples are those covered by 80 % or more): one changed letter in the middle of a question of 60
  takes half of its n-grams of 20 away, but only one of its characters. `share` 0 is GPT-3's rule: any n-gram
  (arXiv:2005.14165, appendix C).
- n-grams that stand in more than `COMMON` parts are wording of the benchmark ("choose the right answer");
  they are neither evidence nor missed. A string that is the same in more than `COMMON` items is passed over
  where the item has another one.
- A part shorter than n, or without an n-gram of its own, counts where the document holds it whole, if it has
  at least n/2 letters; shorter ones ("yes", a year) are never looked for.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsugiki.artifacts.identity import canonical_json
from tsugiki.corpus import contamination_kernels as loops
from tsugiki.corpus.cleaning import unicode_facts
from tsugiki.corpus.contamination_items import Item, read_items
from tsugiki.corpus.kernels import ngram_hashes
from tsugiki.errors import InputError
from tsugiki.languages import LanguagePack

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

SPACELESS_NGRAM = 20
"""About GPT-3's 13 words: a Japanese word (short unit) has 1.6 letters on average."""
SPACED_NGRAM = 50
"""About 11 English words of 4.7 letters; between the 8 words of PaLM (arXiv:2204.02311) and GPT-3's 13."""
SHARE = 0.8
COMMON = 10
"""GPT-3 passes over n-grams that occur more than ten times in the training data; here: in the benchmarks."""

_CHUNK = 1 << 20
_BITS_PER_KEY = 16  # of the filter before the table: 6 % pass by chance
_KEPT = frozenset("LMN")
_SELECTORS = (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
"""Variation selectors are marks, but change only how the character before them is drawn."""


def ngram_of(pack: LanguagePack) -> int:
    """The default length of n-grams, in characters, for a language."""
    return SPACELESS_NGRAM if pack.script.spaceless else SPACED_NGRAM


@dataclass(frozen=True)
class Hits:
    """What of the benchmarks stands in a document.

    ngrams: how many different n-grams; share: how much of the part that is covered best; items: the ids of
    those that count as hit, sorted.
    """

    ngrams: int
    share: float
    items: tuple[str, ...]


_NO_HITS = Hits(0, 0.0, ())


@dataclass(frozen=True)
class _Table:
    """Hashes with what they point at: `targets[starts[k]:starts[k + 1]]` for the k-th distinct one."""

    filtered: npt.NDArray[np.uint8]
    slots: UInt64s
    places: npt.NDArray[np.int32]
    starts: Int64s
    targets: Int64s

    def look_up(self, hashes: UInt64s) -> npt.NDArray[np.int32]:
        return loops.look_up(hashes, self.filtered, self.slots, self.places)

    def targets_of(self, key: int) -> Int64s:
        return self.targets[self.starts[key] : self.starts[key + 1]]


@dataclass(frozen=True)
class Contamination:
    """The index of benchmark items; only arrays and strings, so it can be sent to other processes.

    letters, starts: the parts, one behind the other; coverable: how many of a part's characters its n-grams
    cover; owners: the items of each part; grams: n-gram -> its places in `letters`; whole: the first
    `minimum` letters -> parts that are looked for as a whole. digest: of all that decides on hits.
    """

    ngram: int
    minimum: int
    share: float
    ids: tuple[str, ...]
    letters: UInt32s
    starts: Int64s
    coverable: Int64s
    owners: tuple[tuple[int, ...], ...]
    grams: _Table
    whole: _Table
    digest: str

    @classmethod
    def from_files(
        cls,
        paths: Sequence[Path],
        pack: LanguagePack,
        ngram: int | None = None,
        fields: Sequence[str] | None = None,
        share: float = SHARE,
    ) -> Contamination:
        """Read the items of all files; their order does not matter.

        Raises InputError for a file that can't be read (see `read_items`) or whose texts are all too short.
        """
        length = ngram_of(pack) if ngram is None else ngram
        items: list[Item] = []
        for path in sorted(paths, key=lambda path: (path.name, str(path))):
            found = read_items(path, fields)
            if not any(_usable(item, _minimum(length)) for item in found):
                raise InputError(
                    f"no item of {path} holds a text of {_minimum(length)} letters or more",
                    hint="name other fields, or a smaller ngram (half of it is the shortest text)",
                )
            items += found
        return cls.from_items(items, length, share)

    @classmethod
    def from_items(cls, items: Sequence[Item], ngram: int, share: float = SHARE) -> Contamination:
        """Make the index of items that are in memory."""
        minimum = _minimum(ngram)
        parts = _parts(items, minimum)
        texts = [np.frombuffer(key, np.uint32) for key in parts]
        letters = np.concatenate(texts) if texts else np.empty(0, np.uint32)
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([text.size for text in texts], out=starts[1:])
        hashes, places = _distinctive(letters, starts, ngram)
        coverable = loops.covered(np.sort(places), starts, ngram)
        alone = np.flatnonzero(coverable == 0)
        heads = [ngram_hashes(texts[part][:minimum].copy(), minimum)[0] for part in alone]
        ids = tuple(item.id for item in items)
        owners = tuple(tuple(found) for found in parts.values())
        return cls(
            ngram,
            minimum,
            share,
            ids,
            letters,
            starts,
            coverable,
            owners,
            _table(hashes, places),
            _table(np.array(heads, np.uint64), alone),
            _digest(ngram, share, [ids, owners], letters, starts),
        )

    def hits(self, text: str) -> Hits:
        """What of the items stands in a text."""
        symbols = simplify(text)
        if symbols.size < self.minimum:
            return _NO_HITS
        found = self._search(symbols, self.ngram, self.grams)
        keys = np.unique(found[1])
        parts, share = self._covered(keys)
        whole = self._whole(symbols)
        if whole:
            share = 1.0
        items = {owner for part in (*parts, *whole) for owner in self.owners[part]}
        return Hits(int(keys.size), share, tuple(sorted({self.ids[item] for item in items})))

    def _search(self, symbols: UInt32s, n: int, table: _Table) -> tuple[Int64s, Int64s]:
        """Where in the text n-grams of a table begin, and which; in pieces, so that memory stays bounded."""
        places, keys = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, symbols.size if table.targets.size else 0, _CHUNK):
            found = table.look_up(ngram_hashes(symbols[start : start + _CHUNK + n - 1], n))
            inside = np.flatnonzero(found >= 0)
            places.append(inside + start)
            keys.append(found[inside].astype(np.int64))
        return np.concatenate(places), np.concatenate(keys)

    def _covered(self, keys: Int64s) -> tuple[list[int], float]:
        """The parts of which n-grams cover enough, and the largest share of any."""
        if not keys.size:
            return [], 0.0
        positions = np.sort(np.concatenate([self.grams.targets_of(key) for key in keys]))
        covered = loops.covered(positions, self.starts, self.ngram)
        touched = np.flatnonzero(covered)
        shares = covered[touched] / self.coverable[touched]
        return touched[shares >= self.share].tolist(), float(shares.max())

    def _whole(self, symbols: UInt32s) -> list[int]:
        """The parts that stand in the text as a whole, of those that have no n-grams of their own."""
        hit = set()
        for place, key in zip(*self._search(symbols, self.minimum, self.whole), strict=True):
            for part in self.whole.targets_of(key):
                letters = self.letters[self.starts[part] : self.starts[part + 1]]
                if part not in hit and loops.stands_at(symbols, place, letters):
                    hit.add(int(part))
        return sorted(hit)


def _minimum(ngram: int) -> int:
    return max(2, ngram // 2)


def _usable(item: Item, minimum: int) -> bool:
    return any(simplify(text).size >= minimum for text in item.texts)


def _parts(items: Sequence[Item], minimum: int) -> dict[bytes, list[int]]:
    """The distinct parts with the numbers of their items, in order of first appearance."""
    of_items: list[list[bytes]] = []
    for item in items:
        simple = [simplify(text) for text in item.texts]
        of_items.append(list(dict.fromkeys(part.tobytes() for part in simple if part.size >= minimum)))
    count: dict[bytes, int] = {}
    for keys in of_items:
        for key in keys:
            count[key] = count.get(key, 0) + 1
    parts: dict[bytes, list[int]] = {}
    for number, keys in enumerate(of_items):
        own = [key for key in keys if count[key] <= COMMON]
        for key in own or keys:
            parts.setdefault(key, []).append(number)
    return parts


def _distinctive(letters: UInt32s, starts: Int64s, ngram: int) -> tuple[UInt64s, Int64s]:
    """Hashes and places of the n-grams that lie inside of one part and stand in at most COMMON parts."""
    hashes = ngram_hashes(letters, ngram)
    places = np.arange(hashes.size)
    part = np.searchsorted(starts, places, side="right") - 1
    inside = places + ngram <= starts[part + 1]
    hashes, places, part = hashes[inside], places[inside], part[inside]
    keys, which = np.unique(hashes, return_inverse=True)
    pairs = np.unique(which * (starts.size + 1) + part)  # an n-gram twice in a part counts once
    common = np.bincount(pairs // (starts.size + 1), minlength=keys.size) > COMMON
    rare = ~common[which]
    return hashes[rare], places[rare]


def _table(hashes: UInt64s, targets: Int64s) -> _Table:
    order = np.argsort(hashes, kind="stable")
    keys, first = np.unique(hashes[order], return_index=True)
    starts = np.append(first, hashes.size).astype(np.int64)
    filtered, slots, places = loops.build_table(keys, _BITS_PER_KEY)
    return _Table(filtered, slots, places, starts, targets[order].astype(np.int64))


def _digest(ngram: int, share: float, names: object, *arrays: npt.NDArray[np.generic]) -> str:
    digest = hashlib.blake2b(
        canonical_json([ngram, share, COMMON, names]).encode("utf-8", "replace"), digest_size=16
    )
    for array in arrays:
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def simplify(text: str) -> UInt32s:
    """The code points of a text that are compared: letters, marks and digits in NFKC and lower case.

    Most texts need only a table; where characters act on each other (combining marks, ligatures) the whole
    text is normalised. Both ways give the same.
    """
    simple, done = loops.simplified(_code_points(text), _character_table())
    return simple if done else _code_points(_simplify_plainly(text))


def _code_points(text: str) -> UInt32s:
    return np.frombuffer(bytearray(text.encode("utf-32-le", "replace")), np.uint32)


def _simplify_plainly(text: str) -> str:
    """The definition of `simplify`, on strings."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    lower = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    return "".join(letter for letter in lower if is_compared(letter))


def is_compared(letter: str) -> bool:
    """Whether a character counts: a letter, a mark or a digit."""
    return unicodedata.category(letter)[0] in _KEPT and ord(letter) not in _SELECTORS


@cache
def _character_table() -> UInt32s:
    """What each code point of the first two planes becomes alone, or the kernel's DROPPED or DIFFICULT."""
    table = np.full(0x20000, loops.DIFFICULT, np.uint32)
    joining = unicode_facts.joining()
    for code in range(table.size):
        letter = chr(code)
        if code in joining or letter == "Σ":  # its lower case depends on what follows
            continue
        simple = "" if 0xD800 <= code < 0xE000 else _simplify_plainly(letter)  # noqa: PLR2004
        if len(simple) <= 1 and (not simple or ord(simple) not in joining):
            table[code] = ord(simple) if simple else loops.DROPPED
    return table
