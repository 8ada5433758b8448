"""How tokenizers spell the bytes of their pieces: GPT-2's alphabet, or SentencePiece's `▁` and `<0xE3>`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from tsugiki.models.byte_level import byte_alphabet, piece_to_bytes

SPACE = "▁"
"""SentencePiece's spelling of a space (U+2581); a real U+2581 in a text becomes a space, too."""

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenizerKind(StrEnum):
    """What a tokenizer's pieces and merges are."""

    BYTE_LEVEL = "byte-level BPE"
    """GPT-2, Llama 3, Qwen: pieces are bytes in GPT-2's alphabet; a pre-tokenizer cuts words."""
    SENTENCE_PIECE = "SentencePiece BPE"
    """Llama 2, Mistral, Gemma: pieces are characters, `▁` a space; all else falls back to bytes."""
    UNIGRAM = "Unigram"
    """LLM-jp's first to third, T5, XGLM: pieces are characters, `▁` a space; each has a score, the best way
    through a text wins."""
    OTHER = "other"
    """All else: WordPiece, BPE without bytes to fall back to."""


def kind_of(tokenizer_json: Mapping[str, Any]) -> TokenizerKind:
    """The kind of tokenizer that a tokenizer.json describes."""
    model = tokenizer_json.get("model") or {}
    decoders = {part.get("type") for part in parts_of(tokenizer_json.get("decoder"))}
    if "ByteLevel" in decoders:
        return TokenizerKind.BYTE_LEVEL
    if model.get("type") == "BPE" and model.get("byte_fallback") and "ByteFallback" in decoders:
        return TokenizerKind.SENTENCE_PIECE
    return TokenizerKind.UNIGRAM if model.get("type") == "Unigram" else TokenizerKind.OTHER


def parts_of(component: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """A part of tokenizer.json, or those that it is a sequence of."""
    if component is None:
        return
    inner = next((component[name] for name in _SEQUENCES if isinstance(component.get(name), list)), None)
    if inner is None:
        yield component
        return
    for part in inner:
        yield from parts_of(part)


_SEQUENCES = ("decoders", "normalizers", "pretokenizers")


def content_of(kind: TokenizerKind, piece: str) -> bytes | None:
    """The bytes of text that a piece stands for; None where it is not spelled as the kind spells pieces.

    Of SentencePiece's pieces, those of one byte (`<0xE3>`) stand for that byte.
    """
    if kind is TokenizerKind.BYTE_LEVEL:
        return piece_to_bytes(piece)
    byte = byte_of(piece)
    return bytes([byte]) if byte is not None else piece.replace(SPACE, " ").encode(errors="surrogatepass")


def spell(kind: TokenizerKind, content: bytes) -> str:
    """The piece for some bytes of text, the inverse of `content_of`.

    Raises UnicodeDecodeError for a part of a character in SentencePiece's spelling, which has none.
    """
    if kind is TokenizerKind.BYTE_LEVEL:
        return "".join(_SPELLING[byte] for byte in content)
    return content.decode().replace(" ", SPACE)


_SPELLING = {byte: character for character, byte in byte_alphabet().items()}


def byte_of(piece: str) -> int | None:
    """The byte that a fallback piece such as `<0xE3>` stands for, None for any other piece."""
    found = _BYTE.fullmatch(piece)
    return int(found[1], 16) if found else None
