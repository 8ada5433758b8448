"""HTML to plain text, crudely, and the measures by which pages are chosen.

The corpus stage has a real extractor; this one only has to rank pages, and it
uses nothing outside the standard library so that the crawl can be remade on a
bare machine.
"""

from __future__ import annotations

import html
import re
import zlib
from collections import Counter

_DROP = re.compile(
    r"<!--.*?-->|<(script|style|nav|header|footer|head)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
_BLOCK = re.compile(
    r"</?(?:p|div|li|ul|ol|dl|dt|dd|h[1-6]|tr|td|th|table|pre|br|hr|section|article|body"
    r"|blockquote|title)\b[^>]*>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[^>]+>")
_SENTENCE = re.compile(r"[^。．！？!?]+[。．！？!?]?")
_CHARSET = re.compile(rb"charset\s*=\s*[\"']?([A-Za-z0-9_-]+)", re.IGNORECASE)

SHORTEST = 400
MOST_DUPLICATED = 0.3
MOST_DUPLICATED_CHARS = 0.2
SENTENCE = (20, 90)
LONGEST_SENTENCE = 200
MOST_REPEATED = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def decode(body: bytes) -> str:
    """The page as text, by its own meta declaration, else as UTF-8."""
    found = _CHARSET.search(body[:3000])
    for name in (found.group(1).decode() if found else "utf-8", "utf-8", "latin-1"):
        try:
            return body.decode(name)
        except (LookupError, UnicodeDecodeError):
            continue
    return body.decode("utf-8", "replace")


def text_of(page: str) -> str:
    """Plain text of a page: one line a block, inner line breaks folded."""
    page = _DROP.sub(" ", page)
    page = re.sub(r"\s+", " ", page)
    page = _TAG.sub("", _BLOCK.sub("\n", page))
    page = re.sub(r"(?<=[\u3040-\u9fff、。]) (?=[\u3040-\u9fff])", "", html.unescape(page))
    return re.sub(r"\s*\n\s*", "\n", page).strip()


def packed_size(body: bytes) -> int:
    """Bytes that the body takes in a gzip member, roughly."""
    return len(zlib.compress(body, 9))


def kana_share(text: str) -> float:
    """Share of hiragana and katakana in the text."""
    return sum("\u3041" <= c <= "\u30fa" for c in text) / max(1, len(text))


def _counts(text: str) -> tuple[int, int, int, int]:
    hiragana = sum("\u3041" <= c <= "\u3096" for c in text)
    katakana = sum("\u30a1" <= c <= "\u30fa" for c in text)
    kanji = sum("\u3400" <= c <= "\u9fff" or c in "々〇〻" for c in text)
    return hiragana, katakana, kanji, sum(c in "、，。．！？" for c in text)


def _duplicated(items: list[str]) -> tuple[float, float]:
    counts = Counter(items)
    extra = sum(n - 1 for n in counts.values())
    chars = sum(len(item) * (n - 1) for item, n in counts.items())
    return extra / max(1, len(items)), chars / max(1, sum(map(len, items)))


def _repetition(text: str) -> list[str]:
    failed = []
    for n, most in MOST_REPEATED.items():
        grams = Counter(text[i : i + n] for i in range(len(text) - n + 1))
        if grams and max(grams.values()) > most * sum(grams.values()):
            failed.append(f"top_{n}")
    for n, most in REPEATED.items():
        grams = Counter(text[i : i + n] for i in range(len(text) - n + 1))
        if sum(v > 1 for v in grams.values()) > most * len(grams):
            failed.append(f"dup_{n}")
    return failed


def swallow_failures(text: str) -> list[str]:
    """Names of the main Swallow quality rules that a Japanese text fails."""
    lines = [_SENTENCE.findall(line) for line in text.split("\n")]
    sentences = [s for line in lines for s in line]
    failed = [] if len(text) >= SHORTEST else ["num_letters"]
    for name, items in (("paragraph", ["".join(x) for x in lines]), ("sentence", sentences)):
        share, chars = _duplicated(items)
        failed += [f"dup_{name}"] * (share > MOST_DUPLICATED) + [f"dup_{name}_char"] * (
            chars > MOST_DUPLICATED_CHARS
        )
    failed += _repetition(text)
    hiragana, katakana, kanji, marks = _counts(text)
    total = hiragana + katakana + kanji + marks
    failed += ["num_japanese"] * (total < SHORTEST)
    failed += ["hiragana_fraction"] * (hiragana < 0.2 * total)
    failed += ["katakana_fraction"] * (katakana > 0.5 * total)
    failed += ["japanese_fraction"] * (total < 0.5 * len(text))
    lengths = [len(s) for s in sentences] or [0]
    mean = sum(lengths) / len(lengths)
    failed += ["avg_sentence_length"] * (not SENTENCE[0] <= mean <= SENTENCE[1])
    failed += ["max_sentence_length"] * (max(lengths) > LONGEST_SENTENCE)
    return failed


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the two texts' sets of character 5-grams."""
    a = {one[i : i + 5] for i in range(len(one) - 4)}
    b = {other[i : i + 5] for i in range(len(other) - 4)}
    return len(a & b) / max(1, len(a | b))
