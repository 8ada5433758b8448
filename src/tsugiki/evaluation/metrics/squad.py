"""SQuAD 2.0, with the questions that have an answer and those that have none apart (Rajpurkar et al. 2018).

Neither published number can be used: `exact` scores every right abstention 0, because models are shown
"unanswerable" and the gold answer is empty (ceiling about 0.5); `best_exact` never falls below the share of
questions without an answer (5945 / 11873), because it may choose to abstain from everything. Here abstaining
is an answer like others, and both halves are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tsugiki.errors import DataError
from tsugiki.evaluation.metrics.matching import squad_exact, squad_f1, squad_normalise

ABSTENTION = "unanswerable"


@dataclass(frozen=True)
class SquadScore:
    """Of one question. exact and f1: corrected; published_exact: as Swallow's 2024 board had it.

    abstained: the model said that there is no answer; silent: it wrote nothing at all.
    """

    has_answer: bool
    exact: float
    f1: float
    published_exact: float
    abstained: bool
    silent: bool


def squad_score(prediction: str, answers: Sequence[str], abstention: str = ABSTENTION) -> SquadScore:
    """Score an answer; no `answers`: the question has none, and abstaining is right.

    The model abstains by writing `abstention` (case, punctuation and articles don't matter) or nothing.
    """
    said = squad_normalise(prediction)
    abstained = said in {squad_normalise(abstention), ""}
    if answers:
        exact = 0.0 if abstained else squad_exact(prediction, answers)
        f1 = 0.0 if abstained else squad_f1(prediction, answers)
    else:
        exact = f1 = float(abstained)
    return SquadScore(
        bool(answers), exact, f1, squad_exact(prediction, answers or [""]), abstained, not prediction
    )


@dataclass(frozen=True)
class SquadSummary:
    """Means over the questions of each kind; None where there are none of that kind.

    balanced is the mean of both halves: 0.5 for a model that always abstains. best_exact and its threshold
    are the published ones.
    """

    has_answer_exact: float | None
    has_answer_f1: float | None
    no_answer_exact: float | None
    balanced_exact: float | None
    published_exact: float
    best_exact: float | None
    best_exact_threshold: float | None


def squad_summary(
    scores: Sequence[SquadScore], no_answer_probabilities: Sequence[float] | None = None
) -> SquadSummary:
    """All numbers of a set of questions; best_exact needs the model's probability of abstaining for each.

    Raises DataError for no questions.
    """
    if not scores:
        raise DataError("SQuAD was scored without a question", hint="score at least one")
    has = [score for score in scores if score.has_answer]
    none = [score for score in scores if not score.has_answer]
    exact, nothing = _mean([one.exact for one in has]), _mean([one.exact for one in none])
    best: tuple[float | None, float | None] = (None, None)
    if no_answer_probabilities is not None:
        best = best_exact(scores, no_answer_probabilities)
    return SquadSummary(
        has_answer_exact=exact,
        has_answer_f1=_mean([one.f1 for one in has]),
        no_answer_exact=nothing,
        balanced_exact=None if exact is None or nothing is None else (exact + nothing) / 2,
        published_exact=sum(one.published_exact for one in scores) / len(scores),
        best_exact=best[0],
        best_exact_threshold=best[1],
    )


def best_exact(scores: Sequence[SquadScore], no_answer_probabilities: Sequence[float]) -> tuple[float, float]:
    """The published best_exact, and the threshold on P(no answer) that reaches it.

    From abstaining everywhere on, questions are answered in the order of rising probability; one without an
    answer then costs 1 (unless what the model wrote is empty), one with an answer brings its exact match.
    """
    if len(scores) != len(no_answer_probabilities):
        raise DataError(
            f"{len(scores)} SQuAD scores and {len(no_answer_probabilities)} probabilities of abstaining",
            hint="give one probability for each question",
        )
    current = highest = float(sum(not score.has_answer for score in scores))
    threshold = 0.0
    for index in sorted(range(len(scores)), key=lambda place: no_answer_probabilities[place]):
        score = scores[index]
        current += score.published_exact if score.has_answer else float(score.silent) - 1
        if current > highest:
            highest, threshold = current, no_answer_probabilities[index]
    return highest / len(scores), threshold


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
