"""The page-level steps between bytes and features."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.prefilter import is_candidate, packed_subtag, page_title
from tsugiki.corpus.prefilter_kernel import scan_head
from tsugiki.corpus.prefilter_quality import Quality, measure
from tsugiki.corpus.prefilter_text_kernel import count_visible, hash_word
from tsugiki.corpus.read import Tally, read_warc
from tsugiki.languages import Prefilter, load_pack

CRAWL = Path(__file__).parents[2] / "examples" / "crawl"

TEXTS = {
    "ja": "設定ファイルを編集して、もう一度はじめから起動します。apt-get install tool を実行してください。"
    * 5,
    "en": "Edit the configuration file and restart the service before you continue with the next step. " * 5,
    "zh": "编辑配置文件并重新启动服务，然后再继续下一步。请使用软件包管理器安装这个工具。" * 5,
    "ko": "설정 파일을 편집하고 서비스를 다시 시작한 다음 계속하십시오. 이 도구를 설치하십시오. " * 5,
    "de": "Bearbeiten Sie die Konfigurationsdatei und starten Sie den Dienst neu, bevor Sie fortfahren. " * 5,
}


PIECES = [
    *(b"<html", b"<meta ", b"<title>", b" lang=", b"ja", b"'", b'"', b">", b"charset=", b"content", b"="),
    *(
        b"</script",
        b"<script",
        b"<!--",
        b"-->",
        b"&amp;",
        b"content-language",
        b"text",
        b"<body>",
        b" ",
        b"\0",
    ),
    *(b"\x1b$", b"\xe3\x81\x82", b"\xe3\x81", b"\x82\xa0", b"\xff", b"\xe6\x97\xa5", b"\xe9", b"\xff\xfe"),
]


@pytest.fixture(scope="module")
def sample_pages():
    return [page for path in sorted(CRAWL.glob("*.warc.gz"))[:4] for page in read_warc(path, Tally())]


@pytest.mark.parametrize(
    ("page", "charset", "url", "wanted"),
    [
        ('<html lang="ja">', "utf-8", "", True),
        ("<HTML class=x LANG=ja-JP>", None, "", True),
        ("<html xml:lang = 'ja'>", None, "", True),
        ('<html lang="jav">', None, "", False),
        ('<html lang="">', None, "", False),
        ('<html data-lang="ja">', None, "", False),
        ('<p lang="ja">', None, "", False),
        ('<html lang="en"><title>使い方のページ</title>', None, "", True),
        ("<title>東京</title>", None, "", False),
        ("<html><p>hello", "shift_jis", "", True),
        ('<html><meta charset="EUC-JP"><p>hello', "utf-8", "", True),
        ('<?xml version="1.0" encoding="Shift_JIS"?><html>hello', None, "", True),
        ('<html><meta charset="EUC-JP"><p>Ærø ligger i Østersøen', "utf-8", "", False),
        ("<html><p>hello", None, "http://a.example.jp/", True),
        ("<html><p>hello", None, "http://u:p@a.example.JP.:80?x#y", True),
        ("<html><p>hello", None, "http://a.example/x.jp", False),
        ('<html lang="en"><p>hello', None, "http://a.example.jp/", False),
        ("<p>" + "ひらがなの本文です。" * 3, None, "", True),
        ("<p>" + "这是中文的正文内容" * 9, None, "", False),
        ("<p>hello", None, "http://[bad/", False),
        ("", None, "", False),
    ],
)
def test_is_candidate_for_japanese_follows_the_pack(page, charset, url, wanted):
    assert is_candidate(page.encode(), charset, url, load_pack("ja")) is wanted


@pytest.mark.parametrize("codec", ["cp932", "euc_jp", "iso2022_jp", "utf-8-sig", "utf-16", "utf-8"])
@pytest.mark.parametrize("declared", [None, "iso-8859-1", "utf-8"])
def test_is_candidate_finds_japanese_by_bytes_in_every_encoding(codec, declared):
    body = f"<html><title>文書</title><body><p>{TEXTS['ja']}".encode(codec)
    assert is_candidate(body, declared, "", load_pack("ja"))
    assert is_candidate(body[:-1], declared, "", load_pack("ja"))


@pytest.mark.parametrize(
    ("text", "codec"),
    [("zh", "gb18030"), ("zh", "big5hkscs"), ("ko", "cp949"), ("de", "cp1252"), ("en", "ascii")],
)
def test_is_candidate_for_japanese_is_not_taken_in_by_bytes_of_other_encodings(text, codec):
    body = f"<html><title>x</title><p>{TEXTS[text]}".encode(codec, "ignore")
    assert not is_candidate(body, None, "", load_pack("ja"))


def test_is_candidate_for_korean_is_not_taken_in_by_japanese_in_euc():
    body = f"<html><title>文書の題名</title><p>{TEXTS['ja']}".encode("euc_jp")
    assert not is_candidate(body, None, "", load_pack("ko"))
    assert is_candidate(TEXTS["ko"].encode("cp949"), None, "", load_pack("ko"))


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("<html lang=en-GB>", True),
        ("<html lang=ja><p>hello", False),
        ("<html><p>hello world", True),
        (f"<html><p>{TEXTS['en']}", True),
        (f"<html><p>{TEXTS['de']}", False),
        ("<html><script>the be to of and</script><p>日本語の本文です", False),
        ("<html><!-- the be to of --><style>p { color: red }</style>日本語 &nbsp;&amp;", False),
        ("<html><p>123", False),
    ],
)
def test_is_candidate_for_a_shared_script_trusts_declarations_and_looks_at_words(page, wanted):
    assert is_candidate(page.encode(), None, "", load_pack("en")) is wanted


def test_is_candidate_for_a_shared_script_decodes_the_head_of_a_legacy_page():
    pack = load_pack("de")
    text = (
        "Wählen Sie die Datei und drücken Sie den Knopf, wenn das Menü nicht mit der Tür zu öffnen ist. " * 5
    )
    assert is_candidate(text.encode("cp1252"), None, "", pack)
    assert not is_candidate(TEXTS["ja"].encode("cp932"), "Shift_JIS", "", pack)


def test_is_candidate_reads_the_language_of_meta_and_header_where_html_says_nothing():
    pack = load_pack("ja")
    for meta in (
        b'<html><meta http-equiv="Content-Language" content="JA">',
        b"<html><meta content='ja' http-equiv=content-language>",
    ):
        assert is_candidate(meta, None, "", pack)
    assert is_candidate(b"<html>", None, "", pack, "ja, en")
    assert not is_candidate(b"<html lang=en>", None, "", pack, "ja")
    assert not is_candidate(b"<html>", None, "", pack, "en")


def test_is_candidate_of_a_pack_made_at_run_time_uses_its_own_facts():
    pack = load_pack("ja")
    for lang, letters in (("th", (0xE01, 0xE5B)), ("el", (0x370, 0x3FF))):
        facts = Prefilter(html_lang=(lang,), evidence=(letters,))
        other = pack.model_copy(update={"code": lang, "prefilter": facts})
        assert is_candidate(f"<html lang={lang}>".encode(), None, "", other)
        assert is_candidate(("<p>" + chr(letters[0] + 5) * 30).encode(), None, "", other)
        assert not is_candidate(b"<html lang=ja>", None, "", other)


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(PIECES),
        max_size=40,
    ),
    code=st.sampled_from(["ja", "en", "zh", "ko", "de"]),
    header=st.none() | st.text(max_size=8),
)
def test_is_candidate_of_any_bytes_answers(parts, code, header):
    body = b"".join(parts)
    assert is_candidate(body, header, "http://x/" + (header or ""), load_pack(code), header) in {True, False}


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            ["<html", " lang=", "xml:lang=", "data-lang=", "ja", "en-US", "'", '"', " ", ">", "j", "=", "<p"]
        ),
        max_size=12,
    )
)
def test_scan_head_finds_the_language_that_a_pattern_finds(parts):
    page = "".join(parts)
    # the plain definition; a value with more letters than three ends the search in both
    pattern = r"<html[^>]*?(?<![\w.-])lang\s*=[\s\"']*([a-z]*)"
    match = re.search(pattern, page.partition(">")[0] if page.startswith("<html") else "")
    wanted = match[1] if match and 2 <= len(match[1]) <= 3 else ""
    if page.count("<html") <= 1 and page.startswith("<html"):
        found = scan_head(np.frombuffer(page.encode() + b">      ", np.uint8))[0]
        assert found == packed_subtag(wanted)


def test_is_candidate_reads_no_more_than_the_head():
    pack = load_pack("ja")
    late = b"<html><p>" + b"x" * (1 << 17) + ("ひらがなの本文です。" * 30).encode()
    assert not is_candidate(late, None, "", pack)
    assert is_candidate(
        b"<!--" + b"x" * 5000 + b"--><title>" + "の使い方".encode() + b"</title>", None, "", pack
    )


@pytest.mark.parametrize("code", ["ja", "ko", "en"])
def test_the_prefilter_agrees_with_the_full_path_on_the_unfiltered_sample(code, sample_pages):
    found = measure(sample_pages[::4], load_pack(code))
    assert found.pages == len(sample_pages[::4])
    assert found.f1 >= 0.95
    assert found.recall >= (0.96 if code == "en" else 0.99)


def test_quality_of_counts():
    assert Quality(right=8, needless=2, missed=0, pages=20).precision == 0.8
    assert Quality(right=8, needless=2, missed=2, pages=20).f1 == pytest.approx(0.8)
    assert (Quality(0, 0, 0, 3).precision, Quality(0, 0, 0, 3).recall, Quality(0, 1, 1, 3).f1) == (1, 1, 0)


@pytest.mark.parametrize(
    ("page", "title"),
    [("<title>\n a &amp;  b</title>", "a & b"), ("<title></title>", None), ("<p>", None)],
)
def test_page_title_is_collapsed_text(page, title):
    assert page_title(page) == title


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


PICTURE = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x08\x00\x00\x00\x08\x08\x02\x00\x00\x00Km)\xdc"


@pytest.mark.parametrize("code", ["ja", "en", "de", "ko", "zh", "fi", "vi", "hi"])
def test_is_candidate_of_a_picture_served_as_a_page_is_false(code):
    pack = load_pack(code)
    assert not is_candidate(PICTURE, "utf-8", "http://a.example/", pack, code)
    assert is_candidate(b"<html lang=" + code.encode() + b">\x08 one stray control", None, "", pack)


@pytest.mark.parametrize("codec", ["utf-8", "cp949"])
def test_is_candidate_for_korean_is_false_for_an_english_text_in_a_korean_frame(codec):
    frame = (
        '<html><title>도움말 문서</title><a href="/">이전 문서로 돌아가기</a>'
        '<a href="/">다음 문서로 넘어가기</a>'
    )
    text = f"<p>{TEXTS['en']}</p>" * 4
    assert not is_candidate((frame + text).encode(codec), None, "", load_pack("ko"))
    assert is_candidate((frame + f"<p>{TEXTS['ko']}</p>" + text).encode(codec), None, "", load_pack("ko"))


@pytest.mark.parametrize("codec", ["gb18030", "big5hkscs"])
def test_is_candidate_finds_undeclared_chinese_in_its_encodings(codec):
    simplified = (
        "这是系统的说明文件，请先备份您的数据，然后再继续。如果安装的时候发生错误，我们可以从这里开始。"
    )
    traditional = (
        "這是系統的說明文件，請先備份您的資料，然後再繼續。如果安裝的時候發生錯誤，我們可以從這裡開始。"
    )
    text = (simplified if codec == "gb18030" else traditional) * 3 + "\u00a0" * 9
    body = f"<html><title>x</title><p>{text}".encode(codec, "xmlcharrefreplace")
    assert is_candidate(body, None, "", load_pack("zh"))
    assert not is_candidate(
        f"<html><title>x</title><p>{TEXTS['ja'] * 3}".encode("euc_jp"), None, "", load_pack("zh")
    )


def test_is_candidate_for_a_shared_script_needs_letters_outside_of_links():
    links = "".join(f"<li><a href='/{n}'>The history of the city and to the river</a>" for n in range(30))
    assert not is_candidate(f"<html lang=en><h1>Contents</h1>{links}".encode(), None, "", load_pack("en"))
    text = "<p>The city lies on the river, and that is what it has to thank for its trade with the north.</p>"
    assert is_candidate(f"<html lang=en>{links}{text}".encode(), None, "", load_pack("en"))


def test_is_candidate_for_english_is_false_for_chinese_under_an_english_label():
    page = "<html lang=en><p>" + "这是中文的正文内容，说明如何安装系统。" * 20
    for codec in ("utf-8", "gb18030"):
        assert not is_candidate(page.encode(codec), None, "", load_pack("en"))


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<a href=x>",
                "</a>",
                "the",
                "of",
                " ",
                "é",
                "日本",
                "&amp;",
                "<!-- x > y -->",
                "ÆØ",
                "<script>if (a<b) 'the'</script>",
                "<style>p{}</STYLE >",
                "zebra",
                "1",
                "<abbr>",
                "<br/>",
            ]
        ),
        max_size=40,
    )
)
def test_count_visible_counts_what_a_plain_reading_counts(parts):
    page = "".join(parts)
    table = np.zeros(1 << 16, np.uint8)
    table[[code for code in range(1 << 16) if chr(code).isalpha()]] = 2
    table[:0x250][table[:0x250] > 0] = 1
    hashes = np.array([hash_word(np.frombuffer(word, np.uint8)) for word in (b"the", b"of")], np.uint64)
    found = count_visible(np.frombuffer(page.encode(), np.uint8), 0, table, hashes, 9999, 9999, 9999, 0)
    plain = re.sub(r"<!--.*?-->|<(script|style)\b.*?</\1[^>]*>", "<p>", page, flags=re.IGNORECASE)
    linked, texts = False, {True: "", False: ""}
    for piece in re.findall(r"<[^>]*>|[^<]+", plain):
        if piece.startswith("<"):
            linked = (linked or piece.startswith("<a ")) and piece != "</a>"
            texts[linked] += " "
        else:
            texts[linked] += piece.replace("&amp;", " ")
    latin = [letter for letter in texts[False] if letter.isalpha() and letter < "\u0250"]
    other = [letter for letter in texts[False] if letter.isalpha() and letter >= "\u0250"]
    assert found[:3] == (len(latin), len(other), 0)
    assert found[4:6] == (sum(letter.isalpha() for letter in texts[True]), 1)
    words = set(re.findall(r"[^\W\d_]+", re.sub(r"<[^>]*>|&amp;", " ", plain)))
    assert found[3] == len(words & {"the", "of"})


def test_is_candidate_tells_languages_of_one_script_by_their_share_of_stop_words():
    dutch = (
        "Het programma leest alle bestanden in de map en schrijft daarna een verslag naar het scherm. Wie "
        "wil weten welke bestanden er zijn, kan het verslag ook als tekst bewaren. Kies een naam, druk op de "
        "knop en wacht tot het klaar is. Het kan een paar minuten duren voordat alle gegevens gelezen zijn. "
        "Daarna verschijnt een venster met een overzicht. "
    )
    german = (
        "Die Katze sitzt im Garten und wartet auf den Tag, der als der erste des Winters mit Schnee kommt. "
    )
    pack = load_pack("de")
    for frame in ("<html><p>", "<html lang=de><p>"):
        assert is_candidate((frame + german * 6).encode(), None, "", pack)
        assert not is_candidate((frame + TEXTS["en"] * 9).encode(), None, "", pack)
    assert not is_candidate(("<html><p>" + dutch * 2).encode(), None, "", pack)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "移除目錄，若其為空目錄。顯示版本訊息後離開，並輸出說明文字。",
            True,
        ),  # hardly a character of the list
        (
            "製品情報 会社概要 採用情報 取扱説明書 最終更新日 利用規約 個人情報保護方針 " + "ひらがなの本文",
            False,
        ),
        ("大韓民國 憲法 全文 國會 議員 選擧 法律 案內 標準 國語 大辭典 " + "대한민국의 헌법", False),
        (
            "移除目錄，若其為空目錄。顯示版本訊息後離開，並輸出說明文字。" * 2 + "使用の",
            True,
        ),  # one in a menu
    ],
)
def test_is_candidate_for_chinese_goes_by_what_does_not_stand_beside_its_letters(text, wanted):
    page = f"<html><body><p>{text}</p></body></html>".encode()
    assert is_candidate(page, None, "", load_pack("zh")) is wanted


def test_is_candidate_asks_for_the_share_of_letters_that_the_pack_names():
    pack = load_pack("zh")
    page = ('<html lang="zh"><p>' + "目录 " * 10 + "edit the configuration file " * 4).encode()  # 20 of 120
    asked = {share: pack.prefilter.model_copy(update={"own_share": share}) for share in (0.1, 0.3)}
    found = [
        is_candidate(page, None, "", pack.model_copy(update={"prefilter": facts})) for facts in asked.values()
    ]
    assert found == [True, False]


def test_measure_leaves_out_pages_of_few_characters(sample_pages):
    pack = load_pack("ja")
    whole, longer = (measure(sample_pages[:100], pack, least_characters=least) for least in (0, 200))
    assert 0 < longer.pages < whole.pages == 100
    assert longer.right <= whole.right


def test_count_visible_stops_once_the_share_of_stop_words_is_plain():
    table = np.zeros(1 << 16, np.uint8)
    table[97:123] = 1
    hashes = np.array([hash_word(np.frombuffer(b"the", np.uint8))], np.uint64)

    def looked_at(text, share):
        page = np.frombuffer(text.encode(), np.uint8)
        return count_visible(page, 0, table, hashes, 9999, 9999, 9999, share)[6:]

    assert looked_at("the cat " * 200, 0.1) == (60, 30)  # half of the words
    assert looked_at("a cat " * 200, 0.1)[0] in {81, 82}  # (0.1 n)^2 > 9 x 0.09 n
    assert looked_at("the cat " * 200, 0.0) == (400, 200)  # nothing is asked


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://a.jp", True),
        ("a.example.jp/x", True),
        ("https://user@a.jp:8080/?q=.de", True),
        ("http://a.jp.:80#x", True),
        ("http://a.jp.de/", False),
        ("http://a.jp:pw@evil.de/", False),
        ("http://a.de/?x=b.jp", False),
        ("http://ajp/", False),
        ("", False),
    ],
)
def test_is_candidate_goes_by_the_domain_of_the_host_alone(url, wanted):
    assert is_candidate(b"<html><p>hello", None, url, load_pack("ja")) is wanted


def test_is_candidate_looks_up_the_charset_that_a_page_declares_by_any_of_its_names():
    for label in ("x-sjis", "Windows-31J", "EUC-JP", "ISO-2022-JP"):
        page = f'<html><meta charset="{label}"><p>hello'.encode()
        assert is_candidate(page, None, "", load_pack("ja"))
        assert not is_candidate(page, None, "", load_pack("ko"))
