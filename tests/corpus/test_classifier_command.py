"""`tsugiki corpus train-classifier`: sources, refusals, what it prints and writes."""

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.commands.corpus_classifier import train_classifier
from tsugiki.corpus.classifier.model import load_classifier
from tsugiki.errors import DataError, InputError

FAST = {"bits": 14, "epochs": 2}


def noise(seed):
    rng = random.Random(seed)
    return "".join(rng.choice("アカサタナ★→0123|") for _ in range(400))


@pytest.fixture
def sources(tmp_path, japanese):
    """The positive set as a corpus artifact, the negative one in three kinds of files."""
    rows = [
        {
            "id": f"d{i:03d}",
            "text": japanese(i),
            "rejected_by": [],
            "split": "heldout" if i >= 80 else "train",
            **dict.fromkeys(["url", "host", "date", "title", "language", "language_score", "source"]),
            **dict.fromkeys(["cluster", "cluster_size", "survivor"]),
        }
        for i in range(100)
    ]
    artifact = tmp_path / "japanese"
    schema = documents_schema({})
    write_documents(artifact / "documents" / "part-00000.parquet", pa.Table.from_pylist(rows, schema))
    folder = tmp_path / "spam"
    folder.mkdir()
    lines = [json.dumps({"text": noise(seed)}).encode() + b"\n" for seed in range(90)]
    (folder / "a.jsonl").write_bytes(b"".join(lines[:30]) + b"not json\n")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[30:60]), mtime=0))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(b"".join(lines[50:70])))
    pq.write_table(pa.table({"text": [noise(seed) for seed in range(70, 90)]}), folder / "d.parquet")
    (folder / "README.md").write_text("no documents here")
    return artifact, folder


def test_command_trains_from_every_kind_of_source_and_prints_a_table(sources, tmp_path, capsys):
    positive, negative = sources
    train_classifier(tmp_path / "out", positive=[positive], negative=[negative], **FAST)
    printed = capsys.readouterr()
    assert "AUC" in printed.out
    assert "most telling against" in printed.out
    assert printed.out.rstrip().endswith(str(tmp_path / "out"))
    assert "passed over: a.jsonl, line 31: not JSON" in printed.err
    card = json.loads((tmp_path / "out" / "classifier.json").read_text(encoding="utf-8"))
    assert card["training"]["positive"]["documents"] == 80  # the held-out split is left alone
    assert card["training"]["negative"] | {"digest": ""} == {
        "documents": 90,
        "read": 100,
        "duplicates": 10,
        "empty": 0,
        "overlapping": 0,
        "unreadable": 1,
        "digest": "",
    }
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["auc"]["value"] > 0.99
    model = load_classifier(tmp_path / "out")
    assert model.score(noise(1234)) < 0.2


def test_command_gives_the_same_bytes_whatever_the_order_of_paths(sources, tmp_path, capsys):
    positive, negative = sources
    files = sorted(negative.glob("[a-d].*"))
    for name, paths in (("a", files), ("b", files[::-1])):
        train_classifier(tmp_path / name, positive=[positive], negative=paths, json=True, **FAST)
        answer = json.loads(capsys.readouterr().out)
        assert answer["directory"] == str(tmp_path / name)
        assert answer["digest"] == load_classifier(tmp_path / name).digest
    for file in ("classifier.safetensors", "classifier.json", "metrics.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_command_refuses_to_replace_a_classifier_unless_told(sources, tmp_path):
    positive, negative = sources
    train_classifier(tmp_path / "out", positive=[positive], negative=[negative], **FAST)
    before = load_classifier(tmp_path / "out").digest
    with pytest.raises(InputError, match="holds a classifier already"):
        train_classifier(tmp_path / "out", positive=[positive], negative=[negative], **FAST)
    options = {**FAST, "seed": 5, "overwrite": True}
    train_classifier(tmp_path / "out", positive=[positive], negative=[negative], **options)
    assert load_classifier(tmp_path / "out").digest != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"characters": "four"}, "is no range"),
        ({"characters": "4-1"}, "shortest <= longest"),
        ({"bits": 40}, "features.bits"),
        ({"heldout": 0.9, "epochs": 0}, "(?s)epochs.*heldout"),
    ],
)
def test_command_names_every_wrong_option(sources, tmp_path, options, message):
    positive, negative = sources
    with pytest.raises(InputError, match=message):
        train_classifier(tmp_path / "out", positive=[positive], negative=[negative], **options)
    assert not (tmp_path / "out").exists()


def test_command_refuses_sets_that_are_equal_small_or_absent(sources, tmp_path):
    positive, negative = sources
    with pytest.raises(DataError, match="one set holds all documents"):
        train_classifier(tmp_path / "out", positive=[positive], negative=[positive], **FAST)
    with pytest.raises(DataError, match="20 negative documents"):
        train_classifier(tmp_path / "out", positive=[positive], negative=[negative / "d.parquet"], **FAST)
    for path, message in (
        (tmp_path / "gone", "does not exist"),
        (negative / "README.md", "holds no documents"),
    ):
        with pytest.raises(InputError, match=message):
            train_classifier(tmp_path / "out", positive=[positive], negative=[path], **FAST)
    assert not (tmp_path / "out").exists()
