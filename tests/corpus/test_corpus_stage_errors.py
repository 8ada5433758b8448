"""The stage says what is wrong with its files, its values and a crawl that gives nothing."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from pydantic import ValidationError

from tsugiki.corpus.stage import Config
from tsugiki.errors import DataError, InputError, StageError


@pytest.fixture
def config():
    return Config(source="crawl/*.warc.gz", language="ja", heldout=0.15)


def test_run_on_damaged_texts_counts_lines_and_goes_on(tmp_path, japanese, execute):
    good = json.dumps({"text": japanese(1)})
    lines = [good, "{", '{"text": 3}', '{"text": " "}', "[]", '{"text": "\\ud800"}', "", "\xff"]
    data = "\n".join(lines).encode("latin-1") + b"\n"
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data * 50)[:-60])
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(data * 50)[:-9])
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    files = sorted(path for path in tmp_path.iterdir() if path.is_file())
    facts = execute(Config(source="a", language="ja"), files, tmp_path / "out").facts
    assert facts["near_duplicates"]["clusters"] == 1
    assert {warning["file"] for warning in facts["warnings"]} == {path.name for path in files}
    assert facts["skipped_records"]["empty body"] >= 1
    log = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")
    assert "WARNING a.jsonl, line 3: no" in log
    assert "WARNING d.parquet, row 1: not a Parquet file" in log


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "no file matches"), (["gone.warc.gz"], "missing"), (["a.txt"], "unknown kind")],
)
def test_run_without_usable_files_is_an_input_error(tmp_path, names, message, execute):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=message):
        execute(Config(source="x", language="ja"), [tmp_path / name for name in names], tmp_path / "out")


def test_run_with_two_files_of_one_name_is_an_input_error(tmp_path, warc, japanese, execute):
    for name in "ab":
        (tmp_path / name).mkdir()
        warc.crawl(tmp_path / name / "x.warc.gz", [japanese(1)])
    files = [tmp_path / name / "x.warc.gz" for name in "ab"]
    with pytest.raises(InputError, match=r"two files are named x\.warc\.gz"):
        execute(Config(source="x", language="ja"), files, tmp_path / "out")


def test_run_on_a_parquet_without_text_is_an_input_error(tmp_path, execute):
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match='no column "text"'):
        execute(Config(source="x", language="ja"), [tmp_path / "a.parquet"], tmp_path / "out")


def test_run_on_an_empty_crawl_is_a_data_error(tmp_path, warc, execute):
    empty = tmp_path / "empty.warc.gz"
    empty.write_bytes(b"")
    redirects = warc.file(tmp_path / "r.warc.gz", [warc.record("", status="301 Moved")])
    with pytest.raises(DataError, match=r"no page: 2 records in 2 files .*1 redirect") as caught:
        execute(Config(source="x", language="ja"), [empty, redirects], tmp_path / "out")
    assert "empty.warc.gz, byte 0: the file is empty" in caught.value.hint
    assert not (tmp_path / "out" / "documents").exists()


def test_run_without_a_page_of_the_language_says_what_was_seen(tmp_path, warc, english, page, execute):
    records = [warc.record(page(english(i), lang="ja"), url=f"http://a.example/{i}") for i in range(3)]
    file = warc.file(tmp_path / "a.warc.gz", records)
    with pytest.raises(DataError, match=r'language "ja" among 3 pages .*en \(3\)'):
        execute(Config(source="x", language="ja"), [file], tmp_path / "out")


def test_run_that_rejects_everything_names_the_top_reasons(tmp_path, warc, execute):
    file = warc.crawl(tmp_path / "a.warc.gz", ["これはとても短い文章です。すぐに終わります。"] * 2)
    with pytest.raises(DataError, match=r"all 2 pages .*letters<400 \(2\)"):
        execute(Config(source="x", language="ja"), [file], tmp_path / "out")


def test_run_with_only_one_group_cannot_hold_out(tmp_path, warc, japanese, execute):
    text = japanese(1)
    variants = [text + "\n" + japanese(seed, sentences=6) for seed in range(2, 8)]
    file = warc.crawl(tmp_path / "a.warc.gz", variants)
    with pytest.raises(StageError, match="no group of similar documents"):
        execute(Config(source="x", language="ja", heldout=0.2), [file], tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        {"heldout": 1.0},
        {"heldout_similarity": 0.0},
        {"near_duplicates": {"bands": 0}},
        {"near_duplicates": {"band": 4}},
        {"extractor": "readability"},
        {"rules": "none", "rule_overrides": {"letters": 1.0}},
        {"languages": "ja"},
        {"workers": 0},
    ],
)
def test_config_of_bad_values_is_refused(change):
    with pytest.raises(ValidationError):
        Config(**{"source": "x", "language": "ja", **change})
