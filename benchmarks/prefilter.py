"""Prefilter and language identification: how right and how fast, on an unfiltered crawl.

    python benchmarks/prefilter.py [--crawl "examples/crawl/*.warc.gz"] [--language ja ...] [--repeat 5]

The prefilter is compared with the full path (every page decoded, extracted, identified) on all pages and on
those whose main text has 50 characters, and with the language that each page has by construction where
`truth.csv` lies beside the crawl: of titles alone the identifier is often wrong. Identification is
compared with the library that it is compiled from, on the main texts: same labels, difference of scores, CPU
time. Rates are of one core, the best of the repetitions.
"""

from __future__ import annotations

import argparse
import csv
import glob
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import extract
from tsugiki.corpus.identify import compiled, library, sample_of
from tsugiki.corpus.prefilter import is_candidate
from tsugiki.corpus.prefilter_quality import measure, quality_of
from tsugiki.corpus.read import Page, Tally, read_warc
from tsugiki.languages import LanguagePack, load_pack, pack_codes

_FEW_CHARACTERS = 50


def best_seconds(function: Callable[[], object], repeat: int) -> float:
    """The least CPU time of `function`, after one call to warm up."""
    function()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def candidate(page: Page, pack: LanguagePack) -> bool:
    """What the prefilter says of a page."""
    return is_candidate(page.body, page.charset, page.url, pack, page.http_language)


def candidates(pages: Sequence[Page], pack: LanguagePack) -> list[bool]:
    """The same of many."""
    return [candidate(page, pack) for page in pages]


def known_languages(crawl: Path) -> dict[str, str]:
    """The language of each URL, from `truth.csv` in the crawl's folder; empty where there is none."""
    path = crawl / "truth.csv"
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["url"]: row["language"] for row in csv.DictReader(file)}


def bench_prefilter(
    pages: Sequence[Page], codes: Sequence[str], repeat: int, truth: Mapping[str, str]
) -> None:
    """Print precision, recall, F1 and the rate for each pack."""
    print(f"prefilter against the full path, {len(pages)} pages")
    for code in codes:
        pack = load_pack(code)
        found, longer = (measure(pages, pack, least_characters=least) for least in (0, _FEW_CHARACTERS))
        told = [(candidate(page, pack), truth[page.url] == code) for page in pages if page.url in truth]
        seconds = best_seconds(
            partial(candidates, pages, pack),
            repeat,
        )
        print(
            f"  {code}: precision {found.precision:.3f}  recall {found.recall:.4f}  F1 {found.f1:.3f}  "
            f"(right {found.right}, needless {found.needless}, missed {found.missed})  "
            f"{len(pages) / seconds:>9,.0f} pages/s  F1 of longer texts {longer.f1:.3f}"
            + (f"  of the known language {quality_of(told).f1:.3f}" if told else "")
        )


def bench_identify(pages: Sequence[Page], repeat: int) -> None:
    """Print how the compiled identifier compares with the library."""
    pack = load_pack("ja")
    bodies = [decode(page.body, page.charset, pack) for page in pages]
    texts = [text for body in bodies if body and (text := extract(body.text, "resiliparse").text)]
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    ours, theirs = compiled(model), library(model)
    if ours is None:
        raise SystemExit("this version of py3langid has other tables; the library is used as it is")
    labels = pack.identification.labels
    for what, chosen in (("whole texts", texts), ("as sampled", [sample_of(text) for text in texts])):
        pairs = [(ours(text, labels), theirs(text, labels)) for text in chosen]
        differing = sum(mine.label != other.label for mine, other in pairs)
        most = max(abs(mine.score - other.score) for mine, other in pairs)
        fast, slow = (
            best_seconds(lambda run=run, chosen=chosen: [run(text, labels) for text in chosen], count)
            for run, count in ((ours, repeat), (theirs, 1))
        )
        size = sum(len(text) for text in chosen) / len(chosen)
        print(
            f"identify, {what}, {len(chosen)} of {size:,.0f} characters: {len(chosen) / fast:,.0f} /s, "
            f"library {len(chosen) / slow:,.0f} /s, {slow / fast:.1f} x"
        )
        print(f"  labels that differ: {differing}; largest difference of scores: {most:.0e}")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crawl", default="examples/crawl/*.warc.gz")
    parser.add_argument("--language", nargs="*", help="codes of packs; all by default")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    files = [Path(name) for name in sorted(glob.glob(options.crawl))]  # noqa: PTH207 (absolute globs too)
    pages = [page for file in files for page in read_warc(file, Tally())]
    bench_prefilter(pages, options.language or pack_codes(), options.repeat, known_languages(files[0].parent))
    bench_identify(pages, options.repeat)


if __name__ == "__main__":
    main()
