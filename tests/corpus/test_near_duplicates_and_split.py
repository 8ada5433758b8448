"""MinHash, clusters and the held-out split: the S-curve, order independence, and the proof."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus import kernels
from tsugiki.corpus.duplicates import Candidate, components, survivors
from tsugiki.corpus.engine import shared_bands
from tsugiki.corpus.minhash import detection_probability, jaccard, shingles, signature
from tsugiki.corpus.split import choose_groups, histogram, split_by_group
from tsugiki.errors import StageError

HASHES = 800


def pair_with_similarity(rng, similarity, size=400):
    """Two random sets of `size` with this Jaccard similarity (to the rounding)."""
    common = round(2 * size * similarity / (1 + similarity))
    values = np.unique(rng.integers(0, 2**64, 2 * size - common, dtype=np.uint64))
    rng.shuffle(values)
    return np.sort(values[:size]), np.sort(values[size - common :])


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.9])
def test_signature_agreement_estimates_the_jaccard_similarity(similarity):
    rng = np.random.default_rng(1)
    pairs = [pair_with_similarity(rng, similarity) for _ in range(40)]
    agreement = [(signature(a, HASHES) == signature(b, HASHES)).mean() for a, b in pairs]
    exact = np.mean([jaccard(a, b) for a, b in pairs])
    deviation = np.sqrt(exact * (1 - exact) / HASHES)
    assert abs(np.mean(agreement) - exact) < 5 * deviation / np.sqrt(len(pairs))
    assert np.std(agreement) < 1.5 * deviation


@pytest.mark.parametrize(("bands", "rows"), [(40, 20), (14, 8), (160, 5)])
def test_band_collisions_follow_the_s_curve(bands, rows):
    """The share of pairs with a common band is 1 - (1 - s^rows)^bands within the binomial error."""
    rng = np.random.default_rng(2)
    trials = 400
    for target in (0.3, 0.6, 0.8, 0.9):
        pairs = [pair_with_similarity(rng, target, size=150) for _ in range(trials)]
        exact = np.mean([jaccard(a, b) for a, b in pairs])
        hits = 0
        for pair in pairs:
            keys = kernels.band_keys(np.stack([signature(x, bands * rows) for x in pair]), bands, rows)
            hits += bool((keys[0] == keys[1]).any())
        expected = detection_probability(float(exact), bands, rows)
        error = np.sqrt(max(expected * (1 - expected), 1 / trials) / trials)
        assert abs(hits / trials - expected) < 4 * error, (target, hits / trials, expected)


def test_detection_probability_is_the_table_of_the_reference():
    """corpus.md §1.6: Swallow's setting (20, 40)."""
    table = {0.6: 0.001, 0.7: 0.031, 0.75: 0.119, 0.8: 0.371, 0.85: 0.794, 0.9: 0.994}
    for similarity, expected in table.items():
        assert detection_probability(similarity, bands=40, rows=20) == pytest.approx(expected, abs=6e-4)


def test_shingles_are_the_distinct_ngrams_and_short_texts_are_themselves():
    assert shingles("あいうえおか", 5).size == 2
    assert shingles("ああああああああ", 5).size == 1
    assert shingles("あい", 5).size == 1
    assert shingles("あい", 5)[0] != shingles("あう", 5)[0]
    assert shingles("", 5).size == 0


@settings(max_examples=100, deadline=None)
@given(left=st.text("あいう", max_size=40), right=st.text("あいう", max_size=40))
def test_jaccard_of_shingles_equals_that_of_the_sets_of_strings(left, right):
    def grams(text):
        return {text[i : i + 3] for i in range(len(text) - 2)} if len(text) >= 3 else {text} - {""}

    a, b = grams(left), grams(right)
    exact = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(shingles(left, 3), shingles(right, 3)) == pytest.approx(exact)


def test_shared_bands_connects_exactly_the_documents_with_a_common_key():
    keys = np.array([[1, 2], [3, 4], [1, 5], [6, 4], [1, 4], [7, 8]], np.uint64)
    pairs = {tuple(pair) for pair in shared_bands(keys).tolist()}
    assert pairs == {(0, 2), (0, 4), (1, 3), (1, 4)}
    assert components(6, shared_bands(keys)).tolist() == [0, 0, 0, 0, 0, 5]


@pytest.mark.parametrize("documents", [0, 1])
def test_shared_bands_of_too_few_documents_is_empty(documents):
    assert shared_bands(np.zeros((documents, 3), np.uint64)).shape == (0, 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20), st.randoms())
def test_components_do_not_depend_on_the_order_of_edges(edges, rng):
    shuffled = [(b, a) if rng.random() < 0.5 else (a, b) for a, b in edges]
    rng.shuffle(shuffled)
    first = components(12, np.array(edges, np.int64).reshape(-1, 2))
    second = components(12, np.array(shuffled, np.int64).reshape(-1, 2))
    assert first.tolist() == second.tolist()
    assert all(root == min(np.flatnonzero(first == root)) for root in first)


DOCUMENTS = [
    Candidate("b", "2026-01-02", 10),
    Candidate("a", "2026-01-02", 10),
    Candidate("c", "2026-01-01", 99),
    Candidate("d", None, 50),
]


@pytest.mark.parametrize(("keep", "survivor"), [("newest", "a"), ("longest", "c"), ("first", "a")])
def test_survivors_follow_the_policy_whatever_the_order(keep, survivor):
    for seed in range(6):
        documents = random.Random(seed).sample(DOCUMENTS, len(DOCUMENTS))
        chosen = survivors(documents, np.zeros(4, np.int64), keep)
        assert {documents[i].id for i in chosen} == {survivor}


def mixture(rng, groups=30):
    """Documents in groups of 1 to 4 that share most of their n-grams; (id, group, shingles)."""
    documents = []
    for group in range(groups):
        core = rng.integers(0, 2**64, 300, dtype=np.uint64)
        for _ in range(int(rng.integers(1, 5))):
            own = rng.integers(0, 2**64, int(rng.integers(10, 60)), dtype=np.uint64)
            documents.append((f"{rng.integers(2**60):x}", group, np.unique(np.concatenate([core, own]))))
    return documents


def split_of(documents, **options):
    ids, _, sets = zip(*documents, strict=True)
    signatures = np.stack([signature(values, HASHES) for values in sets])
    settings_ = {"wanted": 8, "threshold": 0.5, "seed": 0, **options}
    return split_by_group(
        ids, lambda wanted: (sets[i] for i in wanted), signatures, shared_bands, **settings_
    )


def test_split_keeps_groups_together_and_proves_the_distance():
    documents = mixture(np.random.default_rng(3))
    split = split_of(documents)
    held_out = set(split.held_out)
    assert 1 <= len(held_out) <= 8
    assert split.groups == 30
    groups = {documents[i][1] for i in held_out}
    assert {i for i, (_, group, _) in enumerate(documents) if group in groups} == held_out
    for similarity, i in zip(split.similarity, split.held_out, strict=True):
        others = [j for j in range(len(documents)) if j not in held_out]
        exact = max(jaccard(documents[i][2], documents[j][2]) for j in others)
        assert similarity == pytest.approx(exact)
        assert similarity < 0.5


def test_split_does_not_depend_on_the_order_of_documents_but_on_the_seed():
    documents = mixture(np.random.default_rng(4))

    def names(order, **options):
        return {order[i][0] for i in split_of(order, **options).held_out}

    shuffled = random.Random(1).sample(documents, len(documents))
    assert names(documents) == names(shuffled)
    assert any(names(documents) != names(documents, seed=seed) for seed in (1, 2, 3))


def test_split_repairs_pairs_that_the_banding_missed():
    documents = mixture(np.random.default_rng(5))
    ids, _, sets = zip(*documents, strict=True)
    signatures = np.stack([signature(values, HASHES) for values in sets])
    split = split_by_group(
        ids,
        lambda wanted: (sets[i] for i in wanted),
        signatures,
        lambda _: np.empty((0, 2), np.int64),
        wanted=8,
        threshold=0.5,
        seed=0,
    )
    assert split.rounds > 1
    assert max(split.similarity) < 0.5


def test_split_of_one_chain_is_refused_with_figures():
    core = np.arange(300, dtype=np.uint64)
    documents = [(f"{i}", 0, np.sort(np.append(core, np.uint64(1000 + i)))) for i in range(20)]
    with pytest.raises(StageError, match="smallest of 1 groups has 20"):
        split_of(documents)


def test_choose_groups_passes_over_a_group_that_is_too_large():
    roots = np.array([0] * 50 + list(range(50, 60)))
    chosen = choose_groups([f"{i:03}" for i in range(60)], roots, wanted=5, seed=0)
    assert len(chosen) == 5
    assert min(chosen) >= 50


def test_histogram_counts_every_value_once():
    bins = histogram([0.0, 0.04, 0.05, 0.999, 1.0])
    assert [entry["documents"] for entry in bins][:2] == [2, 1]
    assert bins[-1] == {"from": 0.95, "to": 1.0, "documents": 2}
    assert sum(entry["documents"] for entry in bins) == 5
