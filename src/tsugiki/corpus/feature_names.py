"""The names of a text's quality features: which there are for a language. What they mean is in `features.py`.

Apart from it, because planning reads rules and must not load the compiled loops.
"""

from __future__ import annotations

from tsugiki.errors import InputError
from tsugiki.languages import LanguagePack

Features = dict[str, float | int]

TOP = range(2, 5)
REPEATED = range(5, 11)

_TEXT_INTEGERS = ("letters", "language_letters", "sentence_length_max")
_TEXT_FLOATS = (
    "language_share",
    "paragraph_duplicates",
    "paragraph_duplicate_letters",
    "sentence_duplicates",
    "sentence_duplicate_letters",
    "sentence_length_mean",
    "ellipsis_share",
)
_LINE_FLOATS = (
    "bullet_line_share",
    "ellipsis_line_share",
    "terminated_line_share",
    "short_line_share",
    "line_duplicates",
    "line_duplicate_letters",
    "repeated_line_letters",
)
_CHARACTER_FLOATS = (*(f"top_{n}gram" for n in TOP), *(f"repeated_{n}grams" for n in REPEATED))
_WORD_INTEGERS = (
    "words",
    "stop_words",
    "placeholder_texts",
    "curly_brackets",
    "javascript_lines",
    "c4_sentences",
    "c4_open_sentences",
)
_WORD_FLOATS = (
    "word_length_mean",
    "symbol_share",
    "alphabetic_word_share",
    "line_breaks_per_word",
    "c4_line_share",
    *(f"top_word_{n}gram" for n in TOP),
    *(f"repeated_word_{n}grams" for n in REPEATED),
)
LIST_INTEGERS = {"ng": "ng_expressions", "dating": "dating_names", "policy": "policy_lines"}
LIST_FLOATS = {"ng": "ng_share"}


def feature_names(pack: LanguagePack) -> tuple[list[str], list[str]]:
    """The features that are computed for a pack's language: those that are whole numbers, and the others.

    `ng_share`, `ng_expressions`, `dating_names` and `policy_lines` exist only where the pack has the list.
    Raises InputError where the name of a character class makes a column that exists already.
    """
    spaceless = pack.script.spaceless
    integers = [*_TEXT_INTEGERS, *(() if spaceless else _WORD_INTEGERS)]
    integers += [feature for name, feature in LIST_INTEGERS.items() if has_list(pack, name)]
    floats = [*_TEXT_FLOATS, *_LINE_FLOATS, *(_CHARACTER_FLOATS if spaceless else _WORD_FLOATS)]
    floats += [feature for name, feature in LIST_FLOATS.items() if has_list(pack, name)]
    taken = {*_TEXT_FLOATS, *_LINE_FLOATS, *_CHARACTER_FLOATS, *_WORD_FLOATS, *LIST_FLOATS.values()}
    doubled = [name for name in pack.script.classes if f"{name}_share" in taken]
    if doubled:
        raise InputError(
            f'the pack "{pack.code}" calls a character class "{doubled[0]}", but "{doubled[0]}_share" is the '
            "name of another feature",
            hint="rename the class",
        )
    return integers, floats + [f"{name}_share" for name in pack.script.classes]


def has_list(pack: LanguagePack, name: str) -> bool:
    """Whether a pack's word list is counted; phrases of notices only where spaces stand between words."""
    return name in pack.lists and not (name == "policy" and pack.script.spaceless)
