"""The features that rules read: a small histogram of each, with the thresholds drawn in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.figures.distribution import StackedBin, Threshold, distribution
from tsugiki.report.figures.figure import Figure, Words, bar_legend
from tsugiki.report.figures.svg import Canvas
from tsugiki.report.formatting import exact
from tsugiki.report.run import Stage
from tsugiki.report.text import clip

_WIDTH: Final = 280
_HEIGHT: Final = 138
_MOST: Final = 60
_MOST_BINS: Final = 80

LEGEND: Final = bar_legend([("passed", "ink"), ("rejected, for whatever reason", "pale")])

_MEANINGS: Final = (
    (r"letters", "characters of the text"),
    (r"language_letters", "characters of the language's own script"),
    (r"language_share", "share of characters of the language's own script"),
    (r"sentence_length_mean", "mean length of a sentence, characters"),
    (r"sentence_length_max", "length of the longest sentence, characters"),
    (r"ellipsis_share", "share of sentences that end in an ellipsis"),
    (r"(paragraph|sentence|line)_duplicates", r"share of \1s that repeat another"),
    (r"(paragraph|sentence|line)_duplicate_letters", r"share of the text that is in repeated \1s"),
    (r"top_(\d+)gram", r"share of the most frequent run of \1 characters"),
    (r"repeated_(\d+)grams", r"share of runs of \1 characters that occur again"),
    (r"top_word_(\d+)gram", r"share of the text in its most frequent run of \1 words"),
    (r"repeated_word_(\d+)grams", r"share of the text in repeated runs of \1 words"),
    (r"words", "words of the text"),
    (r"stop_words", "different stop words"),
    (r"word_length_mean", "mean length of a word, characters"),
    (r"symbol_share", "hash signs and ellipses for each word"),
    (r"alphabetic_word_share", "share of words with a letter"),
    (r"bullet_line_share", "share of lines that begin with a bullet"),
    (r"ellipsis_line_share", "share of lines that end in an ellipsis"),
    (r"terminated_line_share", "share of lines that end like a sentence"),
    (r"short_line_share", "share of lines of 30 characters or fewer"),
    (r"repeated_line_letters", "share of characters in lines that repeat another"),
    (r"line_breaks_per_word", "line breaks for each word"),
    (r"placeholder_texts", "placeholder texts (lorem ipsum)"),
    (r"curly_brackets", "opening curly brackets"),
    (r"javascript_lines", "lines with the word JavaScript"),
    (r"policy_lines", "lines about cookies, privacy or terms of use"),
    (r"c4_line_share", "share of lines that C4 keeps"),
    (r"c4_sentences", "sentences in the lines that C4 keeps"),
    (r"c4_open_sentences", "sentences in the lines that C4 keeps, with or without a mark at the end"),
    (r"ng_expressions", "expressions of the NG list"),
    (r"ng_share", "share of characters in expressions of the NG list"),
    (r"dating_names", "names of dating sites"),
    (r"contaminated", "benchmark items found in the text"),
    (r"quality", "score of the quality classifier"),
    (r"(.+)_share", r"share that is \1"),
)


@dataclass(frozen=True)
class Distributions:
    """Histograms of features: of those whose rules reject something, then of the others."""

    telling: tuple[Figure, ...]
    silent: tuple[Figure, ...]


def distributions(stage: Stage) -> Distributions:
    """The histograms of a corpus stage, those that reject most first; empty where none were recorded."""
    found: list[tuple[float, int, Figure]] = []
    for index, row in enumerate(facts.rows(stage.facts, "histograms")[:_MOST]):
        figure = _figure(f"feature-{stage.index}-{index}", row)
        if figure is not None:
            rejected = sum(facts.number(rule, "rejected") or 0 for rule in facts.rows(row, "rules"))
            found.append((-rejected, index, figure))
    found.sort(key=lambda one: one[:2])
    return Distributions(
        telling=tuple(figure for rejected, _, figure in found if rejected),
        silent=tuple(figure for rejected, _, figure in found if not rejected),
    )


def meaning(feature: str) -> str:
    """What a feature measures, in a few words; empty where that is not known."""
    for pattern, words in _MEANINGS:
        match = re.fullmatch(pattern, feature)
        if match:
            return match.expand(words).replace("_", " ")
    return ""


def _figure(key: str, row: Row) -> Figure | None:
    feature = clip(facts.text(row, "feature"), 40)
    bins = [one for one in map(_bin, facts.rows(row, "bins")[:_MOST_BINS]) if one is not None]
    if not feature or not bins:
        return None
    thresholds = [
        (Threshold(sign, value), rule)
        for rule in facts.rows(row, "rules")
        if (value := facts.number(rule, "threshold")) is not None
        and (sign := facts.text(rule, "sign")) in {"<", ">", "<=", ">="}
    ]
    told = "; ".join(
        f"{limit.text}: {exact(facts.number(rule, 'rejected'))} rejected, "
        f"{exact(facts.number(rule, 'alone'))} alone"
        for limit, rule in thresholds
    )
    counts = "; ".join(
        f"{_bound(one.low)} to {_bound(one.high)}: {exact(one.total)}, passed {exact(one.part)}"
        for one in bins
        if one.total
    )
    canvas = Canvas(key, feature, f"{told}. {counts}", _WIDTH)
    drawn = distribution(canvas, bins, [limit for limit, _ in thresholds], _HEIGHT)
    words = Words(feature, "", "")
    return Figure(words.title, _explanation(feature, told), drawn, type(drawn)())


def _explanation(feature: str, told: str) -> str:
    return f"{meaning(feature)}. {told}".lstrip(". ")


def _bin(row: Row) -> StackedBin | None:
    low, high = facts.number(row, "from"), facts.number(row, "to")
    documents, kept = facts.number(row, "documents"), facts.number(row, "kept")
    rising = low is None or high is None or low < high
    known = documents is not None and kept is not None and 0 <= kept <= documents
    if not known or not rising or (low is None and high is None) or documents is None or kept is None:
        return None
    return StackedBin(low, high, documents, kept)


def _bound(value: float | None) -> str:
    return "beyond" if value is None else f"{value:g}"
