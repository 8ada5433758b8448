"""Classifiers in files: saved and loaded, damaged, and models of fastText."""

import json
import math
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from tsugiki.corpus.classifier.model import (
    Calibration,
    Card,
    FeatureSettings,
    LinearClassifier,
    load_classifier,
    save_classifier,
    weights_digest,
)
from tsugiki.errors import DependencyError, InputError

CRAWL = Path(__file__).parents[2] / "examples" / "crawl"


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


def test_saved_classifier_loads_with_the_same_scores_and_digest(tmp_path, japanese_pages):
    model = weighted(FeatureSettings(bits=14, words=1))
    save_classifier(model, {"auc": 1}, tmp_path / "model")
    texts = [text for _, text in japanese_pages[:20]]
    for path in (tmp_path / "model", tmp_path / "model" / "classifier.json"):
        loaded = load_classifier(path)
        assert [loaded.score(text) for text in texts] == model.scores(texts)
        assert loaded.digest == model.digest
    copied = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert copied.scores(texts) == model.scores(texts)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "holds no classifier"),
        ("no json", "not valid JSON"),
        ("field", "extra"),
        ("slope", "slope"),
        ("no weights", "can't be read"),
        ("cut weights", "can't be read"),
        ("other weights", "does not belong"),
        ("shape", "where float32"),
        ("characters", "shortest <= longest"),
    ],
)
def test_damaged_files_are_input_errors_that_name_the_fault(tmp_path, damage, message):
    from safetensors.numpy import save_file

    save_classifier(weighted(), {}, tmp_path)
    card, weights = tmp_path / "classifier.json", tmp_path / "classifier.safetensors"
    data = json.loads(card.read_text())
    if damage == "missing":
        card.unlink()
    elif damage == "no json":
        card.write_text("{")
    elif damage == "field":
        card.write_text(json.dumps({**data, "extra": 1}))
    elif damage == "slope":
        card.write_text(json.dumps({**data, "calibration": {"slope": -1, "offset": 0}}))
    elif damage == "characters":
        data["features"]["characters"] = [4, 2]
        card.write_text(json.dumps(data))
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "other weights":
        save_file({"weights": np.zeros(1 << 12, np.float32)}, weights)
    else:
        save_file({"weights": np.zeros(10, np.float32)}, weights)
    with pytest.raises(InputError, match=message):
        load_classifier(tmp_path)


def fasttext_model(path, labels, model=3):
    """A supervised model by hand (fastText's format, version 12): dimension 2, words `good` and `bad`.

    The first half of the labels answers to `good`, the second to `bad`.
    """
    words = ["good", "bad"]
    entries = [*((word, 0) for word in words), *((f"__label__{label}", 1) for label in labels)]
    out = struct.pack("<ii", 793712314, 12)
    out += struct.pack("<12id", 2, 5, 5, 1, 5, 1, 3, model, 0, 0, 0, 100, 1e-4)  # softmax, no buckets
    out += struct.pack("<iiiqq", len(entries), len(words), len(labels), 10, -1)
    for word, kind in entries:
        out += word.encode() + b"\0" + struct.pack("<qb", 5, kind)
    out += struct.pack("<?qq", False, 2, 2) + struct.pack("<4f", 1, 0, 0, 1)
    rows = [(2.0, 0.0) if place < len(labels) / 2 else (0.0, 2.0) for place in range(len(labels))]
    out += struct.pack("<?qq", False, len(labels), 2) + b"".join(struct.pack("<2f", *row) for row in rows)
    path.write_bytes(out)
    return path


def test_fasttext_model_scores_the_expected_value_of_its_labels(tmp_path):
    two = load_classifier(fasttext_model(tmp_path / "two.bin", ["wiki", "web"]), ["__label__wiki"])
    share = math.exp(2) / (math.exp(2) + 1)
    assert two.score("good\ngood") == pytest.approx(share, abs=1e-4)
    assert two.score("bad") == pytest.approx(1 - share, abs=1e-4)
    assert two.score("good bad") == pytest.approx(0.5, abs=1e-4)
    assert two.score("") == 0.0
    assert 0 <= two.score("\ud800 unknown \0") <= 1
    numbered = load_classifier(fasttext_model(tmp_path / "four.bin", ["3", "2", "1", "0"]))
    assert numbered.score("good") == pytest.approx((share * 5 + (1 - share)) / 6, abs=1e-4)
    copied = pickle.loads(pickle.dumps(two))  # noqa: S301
    assert (copied.digest, copied.score("good")) == (two.digest, two.score("good"))
    other = load_classifier(tmp_path / "two.bin", ["web"])
    assert other.digest != two.digest
    assert other.score("good") == pytest.approx(1 - share, abs=1e-4)


def test_fasttext_labels_that_say_nothing_are_asked_for(tmp_path):
    path = fasttext_model(tmp_path / "two.bin", ["wiki", "web"])
    with pytest.raises(InputError, match="which labels") as error:
        load_classifier(path)
    assert "positive" in error.value.hint
    with pytest.raises(InputError, match='no label "wikipedia"'):
        load_classifier(path, ["wikipedia"])


def test_fasttext_without_the_library_and_foreign_files_give_clear_errors(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fasttext", None)
    with pytest.raises(DependencyError, match="fastText library") as error:
        load_classifier(fasttext_model(tmp_path / "two.bin", ["wiki", "web"]), ["wiki"])
    assert "pip install" in error.value.hint
    good = (tmp_path / "two.bin").read_bytes()
    for content in (b"", b"noise", b"noise" * 100, good[:50], good[:110], good[:130]):
        (tmp_path / "noise.ftz").write_bytes(content)
        with pytest.raises(InputError, match="is no fastText model"):
            load_classifier(tmp_path / "noise.ftz")
    with pytest.raises(InputError, match="not a supervised model"):
        load_classifier(fasttext_model(tmp_path / "vectors.bin", ["wiki", "web"], model=1))
    with pytest.raises(InputError, match="can't be read"):
        load_classifier(tmp_path / "gone.bin")
