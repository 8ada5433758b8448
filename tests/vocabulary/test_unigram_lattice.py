"""Expected counts and EM of a Unigram model, against the enumeration of all segmentations."""

from __future__ import annotations

import io
import math
import random
from itertools import combinations, pairwise

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.artifacts.documents import iterate_documents
from tsugiki.vocabulary import unigram_lattice
from tsugiki.vocabulary.unigram_lattice import Lattices, best_splits, build_trie, expect
from tsugiki.vocabulary.unigram_scores import BaseScores, estimate, share_out, written_scores

ALPHABET = "ab鶏🌸"
UNKNOWN = -7.0
PIECES = st.dictionaries(
    st.text(st.sampled_from(ALPHABET), min_size=1, max_size=4),
    st.floats(-8, -0.5),
    min_size=1,
    max_size=9,
)
TEXTS = st.dictionaries(
    st.text(st.sampled_from(ALPHABET + "x"), min_size=1, max_size=7),
    st.integers(1, 5),
    min_size=1,
    max_size=4,
)


def segmentations(text: str, scores: dict[str, float]):
    """Every segmentation with its score; a character that is no piece may stand alone, as unknown."""
    for borders in range(len(text)):
        for inner in combinations(range(1, len(text)), borders):
            parts = [text[begin:end] for begin, end in pairwise((0, *inner, len(text)))]
            if all(part in scores or len(part) == 1 for part in parts):
                yield parts, sum(scores.get(part, UNKNOWN) for part in parts)


def enumerated(texts: dict[str, int], scores: dict[str, float]):
    counts, unknown, log_likelihood = dict.fromkeys(scores, 0.0), 0.0, 0.0
    for text, count in texts.items():
        ways = list(segmentations(text, scores))
        total = math.fsum(math.exp(score) for _, score in ways)
        log_likelihood += count * math.log(total)
        for parts, score in ways:
            for part in parts:
                share = count * math.exp(score) / total
                if part in scores:
                    counts[part] += share
                else:
                    unknown += share
    return counts, unknown, log_likelihood


def base_scores(scores: dict[str, float]) -> BaseScores:
    return BaseScores(tuple(scores), tuple(range(len(scores))), np.array(list(scores.values())), UNKNOWN)


@settings(max_examples=150, deadline=None)
@given(texts=TEXTS, scores=PIECES)
def test_expected_counts_are_those_of_all_segmentations_enumerated(texts, scores):
    found = expect(
        Lattices.of(texts.items()), build_trie(list(scores)), np.array(list(scores.values())), UNKNOWN
    )
    counts, unknown, log_likelihood = enumerated(texts, scores)
    np.testing.assert_allclose(found.count_P, list(counts.values()), rtol=1e-9, atol=1e-12)
    assert found.unknown == pytest.approx(unknown, rel=1e-9, abs=1e-12)
    assert found.log_likelihood == pytest.approx(log_likelihood, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(texts=TEXTS, scores=PIECES, left_out=st.integers(0, 8))
def test_piece_without_weight_is_as_if_it_were_not_there(texts, scores, left_out):
    name = list(scores)[left_out % len(scores)]
    weights = np.array([-np.inf if piece == name else score for piece, score in scores.items()])
    found = expect(Lattices.of(texts.items()), build_trie(list(scores)), weights, UNKNOWN)
    counts, _, log_likelihood = enumerated(texts, {k: v for k, v in scores.items() if k != name})
    assert found.count_P[list(scores).index(name)] == 0
    assert found.count_P.sum() == pytest.approx(sum(counts.values()))
    assert found.log_likelihood == pytest.approx(log_likelihood)


@settings(max_examples=150, deadline=None)
@given(scores=PIECES)
def test_best_split_is_the_best_segmentation_into_two_or_more(scores):
    found = best_splits(list(scores), build_trie(list(scores)), np.array(list(scores.values())), UNKNOWN)
    for piece, score in zip(scores, found.tolist(), strict=True):
        others = {other: value for other, value in scores.items() if other != piece}
        assert score == pytest.approx(max(value for _, value in segmentations(piece, others)))


def test_long_text_of_unknown_characters_beside_long_pieces_stays_finite():
    """An unknown character may score -137 (LLM-jp's third tokenizer): weights underflow, logarithms don't."""
    pieces = ["y" * 200, "y"]
    found = expect(
        Lattices.of([("x" * 900 + "y" * 1200, 3)]), build_trie(pieces), np.array([-1.0, -137.5]), -137.5
    )
    assert found.unknown == pytest.approx(2700)
    assert found.count_P[0] == pytest.approx(18)
    assert math.isfinite(found.log_likelihood)


def test_counts_are_the_same_with_any_number_of_threads(monkeypatch):
    draw = random.Random(3)
    texts = {"".join(draw.choices("ab鶏x", k=draw.randint(1, 30))): draw.randint(1, 9) for _ in range(400)}
    pieces, weights = ["a", "b", "ab", "ba", "鶏a", "aab"], np.array([-1.0, -1.1, -1.2, -1.3, -2.0, -2.0])
    lattices, trie = Lattices.of(texts.items()), build_trie(pieces)
    whole = expect(lattices, trie, weights, UNKNOWN)
    monkeypatch.setattr(unigram_lattice, "_PART_CHARACTERS", 700)
    one, three = (expect(lattices, trie, weights, UNKNOWN, workers=workers) for workers in (1, 3))
    assert one.count_P.tobytes() == three.count_P.tobytes()
    assert one[1:] == three[1:]
    np.testing.assert_allclose(one.count_P, whole.count_P, rtol=1e-12)
    assert one.log_likelihood == pytest.approx(whole.log_likelihood)
    assert one.unknown == pytest.approx(whole.unknown)


def test_counts_are_the_same_in_any_order_of_the_texts():
    texts = {"abab": 3, "ba": 2, "鶏a": 5}
    pieces, weights = ["a", "b", "ab", "ba", "鶏a"], np.array([-1.0, -1.1, -1.2, -1.3, -2.0])
    one, two = (
        expect(Lattices.of(order), build_trie(pieces), weights, UNKNOWN)
        for order in (list(texts.items()), list(texts.items())[::-1])
    )
    assert one.count_P.tobytes() == two.count_P.tobytes()
    assert one.log_likelihood == two.log_likelihood


def test_expected_counts_are_those_of_the_segmentations_that_sentencepiece_lists(corpora):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(row["text"] for row in iterate_documents(corpora["english"])),
        model_writer=written,
        vocab_size=120,
        hard_vocab_limit=False,
        model_type="unigram",
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        minloglevel=2,
    )
    peer = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    pieces = [peer.id_to_piece(number) for number in range(3, peer.get_piece_size())]
    weights = np.array([peer.get_score(number) for number in range(3, peer.get_piece_size())])
    trie = build_trie(pieces)
    for text in ("the tree", "gardener", "a library"):
        ways = [[number - 3 for number in ids] for ids in peer.nbest_encode_as_ids(text, nbest_size=400)]
        assert 3 <= len(ways) < 400
        shares = np.exp([weights[ids].sum() for ids in ways])
        counts = np.zeros(len(pieces))
        for ids, share in zip(ways, shares / shares.sum(), strict=True):
            np.add.at(counts, ids, share)
        found = expect(Lattices.of([(text.replace(" ", "▁"), 1)]), trie, weights, weights.min() - 10)
        assert found.log_likelihood == pytest.approx(math.log(shares.sum()), abs=1e-5)
        np.testing.assert_allclose(found.count_P, counts, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    texts=TEXTS,
    scores=PIECES,
    new=st.sets(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=4), min_size=1),
)
@pytest.mark.parametrize("mode", ["keep", "re-estimate"])
def test_objective_never_falls_from_one_epoch_to_the_next(mode, texts, scores, new):
    added = sorted(new - scores.keys()) or ["xx"]
    found = estimate(
        Lattices.of(texts.items()), base_scores(scores), added, np.zeros(len(added)), mode, epochs=6
    )
    assert len(found.objective) == 7
    for before, after in pairwise(found.objective):
        assert after >= before - 1e-9


def test_kept_scores_are_not_touched_and_new_ones_share_the_bases_mass():
    scores = {"a": math.log(0.3), "b": math.log(0.2)}
    lattices = Lattices.of([("abab", 4), ("ba", 1)])
    found = estimate(lattices, base_scores(scores), ["ab", "aba"], np.zeros(2), "keep", epochs=9)
    assert found.old_P.tolist() == list(scores.values())
    assert np.exp(found.new_Q).sum() == pytest.approx(0.5)
    assert found.new_Q[0] > found.new_Q[1]


def test_estimating_all_scores_gives_probabilities_and_unseen_old_pieces_half_of_theirs():
    scores = {"a": math.log(0.6), "z": math.log(0.4)}
    found = estimate(
        Lattices.of([("aab", 10)]), base_scores(scores), ["b"], np.zeros(1), "re-estimate", epochs=3
    )
    weights = np.exp(np.append(found.old_P, found.new_Q))
    assert weights.sum() == pytest.approx(1)
    # 30 tokens of the corpus, and as many of the base's text: a (20 + 18) / 60, z 12 / 60, b 10 / 60.
    assert weights.tolist() == pytest.approx([38 / 60, 12 / 60, 10 / 60])


def test_share_out_leaves_what_is_never_expected_without_weight():
    assert share_out(np.array([3.0, 0.0, 1.0]), 2.0).tolist() == pytest.approx(
        [math.log(1.5), -math.inf, math.log(0.5)]
    )
    assert share_out(np.zeros(2), 1.0).tolist() == [-math.inf, -math.inf]


def test_written_scores_are_exact_in_float32_and_within_the_bases():
    found = written_scores(np.array([-math.inf, -50.0, -3.14159, -0.1]), -13.37001, -2.001)
    assert found.min() >= -13.37001
    assert found.max() <= -2.001
    assert found[0] == found[1]
    assert found[2] == round(-3.14159 * 1024) / 1024
    assert found.astype(np.float32).astype(np.float64).tolist() == found.tolist()


def test_base_scores_leave_out_what_no_search_takes():
    vocabulary = [
        ["<unk>", 0.0],
        ["<s>", 0.0],
        ["<0x41>", 0.0],
        ["a", -1.0],
        ["\n", 0.0],
        ["<x>", -5.0],
        ["b", -9.0],
    ]
    data = {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary},
        "added_tokens": [{"id": 1, "content": "<s>"}, {"id": 5, "content": "<x>"}],
    }
    found = BaseScores.of(data)
    assert (found.texts, found.ids) == (("a", "b"), (3, 6))
    assert found.unknown == -19.0
    assert found.within({"a"}).texts == ("a",)
    assert found.mass == pytest.approx(math.exp(-1) + math.exp(-9))
