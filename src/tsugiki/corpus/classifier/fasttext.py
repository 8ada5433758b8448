"""fastText models (.bin, .ftz) as quality classifiers: Swallow's education classifier, Nemotron's, FineWeb's.

Needs a package that provides the module `fasttext`; `fasttext-predict` (MIT) is enough, since nothing is
trained here. The library is C++ code that trusts its file: load models from sources that you trust.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tsugiki.corpus.classifier.model import file_digest
from tsugiki.errors import DependencyError, InputError

_PREFIX = "__label__"
_MAGIC = (793712314).to_bytes(4, "little")  # fastText's FASTTEXT_FILEFORMAT_MAGIC_INT32
_HEAD = struct.Struct("<2i12id3i2q")
"""Magic and version; 12 settings and the sampling threshold; entries, words and labels of the dictionary."""
_KIND = 9  # place of the setting `model` in it
_SUPERVISED = 3
_ENTRY_BYTES = 10  # of a dictionary entry, from the zero byte behind its name on


@dataclass(frozen=True, eq=False)
class FastTextClassifier:
    """A fastText model. Each label has a value from 0 to 1; the score is the expected value.

    Labels that are numbers (0 to 3 in Swallow's model that was taught by LLMs) are worth their share of the
    largest. Otherwise the labels named as positive are worth 1 and the others 0.
    """

    path: Path
    values: dict[str, float]
    digest: str
    _model: Any

    @classmethod
    def load(cls, path: Path, positive: Sequence[str] = ()) -> Self:
        """Load a model file; positive: labels that count as good, with or without `__label__`.

        Raises DependencyError without the library, InputError for a file that is no model, for unknown
        labels, and where the labels don't say by themselves which are good.
        """
        digest = file_digest(path)
        labels = [label.removeprefix(_PREFIX) for label in _labels(path)]
        model = _library(path)
        values = _values(labels, [label.removeprefix(_PREFIX) for label in positive], path)
        told = repr(sorted(values.items()))
        return cls(path, values, hashlib.sha256((digest + told).encode()).hexdigest(), model)

    def score(self, text: str) -> float:
        """The expected value of the labels; the text goes in as one line, as in training."""
        line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
        if not line:
            return 0.0
        found = self._model.f.predict(line + "\n", -1, 0.0, "strict")
        total = sum(self.values[label.removeprefix(_PREFIX)] * chance for chance, label in found)
        return min(1.0, max(0.0, float(total)))

    def __reduce__(self) -> tuple[Any, ...]:
        """The library's model can't be pickled: it is loaded again."""
        positive = [label for label, value in self.values.items() if value == 1 and not label.isdigit()]
        return FastTextClassifier.load, (self.path, positive)


def _library(path: Path) -> Any:
    try:
        import fasttext  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise DependencyError(
            f"reading {path.name} needs a fastText library", hint="pip install fasttext-predict"
        ) from error
    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise InputError(f"{path} can't be loaded: {error}", hint="fetch the model again") from error


def _labels(path: Path) -> list[str]:
    """The labels of a supervised model, sorted, from the dictionary at the beginning of its file.

    The library itself tells them only where a text holds a word that it knows. The layout is that of
    fastText's Dictionary::save: each entry is its name, a zero byte, a count (8 bytes) and its type (1 byte).
    """
    foreign = InputError(f"{path} is no fastText model", hint="expected: a supervised .bin or .ftz model")
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise foreign
        facts = _HEAD.unpack(head)
        kind, (entries, _, labels) = facts[_KIND], facts[-5:-2]
        if kind != _SUPERVISED:
            raise InputError(f"{path} is not a supervised model: it has no labels", hint="use a classifier")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            place, found = _HEAD.size, []
            for _ in range(entries):
                end = data.find(b"\0", place)
                if end < 0 or end + _ENTRY_BYTES > len(data):
                    raise foreign
                if data[end + _ENTRY_BYTES - 1]:
                    found.append(data[place:end].decode("utf-8", "replace"))
                place = end + _ENTRY_BYTES
    if len(found) != labels:
        raise foreign
    return sorted(found)


def _values(labels: Sequence[str], positive: Sequence[str], path: Path) -> dict[str, float]:
    unknown = sorted(set(positive) - set(labels))
    if unknown:
        raise InputError(
            f'{path.name} has no label "{unknown[0]}"', hint=f"its labels: {', '.join(labels) or 'none'}"
        )
    if positive:
        return {label: float(label in positive) for label in labels}
    if labels and all(label.isdigit() for label in labels) and max(map(int, labels)) > 0:
        largest = max(map(int, labels))
        return {label: int(label) / largest for label in labels}
    raise InputError(
        f"which labels of {path.name} are good ones? It has: {', '.join(labels) or 'none'}",
        hint="name the positive ones",
    )
