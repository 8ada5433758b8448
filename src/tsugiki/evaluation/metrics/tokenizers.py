"""How a text is cut into tokens, by name. None depends on the model that is scored.

Published ROUGE-2 of XL-Sum was counted on each model's own subwords, so that one summary had as many scores
as there were vocabularies. Here a score names its tokenizer and is the same for every model.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from tsugiki.errors import DependencyError, InputError, did_you_mean

Tokenize = Callable[[str], list[str]]

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """Runs of a to z and 0 to 9 of the lower-cased text: the rule of the package rouge_score, no stemming.

    Of other scripts nothing is left: take "characters" or a segmenter for those.
    """
    return _WORD.findall(text.lower())


def characters(text: str) -> list[str]:
    """Every character of the NFKC form but for white space, lower-cased."""
    return [one for one in unicodedata.normalize("NFKC", text).lower() if not one.isspace()]


def _sacrebleu(module: str, kind: str, extra: str) -> Tokenize:
    """A tokenizer of sacreBLEU's; it gives a line with spaces between tokens."""
    import importlib

    try:
        made = getattr(importlib.import_module(f"sacrebleu.tokenizers.{module}"), kind)()
    except (ImportError, RuntimeError) as error:
        raise DependencyError(
            f"the tokenizer {module.removeprefix('tokenizer_')} of sacreBLEU can't be loaded: {error}",
            hint=f"pip install '{extra}'",
        ) from error
    return lambda text: made(text).split()


def thirteen_a(text: str) -> list[str]:
    """The tokenizer of mteval-v13a.pl, sacreBLEU's default."""
    return _thirteen_a()(text)


@cache
def _thirteen_a() -> Tokenize:
    return _sacrebleu("tokenizer_13a", "Tokenizer13a", "tsugiki")


def ja_mecab(text: str) -> list[str]:
    """MeCab with IPADIC, as sacreBLEU's `ja-mecab`. Raises DependencyError without the extra `japanese`."""
    return _ja_mecab()(text)


@cache
def _ja_mecab() -> Tokenize:
    return _sacrebleu("tokenizer_ja_mecab", "TokenizerJaMecab", "tsugiki[japanese]")


def nagisa(text: str) -> list[str]:
    """The segmenter nagisa, which cut the Japanese side of published WMT20 scores.

    Raises DependencyError without the extra `nagisa`.
    """
    return _nagisa()(text)


@cache
def _nagisa() -> Tokenize:
    try:
        import nagisa as package
    except ImportError as error:
        raise DependencyError(
            "the segmenter nagisa is not installed; published WMT20 scores into Japanese need it",
            hint="pip install 'tsugiki[nagisa]', or take the tokenizer ja-mecab",
        ) from error

    def cut(text: str) -> list[str]:
        return [str(word) for word in package.tagging(text).words]

    return cut


TOKENIZERS: dict[str, Tokenize] = {
    "words": words,
    "characters": characters,
    "13a": thirteen_a,
    "ja-mecab": ja_mecab,
    "nagisa": nagisa,
}


def tokenizer(name: str) -> Tokenize:
    """The tokenizer of this name; raises InputError for one that is not known.

    A missing package shows when the first text is cut.
    """
    found = TOKENIZERS.get(name)
    if found is None:
        raise InputError(f'there is no tokenizer "{name}"', hint=did_you_mean(name, list(TOKENIZERS)))
    return found
