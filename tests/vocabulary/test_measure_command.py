from __future__ import annotations

import json
import sys

import pytest

from tsugiki.artifacts.documents import iterate_documents, write_jsonl
from tsugiki.commands.vocabulary_measure import measure
from tsugiki.errors import DependencyError, InputError
from tsugiki.vocabulary import segmenters
from tsugiki.vocabulary.curve import Point, choose_point
from tsugiki.vocabulary.segmenters import cut_of_corpus, offsets_of


def test_measure_prints_tokens_by_language_and_the_curve(base, corpora, capsys):
    measure(str(base), corpora["japanese"], other=(corpora["english"],), sizes="50,100,9k")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("byte-level BPE, 360 pieces")
    assert [line.split()[:3] for line in lines[3:5]] == [["ja", "(ja)", "8"], ["en", "(en)", "8"]]
    assert [line.split()[0] for line in lines[7:10]] == ["0", "50", "100"]
    assert lines[-1] == "The text is too short for 9,000 pieces."


def test_measure_as_json_has_falling_tokens_of_one_text(base, corpora, capsys):
    measure(str(base), corpora["japanese"], sizes="100,50", method="append", json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["tokenizer"] == {"kind": "byte-level BPE", "pieces": 360}
    (japanese,) = found["documents"]
    assert [point["pieces"] for point in found["curve"]] == [0, 50, 100]
    tokens = [point["tokens"] for point in found["curve"]]
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[0] == japanese["tokens"]
    assert {point["bytes"] for point in found["curve"]} == {japanese["bytes"]}


def test_measure_of_json_lines_counts_what_it_counts_of_documents(base, corpora, tmp_path, capsys):
    path = tmp_path / "pages.jsonl"
    write_jsonl(path, iterate_documents(corpora["japanese"], columns=["text", "split"]))
    measure(str(base), path, sizes="50", json=True)
    plain = json.loads(capsys.readouterr().out)
    measure(str(base), corpora["japanese"], sizes="50", json=True)
    documents = json.loads(capsys.readouterr().out)
    assert plain["curve"] == documents["curve"]
    assert [one["dataset"] for one in plain["documents"]] == ["pages.jsonl"]
    assert plain["documents"][0]["tokens"] == documents["documents"][0]["tokens"]


def test_words_of_documents_that_tell_no_language_are_refused(base, corpora, tmp_path):
    path = tmp_path / "pages.jsonl"
    write_jsonl(path, iterate_documents(corpora["japanese"], columns=["text"]))
    with pytest.raises(InputError, match="do not say what language"):
        measure(str(base), path, sizes="50", keep_words=True)


def test_measure_without_sizes_reads_the_tokenizer_alone(base, corpora, capsys):
    measure(str(base), corpora["english"], sizes="0", json=True)
    assert json.loads(capsys.readouterr().out)["curve"] == []


@pytest.mark.parametrize("sizes", ["many", "1k,,2k", "-5"])
def test_measure_sizes_that_are_no_numbers_are_refused(base, corpora, sizes):
    with pytest.raises(InputError, match="--sizes"):
        measure(str(base), corpora["english"], sizes=sizes)


@pytest.mark.parametrize(("share", "place"), [(0.5, 1), (0.2, 2), (0.01, 3)])
def test_curve_stops_where_doubling_saves_too_little(share, place):
    points = [
        Point(pieces, tokens, 1000, 3000) for pieces, tokens in ((0, 2000), (1, 1000), (2, 700), (4, 600))
    ]
    assert choose_point(points, share) == place


def test_segmenter_is_the_one_that_the_pack_of_the_language_names(corpora, monkeypatch):
    monkeypatch.setitem(
        segmenters.SEGMENTERS, "sudachi", lambda: offsets_of(lambda text: [text[:2], text[2:]])
    )
    assert cut_of_corpus(corpora["japanese"])("庭師は") == [0, 2]


def test_language_without_segmenter_is_refused(corpora):
    with pytest.raises(InputError, match='"en" names no word segmenter'):
        cut_of_corpus(corpora["english"])


def test_sudachi_cuts_words():
    pytest.importorskip("sudachipy")
    assert segmenters.sudachi()("東京都に行く。\n") == [0, 2, 3, 4, 6, 7]


def test_sudachi_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sudachipy", None)
    with pytest.raises(DependencyError, match="SudachiPy") as caught:
        segmenters.sudachi()
    assert "tsugiki[japanese]" in caught.value.hint
