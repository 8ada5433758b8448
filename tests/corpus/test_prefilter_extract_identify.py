"""The page-level steps between bytes and features."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus.decode import Decoded
from tsugiki.corpus.extract import MAX_DEPTH, TooDeepError, extract_text, tidy
from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.prefilter import declared_language, is_candidate, page_title
from tsugiki.languages import load_pack

TEXTS = {
    "ja": "設定ファイルを編集して、もう一度はじめから起動します。apt-get install tool を実行してください。"
    * 5,
    "en": "Edit the configuration file and restart the service before you continue with the next step. " * 5,
    "zh": "编辑配置文件并重新启动服务，然后再继续下一步。请使用软件包管理器安装这个工具。" * 5,
    "ko": "설정 파일을 편집하고 서비스를 다시 시작한 다음 계속하십시오. 이 도구를 설치하십시오. " * 5,
    "de": "Bearbeiten Sie die Konfigurationsdatei und starten Sie den Dienst neu, bevor Sie fortfahren. " * 5,
}


def decoded(page, encoding="utf-8"):
    return Decoded(page, encoding, "test")


@pytest.mark.parametrize(
    ("page", "encoding", "url", "wanted"),
    [
        ('<html lang="ja">', "utf-8", "", True),
        ("<HTML class=x LANG=ja-JP>", "utf-8", "", True),
        ('<html xml:lang="ja">', "utf-8", "", True),
        ('<html lang="jav">', "utf-8", "", False),
        ('<html data-lang="ja">', "utf-8", "", False),
        ('<html lang="en"><title>使い方のページ</title>', "utf-8", "", True),
        ("<title>東京</title>", "utf-8", "", False),
        ("<html><p>hello", "shift_jis", "", True),
        ("<html><p>hello", "utf-8", "http://a.example.jp/", True),
        ('<html lang="en"><p>hello', "utf-8", "http://a.example.jp/", False),
        ("<p>" + "ひらがなの本文です。" * 3, "utf-8", "", True),
        ("<p>hello", "utf-8", "http://[bad/", False),
    ],
)
def test_is_candidate_for_japanese_follows_the_pack(page, encoding, url, wanted):
    assert is_candidate(decoded(page, encoding), url, load_pack("ja")) is wanted


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("<html lang=en-GB>", True),
        ("<html lang=ja><p>hello", False),
        ("<html><p>hello world", True),
        ("<html><script>var javascript = 1</script><p>日本語の本文です", False),
        ("<html><p>123", False),
    ],
)
def test_is_candidate_for_a_shared_script_trusts_declarations_and_looks_at_letters(page, wanted):
    assert is_candidate(decoded(page), "", load_pack("en")) is wanted


def test_declared_language_reads_meta_where_html_says_nothing():
    meta = '<html><meta http-equiv="Content-Language" content="JA">'
    assert declared_language(meta) == "ja"
    assert declared_language("<html>") is None


@pytest.mark.parametrize(
    ("page", "title"),
    [("<title>\n a &amp;  b</title>", "a & b"), ("<title></title>", None), ("<p>", None)],
)
def test_page_title_is_collapsed_text(page, title):
    assert page_title(page) == title


@pytest.mark.parametrize("extractor", ["resiliparse", "trafilatura"])
def test_extract_text_keeps_the_main_text_and_drops_navigation(page, japanese, extractor):
    text = japanese(1)
    html = page(text).replace("<main>", "<nav><ul><li><a href=/>ナビゲーション</a></li></ul></nav><main>")
    extracted = extract_text(html, extractor)
    assert extracted == text
    assert "ナビゲーション" not in extracted


def test_extract_text_of_a_page_without_main_content_takes_all_of_it():
    assert "リンク" in extract_text("<html><body><nav><a href=x>リンク</a></nav></body></html>")


def test_extract_text_of_an_empty_page_is_empty():
    assert extract_text("<html></html>") == ""
    assert extract_text("") == ""


def test_extract_text_refuses_deep_nesting_quickly():
    names = "".join(f"<x{i}>" for i in range(50_000))
    for nested in ("<div>" * 100_000, names):
        with pytest.raises(TooDeepError, match=str(MAX_DEPTH)):
            extract_text(nested)


def test_extract_text_of_a_long_selection_list_is_quick():
    start = time.process_time()
    assert extract_text("<p>あ</p><select>" + "<option value=1>い</option>" * 100_000) == "あ"
    assert time.process_time() - start < 5


def test_extract_text_of_options_that_never_close_is_quick():
    start = time.process_time()
    extract_text("<p>あ</p>" + "<option " * 100_000)  # quadratic before: half a minute
    assert time.process_time() - start < 5


def test_extract_text_of_many_siblings_is_not_deep():
    assert extract_text("<body>" + "<p>あ<br>" * 5000 + "<div>い</div>" * 5000).count("あ") == 5000


def test_tidy_makes_one_paragraph_a_line():
    assert tidy(" a \t b\r\n\n\u3000\n c\0d\u2028e\n") == "a b\ncd\ne"


@settings(max_examples=100, deadline=None)
@given(page=st.text(alphabet=st.sampled_from("<>/=\"' adivptable日\n&;!-[]"), max_size=200))
def test_extract_text_of_any_markup_gives_tidy_text(page):
    text = extract_text(page)
    assert text == tidy(text)


@pytest.mark.parametrize("code", TEXTS)
@pytest.mark.parametrize("text", TEXTS)
def test_identify_accepts_a_text_for_its_own_pack_only(code, text):
    pack = load_pack(code)
    found = identify(TEXTS[text], pack)
    assert 0 <= found.score <= 1
    assert is_language(found, pack) is (code == text)


def test_identify_of_japanese_amid_commands_is_japanese():
    mixed = TEXTS["ja"][:200] + "\n" + "$ apt-get install foo --option=1\n" * 8 + TEXTS["ja"][:200]
    assert identify(mixed, load_pack("ja")).label == "ja"
