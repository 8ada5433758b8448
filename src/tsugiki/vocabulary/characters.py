"""SentencePiece-style tokenizers: characters that they know only as bytes, and where their words end.

Such a tokenizer has no pre-tokenizer that cuts words, and falls back to bytes only after all merges, so bytes
are never joined: a new character has to be a piece of its own before anything can be built on it.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tsugiki.models.spelling import SPACE, byte_of
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.pieces import ANY_SCRIPT, MIXED_SCRIPTS, Scripts, describe_pieces, script_of

NEVER_PIECES = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls (line breaks among them), surrogates, private and unassigned characters, line separators."""

_NO_WORD = -1


def characters_to_add(
    tokenizer: TextTokenizer, counts: Mapping[str, int], minimum_count: int
) -> tuple[str, ...]:
    """The characters that may become pieces: those that save most tokens first, ties by code point.

    One that occurs `n` times and has `b` bytes saves n · (b - 1) tokens. A character that is part of a longer
    piece of the base is left out: text that holds it may have that piece's id and must keep it.
    """
    known = {SPACE, *"".join(tokenizer.pieces)}
    found = [
        character
        for character, count in counts.items()
        if count >= minimum_count
        and character not in known
        and not character.isascii()
        and unicodedata.category(character) not in NEVER_PIECES
    ]
    return tuple(sorted(found, key=lambda one: (-saved_by_character(one, counts[one]), one)))


def saved_by_character(character: str, count: int) -> int:
    """Tokens that a text becomes shorter by where the character's bytes become one piece."""
    return (len(character.encode()) - 1) * count


def with_characters(tokenizer: TextTokenizer, characters: Sequence[str]) -> TextTokenizer:
    """The tokenizer with `characters` as pieces behind its own."""
    data = json.loads(tokenizer.tokenizer.to_str())
    vocabulary = data["model"]["vocab"]
    vocabulary.update({token["content"]: token["id"] for token in data["added_tokens"]})
    vocabulary.update({character: tokenizer.size + place for place, character in enumerate(characters)})
    return TextTokenizer(
        Tokenizer.from_str(json.dumps(data, ensure_ascii=False)), tokenizer.bos_id, tokenizer.eos_id
    )


def learnable_contents(tokenizer: TextTokenizer) -> list[bytes | None]:
    """The bytes of each piece by id; None for those that nothing is built on.

    These are special and added tokens, and for SentencePiece-style tokenizers bytes, pieces with a line break
    and, where the base splits numbers into digits, digits: joining them would undo that.
    """
    if tokenizer.is_byte_level:
        return list(tokenizer.contents)
    splits_digits = not any(_digits(piece) > 1 for piece in tokenizer.pieces)
    return [
        None
        if content is None
        or byte_of(piece) is not None
        or b"\n" in content
        or (splits_digits and _digits(piece) > 0)
        else content
        for piece, content in zip(tokenizer.pieces, tokenizer.contents, strict=True)
    ]


def _digits(piece: str) -> int:
    """How many digits a piece holds; bytes such as `<0x41>` hold none."""
    return 0 if byte_of(piece) is not None else sum(script_of(one) == "NUMBER" for one in piece)


@dataclass(frozen=True)
class Borders:
    """Where words end, for a tokenizer that cuts none: by properties of its pieces P.

    A word ends before a piece that begins with a space, and between two pieces that no piece may join
    (`pieces.script_of`). Pieces that nothing is built on belong to no word.
    """

    begins_P: NDArray[np.bool_]
    script_P: NDArray[np.int16]
    is_opaque_P: NDArray[np.bool_]

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> Borders:
        """The borders between a SentencePiece-style tokenizer's pieces."""
        contents = learnable_contents(tokenizer)
        table: Any = describe_pieces(contents, len(contents), Scripts())
        return cls(
            np.array([piece.startswith(SPACE) for piece in tokenizer.pieces], dtype=np.bool_),
            table.script_P,
            np.array([content is None for content in contents], dtype=np.bool_),
        )

    def words(self, ids_T: NDArray[np.int32], number_T: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the word that each token belongs to, -1 for none.

        number_T: words that the pre-tokenizer cut, if any; their borders stay.
        """
        script_T = self.script_P[ids_T]
        left, right = script_T[:-1], script_T[1:]
        ends = self.begins_P[ids_T[1:]] | (number_T[1:] != number_T[:-1])
        ends |= (left == MIXED_SCRIPTS) | (right == MIXED_SCRIPTS)
        ends |= (left != right) & (left != ANY_SCRIPT) & (right != ANY_SCRIPT)
        words_T = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(ends)))
        return np.where(self.is_opaque_P[ids_T] | (number_T == _NO_WORD), _NO_WORD, words_T)
