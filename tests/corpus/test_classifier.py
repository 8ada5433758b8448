"""The quality classifier: features, score, files, training on real pages."""

import math
import random
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.corpus.classifier import kernels, metrics
from tsugiki.corpus.classifier.model import (
    Calibration,
    Card,
    FeatureSettings,
    LinearClassifier,
    save_classifier,
    weights_digest,
)
from tsugiki.corpus.classifier.samples import collect, folds, part_sets
from tsugiki.corpus.classifier.training import TrainingSettings, train
from tsugiki.corpus.read import Tally
from tsugiki.errors import DataError

CRAWL = Path(__file__).parents[2] / "examples" / "crawl"


SMALL = FeatureSettings(bits=16, maximum_characters=3000)


MASK = (1 << 64) - 1


def spam(seed):
    """Machine-made: pieces of advertising phrases, links and prices, strung together."""
    rng = random.Random(seed)
    phrases = (
        "今すぐクリック",
        "激安通販",
        "送料無料",
        "ランキング1位",
        "口コミ",
        "楽天",
        "お得な情報",
        "人気商品",
    )
    return " ".join(
        rng.choice(phrases) + rng.choice(("★", "！", " | ", "→")) + str(rng.randint(100, 99999))
        for _ in range(rng.randint(60, 200))
    )


def trained(positive, negative, settings=None):
    settings = settings or TrainingSettings(features=SMALL, epochs=3)
    sets = [
        collect(texts, settings.features, settings.maximum_documents, Tally())
        for texts in (positive, negative)
    ]
    return train(*sets, settings)


@pytest.fixture(scope="module")
def hosts_classifier(japanese_pages):
    """Handbooks of desktop programs (gimp, gnucash, mate) against all other Japanese pages."""
    programs = {"gimp.ja.example", "gnucash.ja.example", "mate.ja.example"}
    return trained(
        [text for host, text in japanese_pages if host in programs],
        [text for host, text in japanese_pages if host not in programs],
    )


def weighted(features=None):
    """A classifier of arbitrary weights from -2 to 2, the same with every release of numpy."""
    features = features or FeatureSettings(bits=12)
    numbers = np.arange(1 << features.bits, dtype=np.int64)
    weights = ((numbers * 2654435761 % 4001 - 2000) / 1000).astype(np.float32)
    card = Card(
        features=features,
        bias=0.25,
        calibration=Calibration(slope=0.5, offset=-0.125),
        weights_sha256=weights_digest(weights),
    )
    return LinearClassifier(card, weights)


def mix(value):
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def plain_buckets(text, first, last, words, bits):
    base = 0x9E3779B97F4A7C15
    mixed = [mix((ord(character) + base) & MASK) for character in text]
    found = []
    for i in range(len(text)):
        state = 0
        for n in range(1, min(last, len(text) - i) + 1):
            state = (state * base + mixed[i + n - 1]) & MASK
            if n >= first:
                found.append((((state + n) * 0xBF58476D1CE4E5B9) & MASK) >> (64 - bits))
    hashes = []
    for word in text.split(" ") if words else []:
        if word:
            state = 0xD6E8FEB86659FD93
            for character in word:
                state = (state * base + mix((ord(character) + base) & MASK)) & MASK
            hashes.append(mix(state))
    for k in range(len(hashes)):
        state = 0xD6E8FEB86659FD93
        for n in range(1, min(words, len(hashes) - k) + 1):
            state = (state * base + hashes[k + n - 1]) & MASK
            found.append(mix((state + n) & MASK) >> (64 - bits))
    return found


def plain_normalised(text):
    """Digits 0, ASCII lower case, white space one space."""
    spaces = {*range(0x21), *range(0x7F, 0xA1), *range(0x2000, 0x200C)}
    spaces |= {0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF}
    out = []
    for character in text.encode("utf-32-le", "replace").decode("utf-32-le"):
        code = ord(character)
        if code in spaces:
            out.append(" ")
        elif character.isascii():
            out.append("0" if character.isdigit() else character.lower())
        else:
            out.append("0" if 0xFF10 <= code <= 0xFF19 else character)
    return " ".join(word for word in "".join(out).split(" ") if word)


TEXTS = st.text(st.sampled_from("aB1９ あ漢\n　é\ud800𠮷"), max_size=40)


SHAPES = st.builds(
    lambda first, extra, words: FeatureSettings(characters=(first, first + extra), words=words, bits=12),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(TEXTS)
def test_normalised_text_equals_the_plain_definition(text):
    symbols = FeatureSettings().symbols(text)
    assert symbols.tobytes().decode("utf-32-le") == plain_normalised(text)


@given(TEXTS, SHAPES)
def test_buckets_and_logit_equal_the_plain_definition(text, features):
    model = weighted(features)
    symbols = features.symbols(text)
    buckets = plain_buckets(symbols.tobytes().decode("utf-32-le"), *features.shape)
    assert kernels.buckets_of(symbols, features.shape).tolist() == buckets
    total = sum(float(model.weights[bucket]) * math.sqrt(count) for bucket, count in Counter(buckets).items())
    expected = 0.25 + total / math.sqrt(max(1, len(buckets)))
    assert kernels.logit(symbols, model.weights, 0.25, features.shape) == expected


@given(st.floats(-60, 60))
def test_sigmoid_is_within_one_unit_of_the_library(z):
    assert kernels.sigmoid(z) == pytest.approx(1 / (1 + math.exp(-max(-40.0, min(40.0, z)))), rel=4e-16)


def test_score_is_the_same_number_on_every_machine():
    model = weighted()
    texts = ["日本語の文書です。", "The quick brown fox 123", "あ" * 500, "a b\nc"]
    golden = [0.4640493845639773, 0.5051251112746903, 0.5076533228596753, 0.6069648757246942]
    assert model.scores(texts) == golden


@pytest.mark.parametrize("text", ["", " \n　", "あ", "\ud800", "\ud800" * 1000, "\0", "a" * 10])
def test_score_of_degenerate_texts_is_a_probability(text):
    score = weighted().score(text)
    assert 0.0 <= score <= 1.0
    assert (score == 0.0) == (not text.strip(" \n　\0"))


def test_score_of_fifty_megabytes_reads_the_beginning_only():
    model = weighted()
    text = "大きな文書です。" * 2_100_000
    begin = time.perf_counter()
    assert model.score(text) == model.score(text[:10_000])
    assert time.perf_counter() - begin < 1.0


def test_score_from_many_threads_equals_that_from_one(japanese_pages):
    model = weighted()
    texts = [text for _, text in japanese_pages[:60]]
    expected = model.scores(texts)
    found: dict[int, list[float]] = {}

    def work(number):
        found[number] = model.scores(texts)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == expected for number in range(4))


def test_real_pages_of_some_hosts_are_told_from_those_of_others(hosts_classifier):
    found = hosts_classifier
    assert found.metrics["auc"]["low"] > 0.95
    assert found.metrics["f1"]["value"] > 0.9
    assert found.metrics["precision_at_top_10_percent"]["value"] > 0.95
    assert found.metrics["calibration_error"]["value"] < 0.1
    assert found.metrics["losses"] == sorted(found.metrics["losses"], reverse=True)
    assert found.metrics["folds"]["test"] >= 80


def test_real_manuals_are_told_from_machine_made_spam_and_the_ngrams_say_why(japanese_pages):
    found = trained([text for _, text in japanese_pages[:300]], [spam(seed) for seed in range(300)])
    assert found.metrics["auc"]["low"] > 0.99
    card = found.classifier.card
    against = "".join(gram.ngram for gram in card.telling_against)
    assert card.telling_for
    assert against
    assert all(gram.effect > 0 for gram in card.telling_for)
    assert all(gram.effect < 0 for gram in card.telling_against)
    assert found.classifier.score(spam(9999)) < 0.1
    assert found.classifier.score(japanese_pages[400][1]) > 0.9


def test_labels_without_meaning_give_an_auc_around_one_half(japanese_pages):
    texts = [text for _, text in japanese_pages]
    rng = random.Random(11)
    rng.shuffle(texts)
    settings = TrainingSettings(features=SMALL, epochs=2, heldout=0.5)
    found = trained(texts[::2], texts[1::2], settings).metrics["auc"]
    assert found["value"] == pytest.approx(0.5, abs=0.12)


def test_word_ngrams_are_counted_where_asked(english):
    rng = random.Random(2)
    words = [f"w{i}" for i in range(30)]
    # the same words, another order: only pairs of words tell, characters within words don't
    forward = [
        " ".join(w for _ in range(40) for w in ("left", "right", rng.choice(words))) for _ in range(80)
    ]
    backward = [
        " ".join(w for _ in range(40) for w in ("right", "left", rng.choice(words))) for _ in range(80)
    ]
    features = FeatureSettings(characters=(1, 1), words=2, bits=16)
    found = trained(forward, backward, TrainingSettings(features=features, epochs=5))
    assert found.metrics["auc"]["value"] > 0.99
    assert "left right" in {gram.ngram for gram in found.classifier.card.telling_for}
    alone = FeatureSettings(characters=(1, 1), bits=16)
    assert (
        trained(forward, backward, TrainingSettings(features=alone, epochs=5)).metrics["auc"]["value"] < 0.8
    )


def test_training_gives_the_same_bytes_whatever_the_order_of_documents(tmp_path, japanese_pages):
    positive, negative = [text for _, text in japanese_pages[:150]], [spam(seed) for seed in range(150)]
    first = trained(positive, negative)
    again = trained(positive[::-1], negative[75:] + negative[:75] + negative[:10])
    for name, found in (("a", first), ("b", again)):
        save_classifier(found.classifier, found.metrics, tmp_path / name)
    for file in ("classifier.safetensors", "metrics.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert first.classifier.digest == again.classifier.digest
    other = trained(positive, negative, TrainingSettings(features=SMALL, epochs=3, seed=1))
    assert other.classifier.digest != first.classifier.digest


def test_sets_lose_doubles_and_documents_that_are_nearly_equal_in_both(japanese_pages):
    good = list(dict.fromkeys(text for _, text in japanese_pages))[:100]
    bad = [spam(seed) for seed in range(100)]
    near = "前置き。" + good[0] + "後書き。"
    positive = collect([*good, good[1].replace("\n", "  "), "  ", ""], SMALL, 1000, Tally())
    negative = collect([*bad, near, good[2]], SMALL, 1000, Tally())
    assert (len(positive.texts), positive.duplicates, positive.empty) == (100, 1, 2)
    part_sets(positive, negative)
    assert (len(positive.texts), positive.overlapping) == (98, 2)
    assert (len(negative.texts), negative.overlapping) == (100, 2)
    assert positive.facts() | {"digest": ""} == {
        "documents": 98,
        "read": 103,
        "duplicates": 1,
        "empty": 2,
        "overlapping": 2,
        "unreadable": 0,
        "digest": "",
    }


def test_equal_sets_and_small_sets_are_data_errors(japanese_pages):
    good = [text for _, text in japanese_pages[:80]]
    with pytest.raises(DataError, match="one set holds all documents of the other"):
        trained(good, good[::-1])
    with pytest.raises(DataError, match="49 negative documents are left of 49"):
        trained(good, [spam(seed) for seed in range(49)])
    with pytest.raises(DataError, match="0 positive documents"):
        trained([], good)


def test_collect_takes_the_smallest_keys_of_a_large_set_whatever_the_order():
    texts = [f"document number {'x' * i}" for i in range(100)]
    first = collect(texts, SMALL, 10, Tally())
    second = collect(reversed(texts), SMALL, 10, Tally())
    assert first.texts == second.texts
    assert len(first.texts) == 10
    assert first.facts()["digest"] == second.facts()["digest"]


def test_folds_part_each_set_by_itself_and_share_nothing():
    positive = collect([f"good {'x' * i}" for i in range(100)], SMALL, 1000, Tally())
    negative = collect([f"bad {'y' * i}" for i in range(60)], SMALL, 1000, Tally())
    parts = folds(positive, negative, 0.2, 7)
    assert [(int(part.labels.sum()), int((~part.labels).sum())) for part in parts] == [
        (80, 48),
        (10, 6),
        (10, 6),
    ]
    texts = [part.text(i).tobytes() for part in parts for i in range(len(part))]
    assert len(set(texts)) == 160


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_equals_a_count_of_all_pairs(rows):
    scores = np.array([score / 4 for score, _ in rows])
    labels = np.array([label for _, label in rows])
    if labels.all() or not labels.any():
        return
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels] for b in scores[~labels]]
    assert metrics.auc(scores, labels) == pytest.approx(sum(pairs) / len(pairs))


def test_metrics_of_small_hand_made_cases():
    labels = np.array([True, True, False, False])
    scores = np.array([0.9, 0.4, 0.6, 0.1])
    assert metrics.auc(scores, labels) == 0.75
    assert metrics.f1(scores, labels) == 0.5
    assert metrics.precision_at_top(scores, labels) == 1.0
    assert metrics.precision_at_top(np.full(4, 0.5), labels) == 0.5
    assert metrics.calibration_error(np.array([1.0, 1.0, 0.0, 0.0]), labels) == 0.0
    assert metrics.calibration_error(np.array([0.0, 0.0, 1.0, 1.0]), labels) == 1.0


def test_platt_finds_the_slope_and_offset_that_made_the_labels():
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 3, 40_000)
    labels = rng.random(40_000) < 1 / (1 + np.exp(-0.7 * logits))
    slope, offset = metrics.fit_platt(logits, labels)
    assert slope == pytest.approx(0.7, abs=0.03)
    assert offset == pytest.approx(0, abs=0.05)
    slope, _ = metrics.fit_platt(-logits, labels)
    assert slope == 1e-6  # upside down: it knows nothing, and never turns scores round
    assert all(map(math.isfinite, metrics.fit_platt(np.zeros(10), np.arange(10) < 5)))
