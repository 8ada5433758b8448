"""The door of cleaning: one text, one pack, the parts that are wanted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tsugiki.corpus.cleaning.footer import FooterMode, cut_footer
from tsugiki.corpus.cleaning.normalise import normalise_width
from tsugiki.corpus.cleaning.pii import mask_personal_data
from tsugiki.corpus.cleaning.punctuation import restore_punctuation
from tsugiki.languages import LanguagePack

_ROUNDS = 4
"""One part can give another one something to do (a masked number before a comma); two rounds settle it."""


@dataclass(frozen=True)
class CleanOptions:
    """Which parts are done. A pack that does not describe a part leaves the text as it is."""

    punctuation: bool = True
    footer: FooterMode = "safe"
    nfkc: bool = False
    personal_data: bool = True
    optional_kinds: tuple[str, ...] = ()
    """Kinds of personal data that a pack masks only on request, e.g. `ip`."""


@dataclass(frozen=True)
class Cleaned:
    """A cleaned text, and what was changed.

    `punctuation` counts characters, `footer_lines` lines, `nfkc` runs of characters, and each kind of
    personal data (`mail`, `phone`, ...) what was masked. Parts that changed nothing are left out.
    """

    text: str
    changes: dict[str, int]


def clean(text: str, pack: LanguagePack, options: CleanOptions) -> Cleaned:
    """Clean one text; never raises, and never leaves nothing of a text that is not blank.

    Cleaning a cleaned text changes nothing, unless footers are cut as Swallow does it (mode `swallow`), which
    looks at the last ten lines however often they have been cut before.
    """
    changes: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        before = text
        text = _once(text, pack, options, changes)
        if text == before or options.footer == "swallow":
            break
    return Cleaned(text, {name: count for name, count in sorted(changes.items()) if count})


def _once(text: str, pack: LanguagePack, options: CleanOptions, changes: Counter[str]) -> str:
    """One round. Punctuation comes before NFKC, which would take away the digits that guard `３．１４`."""
    if options.punctuation:
        text, changed = restore_punctuation(text, pack)
        changes["punctuation"] += changed
    if options.nfkc:
        text, changed = normalise_width(text, pack)
        changes["nfkc"] += changed
    if options.personal_data:
        text, masked = mask_personal_data(text, pack, options.optional_kinds)
        changes.update(masked)
    if options.footer != "off" and not changes["footer_lines"]:  # once, so that its bounds hold
        shorter, cut = cut_footer(text, pack, options.footer)
        if shorter.strip() or not text.strip():
            text = shorter
            changes["footer_lines"] += cut
    return text
