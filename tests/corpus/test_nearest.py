"""The nearest training document to each held-out one: exact, whatever counts as a common n-gram."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.corpus.nearest import Index, nearest

NGRAMS = st.lists(st.integers(0, 40), min_size=1, max_size=25, unique=True)


def spread(numbers):
    """Small numbers as sorted hashes over the whole range of 64 bits."""
    return np.unique(np.array(numbers, np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def shingles_of(sets):
    return lambda indices: (sets[index] for index in indices.tolist())


def jaccard(left, right):
    common = np.intersect1d(left, right).size
    return common / (left.size + right.size - common)


@given(st.lists(NGRAMS, min_size=1, max_size=6), st.lists(NGRAMS, min_size=1, max_size=8), st.integers(0, 45))
def test_nearest_documents_are_those_of_comparing_all_pairs(held, training, most_common):
    sets = [spread(one) for one in held + training]
    held_out, others = np.arange(len(held)), np.arange(len(held), len(sets))
    index = Index.of(sets[: len(held)], most_common=most_common, few=0)
    found = index.compare(held_out, others, shingles_of(sets), 0.5)
    for o in held_out:
        values = [jaccard(sets[o], sets[t]) for t in others]
        shares = [np.intersect1d(sets[o], sets[t]).size / sets[o].size for t in others]
        assert found.similarity[o] == max(values)
        assert found.containment[o] == max(shares)
        alike = {(o, t) for t, value in zip(others.tolist(), values, strict=True) if value >= 0.5}
        assert {tuple(pair) for pair in found.alike.tolist() if pair[0] == o} == alike


@pytest.mark.parametrize("most_common", [0, 3, 1000])
def test_index_keeps_every_ngram_of_every_document_once(most_common):
    draw = np.random.default_rng(0)
    sets = [spread(draw.integers(0, 300, 80)) for _ in range(30)]
    index = Index.of(sets, most_common=most_common, few=2)
    assert index.owners.size + index.commons.size == sum(one.size for one in sets)
    assert int(index.common.max()) + 1 <= most_common
    by_number = np.flatnonzero(index.common >= 0)[np.argsort(index.common[index.common >= 0])]
    for owner, one in enumerate(sets):
        rare = [
            value
            for place, value in enumerate(index.values)
            if owner in index.owners[index.begins[place] : index.begins[place + 1]]
        ]
        numbers = index.commons[index.common_begins[owner] : index.common_begins[owner + 1]]
        held = np.sort(np.concatenate([np.array(rare, np.uint64), index.values[by_number[numbers]]]))
        assert np.array_equal(held, one)


def test_common_ngrams_are_those_of_the_most_documents():
    sets = [spread([1, 2, *([3] if number < 9 else []), 100 + number]) for number in range(10)]
    index = Index.of(sets, most_common=2, few=1)
    assert set(index.values[index.common >= 0].tolist()) == set(spread([1, 2]).tolist())


def test_nearest_of_any_memory_is_the_same():
    rng = np.random.default_rng(3)
    sets = [np.unique(rng.integers(0, 400, 60).astype(np.uint64) << np.uint64(40)) for _ in range(60)]
    held = np.arange(0, 60, 4)
    asked = []

    def shingles_of(indices):
        asked.append(indices.size)
        return (sets[place] for place in indices)

    whole, parts = (
        nearest(held, 60, shingles_of, 0.1, memory_bytes=memory, threads=1) for memory in (1 << 30, 64)
    )
    assert len(asked) == 2 + 1 + 15  # with little memory, an index and all queries for each held-out document
    np.testing.assert_array_equal(whole.similarity, parts.similarity)
    np.testing.assert_array_equal(whole.containment, parts.containment)
    assert {*map(tuple, whole.alike)} == {*map(tuple, parts.alike)} != set()
