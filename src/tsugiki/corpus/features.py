"""Quality features of a text, as numbers; the rules that read them are in the language packs.

Character classes, sentences and repetition follow Swallow (swallow-corpus/quality.py; corpus.md §1.4), with
its two crashes mended: a text without sentences, or shorter than n, has features of 0. Word features, for
languages with spaces, follow Gopher (arXiv:2112.11446, appendix A), C4 (arXiv:1910.10683) and FineWeb
(arXiv:2406.17557) in datatrove's reading (0.10), with words as white space parts them. The dictionary of
`feature_types` is the columns of the documents files; `corpus/oracle.py` defines each in plain Python.

Departures from datatrove: words are never segmented by a model; only words with a letter or digit in them
count for lengths; blank lines do not count. C4's lines are judged, not dropped; what it says of a page (lorem
ipsum, curly brackets) is asked of the whole page, as in its paper, and sentences end at marks before white
space, where it has a model of abbreviations. `c4_open_sentences` leaves out the rule on marks at the ends of
lines, as FineWeb does. Gopher's rules on paragraphs are left out because extraction drops blank lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tsugiki.corpus import feature_kernels as fk
from tsugiki.corpus import kernels, repetition
from tsugiki.corpus import word_kernels as wk
from tsugiki.corpus.character_tables import WORD_EDGES, lower_case, pack_table
from tsugiki.corpus.expressions import Expressions, compile_expressions
from tsugiki.corpus.feature_names import (
    LIST_INTEGERS,
    REPEATED,
    TOP,
    Features,
    feature_names,
    has_list,
)
from tsugiki.languages import LanguagePack

_PLACEHOLDER = "lorem ipsum"
_JAVASCRIPT = "javascript"
_KEPT_PACKS = 64


def feature_types(pack: LanguagePack) -> dict[str, pa.DataType]:
    """The features that are computed for a pack's language, with their column types: see `feature_names`."""
    integers, floats = feature_names(pack)
    return {**dict.fromkeys(integers, pa.int64()), **dict.fromkeys(floats, pa.float64())}


def compute_features(text: str, pack: LanguagePack) -> Features:
    """Every feature of `feature_types(pack)` for one text."""
    compiled = _compiled(pack)
    symbols = code_points(text)
    phrases = _Phrases.find(symbols, compiled)
    classes, counts = fk.text_counts(
        symbols, compiled.table, compiled.ellipses, compiled.ellipsis_starts, phrases.blocked
    )
    count = counts.tolist()
    features = _text_features(symbols.size, count, classes.tolist(), pack)
    if pack.script.spaceless:
        features |= _character_features(symbols)
    else:
        features |= _word_features(symbols, count, compiled)
        features |= {"placeholder_texts": phrases.placeholders, "javascript_lines": phrases.javascript}
    if "policy" in compiled.lists:
        features["policy_lines"] = phrases.policies
    return features | _list_features(symbols, compiled, int(features["language_letters"]))


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The code points of a text; a lone surrogate is one of its own."""
    return np.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), np.uint32)


@dataclass(frozen=True)
class _Compiled:
    """What the kernels need of a pack."""

    table: npt.NDArray[np.uint16]
    ellipses: npt.NDArray[np.uint32]
    ellipsis_starts: npt.NDArray[np.int64]
    stop_hashes: npt.NDArray[np.uint64]
    longest_stop: int
    phrases: Expressions | None
    lists: dict[str, Expressions]


_by_pack: dict[int, tuple[LanguagePack, _Compiled]] = {}


def _compiled(pack: LanguagePack) -> _Compiled:
    """The pack's arrays, remembered as long as the pack itself is: it can't be hashed in good time."""
    held = _by_pack.get(id(pack))
    if held is not None and held[0] is pack:
        return held[1]
    if len(_by_pack) >= _KEPT_PACKS:
        _by_pack.clear()
    script = pack.script
    stops = [code_points(word.lower().strip(WORD_EDGES)) for word in pack.stop_words]
    lower = lower_case()
    phrases = (_PLACEHOLDER, _JAVASCRIPT, *_entries(pack, "policy"))
    compiled = _Compiled(
        table=pack_table(tuple(script.classes.values()), script.sentence_terminators),
        ellipses=code_points("".join(script.ellipses)),
        ellipsis_starts=np.cumsum([0, *map(len, script.ellipses)]),
        stop_hashes=np.array([fk.span_hash(lower[word], 0, word.size) for word in stops], np.uint64),
        longest_stop=max((word.size for word in stops), default=0),
        phrases=None
        if script.spaceless
        else compile_expressions(phrases, spaceless=False, whole_words=False),
        lists={
            name: compile_expressions(_entries(pack, name), spaceless=script.spaceless, runs=script.word_runs)
            for name in LIST_INTEGERS
            if has_list(pack, name)
        },
    )
    _by_pack[id(pack)] = (pack, compiled)
    return compiled


def _entries(pack: LanguagePack, name: str) -> tuple[str, ...]:
    return pack.lists[name].entries if name in pack.lists else ()


@dataclass(frozen=True)
class _Phrases:
    """Phrases for which C4 drops a line or a page."""

    blocked: npt.NDArray[np.int64]
    placeholders: int = 0
    javascript: int = 0
    policies: int = 0

    @classmethod
    def find(cls, symbols: npt.NDArray[np.uint32], compiled: _Compiled) -> _Phrases:
        if compiled.phrases is None:
            return _NO_PHRASES
        spans = compiled.phrases.spans(symbols)
        if not len(spans):
            return _NO_PHRASES
        lower = lower_case()
        found = [(first, _text_of(lower[symbols[first:end]])) for first, end in spans.tolist()]
        breaks = np.flatnonzero(symbols == ord("\n"))
        blocked = [first for first, phrase in found if phrase != _PLACEHOLDER]
        kinds = {
            kind: [first for first, phrase in found if phrase == kind] for kind in (_PLACEHOLDER, _JAVASCRIPT)
        }
        policies = [first for first, phrase in found if phrase not in kinds]
        return cls(
            np.array(blocked, np.int64),
            len(kinds[_PLACEHOLDER]),
            _lines_of(kinds[_JAVASCRIPT], breaks),
            _lines_of(policies, breaks),
        )


_NO_PHRASES = _Phrases(np.empty(0, np.int64))


def _text_of(symbols: npt.NDArray[np.uint32]) -> str:
    return symbols.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _lines_of(positions: Iterable[int], breaks: npt.NDArray[np.int64]) -> int:
    """In how many lines the positions lie."""
    return len(set(np.searchsorted(breaks, np.array(list(positions), np.int64)).tolist()))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _text_features(size: int, count: list[int], classes: list[int], pack: LanguagePack) -> Features:
    inside = size - classes[0]
    lines = count[fk.LINES]
    letters = count[fk.SENTENCE_LETTERS]
    return {
        "letters": size,
        "language_letters": inside,
        "language_share": _share(inside, size),
        **{f"{name}_share": _share(classes[i], inside) for i, name in enumerate(pack.script.classes, 1)},
        "paragraph_duplicates": _share(count[fk.PARAGRAPH_REPEATS], count[fk.PARAGRAPHS]),
        "paragraph_duplicate_letters": _share(count[fk.PARAGRAPH_REPEAT_LETTERS], letters),
        "sentence_duplicates": _share(count[fk.SENTENCE_REPEATS], count[fk.SENTENCES]),
        "sentence_duplicate_letters": _share(count[fk.SENTENCE_REPEAT_LETTERS], letters),
        "sentence_length_mean": _share(letters, count[fk.SENTENCES]),
        "sentence_length_max": count[fk.SENTENCE_LONGEST],
        "ellipsis_share": _share(count[fk.SENTENCE_ELLIPSES], count[fk.SENTENCES]),
        "bullet_line_share": _share(count[fk.LINE_BULLETS], lines),
        "ellipsis_line_share": _share(count[fk.LINE_ELLIPSES], lines),
        "terminated_line_share": _share(count[fk.LINE_ENDS], lines),
        "short_line_share": _share(count[fk.LINE_SHORT], lines),
        "line_duplicates": _share(count[fk.LINE_REPEATS], lines),
        "line_duplicate_letters": _share(count[fk.LINE_REPEAT_LETTERS], size),
        "repeated_line_letters": _share(count[fk.RAW_LINE_REPEAT_LETTERS], size - count[fk.LINE_BREAKS]),
    }


def _character_features(symbols: npt.NDArray[np.uint32]) -> Features:
    """Repetition of character n-grams as in Swallow's code (its README says otherwise).

    top_n: the most frequent n-gram's share of all occurrences. repeated_n: the share of distinct n-grams that
    occur more than once.
    """
    rows = repetition.character_repetition(symbols, REPEATED.stop - 1, TOP.stop - 1).tolist()
    total, distinct, repeated, most = range(4)
    return {
        **{f"top_{n}gram": _share(rows[n - 1][most], rows[n - 1][total]) for n in TOP},
        **{f"repeated_{n}grams": _share(rows[n - 1][repeated], rows[n - 1][distinct]) for n in REPEATED},
    }


def _word_features(symbols: npt.NDArray[np.uint32], lines: list[int], compiled: _Compiled) -> Features:
    counts, numbers, lengths = wk.word_counts(
        symbols, compiled.table, lower_case(), compiled.stop_hashes, compiled.longest_stop
    )
    count = counts.tolist()
    spoken = count[wk.SPOKEN_WORDS]
    return {
        "words": spoken,
        "stop_words": count[wk.STOP_WORDS],
        "curly_brackets": count[wk.CURLY_BRACKETS],
        "word_length_mean": _share(count[wk.SPOKEN_LETTERS], spoken),
        "symbol_share": _share(max(count[wk.HASHES], count[wk.ELLIPSES]), spoken),
        "alphabetic_word_share": _share(count[wk.ALPHABETIC_WORDS], count[wk.WORDS]),
        "line_breaks_per_word": _share(lines[fk.LINE_BREAKS], count[wk.WORDS]),
        "c4_line_share": _share(lines[fk.C4_LINES], lines[fk.LINES]),
        "c4_sentences": lines[fk.C4_SENTENCES],
        "c4_open_sentences": lines[fk.C4_OPEN_SENTENCES],
        **_word_repetition(symbols.size, numbers, lengths),
    }


def _word_repetition(size: int, numbers: npt.NDArray[np.uint32], lengths: npt.NDArray[np.int64]) -> Features:
    """Gopher: the share of characters in the most frequent word n-gram, and in n-grams seen before."""
    counts = kernels.ngram_counts(numbers, TOP.start, TOP.stop - 1)
    features: Features = {}
    for n, (total, _, _, most, first) in zip(TOP, counts.tolist(), strict=True):
        letters = int(lengths[first : first + n].sum()) + n - 1 if total else 0
        features[f"top_word_{n}gram"] = _share(letters * most, size)
    repeated = kernels.repeated_lengths(numbers, lengths, REPEATED.start, REPEATED.stop - 1)
    for n, letters in zip(REPEATED, repeated.tolist(), strict=True):
        features[f"repeated_word_{n}grams"] = _share(letters, size)
    return features


def _list_features(symbols: npt.NDArray[np.uint32], compiled: _Compiled, language_letters: int) -> Features:
    features: Features = {}
    if "ng" in compiled.lists:
        spans = compiled.lists["ng"].spans(symbols)
        features["ng_expressions"] = len(spans)
        features["ng_share"] = _share(int((spans[:, 1] - spans[:, 0]).sum()), language_letters)
    if "dating" in compiled.lists:
        features["dating_names"] = len(compiled.lists["dating"].spans(symbols))
    return features
