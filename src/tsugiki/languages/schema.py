"""The shape of a language pack: typed facts, checked when a pack is read."""

from __future__ import annotations

import codecs
import re
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_LAST_CODE_POINT = 0x10FFFF


def _parse_range(value: object) -> object:
    """`"3041-3096"` or `"3005"` (hexadecimal code points, both ends included) -> (first, last)."""
    if not isinstance(value, str):
        return value
    first, _, last = value.partition("-")
    try:
        bounds = (int(first, 16), int(last or first, 16))
    except ValueError:
        message = f'"{value}" is not a range of code points; write hexadecimal such as "3041-3096"'
        raise ValueError(message) from None
    if not 0 <= bounds[0] <= bounds[1] <= _LAST_CODE_POINT:
        message = f'"{value}" is not a range of code points: 0 <= first <= last <= 10FFFF is needed'
        raise ValueError(message)
    return bounds


def _join_characters(value: object) -> object:
    """A text, or a list of single characters -> a text; white space ends no sentence."""
    marks = list(value) if isinstance(value, str | list | tuple) else []
    for mark in marks:
        if not isinstance(mark, str) or len(mark) != 1:
            message = f'{mark!r} is not a single character; longer marks such as "..." go into ellipses'
            raise ValueError(message)
        if mark.isspace():
            message = f"{mark!r} is white space, which ends no sentence"
            raise ValueError(message)
    return "".join(marks) if marks else value


def _known_codec(name: str) -> str:
    """The name of a Python text codec, or a ValueError."""
    try:
        known = codecs.lookup(name)._is_text_encoding  # noqa: SLF001 (the only way to ask)
    except (LookupError, ValueError):
        known = False
    if not known:
        message = f'Python knows no text encoding "{name}"'
        raise ValueError(message)
    return name


Codec = Annotated[str, AfterValidator(_known_codec)]

CodePoints = Annotated[tuple[int, int], BeforeValidator(_parse_range)]
"""A range of Unicode code points, both ends included."""

Character = Annotated[str, Field(min_length=1, max_length=1)]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Identification(_Facts):
    """How the language identifier's answer is read."""

    labels: tuple[str, ...] = Field(min_length=1)
    """Labels of the identifier (py3langid: ISO 639-1) that count as this language."""
    minimum_score: float = Field(ge=0, le=1)
    """The least probability of the labels together."""
    index_languages: tuple[Annotated[str, Field(pattern=r"^[a-z]{3}$")], ...] = ()
    """What Common Crawl's index calls the language (`content_languages`, ISO 639-3); `tsugiki corpus select`
    needs it."""


class Script(_Facts):
    """The writing system."""

    spaceless: bool = False
    """Whether words are written without spaces between them; word features make no sense then."""
    word_segmenter: str = ""
    """Name of the program that cuts such words (`tsugiki.vocabulary.segmenters`), if there is one."""
    word_runs: tuple[CodePoints, ...] = ()
    """Characters of which a run is a word (katakana): an expression of a list is not found inside of a
    longer run. Swallow's search has no such bound; LLM-jp's has (corpus.md §2.1, `ignore_confused`)."""
    sentence_terminators: Annotated[str, BeforeValidator(_join_characters)] = Field(min_length=1)
    """Characters that end a sentence, as one text or as a list of single characters."""
    ellipses: tuple[Annotated[str, Field(min_length=1, pattern=r"^\S(.*\S)?$")], ...] = ("…",)
    """A sentence (or, in languages with spaces, a line) that ends with one of these breaks off."""
    classes: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], tuple[CodePoints, ...]] = Field(
        default_factory=dict, max_length=200
    )
    """Disjoint named classes of characters. Each gives a feature `<name>_share`: its share of all
    characters in any class; all of them together give `language_letters` and `language_share`."""

    @model_validator(mode="after")
    def _disjoint(self) -> Self:
        spans = sorted((span, name) for name, ranges in self.classes.items() for span in ranges)
        for ((_, last), name), ((first, _), other) in pairwise(spans):
            if first <= last:
                message = f'character classes "{name}" and "{other}" overlap at U+{first:04X}'
                raise ValueError(message)
        return self


class Decoding(_Facts):
    """Encodings to try where a page is not UTF-8, and what well-decoded text looks like."""

    legacy_encodings: tuple[Codec, ...] = ()
    """Python codec names, the most frequent first."""
    frequent: tuple[CodePoints, ...] = ()
    """Characters that every page of the language has many of: full credit when a decoding is scored."""
    plausible: tuple[CodePoints, ...] = ()
    """Characters that belong to the language's pages but prove little: half credit."""


class Prefilter(_Facts):
    """What tells a candidate page before its main text is extracted."""

    html_lang: tuple[str, ...] = Field(min_length=1)
    """Primary subtags of `<html lang>`; "ja" fits "ja" and "ja-JP", not "jav"."""
    charsets: tuple[Codec, ...] = ()
    """Encodings (Python codec names) that are used for this language alone."""
    domains: tuple[str, ...] = ()
    """Top-level domains where most pages are in this language."""
    evidence: tuple[CodePoints, ...] = ()
    """Characters that hardly any other language uses; two in the title, or a share of the head, suffice."""
    trust_other_lang: bool = False
    """Whether a page that declares another language is dropped at once. For scripts shared by many
    languages, where the characters say nothing."""
    evidence_without: tuple[CodePoints, ...] = ()
    """Characters that the script's letters stand beside in other languages (kana and hangul beside kanji).
    Where the head has many letters of the script and none of these to speak of, that is evidence, too."""
    check_letters: bool = True
    """Whether a page with a sign of the language is dropped where the letters that a reader sees are another
    one's. It takes a third of the speed on pages of the language, and pays where declarations often lie."""
    own_share: float = Field(default=0.1, gt=0, le=1)
    """The share of the letters seen that must be the language's own for that check. Untranslated pages in a
    translated frame have up to 5 %; best is where the identifier's answer turns."""
    undeclared_share: float | None = Field(default=None, gt=0, le=1)
    """A page without any sign either way is a candidate if at least this share of the letters in its head
    belongs to the script's classes; absent: never."""
    stop_word_share: float = Field(default=0.07, ge=0, le=1)
    """Such a page must have at least this share of stop words among the words in its head, which tells the
    languages of one script apart (measured: `benchmarks/prefilter_documents.py`)."""


Threshold = Annotated[float, Field(allow_inf_nan=False, strict=True)]
"""A finite number; neither text nor truth values."""


class Bound(_Facts):
    """A rule: a document is rejected where `feature` is below `min` or above `max`; equality passes.

    With `below` it is rejected where `feature` is not below: equality fails.
    """

    feature: str
    min: Threshold | None = None
    max: Threshold | None = None
    below: Threshold | None = None

    @model_validator(mode="after")
    def _has_bound(self) -> Self:
        if self.min is None and self.max is None and self.below is None:
            message = 'a rule needs "min", "max" or "below"'
            raise ValueError(message)
        tops = [bound for bound in (self.max, self.below) if bound is not None]
        if self.min is not None and tops and self.min > min(tops):
            message = f"no document passes: min = {self.min:g} lies above {min(tops):g}"
            raise ValueError(message)
        return self


class WordList(_Facts):
    """A list of words in a file of the pack's folder: UTF-8, one entry a line, `#` begins a comment line."""

    file: str = Field(pattern=r"^[\w.-]+$")
    """Name of the file beside pack.toml."""
    licence: str = Field(min_length=1)
    """Under which licence the list may be used; an SPDX name where there is one."""
    source: str = Field(min_length=1)
    """Where the list comes from, for the person who wants to check it."""
    entries: tuple[str, ...] = ()
    """What stands in the file, in its order; filled in when the pack is read."""


class Cleanup(_Facts):
    """How the text of a kept page is cleaned (corpus.md §1.7 and §1.8; `tsugiki.corpus.cleaning`)."""

    punctuation: tuple[tuple[Character, Character], ...] = ()
    """Pairs (western, native): where the western mark has the majority, it becomes the native one."""
    counted_after: tuple[CodePoints, ...] = ()
    """Only marks behind one of these characters count for the majority."""
    kept_after: tuple[CodePoints, ...] = ()
    """A run of western marks behind one of these characters is never replaced."""
    footer_lines: int = Field(default=10, ge=1, le=1000)
    """A footer begins in the last so many lines. Its words are the list `footer`."""
    footer_share: float = Field(default=0.3, ge=0, lt=1)
    """A line is a footer's where footer words make up more than this share of its characters."""
    footer_sentence_share: float = Field(default=0.6, ge=0, le=1)
    """The same for a line that ends like a sentence (safe mode only)."""
    footer_part: float = Field(default=1 / 3, gt=0, lt=1)
    """The largest part of a text's characters that may be cut (safe mode only)."""
    footer_remainder: int = Field(default=200, ge=1)
    """The fewest characters that must be left (safe mode only)."""
    nfkc_keep: tuple[CodePoints, ...] = (
        *((0xB2, 0xB3), (0xB9, 0xB9), (0xBC, 0xBE), (0x2070, 0x209F), (0x2100, 0x218F), (0x2025, 0x2026)),
        *((0x2460, 0x24FF), (0x3200, 0x33FF), (0x1F100, 0x1F2FF)),
    )
    """Characters that optional NFKC leaves alone, because it would lose their meaning: by default super- and
    subscripts, fractions, letter-like signs, ellipses, and circled, squared and parenthesised ones."""


class NumberPattern(_Facts):
    """What one kind of personal number looks like, once digits, hyphens and spaces are ASCII."""

    kind: str
    pattern: str
    """A regular expression for the number alone. No digit, letter or `-` may stand at either side, and no `.`
    with a digit; letters may stand before it where `before` is given."""
    before: str = ""
    """A regular expression that must match before the number, at most 6 characters (no digits) away."""
    after: str = ""
    """A regular expression that must match behind the number; white space may lie between."""
    digits: tuple[int, ...] = ()
    """How many digits the number may have; any if empty."""
    check: Literal["", "my_number"] = ""
    """The check digit's rule (see `tsugiki.corpus.cleaning.numbers`)."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        for expression in (self.pattern, self.before, self.after):
            try:
                re.compile(expression)
            except re.error as error:
                message = f'"{expression}" is not a regular expression: {error}'
                raise ValueError(message) from None
        return self


class PersonalData(_Facts):
    """What personal data looks like and by what it is replaced; a kind without a token is left alone.

    The kinds `mail`, `card` and `ip` (public IPv4) are known to the code; all others are `numbers`.
    """

    tokens: dict[str, str]
    """The replacement of each kind."""
    optional: tuple[str, ...] = ()
    """Kinds that are masked only on request."""
    at_signs: tuple[str, ...] = ()
    """Words that stand in brackets for `@`, such as `at`, in lower case."""
    numbers: tuple[NumberPattern, ...] = ()
    """Where two match at one place, the one named first wins."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for kind, token in self.tokens.items():
            if not token or any(letter in "@＠\n" or letter.isdecimal() for letter in token):
                message = f'the token of "{kind}" must be a text without digits, "@" and line breaks'
                raise ValueError(message)
        unknown = {*self.optional, *(number.kind for number in self.numbers)} - set(self.tokens)
        if unknown:
            message = f"no token is given for {', '.join(sorted(unknown))}"
            raise ValueError(message)
        return self


class Hosts(_Facts):
    """Hosts that are left out whatever they hold, with the reason `host:excluded` (corpus.md §1.5)."""

    excluded: tuple[Annotated[str, Field(pattern=r"^[a-z0-9_-]+(\.[a-z0-9_-]+)+$")], ...] = ()
    """Domains in lower-case ASCII; each stands for itself and all that is below it."""


class Typical(_Facts):
    """What a page that passes the rules is like; for forecasts only."""

    characters_per_document: float = Field(default=2000, gt=0)
    bytes_per_character: float = Field(default=1.5, gt=0)
    """In UTF-8."""


class LanguagePack(_Facts):
    """One language's facts; see the comments in `languages/ja/pack.toml` for a worked example."""

    code: str = Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]+)?$")
    name: str
    native_name: str
    identification: Identification
    script: Script
    decoding: Decoding = Decoding()
    prefilter: Prefilter
    stop_words: tuple[str, ...] = ()
    """Frequent function words, lower case; only for languages with spaces (Gopher's stop-word rule)."""
    typical: Typical = Typical()
    cleanup: Cleanup = Cleanup()
    personal_data: PersonalData | None = None
    """What is masked in texts; nothing if absent."""
    hosts: Hosts = Hosts()
    lists: dict[str, WordList] = Field(default_factory=dict)
    """Word lists by the name under which code asks for them: `ng` (expressions of harmful pages),
    `dating` (names of dating sites), `footer` (words of page footers), `policy` (C4's phrases of notices),
    `refusals` (with which an assistant declines a request)."""
    rules: dict[str, Bound] = Field(default_factory=dict)
    """The rules that are used unless a recipe names a set."""
    rule_sets: dict[str, dict[str, Bound]] = Field(default_factory=dict)
    """Further sets of rules by name, e.g. `fineweb2`; a recipe chooses one with `rules: fineweb2`."""
