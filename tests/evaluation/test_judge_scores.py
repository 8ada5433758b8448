"""Relative scores and their intervals, worked by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from tsugiki.errors import DataError, StageError
from tsugiki.evaluation.judge.judging import Judgment
from tsugiki.evaluation.judge.scoring import difference, summarise


def made(scores, category="conv", per_image=1, start=0):
    return [
        Judgment(
            f"q{start + i}", category, f"i{(start + i) // per_image}", False, "scored", pair, "", "", str(i)
        )
        for i, pair in enumerate(scores)
    ]


def draw(generator, questions, shift=0.0):
    reference = generator.normal(7, 1, questions)
    model = reference - 1 + generator.normal(shift, 1, questions)
    return [(float(a), float(b)) for a, b in zip(reference, model, strict=True)]


def test_interval_covers_the_true_score():
    generator = np.random.default_rng(1)
    hits = 0
    for turn in range(200):
        total = summarise(made(draw(generator, 60)), draws=300, seed=turn).total
        hits += total.low <= 100 * 6 / 7 <= total.high
    assert 0.90 <= hits / 200 <= 0.99


def test_questions_on_one_image_widen_the_interval():
    generator = np.random.default_rng(2)
    pairs = [pair for pair in draw(generator, 20) for _ in range(4)]  # four alike on each image
    alone = summarise(made(pairs)).total
    together = summarise(made(pairs, per_image=4)).total
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(2, rel=0.25)


def test_difference_is_paired_over_questions():
    generator = np.random.default_rng(3)
    base = draw(generator, 80)
    better = [(a, b + 0.3) for a, b in base]
    change = difference(made(base), made(better))
    assert change.value == pytest.approx(100 * 0.3 / np.mean([a for a, _ in base]), rel=1e-9)
    assert change.low > 0  # though each score's own interval is wider than the difference
    own = summarise(made(base)).total
    assert own.high - own.low > change.high - change.low
    assert difference(made(base), made(better)) == change
    with pytest.raises(DataError, match="different questions"):
        difference(made(base), made(better, start=500))


def test_total_is_the_mean_of_categories_whatever_their_sizes():
    found = made([(8.0, 4.0)] * 10) + made([(8.0, 8.0)], "detail", start=10)
    summary = summarise(found)
    assert summary.total.value == pytest.approx(75)
    assert summary.categories["detail"].questions == 1


def test_nothing_judged_is_an_error():
    with pytest.raises(StageError, match="0 of 0"):
        summarise([])
    unread = [Judgment("q", "c", "i", False, "unparsed", None, "", "", "r")]
    with pytest.raises(DataError, match="no judgment has a score"):
        summarise(unread, maximum_errors=1.0)
