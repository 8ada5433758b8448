# ruff: noqa: E501 (texts in wide characters)
"""How many pages are decoded right? On pages whose encoding is known, because we encoded them.

    python benchmarks/decoding.py [--crawl examples/crawl] [--every 1]

Pages of the sample crawl that are in UTF-8, and short texts for languages that it has none of, are encoded in
the legacy encodings of their language and then decoded again: without a declaration, with a right one in the
HTTP header or the page, with wrong ones, cut in the middle of a character, and the first 300 characters
alone. A page is right if its text is the one that went in.
"""

from __future__ import annotations

import argparse
import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tsugiki.corpus.decode import decode
from tsugiki.corpus.read import Tally, read_warc
from tsugiki.languages import LanguagePack, load_pack, pack_codes

CODECS = {
    "ja": ("utf_8", "cp932", "euc_jp", "iso2022_jp"),
    "zh": ("utf_8", "gb18030", "big5hkscs"),
    "ko": ("utf_8", "cp949"),
    "de": ("utf_8", "cp1252", "iso8859_15"),
    "en": ("utf_8", "cp1252"),
    "fi": ("utf_8", "cp1252", "iso8859_15"),
    "vi": ("utf_8", "cp1258"),
    "hi": ("utf_8",),
}
LABELS = {
    "utf_8": "utf-8", "cp932": "Shift_JIS", "euc_jp": "EUC-JP", "iso2022_jp": "ISO-2022-JP", "gb18030": "gb2312",
    "big5hkscs": "big5", "cp949": "euc-kr", "cp1252": "iso-8859-1", "iso8859_15": "iso-8859-15", "cp1258": "windows-1258",
}  # fmt: skip
WRONG = {
    "ja": ("utf-8", "iso-8859-1", "Shift_JIS", "EUC-JP"),
    "zh": ("utf-8", "iso-8859-1", "gb2312", "big5"),
    "ko": ("utf-8", "iso-8859-1"),
}
"""What pages claim to be and are not; all others claim UTF-8 or ISO-8859-1."""

TEXTS = {
    "vi": "Hệ thống tệp được gắn kết khi khởi động. Người dùng có thể chỉnh sửa cấu hình và khởi động lại dịch vụ. "
    "Tài liệu này mô tả cách cài đặt phần mềm trên máy tính của bạn, từng bước một, bằng tiếng Việt.",
    "fi": "Käyttöjärjestelmä käynnistyy uudelleen, kun asetuksia on muutettu. Tämä käyttöohje kertoo, miten ohjelma "
    "asennetaan työpöydälle. Älä sammuta tietokonetta kesken päivityksen. Ohjelma maksaa 25 €, ja siinä voi pelata šakkia tšekiksi.",
    "ko": "설정 파일을 편집하고 서비스를 다시 시작하십시오. 이 설명서는 프로그램을 설치하는 방법을 단계별로 설명합니다.",
    "hi": "यह पुस्तिका बताती है कि कार्यक्रम को कैसे स्थापित किया जाता है। कृपया सेटिंग फ़ाइल को संपादित करें और सेवा को फिर से शुरू करें।",
    "zh": "這本手冊說明如何安裝系統，並且介紹常用的設定。請先備份您的檔案，然後再繼續下一個步驟。如果安裝時發生錯誤，請參考後面的說明。",
    "ja-kana": "ﾃｽﾄ用のﾌｧｲﾙを作成しました。次の設定を確認してから、ﾌﾟﾛｸﾞﾗﾑを起動してください。詳しくは説明書をご覧ください。",
    "ja-nec": "①設定を開きます。②髙島屋の﨑山さんに連絡します。③℡番号は㈱山田製作所のものです。Ⅳ章を読みます。№5の㍉単位で測ってください。",
    "ja-0212": "丂这个は補助漢字の例です。森鷗外の本を読み、侏儒の言葉を写しました。説明の文章がこのあとに続きますので、お読みください。",
}
"""Further texts, by language and what is special in them: half-width kana, NEC and IBM extensions, JIS X 0212."""

_CHARSET = re.compile(r"<meta[^>]*charset[^>]*>|<\?xml[^>]*\?>", re.IGNORECASE)
SHORT = 300


@dataclass(frozen=True)
class Labelled:
    """One page: bytes, the header's charset, the right text, and what it is called in the table."""

    pack: str
    codec: str
    kind: str
    body: bytes
    http_charset: str | None
    text: str


def sources(crawl: Path, every: int) -> Iterator[tuple[str, str]]:
    """(language, page without declarations): every n-th UTF-8 page of the crawl, and the texts above."""
    with (crawl / "truth.csv").open(encoding="utf-8", newline="") as file:
        known = {row["url"]: row for row in csv.DictReader(file)}
    number = 0
    for path in sorted(crawl.glob("*.warc.gz")):
        for page in read_warc(path, Tally()):
            row = known.get(page.url)
            if row is None or row["encoding"] != "utf-8" or row["language"] not in CODECS:
                continue
            number += 1
            if number % every == 0:
                yield row["language"], _CHARSET.sub("", page.body.decode("utf-8"))
    for name, text in TEXTS.items():
        for count in (1, 4):
            language = name.partition("-")[0]
            yield (
                language,
                f"<html><head><title>{text[:12]}</title></head><body><p>{text * count}</p></body></html>",
            )


def encoded(page: str, codec: str) -> bytes:
    """The page in the encoding; what it lacks becomes character references."""
    if codec == "cp1258":  # its letters carry no tone marks: these follow as characters of their own
        page = "".join(_for_cp1258(character) for character in page)
    if codec == "euc_jp":  # as written by programs of the time: with JIS X 0212
        return page.encode("euc_jp", "xmlcharrefreplace")
    if codec == "iso2022_jp":
        return page.encode("iso2022_jp_ext", "xmlcharrefreplace")
    return page.encode(codec, "xmlcharrefreplace")


def _for_cp1258(character: str) -> str:
    try:
        character.encode("cp1258")
    except UnicodeEncodeError:
        parts = unicodedata.normalize("NFD", character)
        tone = next((part for part in parts[1:] if part in "\u0300\u0301\u0303\u0309\u0323"), "")
        return unicodedata.normalize("NFC", "".join(part for part in parts if part != tone)) + tone
    return character


def labelled(crawl: Path, every: int) -> Iterator[Labelled]:
    """The whole set."""
    for language, page in sources(crawl, every):
        for codec in CODECS[language]:
            label = LABELS[codec]
            meta = page.replace("<head>", f'<head><meta charset="{label}">', 1)
            wrong = [name for name in WRONG.get(language, ("utf-8", "iso-8859-1")) if name != label]
            cases = [
                ("undeclared", page, None),
                ("header", page, label),
                ("meta", meta, None),
                ("short", page[:SHORT] if not page[:SHORT].isascii() else page, None),
                *((f"wrong: {name}", page, name) for name in wrong),
            ]
            for kind, text, charset in cases:
                body = encoded(text, codec)
                yield Labelled(language, codec, kind, body, charset, _back(body, codec))
            body = encoded(page, codec)
            cut = body[: len(body) * 2 // 3 // 2 * 2 + 1]
            yield Labelled(language, codec, "cut", cut, None, _back(cut, codec))


def _back(body: bytes, codec: str) -> str:
    """What the bytes mean: decoded by the codec that they were made with."""
    if codec == "iso2022_jp":
        codec = "iso2022_jp_ext"
    text = body.decode(codec, "replace")
    return unicodedata.normalize("NFC", text) if codec == "cp1258" else text


def is_right(page: Labelled, packs: dict[str, LanguagePack]) -> bool:
    """Whether the page's text comes out; characters at a cut do not count."""
    decoded = decode(page.body, page.http_charset, packs[page.pack])
    return decoded is not None and decoded.text.rstrip("\ufffd") == page.text.rstrip("\ufffd")


def across(crawl: Path, every: int) -> dict[str, Counter[str]]:
    """Legacy pages decoded for every pack but their own: how many come out right, wrong and not at all."""
    packs = {code: load_pack(code) for code in CODECS}
    counts: dict[str, Counter[str]] = {code: Counter() for code in packs}
    for page in labelled(crawl, every):
        if page.codec == "utf_8":
            continue
        for code, pack in packs.items():
            if code == page.pack:
                continue
            decoded = decode(page.body, page.http_charset, pack)
            right = decoded is not None and decoded.text.rstrip("\ufffd") == page.text.rstrip("\ufffd")
            counts[code]["right" if right else "wrong" if decoded else "given up"] += 1
    return counts


def measure(
    crawl: Path, every: int, extra: Sequence[Path] = ()
) -> tuple[Counter[tuple[str, str]], list[Labelled]]:
    """Pages by (codec, kind of case), and the wrong ones. extra: further folders of packs."""
    packs = {code: load_pack(code, extra) for code in CODECS if code in pack_codes(extra)}
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for page in labelled(crawl, every):
        if page.pack not in packs:
            continue
        counts[page.codec, page.kind.partition(":")[0]] += 1
        if not is_right(page, packs):
            wrong.append(page)
    return counts, wrong


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crawl", type=Path, default=Path("examples/crawl"))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--packs", type=Path, action="append", default=[], help="a further folder of packs")
    parser.add_argument("--across", action="store_true", help="decode for the packs of other languages")
    options = parser.parse_args()
    if options.across:
        for code, found in across(options.crawl, options.every).items():
            print(f"for {code}: {dict(found)}, {100 * found['right'] / found.total():.2f} % right")
        return
    counts, wrong = measure(options.crawl, options.every, options.packs)
    missed = Counter((page.codec, page.kind.partition(":")[0]) for page in wrong)
    for codec in dict.fromkeys(codec for codec, _ in counts):
        all_of = sum(count for (name, _), count in counts.items() if name == codec)
        bad = sum(count for (name, _), count in missed.items() if name == codec)
        kinds = ", ".join(
            f"{kind} {count}" for (name, kind), count in sorted(missed.items()) if name == codec
        )
        print(f"{codec:<12}{all_of - bad:>6} of {all_of:<6} {100 * (1 - bad / all_of):6.2f} %  {kinds}")
    total = sum(counts.values())
    print(f"{'all':<12}{total - len(wrong):>6} of {total:<6} {100 * (1 - len(wrong) / total):6.2f} %")


if __name__ == "__main__":
    main()
