import json
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.dataset.best_fit import PIECES, WINDOWS, BestFitWindows, make_plan, padding_share, plan_directory
from tsugiki.dataset.packing import IGNORED, Window
from tsugiki.dataset.tokenise import tokenise
from tsugiki.dataset.tokens import open_tokens
from tsugiki.errors import DataError, InputError

LENGTH = 48


@pytest.fixture(scope="module")
def source(make_source):
    return make_source(count=300, longest=50, seed=4)


def pieces_by_window(plan):
    bounds = plan.windows_W1
    return [plan.pieces_P3[bounds[w] : bounds[w + 1]].tolist() for w in range(len(bounds) - 1)]


def naive_best_fit(lengths, capacity):
    """Best-fit decreasing in plain Python: how many bins, and the room that is left in each, sorted."""
    pieces = []
    for length in lengths:
        pairs = max(0, length - 1)
        pieces += [capacity] * (pairs // capacity) + ([pairs % capacity] if pairs % capacity else [])
    rooms = []
    for piece in sorted(pieces, reverse=True):
        fitting = [room for room in rooms if room >= piece]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - piece)
        else:
            rooms.append(capacity - piece)
    return len(rooms), sorted(rooms)


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(0, 300), min_size=1, max_size=60), capacity=st.integers(1, 130))
def test_make_plan_is_best_fit_decreasing_and_holds_every_pair_once(lengths, capacity):
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    plan = make_plan(offsets, capacity)
    windows = pieces_by_window(plan)
    rooms = sorted(capacity - sum(pairs for _, _, pairs in window) for window in windows)
    assert (len(windows), rooms) == naive_best_fit(lengths, capacity)
    pairs = [(d, o + k) for window in windows for d, o, n in window for k in range(n)]
    assert sorted(pairs) == [(d, k) for d, length in enumerate(lengths) for k in range(max(0, length - 1))]
    assert plan.pairs == len(pairs)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(2, 49), min_size=1, max_size=60))
def test_make_plan_never_cuts_a_document_that_fits(lengths):
    plan = make_plan(np.cumsum([0, *lengths], dtype=np.int64), LENGTH)
    assert len(plan.pieces_P3) == len(lengths)
    assert not plan.pieces_P3[:, 1].any()


def test_best_fit_epoch_holds_every_prediction_of_every_document_once(source):
    windows = BestFitWindows(source, LENGTH)
    epoch = windows.epoch(7)
    found = []
    for position in range(windows.count):
        row = Window.empty(LENGTH)
        epoch.fill(position, row)
        for number in np.unique(row.document_ids_T[row.targets_T != IGNORED]):
            own = row.document_ids_T == number
            found.append((row.ids_T[own].tolist(), row.targets_T[own].tolist()))
    documents = [source.document(number).tolist() for number in range(source.documents)]
    pairs = sorted(pair for inputs, targets in found for pair in zip(inputs, targets, strict=True))
    assert pairs == sorted(pair for d in documents for pair in pairwise(d))
    whole = {(tuple(d[:-1]), tuple(d[1:])) for d in documents if len(d) <= LENGTH + 1}
    assert whole <= {(tuple(inputs), tuple(targets)) for inputs, targets in found}


def test_best_fit_padding_is_a_document_of_its_own_without_targets(source):
    windows = BestFitWindows(source, LENGTH)
    epoch = windows.epoch(1)
    padded = 0
    for position in range(windows.count):
        row = Window.empty(LENGTH)
        epoch.fill(position, row)
        empty = row.targets_T == IGNORED
        padded += int(empty.sum())
        assert not np.isin(row.document_ids_T[~empty], row.document_ids_T[empty]).any()
    assert windows.tokens_per_window == Fraction(windows.count * LENGTH - padded, windows.count)
    assert padding_share([source], LENGTH) == pytest.approx(padded / (windows.count * LENGTH))


def test_best_fit_epochs_differ_in_order_only(source):
    windows = BestFitWindows(source, LENGTH)
    rows = []
    for key in (1, 2):
        epoch = windows.epoch(key)
        filled = [Window.empty(LENGTH) for _ in range(windows.count)]
        for position, row in enumerate(filled):
            epoch.fill(position, row)
        rows.append([row.ids_T.tobytes() for row in filled])
    assert rows[0] != rows[1]
    assert sorted(rows[0]) == sorted(rows[1])


def test_best_fit_of_documents_without_a_prediction_raises(tmp_path, tokenizer, write_parts):
    from tsugiki.models.tokenizer import TextTokenizer

    plain = TextTokenizer(tokenizer.tokenizer, None, None)
    write_parts(tmp_path, [["a", "b"]])
    source = open_tokens("s", tokenise(tmp_path, plain, tmp_path / "units"), plain)
    with pytest.raises(DataError, match="nothing to predict"):
        BestFitWindows(source, 16)


@pytest.mark.parametrize("file", [WINDOWS, PIECES])
def test_best_fit_plan_cut_short_raises(make_source, file):
    source = make_source(30)
    BestFitWindows(source, LENGTH)
    path = plan_directory(source.units[0].directory, LENGTH) / file
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=rf"{file} is \d+ bytes long; its header says"):
        BestFitWindows(source, LENGTH)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_best_fit_plan_that_points_beyond_the_tokens_raises(make_source, place):
    source = make_source(30)
    BestFitWindows(source, LENGTH)
    path = plan_directory(source.units[0].directory, LENGTH) / PIECES
    pieces = np.fromfile(path, dtype="<u4").reshape(-1, 3)
    pieces[-1, place] += 1000
    path.write_bytes(pieces.tobytes())
    with pytest.raises(InputError, match="does not agree with the tokens"):
        BestFitWindows(source, LENGTH)


def test_best_fit_plan_with_another_header_raises(make_source):
    source = make_source(30)
    BestFitWindows(source, LENGTH)
    path = plan_directory(source.units[0].directory, LENGTH) / "header.json"
    path.write_text(json.dumps({"format": 9}))
    with pytest.raises(InputError, match="not a plan's header"):
        BestFitWindows(source, LENGTH)
