from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.dataset.mixture import Mixture, apportion
from tsugiki.dataset.packing import windows_per_epoch
from tsugiki.errors import DataError

LENGTH = 32


@pytest.fixture(scope="module")
def sources(make_source):
    return [
        make_source(60, "japanese", seed=1),
        make_source(50, "english", seed=2),
        make_source(40, "code", seed=3),
    ]


def make_mixture(sources, *, steps=12, rows=8, seed=0, max_epochs=50.0, weights=(0.7, 0.2, 0.1)):
    names = [source.name for source in sources]
    return Mixture(
        sources,
        dict(zip(names, weights, strict=False)),
        steps=steps,
        sequences_per_step=rows,
        sequence_length=LENGTH,
        seed=seed,
        max_epochs=max_epochs,
    )


@given(
    weights=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8),
    total=st.integers(0, 10**9),
)
def test_apportion_adds_up_and_keeps_within_one_of_the_exact_share(weights, total):
    parts = apportion(weights, total)
    whole = sum(map(Fraction, weights))
    assert sum(parts) == total
    assert all(
        abs(part - Fraction(weight) * total / whole) < 1 for part, weight in zip(parts, weights, strict=True)
    )


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ([1, 1, 1], 10, [4, 3, 3]),
        ([0.9, 0.1], 25_600_000, [23_040_000, 2_560_000]),
        ([3, 1], 2, [2, 0]),
        ([5], 7, [7]),
    ],
)
def test_apportion_worked_examples(weights, total, expected):
    assert apportion(weights, total) == expected


@settings(max_examples=20, deadline=None)
@given(
    weights=st.tuples(*[st.floats(0.01, 1.0)] * 3),
    steps=st.integers(1, 20),
    rows=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_mixture_draws_from_each_source_exactly_what_its_weight_says(sources, weights, steps, rows, seed):
    mixture = make_mixture(sources, steps=steps, rows=rows, seed=seed, weights=weights)
    drawn = np.concatenate([mixture.batch(step).source_B for step in range(steps)])
    assert np.bincount(drawn, minlength=3).tolist() == [share.sequences for share in mixture.shares]
    assert sum(share.tokens for share in mixture.shares) == steps * rows * LENGTH
    assert sum(share.weight for share in mixture.shares) == pytest.approx(1)


def test_mixture_draws_every_window_of_an_epoch_once_before_any_again(sources):
    windows = windows_per_epoch(sources[0], LENGTH)
    mixture = make_mixture(sources[:1], steps=2 * windows, rows=1)
    rows = [mixture.batch(step).ids_BT[0].tobytes() for step in range(2 * windows)]
    epochs = [rows[:windows], rows[windows:]]
    assert all(len(set(epoch)) == windows for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert mixture.shares[0].epochs == 2


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_mixture_rows_of_ranks_together_are_the_batch(sources, ranks):
    mixture = make_mixture(sources)
    whole = mixture.batch(5)
    share = 8 // ranks
    others = [make_mixture(sources).rows(5, rank * share, (rank + 1) * share) for rank in range(ranks)]
    for field in ("ids_BT", "targets_BT", "document_ids_BT", "source_B"):
        assert (np.concatenate([getattr(other, field) for other in others]) == getattr(whole, field)).all()


def test_mixture_entered_anywhere_gives_what_an_undisturbed_run_gets(sources):
    undisturbed = make_mixture(sources)
    batches = [undisturbed.batch(step).ids_BT for step in range(12)]
    for step in (11, 0, 7, 3):
        assert (make_mixture(sources).batch(step).ids_BT == batches[step]).all()


def test_mixture_of_another_seed_has_another_order(sources):
    assert (
        make_mixture(sources, seed=1).batch(0).ids_BT != make_mixture(sources, seed=2).batch(0).ids_BT
    ).any()


def test_mixture_tells_whether_rows_hold_several_documents(sources, make_source):
    assert make_mixture(sources).batch(0).several_documents
    long_documents = make_mixture([make_source(4, "long", longest=4000)], steps=1, rows=1, weights=(1.0,))
    assert not long_documents.batch(0).several_documents


def test_mixture_that_repeats_too_often_raises_with_the_figures(sources):
    windows = windows_per_epoch(sources[2], LENGTH)
    with pytest.raises(DataError) as error:
        make_mixture(sources[2:], steps=3 * windows, rows=1, weights=(1.0,), max_epochs=2.5)
    assert "corpus too small for the tokens asked" in error.value.message
    assert f"{sources[2].tokens:,} tokens" in error.value.message
    assert f"{3 * windows * LENGTH:,} are asked" in error.value.message
    assert "3.00 epochs" in error.value.message


@pytest.mark.parametrize("step", [-1, 12])
def test_mixture_step_outside_of_the_run_raises(sources, step):
    with pytest.raises(IndexError, match=r"0\.\.11"):
        make_mixture(sources).batch(step)
