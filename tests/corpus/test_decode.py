"""Which encoding is a page in? Right, wrong and missing declarations; damage; other languages' pages."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus.decode import codec_of, declared_charset, decode, plausibility
from tsugiki.languages import load_pack

JA = load_pack("ja")
EN = load_pack("en")
JAPANESE = "<p>本書の設定ファイルを編集して、もう一度はじめから起動します。ソフトウェアの説明です。</p>"
LEGACY = {"cp932": "shift_jis", "euc_jp": "euc-jp", "iso2022_jp": "iso-2022-jp"}


def html(text, meta=None):
    head = f'<meta http-equiv="Content-Type" content="text/html; charset={meta}">' if meta else ""
    return f"<html><head>{head}<title>x</title></head><body>{text}</body></html>"


@pytest.mark.parametrize("codec", LEGACY)
@pytest.mark.parametrize(
    "declared", [None, "right", "utf-8", "iso-8859-1", "EUC-JP", "Shift_JIS", "nonsense"]
)
@pytest.mark.parametrize("where", ["header", "meta"])
def test_decode_of_a_legacy_page_finds_its_encoding_whatever_is_declared(codec, declared, where):
    label = LEGACY[codec] if declared == "right" else declared
    page = html(JAPANESE, label if where == "meta" else None)
    decoded = decode(page.encode(codec), label if where == "header" else None, JA)
    assert decoded is not None
    assert decoded.encoding == LEGACY[codec]
    assert decoded.text == page
    assert decoded.replaced == 0


@pytest.mark.parametrize("label", [None, "utf-8", "Shift_JIS", "iso-8859-1"])
def test_decode_of_utf8_beats_any_other_declaration(label):
    decoded = decode(html(JAPANESE, label).encode(), label, JA)
    assert decoded is not None
    assert decoded.encoding == "utf-8"
    assert decoded.text == html(JAPANESE, label)


@pytest.mark.parametrize(
    ("codec", "name"), [("utf-8-sig", "utf-8"), ("utf-16", "utf-16-le"), ("utf-16-be", None)]
)
def test_decode_of_a_byte_order_mark_believes_it(codec, name):
    mark = b"" if name else b"\xfe\xff"
    decoded = decode(mark + JAPANESE.encode(codec), "Shift_JIS", JA)
    assert decoded is not None
    assert decoded.encoding == (name or "utf-16-be")
    assert decoded.text == JAPANESE


@pytest.mark.parametrize(
    ("code", "codec", "text"),
    [
        ("ko", "cp949", "설정 파일을 편집하고 다시 시작합니다."),
        ("zh", "gb18030", "编辑配置文件并重新启动，这是系统的说明。"),
        ("zh", "big5hkscs", "編輯設定檔並且重新啟動，這是系統的說明。"),
        ("en", "cp1252", "“Edit” the configuration file — it’s quick."),
        ("de", "cp1252", "Bearbeiten Sie die Konfigurationsdatei über das Menü."),
    ],
)
def test_decode_without_declaration_uses_the_legacy_encodings_of_the_pack(code, codec, text):
    decoded = decode(html(text).encode(codec), None, load_pack(code))
    assert decoded is not None
    assert decoded.text == html(text)


def test_decode_of_another_languages_declared_encoding_keeps_to_the_declaration():
    text = html("Отредактируйте файл настроек и запустите программу снова.", "windows-1251")
    decoded = decode(text.encode("cp1251"), None, JA)
    assert decoded is not None
    assert decoded.text == text


def test_decode_of_a_page_with_a_stray_byte_replaces_it_and_counts_it():
    page = html(JAPANESE * 20)
    for codec, name in (("utf-8", "utf-8"), ("euc_jp", "euc-jp")):
        body = page.encode(codec)
        decoded = decode(body.replace(b"</p>", b"\xff</p>", 1), name, JA)
        assert decoded is not None
        assert (decoded.encoding, decoded.replaced) == (name, 1)


def test_decode_of_noise_gives_up():
    assert decode(bytes(range(128, 256)) * 40, None, JA) is None


def test_decode_of_ascii_needs_no_declaration():
    decoded = decode(b"<html>plain</html>", "Shift_JIS", JA)
    assert decoded is not None
    assert decoded.encoding == "utf-8"


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("Shift_JIS", "cp932"),
        ("x-sjis", "cp932"),
        ("Windows-31J", "cp932"),
        (" 'UTF-8' ", "utf_8"),
        ("gb2312", "gb18030"),
        ("ISO-8859-1", "cp1252"),
        ("euc-kr", "cp949"),
        ("rot13", None),
        ("base64", None),
        ("punycode", None),
        ("utf-7", None),
        ("undefined", None),
        ("no-such", None),
        ("\0", None),
        ("", None),
        (None, None),
    ],
)
def test_codec_of_reads_labels_as_browsers_do(label, codec):
    assert codec_of(label) == codec


@pytest.mark.parametrize(
    ("head", "label"),
    [
        (b"<meta charset=utf-8>", "utf-8"),
        (b"<META HTTP-EQUIV='x' content=\"text/html;charset=EUC-JP\">", "EUC-JP"),
        (b'<?xml version="1.0" encoding="Shift_JIS"?><html>', "Shift_JIS"),
        (b"<html><p>charset=utf-8", None),
    ],
)
def test_declared_charset_reads_meta_and_xml_declarations(head, label):
    assert declared_charset(head) == label


def test_plausibility_ranks_japanese_above_mojibake():
    right = plausibility(JAPANESE, JA)
    wrong = plausibility(JAPANESE.encode("euc_jp").decode("cp932", "replace"), JA)
    assert right > 0.7
    assert wrong < 0
    assert plausibility("ascii", JA) == 0.0


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=300), label=st.none() | st.text(max_size=12), japanese=st.booleans())
def test_decode_of_any_bytes_gives_text_without_surrogates_or_nothing(body, label, japanese):
    decoded = decode(body, label, JA if japanese else EN)
    if decoded is not None:
        decoded.text.encode("utf-8")
