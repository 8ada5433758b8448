"""What is made ahead is what would have been made later, and nothing is made twice or too far."""

import threading

import pytest

from tsugiki.dataset.ahead import Ahead


class Kitchen:
    """Makes rows, and remembers which and in which thread."""

    def __init__(self):
        self.made, self.threads, self.ready = [], [], threading.Event()

    def make(self, step, start, stop):
        self.threads.append(threading.current_thread().name)
        self.made.append((step, start, stop))
        if step == 13:
            raise ValueError("unlucky")
        if step == 1:
            self.ready.set()
        return [step] * (stop - start)


def test_ahead_in_order_makes_every_step_once_and_all_but_the_first_in_the_thread():
    kitchen = Kitchen()
    ahead = Ahead(kitchen.make, steps=5)
    assert [ahead.get(step, 0, 2) for step in range(5)] == [[step] * 2 for step in range(5)]
    assert kitchen.made == [(step, 0, 2) for step in range(5)]
    assert kitchen.threads[0] == threading.main_thread().name
    assert all(name.startswith("feeding") for name in kitchen.threads[1:])


def test_ahead_begins_the_next_step_before_it_is_asked_for():
    kitchen = Kitchen()
    ahead = Ahead(kitchen.make, steps=5)
    ahead.get(0, 0, 2)
    kitchen.ready.wait(10)
    assert kitchen.made[-1] == (1, 0, 2)


@pytest.mark.parametrize("asked", [(4, 0, 2), (1, 2, 4), (0, 0, 2)])
def test_ahead_asked_for_other_rows_gives_those(asked):
    ahead = Ahead(Kitchen().make, steps=9)
    ahead.get(0, 0, 2)
    assert ahead.get(*asked) == [asked[0]] * 2


def test_ahead_raises_what_a_step_raises_only_when_it_is_asked_for():
    ahead = Ahead(Kitchen().make, steps=20)
    assert ahead.get(12, 0, 1) == [12]
    with pytest.raises(ValueError, match="unlucky"):
        ahead.get(13, 0, 1)
    assert ahead.get(14, 0, 1) == [14]
