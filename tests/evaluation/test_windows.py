from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tsugiki.evaluation.engines.windows import Window, plan_windows


def test_plan_windows_short_text_is_one_window():
    assert plan_windows(5, first=1, context_length=8, stride=4) == [Window(0, 5, 1)]


def test_plan_windows_long_text_overlaps():
    assert plan_windows(12, first=1, context_length=8, stride=3) == [
        Window(0, 8, 1),  # predicts x_1 .. x_8
        Window(3, 11, 9),
        Window(4, 12, 12),  # the last one keeps a full window of context
    ]


def test_plan_windows_short_choice_after_long_context_is_one_window_at_the_end():
    assert plan_windows(100, first=96, context_length=32, stride=16) == [Window(68, 100, 96)]


def test_plan_windows_nothing_to_score_is_empty():
    assert plan_windows(0, first=1, context_length=8, stride=4) == []


@given(st.data())
def test_plan_windows_any_lengths_score_each_token_once_with_enough_context(data):
    context = data.draw(st.integers(1, 40))
    stride = data.draw(st.integers(1, context))
    last = data.draw(st.integers(1, 200))
    first = data.draw(st.integers(1, last))
    scored = []
    for window in plan_windows(last, first=first, context_length=context, stride=stride):
        assert 0 <= window.start < window.end
        assert window.length <= context
        for token in range(window.first, window.end + 1):
            assert token - window.start >= min(token, context - stride + 1)
            scored.append(token)
    assert scored == list(range(first, last + 1))
