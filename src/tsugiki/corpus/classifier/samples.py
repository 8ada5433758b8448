"""The two sets of documents that a classifier learns from: read, cleaned of doubles, cut into folds.

A document is known by its normalised text. So the result depends on what is in the sets, never on the
order of files or documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tsugiki.artifacts.documents import KEPT, TRAIN, iterate_documents
from tsugiki.corpus.classifier import kernels
from tsugiki.corpus.classifier.model import FeatureSettings
from tsugiki.corpus.kernels import band_keys
from tsugiki.corpus.minhash import jaccard, shingles, signature
from tsugiki.corpus.read import Tally
from tsugiki.corpus.texts import TEXT_SUFFIXES, read_texts
from tsugiki.errors import DataError, InputError

MINIMUM_DOCUMENTS = 50
"""Of each set; with fewer the held-out figures say nothing."""

_NEAR = (
    0.8  # Jaccard of character 5-grams from which two texts are "near equal" (Swallow's n; datatrove's 0.8)
)
_NGRAM = 5
_BANDS, _ROWS = 16, 4  # a pair of similarity 0.8 is found with a probability of 1 - (1 - 0.8^4)^16 = 0.9998
_CANDIDATES = 16
"""Pairs looked at for each document and band."""


@dataclass
class DocumentSet:
    """Distinct normalised texts by their key, and what was passed over."""

    texts: dict[str, str] = field(default_factory=dict)
    read: int = 0
    duplicates: int = 0
    empty: int = 0
    overlapping: int = 0
    tally: Tally = field(default_factory=Tally)

    def facts(self) -> dict[str, object]:
        """As plain data. `digest` is that of the set."""
        return {
            "documents": len(self.texts),
            "read": self.read,
            "duplicates": self.duplicates,
            "empty": self.empty,
            "overlapping": self.overlapping,
            "unreadable": len(self.tally.warnings),
            "digest": hashlib.sha256("".join(sorted(self.texts)).encode()).hexdigest(),
        }


def texts_of(paths: Sequence[Path], tally: Tally) -> Iterator[str]:
    """The texts of corpus artifacts (training split), .jsonl and .parquet files, or folders of such files.

    Raises InputError where a path is missing or holds no documents.
    """
    for path in paths:
        if (path / KEPT).is_dir():
            for row in iterate_documents(path, split=TRAIN, columns=["text"]):
                yield row["text"]
            continue
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        files = [file for file in files if file.name.endswith(TEXT_SUFFIXES) and file.is_file()]
        if not files:
            raise InputError(
                f"{path} holds no documents" if path.exists() else f"{path} does not exist",
                hint=f"name a corpus artifact, or files of the kinds {', '.join(TEXT_SUFFIXES)}",
            )
        for file in files:
            for found in read_texts(file, tally):
                yield found.text


def collect(texts: Iterable[str], features: FeatureSettings, maximum: int, tally: Tally) -> DocumentSet:
    """The distinct documents of a set; of more than `maximum` the ones with the smallest keys."""
    found = DocumentSet(tally=tally)
    for text in texts:
        found.read += 1
        symbols = features.symbols(text)
        if symbols.size == 0:
            found.empty += 1
            continue
        key = hashlib.blake2b(symbols.astype("<u4").tobytes(), digest_size=16).hexdigest()
        if key in found.texts:
            found.duplicates += 1
            continue
        found.texts[key] = symbols.tobytes().decode("utf-32-le")
        if len(found.texts) > 2 * maximum:
            _trim(found, maximum)
    _trim(found, maximum)
    return found


def _trim(found: DocumentSet, maximum: int) -> None:
    found.texts = {key: found.texts[key] for key in sorted(found.texts)[:maximum]}


def part_sets(positive: DocumentSet, negative: DocumentSet) -> None:
    """Drop, from both sets, the documents that stand in both, equal or nearly so (Jaccard >= 0.8).

    Raises DataError where too little is left.
    """
    both = set(positive.texts) & set(negative.texts)
    _drop(positive, both)
    _drop(negative, both)
    if both and not (positive.texts and negative.texts):
        raise DataError(
            f"one set holds all documents of the other ({len(both)} are in both)",
            hint="name documents that are good as positive, and other ones as negative",
        )
    left, right = _near_pairs(list(positive.texts.values()), list(negative.texts.values()))
    _drop(positive, {list(positive.texts)[i] for i in left})
    _drop(negative, {list(negative.texts)[i] for i in right})
    for name, part in (("positive", positive), ("negative", negative)):
        if len(part.texts) < MINIMUM_DOCUMENTS:
            raise DataError(
                f"{len(part.texts)} {name} documents are left of {part.read}"
                f" ({part.duplicates} doubles, {part.overlapping} also in the other set);"
                f" at least {MINIMUM_DOCUMENTS} are needed",
                hint="add documents; some thousands of each set make a good classifier",
            )


def _drop(part: DocumentSet, keys: set[str]) -> None:
    part.overlapping += len(keys)
    part.texts = {key: text for key, text in part.texts.items() if key not in keys}


def _near_pairs(left: Sequence[str], right: Sequence[str]) -> tuple[set[int], set[int]]:
    """The members of each side that are nearly equal to one of the other side."""
    if not left or not right:
        return set(), set()
    sides = [
        band_keys(
            np.stack([signature(shingles(text, _NGRAM), _BANDS * _ROWS) for text in side]), _BANDS, _ROWS
        )
        for side in (left, right)
    ]
    near: tuple[set[int], set[int]] = (set(), set())
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        order = np.argsort(sides[1][:, band], kind="stable")
        keys = sides[1][order, band]
        starts = np.searchsorted(keys, sides[0][:, band], "left")
        stops = np.searchsorted(keys, sides[0][:, band], "right")
        for i in np.flatnonzero(stops > starts).tolist():
            for j in order[starts[i] : min(stops[i], starts[i] + _CANDIDATES)].tolist():
                if (i, j) in seen or (i in near[0] and j in near[1]):
                    continue
                seen.add((i, j))
                if jaccard(shingles(left[i], _NGRAM), shingles(right[j], _NGRAM)) >= _NEAR:
                    near[0].add(i)
                    near[1].add(j)
    return near


@dataclass(frozen=True)
class Fold:
    """Documents end to end, with labels. Shapes: symbols (all characters,), offsets (documents + 1,)."""

    symbols: kernels.UInt32s
    offsets: kernels.Int64s
    labels: np.ndarray

    def __len__(self) -> int:
        return int(self.labels.size)

    def text(self, index: int) -> kernels.UInt32s:
        """The code points of one document."""
        return self.symbols[self.offsets[index] : self.offsets[index + 1]]


def folds(positive: DocumentSet, negative: DocumentSet, heldout: float, seed: int) -> tuple[Fold, Fold, Fold]:
    """(training, calibration, test): of each set the share `heldout` is held out, half of it for each use."""
    parts: tuple[list[tuple[str, bool]], ...] = ([], [], [])
    for label, part in ((True, positive), (False, negative)):
        salt = seed.to_bytes(8, "little", signed=True)
        order = sorted(
            part.texts, key=lambda key: hashlib.blake2b(key.encode(), salt=salt, digest_size=16).digest()
        )
        half = max(1, round(len(order) * heldout / 2))
        for place, key in enumerate(order):
            number = 1 if place < half else 2 if place < 2 * half else 0
            parts[number].append((part.texts[key], label))
    return _fold(parts[0]), _fold(parts[1]), _fold(parts[2])


def _fold(rows: Sequence[tuple[str, bool]]) -> Fold:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(text) for text, _ in rows], out=offsets[1:])
    whole = "".join(text for text, _ in rows)
    symbols = np.frombuffer(bytearray(whole.encode("utf-32-le")), np.uint32)
    return Fold(symbols, offsets, np.array([label for _, label in rows], np.bool_))
