"""Which language is a text in? py3langid, a maintained naive-Bayes identifier of 97 languages.

Chosen over lingua by a measurement on short and code-laden Japanese (docs/log.md): lingua gives a manual
page with commands in it to English and takes 0.9 GB for its full models; py3langid is right there and takes
0.1 GB.
Known weakness: all-kanji headlines go to Chinese (py3langid issue 15); pages have more text than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tsugiki.languages import LanguagePack

_SLICE_CHARACTERS = 400
"""A longer text is judged by three slices of this length: its beginning, its middle and its end. More does
not change the answer, only the time; the beginning alone is often a navigation bar in another language."""


@dataclass(frozen=True)
class Identified:
    """The likeliest label, and the probability of the pack's labels together."""

    label: str
    score: float


def identify(text: str, pack: LanguagePack) -> Identified:
    """Identify the language of `text` with regard to a pack's labels."""
    ranked = _identifier().rank(_sample(text))
    score = sum(probability for label, probability in ranked if label in pack.identification.labels)
    return Identified(str(ranked[0][0]), min(1.0, float(score)))


def is_language(found: Identified, pack: LanguagePack) -> bool:
    """Whether the score reaches the pack's minimum."""
    return found.score >= pack.identification.minimum_score


def _sample(text: str) -> str:
    if len(text) <= 3 * _SLICE_CHARACTERS:
        return text
    middle = (len(text) - _SLICE_CHARACTERS) // 2
    parts = (text[:_SLICE_CHARACTERS], text[middle : middle + _SLICE_CHARACTERS], text[-_SLICE_CHARACTERS:])
    return "\n".join(parts)


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
