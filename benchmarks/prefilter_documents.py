"""The prefilter on pages of more languages than the sample crawl has: documentation out of Debian packages.

    apt-get download debian-handbook installation-guide-amd64 apache2-doc libreoffice-help-{de,ko,vi} ...
    python benchmarks/prefilter_documents.py --packages FOLDER [--each 40] [--language de ko ...]

What it is, and is not: real pages that people wrote and translated, but all of them manuals of software,
well-made HTML in UTF-8, some of them untranslated under the folder of a translation. Some of the packages are
those of the sample crawl, too. The reference is the full path (decoded, extracted, identified), as in
`benchmarks/prefilter.py`, not the folder. Every package gives at most `--each` pages of a folder, chosen by a
hash of their path. Measured twice: as they are, and with every declaration of language and charset taken out,
which leaves the text alone to tell. Short texts count in full; the last column leaves out pages whose main
text has less than 50 letters, of which an identifier says little.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import tarfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import extract
from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.prefilter import is_candidate
from tsugiki.corpus.prefilter_quality import Quality
from tsugiki.languages import LanguagePack, load_pack, pack_codes

_DECLARATION = re.compile(
    rb"""\s(?:xml:)?lang\s*=\s*["']?[\w-]+["']?|<meta[^>]*(?:language|charset)[^>]*>""", re.IGNORECASE
)
_FEW_LETTERS = 50


def documents(package: Path, each: int) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of HTML pages in a Debian package: of each two upper folders at most `each`."""
    archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [item for item in tar if item.isfile() and ".html" in item.name and item.size > 0]
        groups: defaultdict[tuple[str, ...], list[tarfile.TarInfo]] = defaultdict(list)
        for item in sorted(members, key=lambda item: hashlib.sha256(item.name.encode()).digest()):
            groups[Path(item.name).parts[:7]].append(item)
        for items in groups.values():
            for item in items[:each]:
                file = tar.extractfile(item)
                if file is not None:
                    yield item.name, file.read()


def wanted(body: bytes, pack: LanguagePack) -> tuple[bool, int]:
    """Whether the full path says that the page is in the language, and the letters of its main text."""
    decoded = decode(body, None, pack)
    text = extract(decoded.text, "resiliparse").text if decoded else ""
    return bool(text) and is_language(identify(text, pack), pack), len(text)


def measure(bodies: Sequence[bytes], truth: Sequence[tuple[bool, int]], pack: LanguagePack) -> list[Quality]:
    """Quality on all pages, and on those whose main text has letters enough."""
    answers = [is_candidate(body, None, "", pack) for body in bodies]
    found = []
    for least in (0, _FEW_LETTERS):
        kept = [
            (answer, known) for answer, (known, size) in zip(answers, truth, strict=True) if size >= least
        ]
        right = sum(answer and known for answer, known in kept)
        needless = sum(answer and not known for answer, known in kept)
        missed = sum(known and not answer for answer, known in kept)
        found.append(Quality(right, needless, missed, len(kept)))
    return found


def main() -> None:
    """Print a line for each pack and variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--packages", type=Path, required=True, help="a folder of .deb files")
    parser.add_argument("--each", type=int, default=40)
    parser.add_argument("--language", nargs="*", help="codes of packs; all by default")
    options = parser.parse_args()
    pages = [
        body
        for package in sorted(options.packages.glob("*.deb"))
        for _, body in documents(package, options.each)
    ]
    stripped = [_DECLARATION.sub(b" ", body) for body in pages]
    print(f"{len(pages)} pages, {sum(map(len, pages)) / len(pages):,.0f} bytes each")
    for code in options.language or pack_codes():
        pack = load_pack(code)
        truth = [wanted(body, pack) for body in pages]
        for name, bodies in (("as they are", pages), ("undeclared", stripped)):
            whole, told = measure(bodies, truth, pack)
            start = time.process_time()
            for body in bodies:
                is_candidate(body, None, "", pack)
            rate = len(bodies) / (time.process_time() - start)
            print(
                f"  {code} {name:<12} precision {whole.precision:.3f}  recall {whole.recall:.3f}  "
                f"F1 {whole.f1:.3f} (right {whole.right}, needless {whole.needless}, "
                f"missed {whole.missed})  {rate:>8,.0f} pages/s  F1 of longer texts {told.f1:.3f}"
            )


if __name__ == "__main__":
    main()
