from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.dataset import schedule as schedule_module
from tsugiki.dataset.schedule import Schedule

WEIGHT = st.one_of(st.just(0.0), st.floats(1e-4, 1.0))
PHASES = st.integers(1, 7).flatmap(
    lambda sources: st.lists(
        st.tuples(st.integers(1, 15), st.lists(WEIGHT, min_size=sources, max_size=sources).filter(sum)),
        min_size=1,
        max_size=4,
    )
)


def places_of(schedule):
    steps = [schedule.step(step) for step in range(schedule.steps)]
    return np.concatenate([step.source for step in steps]), np.concatenate([step.use for step in steps])


@settings(max_examples=80, deadline=None)
@given(phases=PHASES, rows=st.integers(1, 9))
def test_schedule_keeps_every_source_within_one_place_of_its_share_at_every_prefix(phases, rows):
    sources, _ = places_of(Schedule(phases, rows))
    owed = [Fraction(0)] * len(phases[0][1])
    had = [0] * len(owed)
    shares = [weights for steps, weights in phases for _ in range(steps * rows)]
    for source, weights in zip(sources.tolist(), shares, strict=True):
        whole = sum(map(Fraction, weights))
        owed = [debt + Fraction(weight) / whole for debt, weight in zip(owed, weights, strict=True)]
        had[source] += 1
        assert max(abs(debt - count) for debt, count in zip(owed, had, strict=True)) < 1


@settings(max_examples=50, deadline=None)
@given(phases=PHASES, rows=st.integers(1, 9))
def test_schedule_uses_count_earlier_places_of_the_source_and_sums_agree(phases, rows):
    schedule = Schedule(phases, rows)
    sources, uses = places_of(schedule)
    for source in range(len(phases[0][1])):
        assert uses[sources == source].tolist() == list(range(int((sources == source).sum())))
    ends = np.cumsum([0, *(steps * rows for steps, _ in phases)])
    for end, used in zip(ends, schedule.used_FS, strict=True):
        assert np.bincount(sources[:end], minlength=used.size).tolist() == used.tolist()


def test_schedule_draws_nothing_from_a_source_of_weight_zero():
    schedule = Schedule([(5, [0.5, 0.5, 0.0]), (5, [0.0, 0.25, 0.75])], 8)
    sources, _ = places_of(schedule)
    assert 2 not in sources[:40]
    assert 0 not in sources[40:]
    assert schedule.used_FS.tolist() == [[0, 0, 0], [20, 20, 0], [20, 30, 30]]


def test_schedule_entered_anywhere_gives_the_same_places():
    schedule = Schedule([(30, [0.7, 0.2, 0.1]), (30, [0.1, 0.1, 0.8])], 7)
    whole, _ = places_of(schedule)
    for step in (59, 0, 31, 29):
        again = Schedule([(30, [0.7, 0.2, 0.1]), (30, [0.1, 0.1, 0.8])], 7).step(step)
        assert again.source.tolist() == whole[step * 7 : step * 7 + 7].tolist()


def test_schedule_golden_values_stay_the_same_between_versions():
    # The order of the data is part of a run's identity: changing these breaks every unfinished run.
    assert Schedule([(2, [0.6, 0.3, 0.1])], 10).step(0).source.tolist() == [0, 1, 0, 0, 1, 0, 2, 0, 0, 1]


def test_schedule_of_many_places_stays_exact_in_whole_numbers():
    steps, rows, weights = 1000, 4096, [0.883, 0.05, 0.05, 0.017]
    schedule = Schedule([(steps, weights)], rows)
    asked = np.asarray(weights) / sum(weights)
    owed = np.arange(steps + 1)[:, None] * rows * asked
    drawn = [np.bincount(schedule.step(step).source, minlength=4) for step in range(steps)]
    used = np.cumsum([np.zeros(4, np.int64), *drawn], axis=0)
    assert np.abs(owed - used).max() < 1


@pytest.mark.parametrize("rows", [1, 3])
def test_schedule_of_one_source_draws_from_it_alone(rows):
    sources, uses = places_of(Schedule([(4, [2.5])], rows))
    assert not sources.any()
    assert uses.tolist() == list(range(4 * rows))


LONG = [(300, [0.5, 0.3, 0.2]), (200, [0.1, 0.1, 0.8])]


def remembered(monkeypatch, directory, phases=LONG, rows=8):
    """A schedule that finds or leaves its states in `directory`, with few places between marks."""
    monkeypatch.setattr(schedule_module, "WORTH_REMEMBERING", 1)
    monkeypatch.setattr(schedule_module, "PLACES_BETWEEN_MARKS", 100)
    return Schedule(phases, rows, directory)


def test_schedule_that_was_remembered_is_not_gone_through_again(tmp_path, monkeypatch):
    first = remembered(monkeypatch, tmp_path)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(Schedule, "_pass_over", lambda _: pytest.fail("went through all places"))
    again = remembered(monkeypatch, tmp_path)
    monkeypatch.undo()
    expected, _ = places_of(Schedule(LONG, 8))
    for step in (499, 0, 299, 300, 7, 8, 250):
        assert again.step(step).source.tolist() == expected[step * 8 : step * 8 + 8].tolist()
    assert again.used_FS.tolist() == first.used_FS.tolist() == Schedule(LONG, 8).used_FS.tolist()
    assert file.stat().st_size < 2000  # 3 numbers for every 100 places, not for every step


@pytest.mark.parametrize("damage", ["cut", "longer", "other numbers", "empty"])
def test_schedule_whose_file_is_damaged_is_gone_through_again(tmp_path, monkeypatch, damage):
    remembered(monkeypatch, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    lie = whole[:24] + bytes([whole[24] ^ 1]) + whole[25:]
    file.write_bytes({"cut": whole[:-9], "longer": whole + b"\0", "other numbers": lie, "empty": b""}[damage])
    again = remembered(monkeypatch, tmp_path)
    assert file.read_bytes() == whole
    expected, _ = places_of(Schedule(LONG, 8))
    assert again.step(20).source.tolist() == expected[160:168].tolist()


@pytest.mark.parametrize(
    ("phases", "rows"), [(LONG, 4), ([(300, [0.5, 0.2, 0.3]), LONG[1]], 8), ([LONG[0], (201, LONG[1][1])], 8)]
)
def test_schedule_of_other_weights_steps_or_rows_is_remembered_apart(tmp_path, monkeypatch, phases, rows):
    remembered(monkeypatch, tmp_path)
    other = remembered(monkeypatch, tmp_path, phases, rows)
    assert len(list(tmp_path.iterdir())) == 2
    expected, _ = places_of(Schedule(phases, rows))
    assert places_of(other)[0].tolist() == expected.tolist()


def test_schedule_draws_few_places_to_reach_any_step(monkeypatch):
    schedule = Schedule([(100_000, [0.6, 0.4])], 1)
    drawn = []
    draw = Schedule._draw
    monkeypatch.setattr(
        Schedule, "_draw", lambda self, used, at, steps: drawn.append(steps) or draw(self, used, at, steps)
    )
    for step in (99_999, 1, 50_000):
        schedule.step(step)
    assert sum(drawn) < 3 * schedule_module.PLACES_BETWEEN_MARKS
