"""Which language is a text in? py3langid, a maintained naive-Bayes identifier of 140 labels.

Chosen over lingua by a measurement on short and code-laden Japanese (docs/log.md): lingua gives a manual
page with commands in it to English and takes 0.9 GB for its full models; py3langid is right there and takes
0.1 GB. Its loops run compiled over its own tables (identify_kernel.py), ten to twenty times faster.
Known weakness: all-kanji headlines go to Chinese (py3langid issue 15); pages have more text than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import gettempdir

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tsugiki.corpus.identify_kernel import tables_of
from tsugiki.errors import storage_errors
from tsugiki.languages import LanguagePack

_SLICE_CHARACTERS = 1600
"""A longer text is judged by three slices of this length: its beginning, its middle and its end. The
beginning alone is often a navigation bar in another language. Measured against the whole text in
docs/log.md."""


@dataclass(frozen=True)
class Identified:
    """The likeliest label, and the probability of the pack's labels together."""

    label: str
    score: float


def identify(text: str, pack: LanguagePack) -> Identified:
    """Identify the language of `text` with regard to a pack's labels."""
    return _identifier()(sample_of(text), pack.identification.labels)


def is_language(found: Identified, pack: LanguagePack) -> bool:
    """Whether the score reaches the pack's minimum."""
    return found.score >= pack.identification.minimum_score


def sample_of(text: str) -> str:
    """What of a text is looked at: all, or three slices."""
    if len(text) <= 3 * _SLICE_CHARACTERS:
        return text
    middle = (len(text) - _SLICE_CHARACTERS) // 2
    parts = (text[:_SLICE_CHARACTERS], text[middle : middle + _SLICE_CHARACTERS], text[-_SLICE_CHARACTERS:])
    return "\n".join(parts)


Identifier = Callable[[str, tuple[str, ...]], Identified]
"""From a text and the labels that are wanted to the likeliest label and the score of the wanted ones."""


@cache
def _identifier() -> Identifier:
    with storage_errors(Path(gettempdir())):  # the library unpacks its model into a file there
        model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return compiled(model) or library(model)


def library(model: LanguageIdentifier) -> Identifier:
    """The library's own code: the fallback, and what the compiled one is tested against."""

    def answer(text: str, labels: tuple[str, ...]) -> Identified:
        ranked = model.rank(text)
        score = sum(probability for label, probability in ranked if label in labels)
        return Identified(str(ranked[0][0]), min(1.0, float(score)))

    return answer


def compiled(model: LanguageIdentifier) -> Identifier | None:
    """The compiled loops; None where the library is not built as they expect."""
    tables = tables_of(model)
    if tables is None:
        return None
    names = tables.labels

    @cache
    def places(labels: tuple[str, ...]) -> list[int]:
        return [place for place, name in enumerate(names) if name in labels]

    def answer(text: str, labels: tuple[str, ...]) -> Identified:
        probabilities = tables.probabilities(text)
        score = sum(float(probabilities[place]) for place in places(labels))
        return Identified(names[int(probabilities.argmax())], min(1.0, score))

    return answer
