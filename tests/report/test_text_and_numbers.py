"""Text made safe to look at, and numbers written one way."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import escape

from tsugiki.report import facts, formatting
from tsugiki.report.languages import language_name
from tsugiki.report.sections.provenance import outline
from tsugiki.report.text import clip, language_tag, visible

THIN = formatting.NARROW_SPACE


@given(st.text(alphabet=st.characters(codec=None)))
def test_visible_text_can_be_encoded_and_is_legal_xml(text):
    shown = visible(text)
    shown.encode("utf-8")
    ET.fromstring(f"<p>{escape(shown)}</p>")  # noqa: S314 - our own output
    assert visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("日本語 English\tтекст\nلغة", "日本語 English\tтекст\nلغة"),
        ("a\r\nb\rc", "a\nb\u240dc"),
        ("\x00\x1b\x7f", "\u2400\u241b\u2421"),
        ("\u202eabc\u2066", "‹U+202E›abc‹U+2066›"),
        ("\u200b\ufeff\u00ad", "‹U+200B›‹U+FEFF›‹U+00AD›"),
        ("\ud800", "\ufffd"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("e" + "\u0301" * 50, "e" + "\u0301" * 4),
        ("\U000e0041", "‹U+E0041›"),
    ],
)
def test_visible_replaces_only_what_acts(text, shown):
    assert visible(text) == shown


def test_clip_marks_the_cut():
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize("tag", ["ja", "zh-Hant", "en-US", "yue"])
def test_language_tag_accepts_tags(tag):
    assert language_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", None, 3, 'ja" onload="x', "a", "x" * 40, "ja_JP", "ja\n"])
def test_language_tag_refuses_the_rest(tag):
    assert language_tag(tag) == "und"


def test_language_names():
    assert (language_name("ja"), language_name("xx")) == ("Japanese", "xx")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "–"),
        (0, "0"),
        (9999, "9,999"),
        (10_000, f"10.0{THIN}k"),
        (1_234_567, f"1.23{THIN}M"),
        (999_950, f"1.00{THIN}M"),
        (104_860_000_000, f"105{THIN}B"),
        (-12_345, f"−12.3{THIN}k"),
    ],
)
def test_count(number, text):
    assert formatting.count(number) == text


@given(st.integers(0, 10**15))
def test_count_is_within_half_a_unit_of_its_last_digit(number):
    parts = formatting.count(number).replace(",", "").split(THIN)
    scale = {"": 1, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[parts[1] if len(parts) > 1 else ""]
    assert float(parts[0]) * scale == pytest.approx(number, rel=0.0051)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.42 s"),
        (3.44, "3.4 s"),
        (9.96, "10 s"),
        (84, "84 s"),
        (750, "12 min 30 s"),
        (3599.7, "1 h 0 min"),
        (12_000, "3 h 20 min"),
        (None, "–"),
    ],
)
def test_duration(seconds, text):
    assert formatting.duration(seconds).replace(THIN, " ") == text


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (formatting.fixed(-0.0001), "0.000"),
        (formatting.fixed(-1.5, 1), "−1.5"),
        (formatting.signed(0.0001), "0.000"),
        (formatting.signed(0.25), "+0.250"),
        (formatting.percent(0.2346), f"23.5{THIN}%"),
        (formatting.signed_percent(-0.388), f"−38.8{THIN}%"),
        (formatting.size(812), f"812{THIN}B"),
        (formatting.size(1_234_567), f"1.23{THIN}MB"),
        (formatting.interval(-1, 2, 1), "−1.0 to 2.0"),
        (formatting.interval(None, 2), "–"),
        (formatting.p_value(0.0002), "< 0.001"),
        (formatting.p_value(0.0316), "0.032"),
        (formatting.scientific(3.1e-06), f"3.1{THIN}×{THIN}10<sup>−6</sup>"),
        (formatting.scientific(0), "0"),
        (formatting.moment("2026-11-21T05:00:48+00:00"), "2026-11-21 05:00:48 UTC"),
        (formatting.moment("2026-11-21T05:00:48+09:00"), "2026-11-21 05:00:48 +09:00"),
        (formatting.plural(1, "page"), "1 page"),
        (formatting.plural(74, "page"), "74 pages"),
    ],
)
def test_formats(call, text):
    assert call == text


def test_facts_of_the_wrong_type_count_as_absent():
    values = {"a": {"b": 1.5, "t": True, "n": float("nan")}, "rows": [{"x": 1}, 3], "s": "text"}
    assert facts.number(values, "a", "b") == 1.5
    assert facts.number(values, "a", "t") is None
    assert facts.number(values, "a", "n") is None
    assert facts.number(values, "s", "b") is None
    assert facts.rows(values, "rows") == [{"x": 1}]
    assert facts.rows(values, "s") == []
    assert facts.text(values, "a") == ""
    assert facts.section(values, "rows", "x") == {}
    assert facts.ratio(1, 0) is None


def test_outline_reads_like_yaml():
    data = {
        "model": {"preset": "x"},
        "data": {"ja": 0.9},
        "none": None,
        "empty": {},
        "list": [1, 2],
        "text": "a: b",
    }
    assert outline(data) == (
        "model:\n  preset: x\ndata:\n  ja: 0.9\nnone: null\nempty: {}\nlist: [1, 2]\ntext: a: b"
    )
    assert outline({"rows": [{"a": 1}] * 30}).startswith('rows:\n  - {"a": 1}\n')


def test_style_sheet_is_in_the_package_and_closes_its_braces():
    from importlib.resources import files

    style = files("tsugiki.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    assert style.count("{") == style.count("}")
    assert not re.search(r"\{[{%#]", style)
