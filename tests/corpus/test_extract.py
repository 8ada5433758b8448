"""From pages to main texts: what is kept, what is cut, and pages made to hurt."""

import runpy
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus import extract as module
from tsugiki.corpus.extract import (
    FAILED,
    MAX_CAREFUL_CHARACTERS,
    TOO_DEEP,
    TOO_LARGE,
    WHOLE_PAGE,
    extract,
    tidy,
)
from tsugiki.corpus.extract_blocks import MAX_TAGS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EXTRACTORS = ["cascade", "resiliparse", "trafilatura"]
SENTENCE = "設定ファイルを編集して、もう一度はじめから起動してください。"


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_extract_keeps_the_main_text_and_drops_navigation(page, japanese, extractor):
    text = japanese(1)
    html = page(text).replace("<main>", "<nav><ul><li><a href=/>ナビゲーション</a></li></ul></nav><main>")
    extracted = extract(html, extractor)
    assert extracted.text == text
    assert extracted.extractor == ("blocks" if extractor == "cascade" else extractor)
    assert not extracted.problem


def test_the_cascade_cuts_links_and_bylines_off_both_ends(japanese):
    text = japanese(2)
    body = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    related = "".join(f"<div><a href=/{i}>関連する記事の題名その{i}</a></div>" for i in range(3))
    html = f"<body><div>2026年1月1日</div><div>執筆者</div><h1>題名</h1>{body}{related}<div>続き</div></body>"
    assert extract(html).text == "題名\n" + text
    assert "関連" in extract(html, "resiliparse").text


def test_the_cascade_asks_trafilatura_where_little_is_left(page):
    html = page("短い文章です。それだけです。")
    assert extract(html).extractor == "trafilatura"
    assert extract(html).text == "短い文章です。それだけです。"


def test_the_cascade_keeps_the_fast_text_where_the_careful_one_fails(monkeypatch):
    def fails(page, **options):
        raise RecursionError

    monkeypatch.setattr("trafilatura.extract", fails)
    html = f"<body><p>{SENTENCE}</p></body>"
    assert extract(html).text == SENTENCE
    assert extract(html, "trafilatura").problem == f"{FAILED}: RecursionError"


def test_extract_of_a_failing_parser_gives_the_reason(monkeypatch):
    def fails(page, **options):
        raise ValueError

    monkeypatch.setattr("resiliparse.extract.html2text.extract_plain_text", fails)
    for page, extractor in (("<p>a", "resiliparse"), ("<p>a" * (MAX_TAGS + 1), "cascade")):
        extracted = extract(page, extractor)
        assert (extracted.text, extracted.problem) == ("", f"{FAILED}: ValueError")


def test_extract_of_a_page_without_main_content_takes_all_of_it():
    html = "<html><body><nav><a href=x>リンク</a></nav></body></html>"
    assert extract(html, "resiliparse") == module.Extracted("リンク", WHOLE_PAGE)
    assert extract(html).text == "リンク"


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("html", ["", "<html></html>", "\0", "\ud800\udfff", " \n", "<", "<!--"])
def test_extract_of_nothing_is_empty_and_no_problem(html, extractor):
    assert not extract(html, extractor).text.strip("<?�!-")
    assert not extract(html, extractor).problem


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_extract_refuses_deep_nesting_quickly(extractor):
    names = "".join(f"<x{i}>" for i in range(50_000))
    start = time.process_time()
    for nested in ("<div>" * 100_000, names):
        assert extract(nested, extractor) == module.Extracted("", extractor, TOO_DEEP)
    assert time.process_time() - start < 5


HOSTILE = {
    "options": "<p>あ</p><select>" + "<option value=1>い</option>" * 500_000,
    "options that never close": "<p>あ</p>" + "<option " * 100_000,  # quadratic before: half a minute
    "capital options": "<p>あ</p><SELECT>" + "<OPTION>い" * 100_000,
    "one long line": "<p>" + SENTENCE * 100_000,
    "siblings": "<body>" + "<p>あ<br>" * 20_000,
    "links that never close": "<body>" + "<a href=x>あ" * 400,
    "half of a link": "<a " * 200_000,
    "NUL": "<p>あ\0い</p>" + "\0" * 1_000_000,
    "surrogates": "\ud800" * 1_000_000,
    "open comment": "<!-- " * 200_000,
    "less-than signs": "<" * 1_000_000,
    "attributes": "<p " + "a=b " * 200_000 + ">あ",
    "entities": "&amp;" * 300_000,
    "closing tags": "</div>" * 300_000,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_extract_of_a_hostile_page_takes_seconds_at_most(what):
    start = time.process_time()
    extracted = extract(HOSTILE[what])
    assert time.process_time() - start < 10
    extracted.text.encode("utf-8")
    assert extracted.text == tidy(extracted.text)


def test_extract_of_options_drops_them():
    assert extract("<p>あ</p><select>" + "<option value=1>い</option>" * 1000).text == "あ"


def test_trafilatura_is_spared_pages_that_are_too_large():
    many = "<p>あ</p>" * 30_000
    long = "<p>" + "あ" * MAX_CAREFUL_CHARACTERS
    for html in (many, long):
        assert extract(html, "trafilatura").problem == TOO_LARGE
        assert extract(html).text


def test_extract_of_many_siblings_is_not_deep():
    html = "<body>" + "<p>あ<br>" * 5000 + "<div>い</div>" * 5000
    assert extract(html, "resiliparse").text.count("あ") == 5000


def test_tidy_makes_one_paragraph_a_line():
    assert tidy(" a \t b\r\n\n\u3000\n c\0d\u2028e\n") == "a b\ncd\ne"


@settings(max_examples=100, deadline=None)
@given(
    page=st.text(alphabet=st.sampled_from("<>/=\"' adivptable日\n&;!-[]。\ue000\ue001"), max_size=200),
    extractor=st.sampled_from(EXTRACTORS),
)
def test_extract_of_any_markup_gives_tidy_text(page, extractor):
    extracted = extract(page, extractor)
    assert extracted.text == tidy(extracted.text)


def test_the_benchmark_ranks_the_cascade_above_its_fast_half(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    benchmark = runpy.run_path(str(BENCHMARKS / "extraction.py"))
    pack = benchmark["load_pack"]("ja")
    pages = list(
        benchmark["synthetic"](BENCHMARKS.parent / "examples" / "crawl", pack, 8, "sample-000.warc.gz")
    )
    assert len(pages) == 24

    def f1(extractor):
        scores = [
            benchmark["score"](wanted, benchmark["tokens"](extract(page, extractor).text, pack))
            for _, page, wanted in pages
        ]
        return sum(value for *_, value in scores) / len(scores)

    assert f1("cascade") >= 0.9
    assert f1("cascade") > f1("resiliparse")
