"""Which sentence comes next? A multiple-choice task made from held-out pages of any language.

The context is a run of sentences of a page, the right choice the page's own next sentence, the others are
sentences of nearly the same length from other pages (SWAG and HellaSwag do so with model-written endings:
Zellers et al. 2018, arXiv 1808.05326; ours are human-written, so no filter against artefacts is needed). A
choice is scored by its log-likelihood after the context, divided by its UTF-8 bytes: lengths in tokens
depend on the vocabulary. Lengths are in bytes for the same reason: a Japanese character counts as three
English letters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from tsugiki.errors import DataError
from tsugiki.evaluation.backend import Backend, Choices
from tsugiki.evaluation.items import Item, Page, byte_length, stable_hash, stable_integer
from tsugiki.evaluation.sentences import SentenceRules, Span, sentence_spans
from tsugiki.evaluation.tasks.base import Measure, Row, base_row

NAME = "cloze"
CONTEXT_BYTES = (120, 400)
"""Shortest and longest context: about 40 to 130 Japanese or 120 to 400 English characters."""
SENTENCE_BYTES = (30, 240)
"""Shortest and longest choice."""
LETTERS_SHARE = 0.6
"""A sentence with a smaller share of letters is a table row, a command or a list of numbers."""
NEIGHBOURS = 8
"""Distractors are drawn from this many times as many sentences of the nearest length."""


@dataclass(frozen=True)
class Candidate:
    """A place in a page where a question can be asked: text = separator + sentence follows context."""

    page: Page
    context: str
    separator: str
    sentence: str


@dataclass(frozen=True)
class Cloze:
    """At most `questions` items with `options` choices each, spread over the pages as evenly as can be."""

    questions: int
    options: int
    seed: int
    rules: Mapping[str, SentenceRules]
    name: str = NAME
    written_bytes: int = 0

    @property
    def measure(self) -> Measure | None:
        """Accuracy; guessing gives 1 / options."""
        return Measure("accuracy", lower_is_better=False, chance=1 / self.options)

    def items(self, pages: Sequence[Page]) -> list[Item]:
        """The questions; raises DataError where the pages hold too few sentences to ask and to distract.

        A sentence that stands in several clusters of pages (a notice, a footer) is neither asked nor offered.
        """
        candidates = []
        clusters = defaultdict(set)
        for page in pages:
            spans = (
                sentence_spans(page.text, self.rules[page.language]) if page.language in self.rules else []
            )
            candidates += _candidates(page, spans)
            for span in spans:
                clusters[page.text[span.start : span.end]].add(page.cluster)
        candidates = [found for found in candidates if len(clusters[found.sentence]) == 1]
        pool = sorted(
            {(byte_length(found.sentence), found.sentence, found.page.cluster) for found in candidates}
        )
        items: list[Item] = []
        for candidate in self._spread(candidates):
            if len(items) == self.questions:
                break
            wrong = self._distractors(candidate, pool)
            if len(wrong) == self.options - 1:
                items.append(self._item(candidate, wrong, len(items)))
        if not items:
            raise DataError(
                f"no cloze question can be made from {len(pages)} held-out pages: they hold "
                f"{len(candidates)} fit sentences, and {self.options - 1} of other pages are needed for each",
                hint="hold out more pages, ask for fewer cloze_choices, or leave the cloze task out",
            )
        return items

    def _spread(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """All candidates, the first of each page before the second of any; hashes order both."""

        def key(candidate: Candidate) -> int:
            return stable_integer(self.seed, candidate.page.id, candidate.context, candidate.sentence)

        rank: Counter[str] = Counter()
        ranked = []
        for candidate in sorted(candidates, key=key):
            ranked.append((rank[candidate.page.id], key(candidate), candidate))
            rank[candidate.page.id] += 1
        return [candidate for _, _, candidate in sorted(ranked, key=lambda entry: entry[:2])]

    def _distractors(self, candidate: Candidate, pool: Sequence[tuple[int, str, str]]) -> list[str]:
        """Sentences of other clusters: of the nearest lengths, those that come first by hash.

        How many of them come before the right one in order of length is drawn evenly from 0 to all (by
        hash). Neighbours of both sides alike would put the right one in the middle: with four choices the
        second or third shortest would be right three times in four.
        """
        others = self.options - 1
        place = bisect_left(pool, (byte_length(candidate.sentence), candidate.sentence, ""))
        sides = [
            list(islice(self._of_others(candidate, side), NEIGHBOURS * others))
            for side in (reversed(pool[:place]), pool[place:])
        ]
        drawn = stable_integer(self.seed, "shorter", candidate.sentence) % self.options
        shorter = min(max(drawn, others - len(sides[1])), len(sides[0]))  # at the ends one side runs out
        chosen: list[str] = []
        for side, count in zip(sides, (shorter, others - shorter), strict=True):
            near = side[: NEIGHBOURS * count]
            near.sort(key=lambda sentence: stable_integer(self.seed, candidate.sentence, sentence))
            chosen += near[:count]
        return sorted(chosen, key=lambda sentence: stable_integer(self.seed, sentence, candidate.sentence))

    @staticmethod
    def _of_others(candidate: Candidate, pool: Iterable[tuple[int, str, str]]) -> Iterator[str]:
        return (sentence for _, sentence, cluster in pool if cluster != candidate.page.cluster)

    def _item(self, candidate: Candidate, wrong: Sequence[str], number: int) -> Item:
        """Right answers take every position equally often: each run of `options` questions uses each once."""
        block = number // self.options
        positions = sorted(range(self.options), key=lambda place: stable_integer(self.seed, block, place))
        answer = positions[number % self.options]
        sentences = [*wrong[:answer], candidate.sentence, *wrong[answer:]]
        page = candidate.page
        choices = tuple(candidate.separator + sentence for sentence in sentences)
        key = stable_hash(page.id, candidate.context, *choices)
        origin = (page.dataset, page.language, page.domain, page.cluster)
        return Item(NAME, *origin, key, candidate.context, choices, answer=answer)

    def rows(self, backend: Backend, items: Sequence[Item]) -> list[Row]:
        """score: 1 where the right choice has the least -ln p per byte; nll_nats is the right one's."""
        answers = backend.choice_likelihoods([Choices(item.prompt, item.choices) for item in items])
        rows = []
        for item, options in zip(items, answers, strict=True):
            sizes_bytes = [byte_length(choice) for choice in item.choices]
            per_byte = [option.nll_nats / size for option, size in zip(options, sizes_bytes, strict=True)]
            best = min(range(len(options)), key=per_byte.__getitem__)
            answer = item.answer or 0
            rows.append(
                base_row(item)
                | {
                    "output": item.choices[best].strip(),
                    "gold": item.choices[answer].strip(),
                    "score": float(best == answer),
                    "nll_nats": options[answer].nll_nats,
                    "tokens": options[answer].tokens,
                    "bytes": sizes_bytes[answer],
                    "characters": len(item.choices[answer]),
                    "cut_context": any(option.cut_context for option in options),
                    "empty": any(option.tokens == 0 for option in options),
                }
            )
        return rows


def _candidates(page: Page, spans: Sequence[Span]) -> list[Candidate]:
    text = page.text
    found = []
    for index in range(1, len(spans)):
        sentence = text[spans[index].start : spans[index].end]
        if not (spans[index].closed and spans[index - 1].closed and _is_prose(sentence)):
            continue
        context = _context(text, spans, index)
        if context:
            separator = text[spans[index - 1].end : spans[index].start]
            found.append(Candidate(page, context, separator, sentence))
    return found


def _is_prose(sentence: str) -> bool:
    letters = sum(map(str.isalpha, sentence))
    low, high = SENTENCE_BYTES
    return low <= byte_length(sentence) <= high and letters >= LETTERS_SHARE * len(sentence)


def _context(text: str, spans: Sequence[Span], index: int) -> str:
    """The longest run of whole sentences before sentence `index` that fits CONTEXT_BYTES, or ""."""
    low, high = CONTEXT_BYTES
    best = ""
    for first in range(index - 1, -1, -1):
        context = text[spans[first].start : spans[index - 1].end]
        if byte_length(context) > high:
            break
        best = context
    return best if byte_length(best) >= low else ""
