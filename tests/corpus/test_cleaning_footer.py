"""Footers on real pages: documentation of the sample crawl, with and without footers written for it."""

import csv
import random
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.extract.html2text import extract_plain_text

from tsugiki.corpus.cleaning.footer import cut_footer
from tsugiki.languages import load_pack

JA = load_pack("ja")
EN = load_pack("en")
CRAWL = Path(__file__).parents[2] / "examples" / "crawl"

MISSED = "© 2015 例えば株式会社"  # one footer character of fourteen
FOOTERS = (
    "Copyright © 2010-2020 Example Inc. All rights reserved.",
    "無断転載を禁じます。",
    "プライバシーポリシー サイトマップ お問い合わせ",
    "プライバシーポリシー\nサイトマップ\n会社概要\nCopyright (C) 例 All Rights Reserved.",
    "この記事へのトラックバック一覧\nコメント\nトラックバック",
    "ツイート\nいいね！\n共有",
    "最近記事\nランキング\n一覧を見る",
    "特定商取引法に基づく表記 | プライバシーポリシー | ご利用規約",
    "トップページへ\nサイトマップ\n会社案内\nログイン",
    MISSED,
    "スポンサーリンク\n広告掲載\nお知らせ一覧へ",
    "新規会員登録\nログイン\nヘルプ\nお問い合わせ",
    "サイト内検索\nプロフィール\nトピックス",
    "Twitterでツイート Follow @example\nコメント (0) トラックバック (0)",
)
# Last lines of real texts that hold footer words.
RISKS = (
    "リンクをクリックします。",
    "検索結果が表示されます。",
    "新規登録を選び、ログインボタンをクリックしてください。",
    "記事の検索には時間がかかることがあります。",
    "その他のお知らせはヘルプを見てください。",
    "サイトにログインできない場合は、管理者に問い合わせてください。",
    "コメントを共有するには、リンクを受け取る人を選びます。",
    "PRINT 命令と SPRING の例は、次の章で扱います。",
    "プロフィールの検索とランキングの表示ができます。",
    "クリックした記事のバナーが変わります。",
)


@pytest.fixture(scope="module")
def texts():
    """Japanese pages of one sample file, extracted, one paragraph a line; none has a footer of its own."""
    with (CRAWL / "truth.csv").open(encoding="utf-8") as file:
        wanted = {
            row["url"]
            for row in csv.DictReader(file)
            if (row["language"], row["encoding"], row["kind"]) == ("ja", "utf-8", "page")
        }
    out = []
    with (CRAWL / "sample-001.warc.gz").open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response):
            if record.headers["WARC-Target-URI"].strip("<>") not in wanted:
                continue
            page = record.reader.read().decode("utf-8", "replace")
            text = extract_plain_text(page, main_content=True, preserve_formatting=True)
            lines = [" ".join(line.split()) for line in text.splitlines()]
            out.append("\n".join(line for line in lines if line))
    return [text for text in dict.fromkeys(out) if len(text) >= 400]


def measured(texts, mode):
    """Pages whose footer is cut exactly; pages that lose text of their own; pages that lose all of it."""
    rng = random.Random(7)
    exact = harmed = emptied = pages = 0
    for text in texts:
        footer = rng.choice(FOOTERS)
        kept, _ = cut_footer(f"{text}\n{footer}", JA, mode)
        exact += kept == text
        for body in (text, f"{text}\n{rng.choice(RISKS)}", "\n".join(text.split("\n")[:2])):
            kept, _ = cut_footer(body, JA, mode)
            pages += 1
            harmed += kept != body
            emptied += not kept.strip()
    return exact / len(texts), harmed / pages, emptied


def test_safe_mode_on_real_pages_cuts_footers_and_spares_text(texts):
    assert len(texts) >= 50
    recall, harm, emptied = measured(texts, "safe")
    assert recall >= 0.85
    assert harm <= 0.01
    assert emptied == 0


def test_swallow_mode_on_real_pages_harms_and_empties_more(texts):
    recall, harm, emptied = measured(texts, "swallow")
    assert 0.8 <= recall <= 0.9
    assert harm >= 0.1
    assert emptied >= 1


BODY = "\n".join(
    f"これは本文の{i}番目の段落であり、長さは普通の文と同じくらいになっています。" for i in range(20)
)


@pytest.mark.parametrize("footer", [footer for footer in FOOTERS if footer != MISSED])
def test_safe_mode_cuts_every_footer_of_the_list(footer):
    assert cut_footer(f"{BODY}\n{footer}", JA) == (BODY, footer.count("\n") + 1)


@pytest.mark.parametrize("line", RISKS)
def test_safe_mode_keeps_sentences_with_footer_words(line):
    assert cut_footer(f"{BODY}\n{line}", JA) == (f"{BODY}\n{line}", 0)


def test_swallow_mode_cuts_from_the_first_footer_line_of_the_last_ten():
    lines = ["本文です"] * 12 + ["記事"] + ["本文はまだ続きます"] * 9
    assert cut_footer("\n".join(lines), JA, "swallow") == ("\n".join(lines[:12]), 10)
    lines.append("本文")  # now the heading is the eleventh line from the end
    assert cut_footer("\n".join(lines), JA, "swallow") == ("\n".join(lines), 0)
    assert cut_footer("\n".join(lines), JA) == ("\n".join(lines), 0)


def test_swallow_mode_needs_more_than_three_tenths_of_a_line():
    assert cut_footer("本文\n記事について語る日", JA, "swallow") == ("本文\n記事について語る日", 0)  # 2 of 9
    assert cut_footer("本文\nリンクについて語る日", JA, "swallow") == (
        "本文\nリンクについて語る日",
        0,
    )  # 3 of 10
    assert cut_footer("本文\nリンクについて語る", JA, "swallow") == ("本文", 1)  # 3 of 9


def test_swallow_mode_empties_a_short_page_and_safe_mode_never():
    page = "お知らせ\nサイトマップ\nログイン"
    assert cut_footer(page, JA, "swallow") == ("", 3)
    assert cut_footer(page, JA) == (page, 0)


def test_safe_mode_beyond_a_bound_cuts_nothing():
    menu = "\n".join(["サイトマップ"] * 11)
    assert cut_footer(f"{BODY}\n{menu}", JA) == (f"{BODY}\n{menu}", 0)  # more than ten lines
    short = "短い本文です、とても短い本文です。" * 5
    assert cut_footer(f"{short}\nサイトマップ", JA) == (f"{short}\nサイトマップ", 0)  # fewer than 200 stay
    half = "本文です、かなり長い本文です。" * 20
    footer = "\n".join(["プライバシーポリシー" * 4] * 6)  # 245 characters of 546
    assert cut_footer(f"{half}\n{footer}", JA) == (f"{half}\n{footer}", 0)  # more than a third


def test_english_footers_are_whole_words_in_either_case():
    body = "\n".join(f"Paragraph {i} says something that takes a whole line of plain text." for i in range(9))
    assert cut_footer(f"{body}\nCOPYRIGHT © 2020 | PRIVACY POLICY", EN) == (body, 1)
    assert cut_footer(f"{body}\nUncontacted Contactless", EN)[1] == 0


def test_a_pack_without_footer_words_cuts_nothing():
    bare = JA.model_copy(update={"lists": {}})
    assert cut_footer("お知らせ", bare, "swallow") == ("お知らせ", 0)


_LINES = st.lists(
    st.sampled_from([*FOOTERS, *RISKS, "本文です。", "普通の長さの段落である" * 9, ""]), max_size=30
)


@settings(max_examples=150, deadline=None)
@given(_LINES)
def test_safe_mode_is_idempotent_and_bounded(lines):
    text = "\n".join(lines)
    kept, cut = cut_footer(text, JA)
    assert text.startswith(kept)
    assert cut <= JA.cleanup.footer_lines
    assert cut == text.count("\n") - kept.count("\n")
    if cut:
        assert len(kept) >= max(200, len(text) * 2 / 3 - 1)
    assert cut_footer(kept, JA) == (kept, 0)
