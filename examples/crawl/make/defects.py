"""Turn chosen pages into what servers answer: re-encoded, mislabelled, copied, moved, empty.

Every decision is taken from a hash of the URL, so a second run makes the same ones.
"""

from __future__ import annotations

import gzip
import html
import re
import struct
import zlib
from dataclasses import dataclass, field, replace

import plain
from choose import Page, rank
from sites import Site

META = re.compile(r"<meta[^>]*charset[^>]*>", re.IGNORECASE)
XML_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>\s*")
CHUNKED, CHUNKED_OR_PACKED = 3, 5  # per cent of the pages
PARAGRAPH = re.compile(r"<(p|li|dd)\b[^>]*>(?:(?!<(?:p|li|dd)\b).)*?</\1>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What the server says for one URL, and the truth about it."""

    url: str
    body: bytes
    language: str = ""
    kind: str = "page"
    encoding: str = ""
    http_charset: str = ""
    meta_charset: str = ""
    of: str = ""
    similarity: str = ""
    note: str = ""
    status: int = 200
    content_type: str = "text/html"
    extra: tuple[tuple[str, str], ...] = field(default=())
    chunked: bool = False


@dataclass(frozen=True)
class Recipe:
    """True encoding, the charset in the HTTP header, the one in the page; "" is none."""

    encoding: str
    http: str
    meta: str
    note: str


# label, share in per cent of the Japanese pages, recipe
JAPANESE = (
    (4, Recipe("cp932", "Shift_JIS", "Shift_JIS", "re-encoded")),
    (4, Recipe("euc_jp", "EUC-JP", "EUC-JP", "re-encoded")),
    (3, Recipe("iso2022_jp", "ISO-2022-JP", "ISO-2022-JP", "re-encoded")),
    (2, Recipe("cp932", "", "x-sjis", "charset missing from the header")),
    (2, Recipe("euc_jp", "", "", "charset missing everywhere")),
    (1, Recipe("cp932", "", "", "charset missing everywhere")),
    (1, Recipe("iso2022_jp", "", "", "charset missing everywhere")),
    (2, Recipe("cp932", "UTF-8", "Shift_JIS", "wrong charset in the header")),
    (1, Recipe("euc_jp", "EUC-JP", "Shift_JIS", "wrong charset in the page")),
    (1, Recipe("cp932", "UTF-8", "UTF-8", "wrong charset everywhere")),
    (1, Recipe("euc_jp", "ISO-8859-1", "Shift_JIS", "wrong charset everywhere")),
    (2, Recipe("utf-8", "ISO-8859-1", "utf-8", "wrong charset in the header")),
    (2, Recipe("utf-8", "", "", "charset missing everywhere")),
    (1, Recipe("utf-8", "UTF-8", "Shift_JIS", "wrong charset in the page")),
    (1, Recipe("utf-8-sig", "", "", "byte order mark only")),
    (1, Recipe("utf-16", "UTF-16", "", "UTF-16 with a byte order mark")),
)
OTHERS = {
    "zh": ((15, Recipe("gb18030", "GB2312", "gb2312", "re-encoded")),
           (10, Recipe("gb18030", "", "", "charset missing everywhere"))),
    "ko": ((15, Recipe("cp949", "EUC-KR", "euc-kr", "re-encoded")),
           (10, Recipe("cp949", "", "", "charset missing everywhere"))),
    "de": ((15, Recipe("cp1252", "ISO-8859-1", "iso-8859-1", "re-encoded")),
           (10, Recipe("cp1252", "", "", "charset missing everywhere"))),
    "en": ((3, Recipe("cp1252", "ISO-8859-1", "iso-8859-1", "re-encoded")),
           (3, Recipe("utf-8", "", "", "charset missing everywhere"))),
    "ja": JAPANESE,
}  # fmt: skip


def lot(key: str, many: int = 100) -> int:
    """A number below `many`, always the same for the same key."""
    return int(rank(key)[:12], 16) % many


def _recipe(language: str, url: str) -> Recipe:
    drawn = lot("encoding " + url)
    for share, recipe in OTHERS[language]:
        drawn -= share
        if drawn < 0:
            return recipe
    return Recipe("utf-8", "UTF-8", "utf-8", "")


def encode(text: str, encoding: str) -> bytes:
    """The text in an encoding; what it lacks as character references."""
    return text.encode(encoding, "xmlcharrefreplace")


def declare(text: str, charset: str) -> str:
    """The page with exactly this charset in its meta element, or with none."""
    text = META.sub("", XML_DECLARATION.sub("", text))
    if not charset:
        return text
    meta = f'<meta http-equiv="Content-Type" content="text/html; charset={charset}">'
    declared, done = re.subn(r"(<head\b[^>]*>)", rf"\1{meta}", text, count=1, flags=re.IGNORECASE)
    return declared if done else meta + text


def answer(site: Site, page: Page) -> Answer:
    """The answer for a page, re-encoded or mislabelled if its URL drew so."""
    url = f"http://{site.host}/{page.path}"
    text, recipe = plain.decode(page.body), _recipe(site.language, url)
    kind = "navigation" if page.navigation else "page"
    body = page.body
    if recipe.note:
        body = encode(declare(text, recipe.meta), recipe.encoding)
    elif not re.search(rb"charset=[\"']?utf-?8", body[:3000], re.IGNORECASE):
        body = declare(text, "utf-8").encode()
    made = Answer(url, body, site.language, kind, recipe.encoding, recipe.http, recipe.meta, note=recipe.note)
    if (drawn := lot("transfer " + url)) < CHUNKED:
        return replace(made, chunked=True, note=_join(made.note, "chunked"))
    if drawn < CHUNKED_OR_PACKED:
        packed = gzip.compress(body, 9, mtime=0)
        coding = (("Content-Encoding", "gzip"),)
        return replace(made, body=packed, extra=coding, note=_join(made.note, "content-encoding gzip"))
    return made


def _join(*notes: str) -> str:
    return "; ".join(n for n in notes if n)


# ---------------------------------------------------------------- copies

BANNER = '<div class="session">{user} | {when} | <a href="/logout?sid={sid}">{out}</a></div>'
WORDS = {
    "ja": (
        "ようこそ、ゲストさん",
        "ログアウト",
        "このページはミラーサイトの写しです。原本はリンク先をご覧ください。",
        "最終更新",
        "この節はまだ書かれていません。次の版で書き足します。",
    ),
    "en": (
        "Welcome, guest",
        "Log out",
        "This is a copy on a mirror site. See the original for the current text.",
        "Last changed",
        "This section has not been written yet. It will follow in the next version.",
    ),
}


def _session(text: str, language: str, url: str) -> str:
    sid, words = rank(url)[:16], WORDS[language]
    when = f"2023-{lot('month' + url, 12) + 1:02}-{lot('day' + url, 28) + 1:02}"
    banner = BANNER.format(user=words[0], when=when, sid=sid, out=words[1])
    return re.sub(r"(<body[^>]*>)", lambda m: m.group(1) + banner, text, count=1, flags=re.IGNORECASE)


def _mirrored(text: str, language: str, url: str) -> str:
    words = WORDS[language]
    head = f'<div class="mirror"><p>{words[2]}</p></div>'
    foot = f"<div><p>{words[3]}: 2021-0{lot(url, 9) + 1}-11</p><p>{words[2]}</p></div>"
    text = re.sub(r"<title>([^<]*)</title>", r"<title>\1 (mirror)</title>", text, count=1)
    text = re.sub(r"(<body[^>]*>)", lambda m: m.group(1) + head, text, count=1, flags=re.IGNORECASE)
    return re.sub(r"(</body>)", lambda m: foot + m.group(1), text, count=1, flags=re.IGNORECASE)


def _older(text: str, language: str, url: str) -> str:
    """An older version: some paragraphs are not there yet, one reads otherwise, years are lower."""
    found = list(PARAGRAPH.finditer(text))
    one_in = 8 + lot("age " + url, 18)
    for i, match in reversed(list(enumerate(found))):
        if i == lot("rewritten " + url, len(found)):
            text = text[: match.start()] + f"<p>{WORDS[language][4]}</p>" + text[match.end() :]
        elif lot(url + str(match.start()), one_in) == 0:
            text = text[: match.start()] + text[match.end() :]
    return re.sub(r"\b20([12])(\d)\b", lambda m: f"20{m.group(1)}{(int(m.group(2)) + 9) % 10}", text)


LARGEST_COPY, SHORTEST_COPY = 9_000, 800  # packed bytes; characters
EXACT, EXACT_OR_NEAR = 4, 11  # per cent of the pages that have a copy
NEAR = (("session banner", _session), ("mirror", _mirrored), ("older version", _older))


def copies(site: Site, page: Page, made: Answer) -> list[Answer]:
    """The exact and near duplicates of a page, for the few that have any."""
    if (
        site.language not in WORDS
        or page.navigation
        or len(page.text) < SHORTEST_COPY
        or made.extra
        or page.packed > LARGEST_COPY
    ):
        return []
    drawn = lot("copy " + made.url)
    if drawn < EXACT:
        where = (f"http://{site.host}/print/{page.path}", f"http://archive.{site.host}/{page.path}")
        same = replace(made, chunked=False, note=_join("exact copy", made.note.replace("chunked", "")))
        return [replace(same, url=where[drawn % 2], kind="exact-duplicate", of=made.url, similarity="1.000")]
    if drawn >= EXACT_OR_NEAR:
        return []
    name, change = NEAR[drawn % 3]
    host = f"mirror.{site.host}" if name == "mirror" else site.host
    folder = {"session banner": "member", "mirror": "pub", "older version": "2021"}[name]
    url = f"http://{host}/{folder}/{page.path}"
    text = change(plain.decode(page.body), site.language, url)
    near = answer(site, replace(page, body=declare(text, "utf-8").encode(), path=f"{folder}/{page.path}"))
    alike = plain.similarity(page.text, plain.text_of(text))
    return [replace(near, url=url, kind="near-duplicate", of=made.url,
                    similarity=f"{alike:.3f}", note=_join(name, near.note))]  # fmt: skip


# ---------------------------------------------------------------- what is not a page


def png() -> bytes:
    """A PNG image of eight by eight pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes([200, 60, 20]) * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))  # fmt: skip


PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Count 0/Kids[]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
CSS = b"body { margin: 0 auto; max-width: 45em; }\n.bar { background: #eee; }\n"


def _moved(base: str, pages: list[Answer]) -> list[Answer]:
    targets = [p for p in pages if p.kind == "page"][:2]
    out = []
    for target, status in zip(targets, (301, 302), strict=False):
        body = f'<html><head><title>Moved</title></head><body><a href="{target.url}">here</a></body></html>'
        url = f"{base}/old/{lot(target.url, 1000)}"
        moved = Answer(url, body.encode(), "", "redirect", "ascii", "UTF-8", of=target.url, status=status)
        out.append(replace(moved, extra=(("Location", target.url),)))
    return out


def oddities(site: Site, pages: list[Answer], number: int) -> list[Answer]:
    """Redirects on every site; on some an empty body, images, texts and other types."""
    base = f"http://{site.host}"
    readable = [p for p in pages if p.encoding == "utf-8" and not p.extra]
    text = plain.text_of(plain.decode(readable[0].body)) if readable else site.title
    encoding = "euc_jp" if site.language == "ja" else "utf-8"
    made = [*_moved(base, pages), Answer(f"{base}/style.css", CSS, kind="non-html", content_type="text/css")]
    menu = (
        Answer(f"{base}/empty.html", b"", kind="empty", note="200 with no body"),
        Answer(f"{base}/logo.png", png(), kind="non-html", content_type="image/png"),
        Answer(f"{base}/guide.pdf", PDF, kind="non-html", content_type="application/pdf"),
        Answer(f"{base}/readme.txt", encode(text[:3000], encoding), site.language, "non-html", encoding,
               content_type="text/plain"),
        Answer(f"{base}/data.json", b'{"title": "sample", "pages": [1, 2, 3]}', kind="non-html",
               content_type="application/json"),
        Answer(f"{base}/logo.html", png(), kind="non-html", note="an image labelled as HTML"),
        Answer(f"{base}/blank.html", b"<html><head><title></title></head><body> </body></html>", kind="empty",
               encoding="ascii", note="a page without text"),
    )  # fmt: skip
    return [*made, menu[number % len(menu)]]


def listing(site: Site, host: str, answers: list[Answer]) -> Answer:
    """The front page of a host: links to all it has and, on a site's own host, to a page that is gone."""
    gone = [f"http://{host}/gone-{rank(host)[i]}{i}.html" for i in range(host == site.host)]
    urls = [a.url for a in answers] + gone
    rows = "\n".join(
        f'<li><a href="{html.escape(u)}">{html.escape(u.split("/", 3)[3])}</a></li>' for u in urls
    )
    page = (
        f'<!DOCTYPE html><html lang="{site.language}"><head><meta charset="utf-8">'
        f"<title>{site.title}</title></head><body><h1>{site.title}</h1>"
        f"<ul>\n{rows}\n</ul></body></html>"
    )
    return Answer(f"http://{host}/", page.encode(), site.language, "navigation", "utf-8", "UTF-8", "utf-8")
