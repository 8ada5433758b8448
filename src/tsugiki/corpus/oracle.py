"""Every quality feature in plain Python, straight from its definition: what the kernels are held to.

Slow on purpose. Swallow's definitions are those of corpus.md §1.4, guarded where the original crashes.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from tsugiki.corpus.character_tables import BULLETS, CLOSING_QUOTES, WORD_EDGES
from tsugiki.corpus.feature_kernels import C4_CITATIONS, C4_LEAST_WORDS, C4_LONGEST_WORD, SHORT_LINE
from tsugiki.corpus.feature_names import Features
from tsugiki.languages import LanguagePack

_TOP = range(2, 5)
_REPEATED = range(5, 11)


def plain_features(text: str, pack: LanguagePack) -> Features:
    """The same dictionary as `compute_features`."""
    features = {**_classes(text, pack), **_sentences(text, pack), **_lines(text, pack)}
    features |= _characters(text) if pack.script.spaceless else {**_words(text, pack), **_c4(text, pack)}
    letters = int(features["language_letters"])
    return {**features, **_lists(text, pack, letters)}


def plain_spans(
    text: str,
    entries: Sequence[str],
    *,
    spaceless: bool,
    runs: Sequence[tuple[int, int]] = (),
    whole_words: bool = True,
) -> list[tuple[int, int]]:
    """The matches of a word list: left to right, the longest that does not cut a word, none overlapping."""
    small = [_small(letter) for letter in text]
    folded = {tuple(map(_small, entry)) for entry in entries if entry}
    found = []
    i = 0
    while i < len(text):
        ends = [i + len(entry) for entry in folded if tuple(small[i : i + len(entry)]) == entry]
        if whole_words:
            ends = [
                end
                for end in ends
                if not _cuts_word(text, i, end, spaceless=spaceless) and not _cuts_run(text, i, end, runs)
            ]
        if ends:
            found.append((i, max(ends)))
        i = max(ends, default=i + 1)
    return found


def _small(letter: str) -> str:
    small = letter.lower()
    return small if len(small) == 1 else letter


def _cuts_word(text: str, first: int, end: int, *, spaceless: bool) -> bool:
    def is_word(place: int) -> bool:
        letter = text[place]
        if spaceless:
            return letter.isdecimal() or letter.lower() != letter.upper()
        return letter.isalnum() or letter == "_" or unicodedata.category(letter)[0] == "M"

    left = first > 0 and is_word(first - 1) and is_word(first)
    return left or (end < len(text) and is_word(end - 1) and is_word(end))


def _cuts_run(text: str, first: int, end: int, runs: Sequence[tuple[int, int]]) -> bool:
    def is_inside(place: int) -> bool:
        return any(low <= ord(text[place]) <= high for low, high in runs)

    left = first > 0 and is_inside(first - 1) and is_inside(first)
    return left or (end < len(text) and is_inside(end - 1) and is_inside(end))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _duplicates(items: Sequence[str]) -> tuple[int, int]:
    """How many items repeat an earlier one, and the characters of those."""
    counts = Counter(items)
    return sum(f - 1 for f in counts.values()), sum(len(x) * (f - 1) for x, f in counts.items())


def _classes(text: str, pack: LanguagePack) -> Features:
    counts = {
        name: sum(any(first <= ord(letter) <= last for first, last in ranges) for letter in text)
        for name, ranges in pack.script.classes.items()
    }
    inside = sum(counts.values())
    return {
        "letters": len(text),
        "language_letters": inside,
        "language_share": _share(inside, len(text)),
        **{f"{name}_share": _share(number, inside) for name, number in counts.items()},
    }


def _sentences(text: str, pack: LanguagePack) -> Features:
    marks = re.escape(pack.script.sentence_terminators)
    found = [re.findall(f"[^{marks}]+[{marks}]?", line) for line in text.split("\n")]
    paragraphs = ["".join(sentences) for sentences in found]
    sentences = [sentence for line in found for sentence in line]
    letters = sum(map(len, sentences))
    features: Features = {
        "sentence_length_max": max(map(len, sentences), default=0),
        "sentence_length_mean": _share(letters, len(sentences)),
        "ellipsis_share": _share(
            sum(s.strip().endswith(pack.script.ellipses) for s in sentences), len(sentences)
        ),
    }
    for name, items in (("paragraph", paragraphs), ("sentence", sentences)):
        again, again_letters = _duplicates(items)
        features[f"{name}_duplicates"] = _share(again, len(items))
        features[f"{name}_duplicate_letters"] = _share(again_letters, sum(map(len, items)))
    return features


def _lines(text: str, pack: LanguagePack) -> Features:
    raw = [line for line in text.split("\n") if line.strip()]
    lines = [line.strip() for line in raw]
    ends = (*pack.script.sentence_terminators, *CLOSING_QUOTES)
    again, again_letters = _duplicates(lines)
    _, raw_letters = _duplicates(raw)
    return {
        "bullet_line_share": _share(sum(line[0] in BULLETS for line in lines), len(lines)),
        "ellipsis_line_share": _share(sum(line.endswith(pack.script.ellipses) for line in lines), len(lines)),
        "terminated_line_share": _share(sum(line.endswith(ends) for line in lines), len(lines)),
        "short_line_share": _share(sum(len(line) <= SHORT_LINE for line in raw), len(lines)),
        "line_duplicates": _share(again, len(lines)),
        "line_duplicate_letters": _share(again_letters, len(text)),
        "repeated_line_letters": _share(raw_letters, len(text.replace("\n", ""))),
    }


def _characters(text: str) -> Features:
    features: Features = {}
    for n in (*_TOP, *_REPEATED):
        grams = Counter(text[i : i + n] for i in range(len(text) - n + 1))
        if n in _TOP:
            features[f"top_{n}gram"] = _share(max(grams.values(), default=0), grams.total())
        else:
            features[f"repeated_{n}grams"] = _share(sum(f > 1 for f in grams.values()), len(grams))
    return features


def _words(text: str, pack: LanguagePack) -> Features:
    words = text.split()
    spoken = [word for word in words if any(map(str.isalnum, word))]
    plain = {"".join(map(_small, word.strip(WORD_EDGES))) for word in words}
    stops = {word.lower().strip(WORD_EDGES) for word in pack.stop_words}
    marks = max(text.count("#"), text.count("…") + text.count("..."))
    features: Features = {
        "words": len(spoken),
        "stop_words": len(plain & stops),
        "word_length_mean": _share(sum(map(len, spoken)), len(spoken)),
        "symbol_share": _share(marks, len(spoken)),
        "alphabetic_word_share": _share(sum(any(map(str.isalpha, w)) for w in words), len(words)),
        "line_breaks_per_word": _share(text.count("\n"), len(words)),
    }
    for n in _TOP:
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        top, times = grams.most_common(1)[0] if grams else ("", 0)
        features[f"top_word_{n}gram"] = _share(len(top) * times, len(text))
    for n in _REPEATED:
        features[f"repeated_word_{n}grams"] = _share(_gopher_letters(words, n), len(text))
    return features


def _gopher_letters(words: Sequence[str], n: int) -> int:
    """The letters of n-grams seen before, from the left; behind such a one the scan goes on (§1.4 (c))."""
    seen = set()
    letters = i = 0
    while i + n <= len(words):
        gram = tuple(words[i : i + n])
        if gram in seen:
            letters += sum(map(len, gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return letters


def _c4(text: str, pack: LanguagePack) -> Features:
    phrases = ("lorem ipsum", "javascript", *(pack.lists["policy"].entries if "policy" in pack.lists else ()))
    spans = plain_spans(text, phrases, spaceless=False, whole_words=False)
    found = [("".join(map(_small, text[first:end])), text.count("\n", 0, first)) for first, end in spans]
    blocked = {line for phrase, line in found if phrase != phrases[0]}
    lines = text.split("\n")
    passed = [_c4_sentences(line.strip(), pack) for number, line in enumerate(lines) if number not in blocked]
    kept = [sentences for sentences, is_closed in passed if sentences and is_closed]
    features: Features = {
        "placeholder_texts": sum(phrase == phrases[0] for phrase, _ in found),
        "javascript_lines": len({line for phrase, line in found if phrase == phrases[1]}),
        "curly_brackets": text.count("{"),
        "c4_line_share": _share(len(kept), sum(bool(line.strip()) for line in lines)),
        "c4_sentences": sum(kept),
        "c4_open_sentences": sum(sentences for sentences, _ in passed),
    }
    if "policy" in pack.lists:
        features["policy_lines"] = len({line for phrase, line in found if phrase not in phrases[:2]})
    return features


def _c4_sentences(line: str, pack: LanguagePack) -> tuple[int, bool]:
    """The sentences of a line, 0 where its words are too few or too long, and whether a mark closes it."""
    if max(map(len, line.split()), default=0) > C4_LONGEST_WORD:
        return 0, False
    line = re.sub("|".join([r"\[\d*\]", *map(re.escape, C4_CITATIONS)]), "", line)
    words = line.split()
    if len(words) < C4_LEAST_WORDS:
        return 0, False
    ends = pack.script.sentence_terminators + CLOSING_QUOTES
    tails = [re.search(f"[{re.escape(ends)}]*$", word) for word in words]
    closes = [bool(t and set(t[0]) & set(pack.script.sentence_terminators)) for t in tails]
    is_closed = line.endswith(tuple(ends)) and not line.endswith(pack.script.ellipses)
    return sum(closes) + (not closes[-1]), is_closed


def _lists(text: str, pack: LanguagePack, language_letters: int) -> Features:
    features: Features = {}
    for name in ("ng", "dating"):
        if name not in pack.lists:
            continue
        script = pack.script
        entries = pack.lists[name].entries
        spans = plain_spans(text, entries, spaceless=script.spaceless, runs=script.word_runs)
        features["ng_expressions" if name == "ng" else "dating_names"] = len(spans)
        if name == "ng":
            features["ng_share"] = _share(sum(end - first for first, end in spans), language_letters)
    return features
