"""A linear quality classifier over hashed n-grams: its features, its files, its score.

    DIR/classifier.safetensors   weights, float32, one a bucket (4 MB for 2^20)
    DIR/classifier.json          features, calibration, what it was trained on, the most telling n-grams
    DIR/metrics.json             how good it is on documents that it never saw

Nothing is unpickled. A score is a calibrated probability: how likely a document is of the positive set, if
both sets are equally frequent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tsugiki.artifacts.files import atomic_path, read_json, sha256_of, write_json
from tsugiki.corpus.classifier import kernels
from tsugiki.errors import InputError

WEIGHTS_FILE = "classifier.safetensors"
CARD_FILE = "classifier.json"
METRICS_FILE = "metrics.json"
_HINT = "train it again with `tsugiki corpus train-classifier`"


class Classifier(Protocol):
    """What the corpus stage needs of a classifier."""

    @property
    def digest(self) -> str:
        """Identifies everything that decides a score."""

    def score(self, text: str) -> float:
        """From 0 (like the negative documents) to 1 (like the positive ones)."""


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FeatureSettings(_Facts):
    """Which n-grams are counted."""

    characters: tuple[int, int] = (1, 4)
    """Shortest and longest character n-gram. They need no spaces between words."""
    words: int = Field(default=0, ge=0, le=5)
    """Longest word n-gram, for languages with spaces; 0: none."""
    bits: int = Field(default=20, ge=10, le=24)
    """2^bits weights."""
    maximum_characters: int = Field(default=10_000, ge=1)
    """Only the beginning of a longer text is read."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 1 <= self.characters[0] <= self.characters[1] <= 8:  # noqa: PLR2004
            raise ValueError("characters: 1 <= shortest <= longest <= 8 is needed")
        return self

    @property
    def shape(self) -> kernels.Shape:
        """As the kernels take them."""
        return (*self.characters, self.words, self.bits)

    def symbols(self, text: str) -> kernels.UInt32s:
        """The normalised code points of a text; a lone surrogate is `?`."""
        data = bytearray(text[: self.maximum_characters].encode("utf-32-le", "replace"))
        return kernels.normalised(np.frombuffer(data, np.uint32))


class Calibration(_Facts):
    """Platt's: probability = sigmoid(slope · z + offset)."""

    slope: float = Field(default=1.0, gt=0)
    offset: float = 0.0


class TellingNgram(_Facts):
    """An n-gram and how much it moves the score, on average over its set's documents."""

    ngram: str
    effect: float


class Card(_Facts):
    """All that is known of a classifier beside its weights."""

    format: Literal["tsugiki-classifier-1"] = "tsugiki-classifier-1"
    features: FeatureSettings
    bias: float
    calibration: Calibration
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    training: dict[str, Any] = Field(default_factory=dict)
    telling_for: tuple[TellingNgram, ...] = ()
    telling_against: tuple[TellingNgram, ...] = ()


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """A trained classifier. Picklable, and safe to use from several threads."""

    card: Card
    weights: kernels.Float32s

    @property
    def digest(self) -> str:
        """Identifies everything that decides a score."""
        decides = self.card.model_dump_json(include={"format", "features", "bias", "calibration"})
        return hashlib.sha256((decides + self.card.weights_sha256).encode()).hexdigest()

    def score(self, text: str) -> float:
        """The probability that a text is of the positive set; 0 for a text without a visible character."""
        symbols = self.card.features.symbols(text)
        if symbols.size == 0:
            return 0.0
        z = kernels.logit(symbols, self.weights, self.card.bias, self.card.features.shape)
        return float(kernels.sigmoid(self.card.calibration.slope * z + self.card.calibration.offset))

    def scores(self, texts: Sequence[str]) -> list[float]:
        """The scores of several texts."""
        return [self.score(text) for text in texts]


def weights_digest(weights: kernels.Float32s) -> str:
    """The SHA-256 of the weights as little-endian bytes."""
    return hashlib.sha256(weights.astype("<f4").tobytes()).hexdigest()


def save_classifier(classifier: LinearClassifier, metrics: dict[str, Any], directory: Path) -> None:
    """Write the three files; the card last, since it vouches for the weights."""
    from safetensors.numpy import save_file

    with atomic_path(directory / WEIGHTS_FILE) as partial:
        save_file({"weights": classifier.weights}, partial)
    write_json(directory / METRICS_FILE, metrics)
    write_json(directory / CARD_FILE, json.loads(classifier.card.model_dump_json()))


def load_classifier(path: Path, positive: Sequence[str] = ()) -> Classifier:
    """Load a classifier: a directory that `train-classifier` made, or a fastText model (.bin, .ftz).

    positive: fastText only: the labels that count as good (see `FastTextClassifier`).
    Raises InputError for what is neither, or damaged; DependencyError where fastText is not installed.
    """
    if path.suffix in {".bin", ".ftz"}:
        from tsugiki.corpus.classifier.fasttext import FastTextClassifier

        return FastTextClassifier.load(path, positive)
    directory = path.parent if path.name in {CARD_FILE, WEIGHTS_FILE} else path
    if not (directory / CARD_FILE).is_file():
        raise InputError(
            f"{path} holds no classifier (no {CARD_FILE})",
            hint="name a directory made by `tsugiki corpus train-classifier`, or a fastText .bin or .ftz",
        )
    try:
        card = Card.model_validate(read_json(directory / CARD_FILE))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        raise InputError(f"{directory / CARD_FILE}: {where}: {fault['msg']}", hint=_HINT) from error
    return LinearClassifier(card, _load_weights(directory / WEIGHTS_FILE, card))


def _load_weights(path: Path, card: Card) -> kernels.Float32s:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        weights = load_file(path)["weights"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} can't be read: {error}", hint=_HINT) from error
    size = 1 << card.features.bits
    if weights.dtype != np.float32 or weights.shape != (size,):
        seen = f"{weights.dtype} {list(weights.shape)}"
        raise InputError(f"{path} holds {seen} where float32 [{size}] is expected", hint=_HINT)
    if weights_digest(weights) != card.weights_sha256 or not np.isfinite(weights).all():
        raise InputError(f"{path} does not belong to the {CARD_FILE} beside it", hint=_HINT)
    return np.array(weights)


def file_digest(path: Path) -> str:
    """The SHA-256 of a model file; raises InputError where it can't be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", hint="check the path") from error
