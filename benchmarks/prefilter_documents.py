"""The prefilter on pages of more languages than the sample crawl has: documentation out of Debian packages.

    python benchmarks/prefilter_documents.py --packages FOLDER --fetch      # apt-get download, about 110 MB
    python benchmarks/prefilter_documents.py --packages FOLDER [--half held-out] [--language zh ko ...]

What it is, and is not: pages that people wrote and translated, but all of them manuals of software, well-made
HTML in UTF-8, some of them untranslated under the folder of a translation. Manual pages (roff) are put into a
plain HTML frame here. Some of the packages are those of the sample crawl, too. The reference is the full path
(decoded, extracted, identified), as in `benchmarks/prefilter.py`, not the folder. Every folder of a package
gives at most `--each` pages, chosen by a hash of their path; another bit of the hash halves them: rules and
lists of characters were chosen on the half `chosen` and the sample crawl, `held-out` was measured only.

Measured in three forms: as they are; undeclared, with every declaration of language and charset taken out,
which leaves the text alone to tell; and for packs with legacy encodings undeclared in these, each page in the
first that has all its characters (pages that none has are left out). Short texts count in full; the last
column leaves out pages whose main text has less than 50 characters, of which an identifier says little.
Nothing fetched is kept in the repository.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import io
import re
import subprocess
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import extract
from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.prefilter import is_candidate
from tsugiki.corpus.prefilter_quality import Quality
from tsugiki.languages import LanguagePack, load_pack, pack_codes

PACKAGES = [
    "apache2-doc",
    "aptitude-doc-fi",
    "debian-faq-de",
    "debian-faq-ko",
    "debian-faq-zh-cn",
    "debian-handbook",
    "debian-reference-de",
    "debian-reference-en",
    "debian-reference-zh-cn",
    "debian-reference-zh-tw",
    "developers-reference-de",
    "installation-guide-amd64",
    "kicad-doc-zh",
    "libreoffice-help-de",
    "libreoffice-help-en-us",
    "libreoffice-help-fi",
    "libreoffice-help-fr",
    "libreoffice-help-hi",
    "libreoffice-help-ko",
    "libreoffice-help-vi",
    "libreoffice-help-zh-cn",
    "libreoffice-help-zh-tw",
    "lilypond-doc-html-de",
    "lilypond-doc-html-zh",
    "linuxcnc-doc-zh-cn",
    "maint-guide",
    "maint-guide-de",
    "maint-guide-vi",
    "maint-guide-zh-cn",
    "maint-guide-zh-tw",
    "manpages-fi",
    "manpages-ja",
    "manpages-vi",
    "manpages-zh",
]

_DECLARATION = re.compile(
    rb"""\s(?:xml:)?lang\s*=\s*["']?[\w-]+["']?|<meta[^>]*(?:language|charset)[^>]*>""", re.IGNORECASE
)
_MANUAL = re.compile(r"/man/[^/]+/man\d/[^/]+\.gz$")
_ROFF_REQUEST = re.compile(r"[.'] *([A-Za-z]*|\\\") ?(.*)")
_ROFF_ESCAPE = re.compile(r"\\(?:f\[[^]]*\]|f\(..|f.|\(..|\[[^]]*\]|s[+-]?\d+|[&|^/,%:c]|(?=[-e .]))")
_FEW_CHARACTERS = 50
_HALVES = {"chosen": 0, "held-out": 1}


class Known(NamedTuple):
    """What the full path says of a page for one pack."""

    wanted: bool
    characters: int


def rendered(manual: str) -> str:
    """A manual page in HTML: headings and paragraphs; comments and layout are dropped."""
    parts = []
    for line in manual.splitlines():
        request = _ROFF_REQUEST.match(line)
        name, text = (request[1], request[2]) if request else ("", line)
        if name.startswith("\\") or name in {"de", "ds", "nr", "ie", "el", "if", "so", "ft", "in"}:
            continue
        text = html.escape(_ROFF_ESCAPE.sub("", text).replace("\\", "").strip('"'))
        if name == "TH":
            parts.append(f"<html><head><title>{text}</title></head><body>")
        elif name in {"SH", "SS"}:
            parts.append(f"<h2>{text}</h2><p>")
        elif name in {"PP", "P", "LP", "TP", "IP", "HP"}:
            parts.append(f"<p>{text}")
        else:
            parts.append(text)
    return "\n".join(parts)


def documents(package: Path, each: int, half: int | None = None) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of HTML and manual pages in a Debian package: of each folder at most `each`."""
    archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        pages = [item for item in tar if item.isfile() and item.size > 0]
        groups: defaultdict[tuple[str, ...], list[tarfile.TarInfo]] = defaultdict(list)
        for item in sorted(pages, key=lambda item: _hash(item.name)):
            if ".html" in item.name or _MANUAL.search(item.name):
                groups[Path(item.name).parent.parts[:7]].append(item)
        for items in groups.values():
            for item in items[:each]:
                file = tar.extractfile(item)
                if file is None or (half is not None and _hash(item.name)[-1] % 2 != half):
                    continue
                content = file.read()
                if _MANUAL.search(item.name):
                    content = rendered(gzip.decompress(content).decode("utf-8", "replace")).encode()
                yield item.name, content


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def known(body: bytes, pack: LanguagePack) -> Known:
    """Whether the full path says that the page is in the language, and the characters of its main text."""
    decoded = decode(body, None, pack)
    text = extract(decoded.text, "resiliparse").text if decoded else ""
    return Known(bool(text) and is_language(identify(text, pack), pack), len(text))


def in_legacy_encoding(body: bytes, pack: LanguagePack) -> bytes | None:
    """The page in the first of the pack's legacy encodings that has all its characters; None if none has."""
    text = body.decode("utf-8", "replace").lstrip("\ufeff")
    for codec in reversed(pack.decoding.legacy_encodings):  # gb18030 has every character: the narrow first
        try:
            return text.encode(codec)
        except UnicodeEncodeError:
            continue
    return None


def compare(answers: Sequence[bool], truth: Sequence[Known], least: int) -> Quality:
    """Quality on the pages whose main text has at least `least` characters."""
    kept = [
        (answer, page.wanted) for answer, page in zip(answers, truth, strict=True) if page.characters >= least
    ]
    right = sum(answer and wanted for answer, wanted in kept)
    needless = sum(answer and not wanted for answer, wanted in kept)
    missed = sum(wanted and not answer for answer, wanted in kept)
    return Quality(right, needless, missed, len(kept))


def report(name: str, bodies: Sequence[bytes], truth: Sequence[Known], pack: LanguagePack) -> None:
    """Print a line."""
    start = time.process_time()
    answers = [is_candidate(body, None, "", pack) for body in bodies]
    rate = len(bodies) / (time.process_time() - start)
    whole, told = (compare(answers, truth, least) for least in (0, _FEW_CHARACTERS))
    print(
        f"  {pack.code} {name:<12} precision {whole.precision:.3f}  recall {whole.recall:.3f}  "
        f"F1 {whole.f1:.3f} (right {whole.right}, needless {whole.needless}, missed {whole.missed})  "
        f"{rate:>8,.0f} pages/s  F1 of longer texts {told.f1:.3f}",
        flush=True,
    )


def main() -> None:
    """Print a line for each pack and form."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="a folder of .deb files")
    parser.add_argument("--fetch", action="store_true", help="download the packages into it, and end")
    parser.add_argument("--each", type=int, default=60)
    parser.add_argument("--half", choices=_HALVES, help="both by default")
    parser.add_argument("--language", nargs="*", help="codes of packs; all by default")
    options = parser.parse_args()
    if options.fetch:
        options.packages.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=options.packages, check=True)
        return
    half = _HALVES.get(options.half)
    pages = [
        body
        for package in sorted(options.packages.glob("*.deb"))
        for _, body in documents(package, options.each, half)
    ]
    stripped = [_DECLARATION.sub(b" ", body) for body in pages]
    print(f"{len(pages)} pages, {sum(map(len, pages)) / len(pages):,.0f} bytes each")
    for code in options.language or pack_codes():
        pack = load_pack(code)
        truth = [known(body, pack) for body in pages]
        report("as they are", pages, truth, pack)
        report("undeclared", stripped, truth, pack)
        legacy = [body for page in stripped if (body := in_legacy_encoding(page, pack)) is not None]
        if legacy:
            report("legacy", legacy, [known(body, pack) for body in legacy], pack)


if __name__ == "__main__":
    main()
