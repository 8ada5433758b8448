"""The scanner, the facts and the forest: against html.parser, plain Python and pages made to hurt."""

import html
import json
import math
import time
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus import extract_blocks as module
from tsugiki.corpus.extract import extract
from tsugiki.corpus.extract_blocks import blocks_of, probabilities_of
from tsugiki.corpus.extract_depth import MAX_DEPTH, too_deep, too_deep_plainly
from tsugiki.corpus.extract_features import FEATURES, features_of
from tsugiki.corpus.extract_scan import (
    AFTER_BREAK,
    ALL_HINTS,
    CAPITALS,
    COLUMNS,
    COMMAS,
    DIGITS,
    ELEMENT,
    ELEMENT_COLUMNS,
    END,
    INSIDE,
    LAST_STOP,
    LINKED,
    PARENT,
    START,
    STOPS,
    TAG,
    WIDTH,
    scan,
)
from tsugiki.corpus.extract_tags import HINTS, NAMES, SEMANTIC

MARKUP = st.text(alphabet=st.sampled_from("<>/=\"' !-adivptblrscoe日。.&;#19\n\0\ud800"), max_size=120)
TEXT = st.text(alphabet="ab <&日本。\t\u00e9", max_size=12)
INLINE = ("b", "span", "a", "em")
BLOCK = ("div", "section", "ul", "article")


def scanned(page):
    """(texts, blocks, elements) of a page."""
    raw = np.frombuffer(bytearray(page.encode("utf-8", "replace")), np.uint8)
    rows = page.count("<") + 2
    text = np.empty(raw.size + 1, np.uint8)
    blocks = np.empty((rows, COLUMNS), np.int64)
    elements = np.empty((rows, ELEMENT_COLUMNS), np.int64)
    count, made, written = scan(raw, text, blocks, elements)
    blocks, elements = blocks[:count], elements[:made]
    flat = text[:written].tobytes()
    return [flat[row[START] : row[END]].decode() for row in blocks], blocks, elements


def tags_above(row, elements):
    """The names of the elements that a block stands in, innermost first, without the root."""
    out = []
    place = row[ELEMENT]
    while place > 0:
        out.append(NAMES[elements[place, TAG]])
        place = elements[place, PARENT]
    return out


def test_scan_tells_width_links_and_punctuation():
    texts, blocks, _ = scanned("<p>Ab, <a href=x>c9.</a></p><p>日本、です。</p><p>&amp;x</p>")
    assert texts == ["Ab, c9.", "日本、です。", "&amp;x"]
    assert blocks[:, WIDTH].tolist() == [7, 12, 2]
    assert blocks[:, LINKED].tolist() == [4, 0, 0]  # the space before counts as linked
    assert blocks[:, STOPS].tolist() == [1, 1, 0]
    assert blocks[:, COMMAS].tolist() == [1, 1, 0]
    assert blocks[:, DIGITS].tolist() == [1, 0, 0]
    assert blocks[:, CAPITALS].tolist() == [1, 0, 0]
    assert blocks[:, LAST_STOP].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("終わり。」", 1),
        ("（終わり！）", 1),
        ('said."', 1),
        ("end.”", 1),
        ("。続き", 0),
        ("Menu", 0),
        ("１．", 1),
    ],
)
def test_scan_looks_for_the_last_stop_behind_quotes(text, ended):
    assert scanned(f"<p>{text}</p>")[1][0, LAST_STOP] == ended


@pytest.mark.parametrize(
    ("page", "above"),
    [
        ("<ul><li>a<li>b</ul>", ["li", "ul"]),
        ("<div><p>a<p>b</div>", ["p", "div"]),
        ("<div><p>a<div>b</div></div>", ["div", "div"]),
        ("<table><tr><td>a<td>b</table>", ["td", "tr", "table"]),
        ("<table><tr><td>a<tr><td>b</table>", ["td", "tr", "table"]),
        ("<dl><dt>a<dd>b</dl>", ["dd", "dl"]),
        ("<ul><li>a<ul><li>b</ul></ul>", ["li", "ul", "li", "ul"]),
        ("<div><b>a</div><p>b", ["p"]),
        ("<div>a</section><p>b", ["p", "div"]),
    ],
)
def test_scan_closes_elements_as_browsers_do(page, above):
    texts, blocks, elements = scanned(page)
    assert texts == ["a", "b"]
    assert tags_above(blocks[1], elements) == above


def test_scan_reads_hints_and_landmarks_of_what_is_around():
    page = "<nav CLASS='x Side-Bar'><p id=comments>a</p></nav><body class=menu><p data-class=menu>b"
    _, blocks, elements = scanned(page)
    side, comment, nav = (next(i for i, g in enumerate(HINTS) if n in g) for n in ("side", "comment", "nav"))
    assert elements[blocks[0, ELEMENT], ALL_HINTS] == 1 << side | 1 << comment
    assert elements[blocks[0, ELEMENT], INSIDE] == 1 << SEMANTIC.index("nav")
    assert not elements[blocks[1, ELEMENT], ALL_HINTS] >> nav & 1


@pytest.mark.parametrize(
    "page",
    [
        "<p>a<script>if (b < c) {'<p>d'}</script></p>",
        "<p>a<!-- <p>b --></p>",
        "<style>x</STYLE ><p>a",
        "<!DOCTYPE html><?php x ?><p>a",
        "<p title='<b>x>'>a",
        '<p title="x>y" class=">">a',
        "<select><option>x</select><p>a",
        "<svg>never closed<p>".replace("never closed", "") + "a",
        "<p>a<!-- open",
        "<p>a<b",
    ],
)
def test_scan_leaves_out_what_no_reader_sees(page):
    assert scanned(page)[0] == ["a"]


def test_scan_breaks_lines_at_br_and_says_so():
    texts, blocks, _ = scanned("<p>a<br>b<b>c</b></p>d")
    assert texts == ["a", "bc", "d"]
    assert blocks[:, AFTER_BREAK].tolist() == [0, 1, 0]


class Reader(HTMLParser):
    """All text without white space: the oracle."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.found = []

    def handle_data(self, data):
        self.found.append(data)


def element(children):
    return st.tuples(st.sampled_from(INLINE + BLOCK), st.lists(children, max_size=4)).map(
        lambda pair: f"<{pair[0]} class='x y'>{''.join(pair[1])}</{pair[0]}>"
    )


@settings(max_examples=200, deadline=None)
@given(page=st.recursive(TEXT.map(html.escape), element, max_leaves=20))
def test_scan_of_well_formed_pages_has_the_text_of_html_parser(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    expected = "".join("".join(reader.found).split())
    assert "".join(blocks_of(page).everything().split()) == expected


@settings(max_examples=300, deadline=None)
@given(page=MARKUP)
def test_blocks_of_any_markup_are_sound(page):
    texts, blocks, elements = scanned(page)
    assert len(texts) <= page.count("<") + 1
    assert (blocks[:, WIDTH] >= 1).all()
    assert (blocks[:, LINKED] <= blocks[:, WIDTH]).all()
    assert (elements[1:, PARENT] < np.arange(1, len(elements))).all()
    facts = features_of(blocks, elements)
    assert facts.shape == (len(texts), FEATURES)
    assert np.isfinite(facts).all()
    judged = blocks_of(page)
    assert ((judged.probabilities > 0) & (judged.probabilities < 1)).all()
    assert extract(page) == extract(page)


@settings(max_examples=200, deadline=None)
@given(
    page=st.lists(st.sampled_from(["<a>", "</A>", "<b1>", "</b1>", "<p>", "< c>", "<d", "</", "e"])),
    n=st.integers(1, 400),
)
def test_too_deep_equals_its_plain_definition(page, n):
    for text in ("".join(page) * n, "<x>" * (MAX_DEPTH + n - 200), "".join(page) * n + "<x>" * MAX_DEPTH):
        assert too_deep(text) is too_deep_plainly(text)


def test_too_deep_of_thousands_of_names_asks_the_plain_definition():
    page = "".join(f"<n{i}></n{i}>" for i in range(5000))
    assert not too_deep(page)
    assert too_deep(page + "<n1>" * (MAX_DEPTH + 1))


def test_forest_is_evaluated_as_it_is_stored():
    stored = json.loads((files("tsugiki.corpus") / "extract_forest.json").read_text(encoding="utf-8"))
    assert max(stored["feature"]) < FEATURES
    rows = np.random.default_rng(1).normal(0, 3, (50, FEATURES)).astype(np.float32)

    def plain(row):
        total = 0.0
        for root in stored["roots"]:
            node = root
            while stored["feature"][node] >= 0:
                left = row[stored["feature"][node]] <= np.float32(stored["threshold"][node])
                node = stored["left" if left else "right"][node]
            total += stored["value"][node]
        return 1 / (1 + math.exp(-total))

    np.testing.assert_allclose(probabilities_of(rows, *module._forest()), [plain(row) for row in rows])


def test_main_text_is_told_from_menus_comments_and_lists(japanese):
    text = japanese(3)
    links = "".join(f"<li><a href=/{i}>記事の題名その{i}</a></li>" for i in range(20))
    body = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    page = f"<ul class=menu>{links}</ul><div>{body}</div><div class=sidebar><ul>{links}</ul></div>"
    assert blocks_of(page).main() == text


def test_main_text_begins_at_the_headline_unless_sentences_stand_before(japanese):
    text = japanese(4)
    body = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    assert blocks_of(f"<div><p>執筆者</p><h1>題名</h1>{body}</div>").main() == "題名\n" + text
    assert blocks_of(f"<div>{body}<h1>題名</h1>{body}</div>").main().startswith(text)


def test_entities_beyond_all_numbers_are_replaced():
    assert "�" in blocks_of(f"<p>a&#{'9' * 5000};b&lt;</p>").everything()
    assert blocks_of("<p>&lt;b&gt; &#26085; &nbsp</p>").everything() == "<b> 日 \xa0"


@pytest.mark.parametrize(
    "page",
    [
        "<p>あ" * 80_000,
        "<script>" * 200_000,
        "<svg><select>" * 60_000,
        "<p class='" * 100_000,
        '<p class="' + "comment" * 500_000,
        "</p>" * 200_000,
        "<!" * 200_000,
        "</" * 200_000,
        "&" * 2_000_000,
        "<li>" * 200_000 + "a",
        "<a href=x>あ" * 100_000,
    ],
)
def test_blocks_of_hostile_pages_take_a_time_linear_in_their_size(page):
    start = time.process_time()
    blocks_of(page)
    assert time.process_time() - start < 3
