"""How much does the prefilter lose, and how much does it let through in vain?

Measured against the full path: every page is decoded, extracted and identified, whatever the prefilter says
of it. So an unfiltered sample is needed, such as a few whole WARC files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import Extractor, extract
from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.prefilter import is_candidate
from tsugiki.corpus.read import Page
from tsugiki.languages import LanguagePack


@dataclass(frozen=True)
class Quality:
    """Counts of pages: candidates of the language, candidates of another, and pages that were missed."""

    right: int
    needless: int
    missed: int
    pages: int

    @property
    def precision(self) -> float:
        """The share of the candidates that are in the language; 1 where there are none."""
        found = self.right + self.needless
        return self.right / found if found else 1.0

    @property
    def recall(self) -> float:
        """The share of the language's pages that are candidates; 1 where there are none."""
        wanted = self.right + self.missed
        return self.right / wanted if wanted else 1.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def quality_of(answers: Iterable[tuple[bool, bool]]) -> Quality:
    """The counts of pairs (is a candidate, is in the language)."""
    pairs = Counter(answers)
    return Quality(pairs[True, True], pairs[True, False], pairs[False, True], pairs.total())


def measure(
    pages: Iterable[Page],
    pack: LanguagePack,
    extractor: Extractor = "resiliparse",
    *,
    least_characters: int = 0,
) -> Quality:
    """Compare the prefilter with the full path on `pages`, which nothing has filtered before.

    least_characters: pages whose main text has fewer are left out, as an identifier says little of them.
    """
    judged = ((page, *_judged(page, pack, extractor)) for page in pages)
    return quality_of(
        (is_candidate(page.body, page.charset, page.url, pack, page.http_language), wanted)
        for page, wanted, characters in judged
        if characters >= least_characters
    )


def _judged(page: Page, pack: LanguagePack, extractor: Extractor) -> tuple[bool, int]:
    """What the full path says: whether the main text is in the language; and how many characters it has."""
    decoded = decode(page.body, page.charset, pack)
    text = extract(decoded.text, extractor).text if decoded else ""
    return bool(text) and is_language(identify(text, pack), pack), len(text)
