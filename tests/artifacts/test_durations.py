from __future__ import annotations

import pytest

from tsugiki.artifacts.durations import about, taken


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.42, "0.42 s"),
        (3.44, "3.4 s"),
        (9.96, "10 s"),
        (84, "84 s"),
        (750, "12 min 30 s"),
        (3599.7, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (180_000, "50 h 0 min"),
    ],
)
def test_taken_shows_two_units_at_most(seconds, text):
    assert taken(seconds) == text
    assert taken(seconds, "_") == text.replace(" s", "_s").replace(" min", "_min").replace(" h", "_h")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.01, "0 s"),
        (0.42, "0.4 s"),
        (0.97, "1 s"),
        (40, "40 s"),
        (89, "89 s"),
        (90, "2 min"),
        (720, "12 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (11_100, "3.1 h"),
        (187_500, "2.2 days"),
    ],
)
def test_about_is_one_number_and_one_unit(seconds, text):
    assert about(seconds) == text
