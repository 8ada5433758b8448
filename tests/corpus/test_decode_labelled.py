"""Decoding measured on pages whose encoding is known, because the benchmark encoded them."""

import runpy
import unicodedata
from pathlib import Path

import pytest

from tsugiki.corpus.decode import decode, plausibility
from tsugiki.languages import load_pack

ROOT = Path(__file__).parents[2]
JA = load_pack("ja")


@pytest.fixture(scope="module")
def benchmark():
    return runpy.run_path(str(ROOT / "benchmarks" / "decoding.py"))


def test_decode_is_right_on_99_5_percent_of_the_labelled_set(benchmark):
    counts, wrong = benchmark["measure"](ROOT / "examples" / "crawl", 20)
    total = sum(counts.values())
    assert total > 1800
    assert {codec for codec, _ in counts} >= {
        "utf_8",
        "cp932",
        "euc_jp",
        "iso2022_jp",
        "gb18030",
        "cp949",
        "cp1252",
    }
    assert {kind for _, kind in counts} >= {"undeclared", "header", "meta", "wrong", "short", "cut"}
    assert len(wrong) <= 0.005 * total, [(page.codec, page.kind) for page in wrong]


def test_a_right_declaration_is_never_lost(benchmark):
    _, wrong = benchmark["measure"](ROOT / "examples" / "crawl", 40)
    assert [page for page in wrong if page.kind in {"header", "meta"}] == []


@pytest.mark.parametrize("name", ["ja-kana", "ja-nec", "ja-0212"])
@pytest.mark.parametrize("codec", ["cp932", "euc_jp", "iso2022_jp"])
@pytest.mark.parametrize("declared", [None, "utf-8", "iso-8859-1"])
def test_decode_of_special_japanese_characters(benchmark, name, codec, declared):
    page = f"<html><body><p>{benchmark['TEXTS'][name]}</p></body></html>"
    body = benchmark["encoded"](page, codec)
    decoded = decode(body, declared, JA)
    assert decoded is not None
    assert decoded.text == body.decode("iso2022_jp_ext" if codec == "iso2022_jp" else codec)


@pytest.mark.parametrize("declared", [None, "windows-1258", "iso-8859-1", "utf-8"])
def test_decode_of_vietnamese_puts_letters_and_tone_marks_together(benchmark, declared):
    page = f"<html><body><p>{benchmark['TEXTS']['vi']}</p></body></html>"
    decoded = decode(benchmark["encoded"](page, "cp1258"), declared, load_pack("vi"))
    assert decoded is not None
    assert decoded.text == unicodedata.normalize("NFC", page)


def test_decode_of_a_page_cut_within_a_character_replaces_that():
    for codec in ("utf-8", "cp932", "euc_jp", "iso2022_jp"):
        body = ("本書の設定を編集します。" * 20).encode(codec)
        for cut in range(1, 6):
            decoded = decode(body[:-cut], None, JA)
            assert decoded is not None
            assert decoded.text.startswith("本書の設定を編集します。" * 19)
            assert decoded.replaced <= 1


def test_a_japanese_page_under_a_chinese_pack_keeps_its_declared_encoding():
    text = "設定ファイルを編集して、もう一度はじめから起動します。" * 9
    for codec, label in (("cp932", "Shift_JIS"), ("euc_jp", "EUC-JP")):
        decoded = decode(text.encode(codec), label, load_pack("zh"))
        assert decoded is not None
        assert decoded.text == text


def test_text_of_another_language_is_no_undeclared_chinese():
    text = "設定ファイルを編集して、もう一度はじめから起動します。" * 9
    decoded = decode(text.encode("cp932"), None, load_pack("zh"))
    assert decoded is None or decoded.encoding not in {"gb18030", "big5"}


def test_plausibility_counts_half_width_kana_only_where_kana_are_rare():
    assert plausibility("ﾃｽﾄﾃﾞｽ", JA) < -1
    assert plausibility("ﾃｽﾄを行います。", JA) > 0.5


@pytest.mark.parametrize("declared", [None, "utf-8", "iso-8859-1", "iso-8859-15"])
def test_decode_of_german_with_euro_signs_is_latin_9_and_without_them_the_same_as_latin_1(declared):
    priced = "<p>Das kostet 25 €, für Schüler 12 €. Die Überweisung dauert zwei Tage.</p>" * 3
    plain = priced.replace("€", "Euro")
    pack = load_pack("de")
    for text, codec in ((priced, "iso8859_15"), (plain, "iso8859_15"), (plain, "cp1252")):
        decoded = decode(text.encode(codec), declared, pack)
        assert decoded is not None
        assert decoded.text == text
    if declared != "iso-8859-15":
        decoded = decode(priced.encode("cp1252"), declared, pack)
        assert decoded is not None
        assert decoded.text == priced


def test_undeclared_japanese_in_euc_is_not_read_as_chinese_in_big5():
    text = (
        "サーバに接続すると、ファイルの一覧が表示されます。設定を変更するには、メニューから選択してください。"
        * 4
    )
    decoded = decode(text.encode("euc_jp"), None, load_pack("zh"))
    assert decoded is None or decoded.encoding not in {"big5", "gb18030"}


def test_decode_for_another_languages_pack_is_right_on_99_5_percent(benchmark):
    counts = benchmark["across"](ROOT / "examples" / "crawl", 80)
    total = sum(found.total() for found in counts.values())
    assert total > 500
    assert sum(found["right"] for found in counts.values()) >= 0.995 * total, counts


@pytest.mark.parametrize("code", ["zh", "ko", "de", "en", "vi"])
@pytest.mark.parametrize("codec", ["cp932", "euc_jp"])
def test_undeclared_japanese_is_read_as_japanese_whatever_the_pack(code, codec):
    text = "サーバに接続すると、ファイルの一覧が表示されます。設定を変更するには、メニューから選択します。"
    decoded = decode(text.encode(codec), None, load_pack(code))
    assert decoded is not None
    assert decoded.text == text


def test_euro_signs_behind_a_long_text_still_tell_latin_9_from_latin_1():
    text = "<p>Die Überweisung dauert zwei Tage.</p>" * 1500 + "<p>Das kostet 25 €.</p>" * 5
    decoded = decode(text.encode("iso8859_15"), None, load_pack("de"))
    assert decoded is not None
    assert decoded.text == text


def test_undeclared_cyrillic_is_not_read_as_latin_letters():
    text = "Отредактируйте файл настроек и запустите программу снова. " * 4
    for code in ("en", "de", "vi"):
        decoded = decode(text.encode("cp1251"), None, load_pack(code))
        assert decoded is None or not decoded.encoding.startswith(("windows-1252", "cp1258", "iso8859"))
