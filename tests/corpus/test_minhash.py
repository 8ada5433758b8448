"""MinHash signatures: shingles, the estimate of Jaccard similarity, and the S-curve of the bands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus import kernels as corpus_kernels
from tsugiki.corpus.minhash import detection_probability, jaccard, shingles, signature
from tsugiki.corpus.neardup.kernels import band_major_keys

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


@pytest.mark.parametrize(("rows", "bands"), [(20, 40), (8, 14), (5, 160), (1, 3), (10, 20)])
@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.7, 0.8, 0.85, 0.9])
def test_band_collisions_follow_the_s_curve(rows, bands, similarity):
    """The share of pairs with a common band is 1 - (1 - s^b)^r within the binomial error.

    (20, 40) is Swallow's setting (b = 20 hashes a band, r = 40 bands; corpus.md §1.6), (8, 14) FineWeb's.
    """
    rng = np.random.default_rng(rows * 1000 + round(100 * similarity))
    trials = 300
    pairs = [pair_with_similarity(rng, similarity, size=150) for _ in range(trials)]
    exact = float(np.mean([jaccard(a, b) for a, b in pairs]))
    hits = 0
    for pair in pairs:
        keys = band_major_keys(np.stack([signature(x, bands * rows) for x in pair]), 0, bands, rows)
        hits += bool((keys[:, 0] == keys[:, 1]).any())
    expected = detection_probability(exact, bands, rows)
    error = np.sqrt(max(expected * (1 - expected), 1 / trials) / trials)
    assert abs(hits / trials - expected) < 4 * error, (hits / trials, expected)


def test_detection_probability_is_the_table_of_the_reference():
    """corpus.md §1.6: Swallow's setting (20, 40)."""
    table = {0.6: 0.001, 0.7: 0.031, 0.75: 0.119, 0.8: 0.371, 0.85: 0.794, 0.9: 0.994}
    for similarity, expected in table.items():
        assert detection_probability(similarity, bands=40, rows=20) == pytest.approx(expected, abs=6e-4)


def test_band_major_keys_are_the_keys_of_each_document_the_other_way_round():
    table = np.random.default_rng(3).integers(0, 2**32, (7, 30), dtype=np.uint32)
    expected = corpus_kernels.band_keys(table, 6, 5).T
    table.flags.writeable = False
    assert np.array_equal(band_major_keys(table, 0, 6, 5), expected)
    assert np.array_equal(band_major_keys(table, 2, 5, 5), expected[2:5])
    assert np.unique(expected).size == expected.size


def test_shingles_are_the_distinct_ngrams_and_short_texts_are_themselves():
    assert shingles("あいうえおか", 5).size == 2
    assert shingles("ああああああああ", 5).size == 1
    assert shingles("あい", 5).size == 1
    assert shingles("あい", 5)[0] != shingles("あう", 5)[0]
    assert shingles("", 5).size == 0


def test_short_texts_share_a_band_only_if_they_are_equal():
    texts = ["あい", "あう", "あい", "あ", "", ""]
    table = np.stack([signature(shingles(text, 5), 40) for text in texts])
    keys = band_major_keys(table, 0, 8, 5)
    for i, left in enumerate(texts):
        for j, right in enumerate(texts):
            assert (keys[:, i] == keys[:, j]).any() == (left == right)


@settings(max_examples=100, deadline=None)
@given(left=st.text("あいう", max_size=40), right=st.text("あいう", max_size=40))
def test_jaccard_of_shingles_equals_that_of_the_sets_of_strings(left, right):
    def grams(text):
        return {text[i : i + 3] for i in range(len(text) - 2)} if len(text) >= 3 else {text} - {""}

    a, b = grams(left), grams(right)
    exact = len(a & b) / len(a | b) if a | b else 1.0
    assert jaccard(shingles(left, 3), shingles(right, 3)) == pytest.approx(exact)
