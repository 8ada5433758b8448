import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.artifacts.files import sha256_of
from tsugiki.dataset import tokenise as tokenise_module
from tsugiki.dataset.encoders import Encoded, Encoder, reference_encoder
from tsugiki.dataset.tokenise import (
    BYTES,
    CHECKED_DOCUMENTS,
    DOCUMENTS,
    HEADER,
    TOKENS,
    framed,
    read_header,
    token_dtype,
    tokenise,
)
from tsugiki.dataset.tokens import open_tokens
from tsugiki.errors import DataError, InputError, StageError
from tsugiki.models.tokenizer import TextTokenizer, train_byte_level_bpe


def test_tokenise_documents_come_back_as_they_went_in(tmp_path, tokenizer, make_texts, write_parts):
    texts = [make_texts(9, seed) for seed in range(3)]
    write_parts(tmp_path, texts)
    source = open_tokens("s", tokenise(tmp_path, tokenizer, tmp_path / "units"), tokenizer)
    assert source.documents == 27
    assert source.text_bytes == sum(len(text.encode()) for part in texts for text in part)
    for number, text in enumerate(text for part in texts for text in part):
        ids = source.document(number)
        assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        assert tokenizer.decode(ids[1:-1]) == text
        assert ids[1:-1].tolist() == tokenizer.encode_batch([text])[0].tolist()
        assert source.document_bytes(number) == len(text.encode())


def test_tokenise_takes_one_split_only_and_passes_over_empty_texts(tmp_path, tokenizer, write_parts):
    write_parts(tmp_path, [["one", "two", "", "four"]], splits=("train", "heldout"))
    (unit,) = tokenise(tmp_path, tokenizer, tmp_path / "units")
    assert read_header(unit).documents == 1
    (unit,) = tokenise(tmp_path, tokenizer, tmp_path / "heldout", split="heldout")
    assert read_header(unit).documents == 2


def test_tokenise_twice_gives_the_same_bytes_and_keeps_finished_units(
    tmp_path, tokenizer, make_texts, write_parts
):
    write_parts(tmp_path, [make_texts(5, 1), make_texts(5, 2)])
    first = tokenise(tmp_path, tokenizer, tmp_path / "a")
    second = tokenise(tmp_path, tokenizer, tmp_path / "b")
    for one, other in zip(first, second, strict=True):
        for name in (TOKENS, DOCUMENTS, BYTES, HEADER):
            assert (one / name).read_bytes() == (other / name).read_bytes()
    before = (first[0] / TOKENS).stat().st_mtime_ns
    tokenise(tmp_path, tokenizer, tmp_path / "a")
    assert (first[0] / TOKENS).stat().st_mtime_ns == before


def test_tokenise_after_a_change_of_the_text_makes_the_unit_anew(tmp_path, tokenizer, write_parts):
    write_parts(tmp_path, [["old text"]])
    tokenise(tmp_path, tokenizer, tmp_path / "units")
    write_parts(tmp_path, [["new text of another length"]])
    source = open_tokens("s", tokenise(tmp_path, tokenizer, tmp_path / "units"), tokenizer)
    assert tokenizer.decode(source.document(0)) == "new text of another length"


def test_tokenise_without_special_tokens_adds_none(tmp_path, tokenizer, write_parts):
    plain = TextTokenizer(tokenizer.tokenizer, None, None)
    write_parts(tmp_path, [["open model"]])
    source = open_tokens("s", tokenise(tmp_path, plain, tmp_path / "units"), plain)
    assert source.document(0).tolist() == tokenizer.encode_batch(["open model"])[0].tolist()


def test_framed_puts_any_number_of_tokens_around_every_text():
    encoded = Encoded(np.asarray([5, 6, 7], dtype=np.uint32), np.asarray([0, 2, 2, 3]))
    first, last = np.asarray([1, 2], dtype=np.uint32), np.asarray([9], dtype=np.uint32)
    ids, ends = framed(encoded, first, last)
    assert ids.tolist() == [1, 2, 5, 6, 9, 1, 2, 9, 1, 2, 7, 9]
    assert ends.tolist() == [5, 8, 12]


def wrong_encoder(tokenizer, *, at, fault="id"):
    """The reference, but for text number `at` of all it is given."""
    reference = reference_encoder(tokenizer)
    seen = 0

    def encode(texts):
        nonlocal seen
        encoded = reference.encode(texts)
        if seen <= at < seen + len(texts):
            if fault == "error":
                raise RuntimeError("match limit")
            encoded.ids[encoded.offsets[at - seen]] += 1
        seen += len(texts)
        return encoded

    return Encoder("wrong 1.0", "a test", encode)


@pytest.mark.parametrize("fault", ["id", "error"])
def test_tokenise_with_an_encoder_that_goes_wrong_later_makes_the_unit_by_the_reference(
    tmp_path, tokenizer, make_texts, write_parts, caplog, fault
):
    count = 2 * CHECKED_DOCUMENTS + 10
    write_parts(tmp_path, [make_texts(count, seed, 3) for seed in (1, 2)])
    wrong = wrong_encoder(tokenizer, at=count + CHECKED_DOCUMENTS, fault=fault)
    units = tokenise(tmp_path, tokenizer, tmp_path / "wrong", encoder=wrong)
    right = tokenise(tmp_path, tokenizer, tmp_path / "right", encoder=reference_encoder(tokenizer))
    for one, other in zip(units, right, strict=True):
        assert (one / TOKENS).read_bytes() == (other / TOKENS).read_bytes()
    assert "part-00001.parquet: wrong 1.0 gave other ids for" in caplog.text


def test_tokenise_with_an_encoder_that_gives_ids_beyond_the_vocabulary_raises(
    tmp_path, tokenizer, make_texts, write_parts
):
    write_parts(tmp_path, [make_texts(3, longest=3)])
    reference = reference_encoder(tokenizer)

    def encode(texts):
        encoded = reference.encode(texts)
        encoded.ids[-1] = tokenizer.size
        return encoded

    with pytest.raises(StageError, match=f"gave id {tokenizer.size} for a vocabulary of {tokenizer.size}"):
        tokenise(tmp_path, tokenizer, tmp_path / "units", encoder=Encoder("wrong", "a test", encode))
    assert not list((tmp_path / "units").glob("*"))


def test_tokenise_makes_units_of_an_earlier_format_anew(tmp_path, tokenizer, make_texts, write_parts):
    write_parts(tmp_path, [make_texts(3)])
    (unit,) = tokenise(tmp_path, tokenizer, tmp_path / "units")
    header = json.loads((unit / HEADER).read_text())
    (unit / HEADER).write_text(json.dumps(header | {"format": 1}))
    (unit / BYTES).unlink()
    tokenise(tmp_path, tokenizer, tmp_path / "units")
    assert json.loads((unit / HEADER).read_text()) == header
    assert (unit / BYTES).exists()


def test_tokenise_of_a_damaged_part_raises_and_names_it(tmp_path, tokenizer, make_texts, write_parts):
    write_parts(tmp_path, [make_texts(300, longest=20)])
    part = tmp_path / "documents" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"part-00000\.parquet can't be read"):
        tokenise(tmp_path, tokenizer, tmp_path / "units")


def test_open_tokens_for_a_model_with_too_few_rows_raises(tmp_path, tokenizer, make_texts, write_parts):
    write_parts(tmp_path, [make_texts(3)])
    units = tokenise(tmp_path, tokenizer, tmp_path / "units")
    open_tokens("s", units, tokenizer, rows=tokenizer.size)
    with pytest.raises(InputError, match=f"ids up to {tokenizer.size - 1}; the model has 299 rows"):
        open_tokens("s", units, tokenizer, rows=299)


@pytest.mark.parametrize(("size", "dtype"), [(300, "<u2"), (65536, "<u2"), (65537, "<u4"), (128256, "<u4")])
def test_token_dtype_is_the_smallest_that_holds_every_id(size, dtype):
    assert token_dtype(size) == dtype
    assert np.iinfo(np.dtype(dtype)).max >= size - 1


def test_open_tokens_of_another_tokenizer_raises(tmp_path, tokenizer, make_texts, write_parts):
    write_parts(tmp_path, [make_texts(3)])
    units = tokenise(tmp_path, tokenizer, tmp_path / "units")
    other = train_byte_level_bpe(make_texts(50, seed=9), 290)
    with pytest.raises(InputError, match="another tokenizer.*300 entries.*290 is expected"):
        open_tokens("s", units, other)


@pytest.mark.parametrize("file", [TOKENS, DOCUMENTS, BYTES])
@pytest.mark.parametrize("change", ["cut", "gone", "longer"])
def test_open_tokens_of_a_unit_with_a_file_of_the_wrong_size_raises(
    tmp_path, tokenizer, make_texts, write_parts, file, change
):
    write_parts(tmp_path, [make_texts(3)])
    units = tokenise(tmp_path, tokenizer, tmp_path / "units")
    path = units[0] / file
    data = path.read_bytes()
    path.unlink()
    if change != "gone":
        path.write_bytes(data[:-2] if change == "cut" else data + b"\0\0")
    with pytest.raises(InputError, match=rf"{file} is (missing|\d+ bytes long); its header says"):
        open_tokens("s", units, tokenizer)


def test_open_tokens_whose_byte_counts_disagree_raises(tmp_path, tokenizer, make_texts, write_parts):
    write_parts(tmp_path, [make_texts(3)])
    units = tokenise(tmp_path, tokenizer, tmp_path / "units")
    counts = np.fromfile(units[0] / BYTES, dtype="<u4")
    (units[0] / BYTES).write_bytes((counts + 1).astype("<u4").tobytes())
    with pytest.raises(InputError, match=f"{BYTES} does not agree"):
        open_tokens("s", units, tokenizer)


def test_open_tokens_whose_offsets_disagree_raises(tmp_path, tokenizer, make_texts, write_parts):
    write_parts(tmp_path, [make_texts(3)])
    units = tokenise(tmp_path, tokenizer, tmp_path / "units")
    offsets = np.fromfile(units[0] / DOCUMENTS, dtype="<i8")
    (units[0] / DOCUMENTS).write_bytes(offsets[::-1].tobytes())
    with pytest.raises(InputError, match="does not agree"):
        open_tokens("s", units, tokenizer)


@pytest.mark.parametrize("change", [{"dtype": "<u4"}, {"format": "two"}, {"more": 1}])
def test_open_tokens_with_a_wrong_header_raises(tmp_path, tokenizer, make_texts, write_parts, change):
    write_parts(tmp_path, [make_texts(3)])
    units = tokenise(tmp_path, tokenizer, tmp_path / "units")
    header = json.loads((units[0] / HEADER).read_text())
    (units[0] / HEADER).write_text(json.dumps(header | change))
    with pytest.raises(InputError, match="dtype|fields are wrong"):
        open_tokens("s", units, tokenizer)


def test_open_tokens_without_a_single_document_raises(tmp_path, tokenizer, write_parts):
    write_parts(tmp_path, [["held out"]], splits=("heldout",))
    with pytest.raises(DataError, match="holds no documents to train on"):
        open_tokens("s", tokenise(tmp_path, tokenizer, tmp_path / "units"), tokenizer)


def test_tokenise_of_a_directory_without_documents_raises(tmp_path, tokenizer):
    with pytest.raises(InputError, match="holds no documents"):
        tokenise(tmp_path, tokenizer, tmp_path / "units")


def test_tokenise_of_a_part_without_text_raises_and_leaves_no_unit(tmp_path, tokenizer):
    (tmp_path / "documents").mkdir()
    pq.write_table(pa.table({"split": ["train"]}), tmp_path / "documents" / "part-00000.parquet")
    with pytest.raises(InputError, match='no column "text"'):
        tokenise(tmp_path, tokenizer, tmp_path / "units")
    assert not list((tmp_path / "units").glob("*"))


KILLED = """
import sys
from pathlib import Path
from tsugiki.dataset.tokenise import tokenise
from tsugiki.models.tokenizer import load_tokenizer
root = Path(sys.argv[1])
tokenizer = load_tokenizer(root / "tokenizer")
tokenise(root, tokenizer, root / "units", on_unit=lambda done, total: print(done, flush=True))
"""


def test_tokenise_killed_between_units_goes_on_to_the_same_bytes(
    tmp_path, tokenizer, make_texts, write_parts
):
    from tsugiki.models.directory import write_tokenizer

    write_parts(tmp_path, [make_texts(200, seed) for seed in range(12)])
    write_tokenizer(tokenizer, tmp_path / "tokenizer")
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finished = len(list((tmp_path / "units").glob("*/header.json")))
    assert finished < 12
    resumed = tokenise(tmp_path, tokenizer, tmp_path / "units")
    whole = tokenise(tmp_path, tokenizer, tmp_path / "whole")
    for one, other in zip(resumed, whole, strict=True):
        assert (one / TOKENS).read_bytes() == (other / TOKENS).read_bytes()


@pytest.mark.parametrize("worth", [0, 2**60])
def test_tokenise_logs_which_library_encodes_and_why(
    tmp_path, tokenizer, make_texts, write_parts, monkeypatch, caplog, worth
):
    monkeypatch.setattr(tokenise_module, "_WORTH_A_CHECK", worth)
    caplog.set_level("INFO")
    write_parts(tmp_path, [make_texts(3)])
    tokenise(tmp_path, tokenizer, tmp_path / "units")
    reason = "too little text" if worth else "(the same ids as the reference|not installed)"
    assert re.search(rf"tokenising with (fastokens|tokenizers) [\d.]+: .*{reason}", caplog.text)


def test_tokenise_again_reads_no_part_whose_size_and_time_stayed(
    tmp_path, tokenizer, make_texts, write_parts, monkeypatch
):
    write_parts(tmp_path, [make_texts(5, 1), make_texts(5, 2)])
    first = tokenise(tmp_path, tokenizer, tmp_path / "units")
    monkeypatch.setattr(tokenise_module, "sha256_of", lambda _: pytest.fail("read the corpus again"))
    assert tokenise(tmp_path, tokenizer, tmp_path / "units") == first


def test_tokenise_of_a_part_with_another_time_compares_its_bytes_once(
    tmp_path, tokenizer, make_texts, write_parts, monkeypatch
):
    write_parts(tmp_path, [make_texts(5, 1)])
    (unit,) = tokenise(tmp_path, tokenizer, tmp_path / "units")
    written = (unit / TOKENS).stat().st_mtime_ns
    os.utime(tmp_path / "documents" / "part-00000.parquet", ns=(1, 1))  # copied to another machine, say
    hashed = []
    monkeypatch.setattr(tokenise_module, "sha256_of", lambda path: hashed.append(path) or sha256_of(path))
    for _ in range(2):
        tokenise(tmp_path, tokenizer, tmp_path / "units")
    assert len(hashed) == 1
    assert (unit / TOKENS).stat().st_mtime_ns == written
