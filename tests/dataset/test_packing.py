from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.dataset.packing import IGNORED, EpochWindows, window_of, windows_per_epoch
from tsugiki.errors import DataError


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 90), key=st.integers(0, 2**32))
def test_epoch_windows_hold_every_token_once(make_source_once, length, key):
    source = make_source_once
    windows = EpochWindows(source, length, key)
    count = windows_per_epoch(source, length)
    inputs = np.sort(np.concatenate([windows[position].ids_T for position in range(count)]))
    stored = np.concatenate([source.document(number) for number in range(source.documents)])
    left_out = len(stored) - len(inputs)
    assert 1 <= left_out <= length
    values, counts = np.unique(stored, return_counts=True)
    used = dict(zip(*np.unique(inputs, return_counts=True), strict=True))
    missing = [count - used.get(value, 0) for value, count in zip(values, counts, strict=True)]
    assert min(missing) >= 0
    assert sum(missing) == left_out


@pytest.fixture(scope="module", params=["one group", "six groups in two units"])
def make_source_once(make_source, request):
    if request.param == "one group":
        return make_source(count=30, longest=40)
    source = make_source(count=700, longest=4, parts=2)
    assert len(source.tokens_G) == 6
    assert source.unit_G.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.tokens_G.sum() == source.tokens
    return source


def test_epoch_windows_keep_documents_whole_and_in_order(make_source_once):
    source = make_source_once
    texts = {tuple(source.document(number).tolist()) for number in range(source.documents)}
    windows = EpochWindows(source, 64, key=5)
    for position in range(windows_per_epoch(source, 64)):
        window = windows[position]
        for local in range(1, int(window.document_ids_T[-1])):  # those with both ends inside
            assert tuple(window.ids_T[window.document_ids_T == local].tolist()) in texts


def test_epoch_windows_targets_are_the_next_tokens_but_for_first_tokens(make_source_once, tokenizer):
    windows = EpochWindows(make_source_once, 50, key=1)
    for position in range(windows_per_epoch(make_source_once, 50)):
        window = windows[position]
        counted = window.targets_T != IGNORED
        assert tokenizer.bos_id not in window.targets_T
        assert (window.ids_T[~counted] == tokenizer.eos_id).all()
        assert (window.targets_T[:-1][counted[:-1]] == window.ids_T[1:][counted[:-1]]).all()


def test_epoch_windows_in_their_own_order_are_all_documents_end_to_end(make_source_once):
    source = make_source_once
    windows = EpochWindows(source, 64, key=9)
    count = windows_per_epoch(source, 64)
    rows = {windows._windows.at(position): windows[position] for position in range(count)}
    stream = np.concatenate([rows[number].ids_T for number in range(count)])
    last = rows[count - 1].targets_T[-1]
    found = np.split(stream, np.flatnonzero(stream == 0)[1:])  # bos is 0
    stored = Counter(tuple(source.document(number).tolist()) for number in range(source.documents))
    assert not Counter(tuple(document.tolist()) for document in found[:-1]) - stored
    assert source.documents - len(found[:-1]) <= 64
    for number in range(count - 1):
        following = rows[number].targets_T[-1]
        assert following in {IGNORED, rows[number + 1].ids_T[0]}
    assert last == IGNORED or last > 0


def test_epoch_windows_of_two_epochs_cut_documents_elsewhere(make_source_once):
    count = windows_per_epoch(make_source_once, 64)
    epochs = [EpochWindows(make_source_once, 64, key) for key in (1, 2)]
    seen = [{epoch[position].ids_T.tobytes() for position in range(count)} for epoch in epochs]
    assert not seen[0] & seen[1]


def test_window_of_ignores_targets_across_documents():
    window = window_of(np.asarray([5, 6, 7, 8]), np.asarray([0, 0, 1, 1], dtype=np.int32))
    assert window.ids_T.tolist() == [5, 6, 7]
    assert window.targets_T.tolist() == [6, IGNORED, 8]
    assert window.document_ids_T.tolist() == [0, 0, 1]


def test_windows_per_epoch_of_too_little_text_raises(make_source_once):
    with pytest.raises(DataError, match="too few for one window of 100000"):
        windows_per_epoch(make_source_once, 100_000)
