"""How well is the main text of a page found, and how fast? On pages whose main text is known.

    python benchmarks/extraction.py [--language ja --language en] [--texts 60] [--trafilatura-set FOLDER]

The pages are SYNTHETIC: real documentation text (paragraphs, headings and list items of the sample crawl's
manuals, taken out of their main-content element) is put into twelve site templates of our own
(extraction_templates.py). What is measured is how well an extractor tells such text from such surroundings;
the web has many more kinds of pages, so rank extractors by it, and expect lower values outside.

Scores are means over pages of precision, recall and F1 of tokens as multisets: words in languages with
spaces, pairs of neighbouring characters in those without (the pack says which). Rates are CPU time, one core.
`--trafilatura-set` scores the extractors on trafilatura's own evaluation set as well (`tests` of its
repository: evaldata.json beside `cache` and `eval`), by its own measure: which of the given segments of the
main text, and of the surroundings, are in the output. Only on the half of the pages (by hash of the file's
name) on which the block extractor was not fitted.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import html
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from extraction_templates import TEMPLATES, Filler
from resiliparse.parse.html import DOMNode, HTMLTree

from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import extract, tidy
from tsugiki.corpus.read import Tally, read_warc
from tsugiki.languages import LanguagePack, load_pack

Extract = Callable[[str], str]
LEAST_CHARACTERS = 600
MOST_BLOCKS = 60
_CONTAINERS = ("main", '[role="main"]')
_BLOCKS = "p, h2, h3, h4, li"
_INNER = {"p", "ul", "ol", "li", "table", "pre", "div", "dl"}


@dataclass(frozen=True)
class Truth:
    """A main text: its title, and its blocks as (element, text)."""

    title: str
    blocks: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """One block a line."""
        return "\n".join(text for _, text in self.blocks)

    def html(self) -> str:
        """The blocks as HTML; in every third paragraph a few characters are a link, as on real pages."""
        out = []
        for number, (tag, text) in enumerate(self.blocks):
            inner = html.escape(text)
            if tag == "p" and number % 3 == 0 and inner.isascii() is text.isascii() and "&" not in inner[:9]:
                inner = f'<a href="/x{number}">{inner[:8]}</a>{inner[8:]}'
            out.append(f"<ul><li>{inner}</li></ul>" if tag == "li" else f"<{tag}>{inner}</{tag}>")
        return "".join(out)


def truths(crawl: Path, pack: LanguagePack, most: int, files: str = "*.warc.gz") -> list[Truth]:
    """The main texts of `most` documentation pages in the language, chosen by the hash of their text."""
    with (crawl / "truth.csv").open(encoding="utf-8", newline="") as file:
        known = {row["url"]: row for row in csv.DictReader(file)}
    found: dict[str, Truth] = {}
    for path in sorted(crawl.glob(files)):
        for page in read_warc(path, Tally()):
            row = known.get(page.url)
            if row is None or row["language"] != pack.code or row["kind"] != "page":
                continue
            decoded = decode(page.body, page.charset, pack)
            truth = truth_of(decoded.text) if decoded else None
            if truth and len(truth.text) >= LEAST_CHARACTERS:
                found[hashlib.sha256(truth.text.encode()).hexdigest()] = truth
    return [found[key] for key in sorted(found)][:most]


def truth_of(page: str) -> Truth | None:
    """The blocks inside of the main-content element; None where there is none that we know."""
    tree = HTMLTree.parse(page)
    body = tree.body
    if body is None:
        return None
    container = next((node for name in _CONTAINERS if (node := body.query_selector(name))), None)
    if container is None:  # DocBook: everything between the two bars
        bars = body.query_selector_all(".navheader, .navfooter")
        if len(bars) == 0:
            return None
        container = body
        for bar in list(bars):
            bar.parent.remove_child(bar)
    blocks = []
    for node in container.query_selector_all(_BLOCKS):
        text = " ".join(node.text.split())
        if text and not _has_blocks(node):
            blocks.append((node.tag, text))
    return Truth(html.escape(tree.title or "-"), tuple(blocks[:MOST_BLOCKS])) if blocks else None


def _has_blocks(node: DOMNode) -> bool:
    return any(child.tag in _INNER for child in node.query_selector_all("*"))


def tokens(text: str, pack: LanguagePack) -> Counter[str]:
    """Words, or pairs of neighbouring characters within a line where there are no spaces."""
    if not pack.script.spaceless:
        return Counter(re.findall(r"\w+", text.lower()))
    lines = ("".join(line.split()) for line in text.split("\n"))
    return Counter(line[i : i + 2] for line in lines for i in range(max(1, len(line) - 1)) if line)


def score(truth: Counter[str], found: Counter[str]) -> tuple[float, float, float]:
    """Precision, recall and F1 of multisets."""
    common = sum((truth & found).values())
    precision = common / (sum(found.values()) or 1)
    recall = common / (sum(truth.values()) or 1)
    return precision, recall, 2 * precision * recall / ((precision + recall) or 1)


def whole_page(page: str) -> str:
    """All visible text: what an extractor must beat."""
    from resiliparse.extract.html2text import extract_plain_text

    return tidy(extract_plain_text(page, main_content=False, alt_texts=False, preserve_formatting=True))


EXTRACTORS: dict[str, Extract] = {
    "resiliparse": lambda page: extract(page, "resiliparse").text,
    "trafilatura": lambda page: extract(page, "trafilatura").text,
    "cascade": lambda page: extract(page, "cascade").text,
    "whole page": whole_page,
}


def synthetic(
    crawl: Path, pack: LanguagePack, most: int, files: str = "*.warc.gz"
) -> Iterator[tuple[str, str, Counter[str]]]:
    """Template, page and the tokens of its truth: every text in three of the templates."""
    chosen = truths(crawl, pack, most, files)
    headlines = sorted({truth.title for truth in chosen})
    names = list(TEMPLATES)
    for number, truth in enumerate(chosen):
        wanted = tokens(truth.text, pack)
        for step in range(3):
            name = names[(number + 4 * step) % len(names)]
            filler = Filler(pack.code, headlines, seed=number)
            yield name, TEMPLATES[name](truth.title, truth.html(), filler), wanted


def bench_synthetic(crawl: Path, pack: LanguagePack, most: int) -> list[dict[str, object]]:
    """Print and return a row for each extractor."""
    pages = list(synthetic(crawl, pack, most))
    size = fmean(len(page) for _, page, _ in pages)
    unit = "character pairs" if pack.script.spaceless else "words"
    print(f"\n{pack.name}: {len(pages)} synthetic pages, {size:,.0f} characters each, tokens are {unit}")
    rows: list[dict[str, object]] = []
    for name, function in EXTRACTORS.items():
        function(pages[0][1])
        seconds = 0.0
        scores = []
        by_template = defaultdict(list)
        for template, page, wanted in pages:
            start = time.process_time()
            text = function(page)
            seconds += time.process_time() - start
            scores.append(score(wanted, tokens(text, pack)))
            by_template[template].append(scores[-1][2])
        precision, recall, f1 = (fmean(values) for values in zip(*scores, strict=True))
        rate = len(pages) / seconds
        print(f"  {name:<12} precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}  {rate:>8,.0f} /s")
        print("    " + "  ".join(f"{key} {fmean(values):.2f}" for key, values in sorted(by_template.items())))
        rows.append({"set": pack.code, "extractor": name, "precision": precision, "recall": recall, "f1": f1})
    return rows


@dataclass(frozen=True)
class Item:
    """A page of trafilatura's evaluation set, with segments of its main text and of what stands around.

    fitted: whether the block extractor was fitted on it (extraction_training.py).
    """

    page: str
    main: tuple[str, ...]
    surroundings: tuple[str, ...]
    fitted: bool


def evaluation_items(folder: Path) -> list[Item]:
    """All pages of the set in the order of their addresses, decoded by us."""
    items = json.loads((folder / "evaldata.json").read_text(encoding="utf-8"))
    pack = load_pack("de")  # half of the set is German; the pack only gives the legacy encodings
    out = []
    for url in sorted(items):
        item = items[url]
        places = [folder / sub / item["file"] for sub in ("cache", "eval")]
        path = next((place for place in places if place.is_file()), None)
        decoded = decode(path.read_bytes(), None, pack) if path else None
        fitted = int(hashlib.sha256(item["file"].encode()).hexdigest(), 16) % 2 == 0
        page = decoded.text if decoded else ""
        out.append(Item(page, tuple(item["with"]), tuple(item["without"]), fitted))
    return out


def bench_trafilatura_set(folder: Path) -> list[dict[str, object]]:
    """The same on the half of trafilatura's evaluation set that nothing was fitted on, by its own measure."""
    items = [item for item in evaluation_items(folder) if not item.fitted]
    size = fmean(len(item.page) for item in items)
    print(f"\ntrafilatura's evaluation set, the unseen half: {len(items)} pages, {size:,.0f} characters each")
    rows: list[dict[str, object]] = []
    for name, function in EXTRACTORS.items():
        function(items[0].page)
        start = time.process_time()
        found = [function(item.page) for item in items]
        rate = len(items) / (time.process_time() - start)
        right = wrong = wanted = 0
        for item, text in zip(items, found, strict=True):
            flat = " ".join(text.split())
            right += sum(" ".join(segment.split()) in flat for segment in item.main)
            wrong += sum(" ".join(segment.split()) in flat for segment in item.surroundings)
            wanted += len(item.main)
        precision, recall = right / (right + wrong), right / wanted
        f1 = 2 * precision * recall / (precision + recall)
        print(f"  {name:<12} precision {precision:.3f}  recall {recall:.3f}  F1 {f1:.3f}  {rate:>8,.0f} /s")
        rows.append(
            {"set": "trafilatura", "extractor": name, "precision": precision, "recall": recall, "f1": f1}
        )
    return rows


def main() -> None:
    """Run everything and print it; the last line is the same as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crawl", type=Path, default=Path("examples/crawl"))
    parser.add_argument("--language", action="append", help="ja or en; both by default")
    parser.add_argument(
        "--texts", type=int, default=60, help="main texts a language; three pages are made of each"
    )
    parser.add_argument("--trafilatura-set", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    print("Synthetic templates round real documentation text: compare extractors, not with other benchmarks.")
    for code in options.language or ("ja", "en"):
        rows += bench_synthetic(options.crawl, load_pack(code), options.texts)
    if options.trafilatura_set:
        rows += bench_trafilatura_set(options.trafilatura_set)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
