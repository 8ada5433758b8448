"""Could this page be in the language? Decided from its head, before the costly extraction.

Swallow asks for `<html lang>` or a Japanese title (arXiv:2404.17733 §3.1: F1 0.926). Added here, all as data
of the language pack: the encoding, characters that hardly any other language uses anywhere in the head, the
top-level domain, and, for scripts that many languages share, a declaration of another language as a veto.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cache
from urllib.parse import urlsplit

from tsugiki.corpus.decode import Decoded, codec_of
from tsugiki.languages import CodePoints, LanguagePack

_LANG_CHARACTERS = 4096
_TITLE_CHARACTERS = 1 << 16
_EVIDENCE_CHARACTERS = 1 << 14
_EVIDENCE_IN_TITLE = 2
_EVIDENCE_IN_HEAD = 20
_LANG = re.compile(
    r"<html\b[^>]{0,1000}?(?<![\w-])lang\s*=\s*[\"']?\s*([A-Za-z]{2,3})(?![A-Za-z])", re.IGNORECASE
)
_META_LANG = re.compile(
    r"<meta[^>]{0,200}?content-language[^>]{0,200}?content\s*=\s*[\"']\s*([A-Za-z]{2,3})(?![A-Za-z])",
    re.IGNORECASE,
)
_MARKUP = re.compile(
    r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?-->|<[^>]*>|&\w+;", re.IGNORECASE | re.DOTALL
)
_LETTERS = re.compile(r"[^\W\d_]+")
_TITLE = re.compile(r"<title\b[^>]{0,200}>([^<]{0,2000})", re.IGNORECASE)


def declared_language(page: str) -> str | None:
    """The primary subtag that the page declares, lower case."""
    head = page[:_LANG_CHARACTERS]
    match = _LANG.search(head) or _META_LANG.search(head)
    return match[1].lower() if match else None


def page_title(page: str) -> str | None:
    """The content of the first `<title>`, entities resolved and white space collapsed; None if empty."""
    match = _TITLE.search(page[:_TITLE_CHARACTERS])
    title = " ".join(html.unescape(match[1]).split()) if match else ""
    return title or None


def host_of(url: str) -> str | None:
    """The host name of a URL, lower case; None where there is none or the URL is malformed."""
    try:
        return urlsplit(url).hostname
    except ValueError:  # brackets that are no IPv6 address
        return None


def is_candidate(decoded: Decoded, url: str, pack: LanguagePack) -> bool:
    """Whether the page is worth extracting for the pack's language."""
    facts = pack.prefilter
    declared = declared_language(decoded.text)
    if declared in facts.html_lang or codec_of(decoded.encoding) in facts.charsets:
        return True
    if facts.trust_other_lang and declared is not None:
        return False
    if facts.evidence:
        characters = evidence_pattern(facts.evidence)
        if len(characters.findall(page_title(decoded.text) or "")) >= _EVIDENCE_IN_TITLE:
            return True
        if len(characters.findall(decoded.text[:_EVIDENCE_CHARACTERS])) >= _EVIDENCE_IN_HEAD:
            return True
    if declared is None and (host_of(url) or "").rpartition(".")[2] in facts.domains:
        return True
    return declared is None and facts.undeclared_share is not None and _in_script(decoded.text, pack)


def _in_script(page: str, pack: LanguagePack) -> bool:
    """Whether enough of the letters that a reader sees in the head belong to the pack's script."""
    letters = "".join(_LETTERS.findall(_MARKUP.sub(" ", page[:_EVIDENCE_CHARACTERS])))
    ranges = tuple(span for spans in pack.script.classes.values() for span in spans)
    if not letters or not ranges:
        return bool(letters)
    inside = len(evidence_pattern(ranges).findall(letters))
    return inside >= (pack.prefilter.undeclared_share or 0.0) * len(letters)


@cache
def evidence_pattern(ranges: Sequence[CodePoints]) -> re.Pattern[str]:
    """One character of `ranges`, as a compiled pattern."""
    return re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges) + "]")
