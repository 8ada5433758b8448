"""Names of metrics, as tasks' files write them -> functions of a prediction and its references.

Everything is imported when it is first used: a tokenizer for Japanese need not be there to score arithmetic.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType

from tsugiki.errors import InputError, did_you_mean
from tsugiki.evaluation.benchmarks.extraction import extract
from tsugiki.evaluation.benchmarks.schema import Score, Settings

Metric = Callable[[str, Sequence[str]], float]

METRICS = MappingProxyType(
    {
        "bbh_match": "matching",
        "bbh_match_fair": "matching",
        "character_f1": "characters",
        "exact_match": "matching",
        "gsm8k_flexible": "matching",
        "gsm8k_strict": "matching",
        "last_number_match": "matching",
        "llmjp_char_f1": "characters",
        "llmjp_exact_match": "matching",
        "mgsm_match": "matching",
        "refusal_as_expected": "refusals",
        "refused": "refusals",
        "rouge_2_mecab": "rouge",
        "rouge_2_pieces": "rouge",
        "squad_exact": "matching",
        "squad_f1": "matching",
        "trivia_qa_match": "matching",
    }
)
"""Name -> module of tsugiki.evaluation.metrics (refusals: of this package)."""
PIECES = "rouge_2_pieces"
"""ROUGE-2 over the scored model's own tokens: the one metric that needs the model."""


def metric_of(name: str) -> Metric:
    """The function; raises InputError for a name that is not known."""
    if name not in METRICS:
        raise InputError(f'there is no metric "{name}"', hint=did_you_mean(name, list(METRICS)))
    package = "benchmarks" if METRICS[name] == "refusals" else "metrics"
    module = importlib.import_module(f"tsugiki.evaluation.{package}.{METRICS[name]}")
    if name == "rouge_2_mecab":
        from tsugiki.evaluation.metrics.tokenizers import tokenizer

        return partial(module.rouge_2, tokenize=tokenizer("ja-mecab"))
    if name == PIECES:
        # Texts come as tokens joined by this separator, because the model cuts many texts at once.
        return partial(module.rouge_2, tokenize=lambda text: text.split(SEPARATOR) if text else [])
    function: Metric = getattr(module, name)
    return function


SEPARATOR = "\x1f"
"""Stands between tokens; no tokenizer's piece holds it alone."""


def require_scoring(settings: Settings) -> None:
    """Raise before a model is asked what would only come out when its answers are scored.

    InputError for a metric that is not known, DependencyError for a package or a sandbox that is missing.
    """
    for score in settings.scores.values():
        metric_of(score.metric)
    if settings.corpus is not None:
        from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS

        if settings.corpus not in CORPUS_METRICS:
            raise InputError(
                f'there is no corpus metric "{settings.corpus}"',
                hint=did_you_mean(settings.corpus, list(CORPUS_METRICS)),
            )
        CORPUS_METRICS[settings.corpus].sums("a", ["a"])
    if settings.answer == "code":
        from tsugiki.evaluation.sandbox.checks import require_sandbox

        require_sandbox()


def item_scores(settings: Settings, prediction: str, golds: Sequence[str]) -> dict[str, float]:
    """All numbers of one answer but those that need the model, by their names."""
    return {
        name: score_of(settings, score, prediction, golds)
        for name, score in settings.scores.items()
        if score.metric != PIECES and counts(score, golds)
    }


def counts(score: Score, golds: Sequence[str]) -> bool:
    """Whether a number is computed of an item with these golds."""
    return score.only == "all" or (score.only == "answerable") == bool(golds)


def score_of(settings: Settings, score: Score, prediction: str, golds: Sequence[str]) -> float:
    """One number of one answer."""
    references = list(golds[:1] if score.references == "first" else golds)
    if not references and score.none is not None:
        references = [score.none]
    text = extract(settings.extracts[score.extract], prediction) if score.extract else prediction
    return metric_of(score.metric)(text, references)
