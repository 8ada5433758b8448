from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.dataset.mixture import Mixture, apportion
from tsugiki.dataset.packing import IGNORED, windows_per_epoch
from tsugiki.dataset.settings import Phase, asked_shares
from tsugiki.dataset.tokenise import TOKENS
from tsugiki.errors import DataError, InputError

LENGTH = 32


@pytest.fixture(scope="module")
def sources(make_source):
    return [
        make_source(60, "japanese", seed=1),
        make_source(50, "english", seed=2),
        make_source(40, "code", seed=3),
    ]


def make_mixture(
    sources, *, steps=12, rows=8, seed=0, max_epochs=50.0, weights=(0.7, 0.2, 0.1), phases=None, **more
):
    names = [source.name for source in sources]
    return Mixture(
        sources,
        phases or dict(zip(names, weights, strict=False)),
        steps=steps,
        sequences_per_step=rows,
        sequence_length=LENGTH,
        seed=seed,
        max_epochs=max_epochs,
        **more,
    )


def drawn(mixture, first=0, last=None):
    """Sequences of each source in steps first..last-1."""
    steps = range(first, mixture.steps if last is None else last)
    sources = np.concatenate([mixture.batch(step).source_B for step in steps])
    return np.bincount(sources, minlength=len(mixture.shares)).tolist()


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
    assert drawn(mixture) == [share.sequences for share in mixture.shares]
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


@pytest.mark.parametrize("packing", ["concatenate", "best-fit"])
@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_mixture_batches_of_ranks_together_are_the_batch(sources, world, packing):
    whole = make_mixture(sources, packing=packing).batch(5)
    ranks = [make_mixture(sources, packing=packing).batch(5, rank, world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {8 // world}
    for field in ("ids_BT", "targets_BT", "document_ids_BT", "source_B"):
        assert (np.concatenate([getattr(rank, field) for rank in ranks]) == getattr(whole, field)).all()


def test_mixture_of_ranks_that_do_not_divide_the_rows_raises(sources):
    with pytest.raises(InputError, match="3 data-parallel ranks do not divide the 8 sequences"):
        make_mixture(sources).batch(0, 0, 3)


@pytest.mark.parametrize("rank", [-1, 2])
def test_mixture_of_a_rank_outside_of_the_world_raises(sources, rank):
    with pytest.raises(IndexError, match=rf"rank {rank} is outside of 0\.\.1"):
        make_mixture(sources).batch(0, rank, 2)


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


@pytest.mark.parametrize("packing", ["concatenate", "best-fit"])
def test_mixture_keeps_within_one_sequence_of_the_weights_after_every_row(sources, packing):
    mixture = make_mixture(sources, weights=(0.6, 0.3, 0.1), packing=packing)
    owed = np.asarray([0.6, 0.3, 0.1]) / [1 - share.padding for share in mixture.shares]
    order = np.concatenate([mixture.batch(step).source_B for step in range(mixture.steps)])
    counts = np.cumsum(order[:, None] == np.arange(3), axis=0)
    asked = np.arange(1, len(order) + 1)[:, None] * owed / owed.sum()
    assert np.abs(counts - asked).max() < 1


CURRICULUM = (
    Phase(name="broad", tokens=3000, data={"japanese": 0.5, "english": 0.5}),
    Phase(name="clean", tokens=1000, data={"japanese": 0.25, "code": 0.75}),
)


def test_mixture_of_phases_divides_steps_and_weights_as_told(sources):
    mixture = make_mixture(sources, phases=CURRICULUM)
    assert [(plan.name, plan.first_step, plan.steps) for plan in mixture.phases] == [
        ("broad", 0, 9),
        ("clean", 9, 3),
    ]
    assert drawn(mixture, 0, 9) == [36, 36, 0]
    assert drawn(mixture, 9, 12) == [6, 0, 18]
    assert [list(plan.sequences.values()) for plan in mixture.phases] == [[36, 36, 0], [6, 0, 18]]
    assert [share.weight for share in mixture.shares] == pytest.approx([0.4375, 0.375, 0.1875])
    assert sum(asked_shares(CURRICULUM).values()) == pytest.approx(1)


def test_mixture_goes_on_with_a_source_where_the_phase_before_left_it(sources):
    windows = windows_per_epoch(sources[0], LENGTH)
    assert windows >= 2 * 12
    halves = [Phase(tokens=1, data={"japanese": 1.0}), Phase(tokens=1, data={"japanese": 1.0})]
    mixture = make_mixture(sources[:1], phases=halves, steps=windows, rows=1)
    rows = {mixture.batch(step).ids_BT[0].tobytes() for step in range(windows)}
    assert len(rows) == windows


def test_mixture_phase_without_a_step_raises(sources):
    phases = [*CURRICULUM, Phase(name="tiny", tokens=1, data={"code": 1.0})]
    with pytest.raises(InputError, match=r'phase 3 \("tiny", 1 tokens\) gets none of 12 steps'):
        make_mixture(sources, phases=phases)


def test_mixture_of_a_source_that_is_not_there_raises(sources):
    with pytest.raises(InputError, match="weights name code; the sources are english, japanese"):
        make_mixture(sources[:2], phases=CURRICULUM)


def test_mixture_by_bytes_gives_each_source_its_share_of_the_text(sources):
    mixture = make_mixture(sources, steps=400, weights=(0.5, 0.3, 0.2), weight_unit="bytes", max_epochs=1e4)
    given_bytes = np.asarray([share.bytes for share in mixture.shares])
    assert given_bytes / given_bytes.sum() == pytest.approx([0.5, 0.3, 0.2], abs=1e-3)
    per_token = [source.text_bytes / source.tokens for source in sources]
    assert given_bytes == pytest.approx(
        [share.tokens * rate for share, rate in zip(mixture.shares, per_token, strict=True)]
    )
    assert len(set(per_token)) > 1


def test_mixture_limits_the_epochs_of_one_source_alone(sources):
    make_mixture(sources, max_epochs={"code": 50.0})
    with pytest.raises(DataError, match=r'"code" has .* \(max_epochs: 0\.1\)\n') as error:
        make_mixture(sources, max_epochs={"code": 0.1})
    assert "japanese" not in error.value.message


def test_mixture_spare_steps_go_on_by_the_last_weights_and_change_nothing_before(sources):
    plain, spare = (make_mixture(sources, phases=CURRICULUM, spare_steps=count) for count in (0, 4))
    for step in range(12):
        assert (plain.batch(step).ids_BT == spare.batch(step).ids_BT).all()
    assert drawn(spare, 12, 16) == [8, 0, 24]
    assert spare.shares == plain.shares
    with pytest.raises(IndexError, match=r"0\.\.15"):
        spare.batch(16)


def test_mixture_by_best_fit_reports_its_padding(sources):
    mixture = make_mixture(sources, packing="best-fit", weights=(1.0, 1e-9, 1e-9), steps=40)
    empty = np.mean([(mixture.batch(step).targets_BT == IGNORED).mean() for step in range(40)])
    assert 0 < mixture.shares[0].padding < 0.1
    assert empty == pytest.approx(mixture.shares[0].padding, abs=0.01)


@pytest.mark.parametrize("packing", ["concatenate", "best-fit"])
def test_mixture_of_tokens_that_were_damaged_on_the_disk_raises(make_source, packing, tokenizer):
    source = make_source(60, "damaged", seed=5)
    path = source.units[0].directory / TOKENS
    tokens = np.fromfile(path, dtype="<u2")
    place = len(tokens) // 2
    tokens[place : place + 4] = tokenizer.size
    with path.open("r+b") as file:
        file.write(tokens.tobytes())
    steps = windows_per_epoch(source, LENGTH)
    mixture = make_mixture([source], steps=steps, rows=1, weights=(1.0,), packing=packing)
    with pytest.raises(DataError, match=f'"damaged" holds the id {tokenizer.size} in a vocabulary of'):
        for step in range(steps):
            mixture.batch(step)


def test_mixture_batches_are_the_same_whether_the_next_was_made_ahead_or_not(sources):
    in_order, apart = make_mixture(sources), make_mixture(sources)
    for step in (0, 1, 2, 7, 8, 3):
        made, expected = in_order.batch(step, 1, 2), apart.rows(step, 4, 8)
        for field in ("ids_BT", "targets_BT", "document_ids_BT", "source_B"):
            assert (getattr(made, field) == getattr(expected, field)).all()
