"""A small WARC writer, and pages to put into it."""

import csv
import gzip
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from resiliparse.extract.html2text import extract_plain_text

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.corpus import stage
from tsugiki.corpus.neardup.bands import band_edges
from tsugiki.corpus.neardup.components import Components
from tsugiki.corpus.neardup.units import UnitIndex
from tsugiki.corpus.read import Tally, read_warc

KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん"
KANJI = "日本語文書計算機通信設定画面印刷保存検索開始終了利用者環境情報技術世界研究開発方法結果試験"
WORDS = (
    *("the", "of", "and", "to", "with", "that", "have", "be", "system", "window", "printer", "document"),
    *("because", "several", "people", "often", "change", "settings", "before", "they", "begin", "working"),
    *("on", "another", "project", "which", "requires", "careful", "planning", "under", "pressure", "while"),
    *("reading", "manuals", "about", "networks", "storage", "devices", "kernels", "compilers", "editors"),
)


def japanese_text(seed, sentences=30):
    """Sentences of 21 to 42 characters, mostly hiragana: they pass every rule of the Japanese pack."""
    rng = random.Random(seed)
    out = []
    for _ in range(sentences):
        body = "".join(
            rng.choice(KANJI) + "".join(rng.choices(KANA, k=rng.randint(2, 4)))
            for _ in range(rng.randint(6, 9))
        )
        out.append(body[:12] + "、" + body[12:] + "です。")
    return "\n".join("".join(out[i : i + 3]) for i in range(0, len(out), 3))


def english_text(seed, sentences=30):
    rng = random.Random(seed)
    return "\n".join(
        " ".join(rng.choices(WORDS, k=rng.randint(8, 14))).capitalize() + "." for _ in range(sentences)
    )


def html_page(text, lang="ja", title="日本語の題名です", head=""):
    paragraphs = "".join(f"<p>{line}</p>" for line in text.split("\n"))
    return (
        f'<!DOCTYPE html><html lang="{lang}"><head>{head}<title>{title}</title></head>'
        f"<body><main>{paragraphs}</main></body></html>"
    )


@dataclass(frozen=True)
class Warc:
    """Makes records and files of them."""

    @staticmethod
    def record(
        body,
        *,
        url="http://www.example.jp/",
        date="2026-01-01T00:00:00Z",
        kind="response",
        status="200 OK",
        content_type="text/html; charset=utf-8",
        headers=(),
        length=None,
    ):
        body = body.encode() if isinstance(body, str) else body
        lines = [f"HTTP/1.1 {status}", *([f"Content-Type: {content_type}"] if content_type else []), *headers]
        block = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        head = (
            f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: <{url}>\r\nWARC-Date: {date}\r\n"
            f"WARC-Record-ID: <urn:uuid:{abs(hash(url)):032x}>\r\n"
            "Content-Type: application/http; msgtype=response\r\n"
            f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
        )
        return head.encode() + block + b"\r\n\r\n"

    @staticmethod
    def member(record):
        return gzip.compress(record, mtime=0)

    def file(self, path, records):
        path.write_bytes(b"".join(map(self.member, records)))
        return path

    def crawl(self, path, texts, **details):
        """One page a text, under different URLs."""
        records = [
            self.record(html_page(text), url=f"http://h{i % 3}.example.jp/{path.stem}/{i}", **details)
            for i, text in enumerate(texts)
        ]
        return self.file(path, records)


@pytest.fixture
def warc():
    return Warc()


@pytest.fixture
def japanese():
    return japanese_text


@pytest.fixture
def english():
    return english_text


@pytest.fixture
def page():
    return html_page


@pytest.fixture(scope="session")
def japanese_pages():
    """(host, text) of the Japanese documentation pages in the sample crawl, in their order."""
    crawl = Path(__file__).parents[2] / "examples" / "crawl"
    with (crawl / "truth.csv").open(encoding="utf-8", newline="") as file:
        truth = {row["url"]: row for row in csv.DictReader(file)}
    found = []
    for path in sorted(crawl.glob("*.warc.gz")):
        for page in read_warc(path, Tally()):
            row = truth.get(page.url, {})
            if (row.get("kind"), row.get("language")) == ("page", "ja") and row["encoding"]:
                html = page.body.decode(row["encoding"], "replace")
                text = extract_plain_text(html, main_content=True, alt_texts=False)
                if len(text) >= 300:
                    found.append((row["host"], text))
    return found


def _write_bands(directory, keys, sizes):
    """Units of these sizes with the given keys, shape (documents, bands)."""
    units = []
    first = 0
    for number, size in enumerate(sizes):
        stem = directory / f"unit-{number}"
        np.ascontiguousarray(keys[first : first + size].T).astype("<u8").tofile(f"{stem}.bands")
        units.append(UnitIndex(stem, first, size))
        first += size
    assert first == len(keys)
    return units


@pytest.fixture(scope="session")
def write_bands():
    return _write_bands


def _random_sizes(rng, count, parts):
    cuts = sorted(rng.randint(0, count) for _ in range(parts - 1))
    return [b - a for a, b in zip([0, *cuts], [*cuts, count], strict=True)]


@pytest.fixture(scope="session")
def random_sizes():
    return _random_sizes


def _roots_of(units, bands, directory, **options):
    documents = units[-1].first + units[-1].count
    with Components(directory / "parents", documents) as components:
        for band in range(bands):
            band_edges(units, bands, band, directory / f"{band}.edges", **options)
            components.union_file(directory / f"{band}.edges")
        return components.roots().copy()


@pytest.fixture(scope="session")
def roots_of():
    return _roots_of


def _execute(config, files, root):
    out = open_workspace(root)
    try:
        return stage.run(config, Inputs({name: tuple(files) for name in config.sources}), out)
    finally:
        out.metrics.close()
        for handler in out.log.handlers:
            handler.close()


@pytest.fixture(scope="session")
def execute():
    return _execute
