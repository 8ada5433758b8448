"""SentencePiece's `tokenizer.model`: reading its pieces and adding new ones; nothing else is changed.

The file is a protobuf message `ModelProto` (google/sentencepiece, src/sentencepiece_model.proto). Its fields
are read and written here directly: everything that is not understood keeps its bytes, and no version of the
protobuf library has to fit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from tsugiki.errors import InputError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_PIECES, _TRAINER = 1, 2  # fields of ModelProto
_TEXT, _SCORE, _TYPE = 1, 2, 3  # fields of SentencePiece
_MODEL_TYPE, _VOCABULARY_SIZE = 3, 4  # fields of TrainerSpec
_BPE = 2  # TrainerSpec.ModelType
_UNIGRAM = 1
_VARINT_BYTES = 10


class PieceType(IntEnum):
    """SentencePiece.Type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelPiece(NamedTuple):
    """One piece: its text (`▁` for spaces), its score (the higher, the earlier it is merged), its type."""

    text: str
    score: float
    type: PieceType


class SentencePieceModel(NamedTuple):
    """What is read of a tokenizer.model: its pieces by id, and whether it is BPE."""

    pieces: tuple[ModelPiece, ...]
    is_bpe: bool


def read_sentencepiece(data: bytes) -> SentencePieceModel:
    """The pieces of a tokenizer.model; raises InputError where the bytes are not such a file."""
    try:
        pieces = []
        model_type = _UNIGRAM
        for number, value, _ in _fields(data):
            if number == _PIECES and isinstance(value, bytes):
                pieces.append(_read_piece(value))
            elif number == _TRAINER and isinstance(value, bytes):
                for inner, setting, _ in _fields(value):
                    if inner == _MODEL_TYPE and isinstance(setting, int):
                        model_type = setting
    except (IndexError, ValueError, struct.error) as error:
        raise InputError(
            f"tokenizer.model can't be read as a SentencePiece model: {error}",
            hint="fetch the file again; if the model works without it, delete it",
        ) from error
    if not pieces:
        raise InputError("tokenizer.model holds no pieces", hint="fetch the file again, or delete it")
    return SentencePieceModel(tuple(pieces), model_type == _BPE)


def append_pieces(data: bytes, pieces: Sequence[ModelPiece]) -> bytes:
    """The file with `pieces` behind its own; `trainer_spec.vocab_size` counts them.

    All other bytes stay as they are, and the old pieces keep ids, scores and types.
    """
    size = len(read_sentencepiece(data).pieces) + len(pieces)
    old, rest = bytearray(), bytearray()
    for number, value, raw in _fields(data):
        if number == _PIECES:
            old += raw
        elif number == _TRAINER and isinstance(value, bytes):
            rest += _length_delimited(_TRAINER, _with_vocabulary_size(value, size))
        else:
            rest += raw
    return bytes(old) + b"".join(_length_delimited(_PIECES, _write_piece(piece)) for piece in pieces) + rest


def replace_scores(data: bytes, scores: Mapping[int, float]) -> bytes:
    """The file with other scores for the pieces of some ids; all other bytes stay as they are."""
    written, place = bytearray(), 0
    for number, value, raw in _fields(data):
        if number == _PIECES and isinstance(value, bytes):
            if place in scores:
                kept = b"".join(inner for field, _, inner in _fields(value) if field != _SCORE)
                score = _varint(_SCORE << 3 | _FIXED32) + struct.pack("<f", scores[place])
                raw = _length_delimited(_PIECES, kept + score)  # noqa: PLW2901 - the field in its new form
            place += 1
        written += raw
    return bytes(written)


def _with_vocabulary_size(trainer: bytes, size: int) -> bytes:
    kept = b"".join(raw for number, _, raw in _fields(trainer) if number != _VOCABULARY_SIZE)
    return kept + _varint(_VOCABULARY_SIZE << 3 | _VARINT) + _varint(size)


def _read_piece(data: bytes) -> ModelPiece:
    text, score, kind = "", 0.0, PieceType.NORMAL
    for number, value, _ in _fields(data):
        if number == _TEXT and isinstance(value, bytes):
            text = value.decode()
        elif number == _SCORE and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == _TYPE and isinstance(value, int):
            kind = PieceType(value)
    return ModelPiece(text, score, kind)


def _write_piece(piece: ModelPiece) -> bytes:
    written = _length_delimited(_TEXT, piece.text.encode())
    written += _varint(_SCORE << 3 | _FIXED32) + struct.pack("<f", piece.score)
    return written + _varint(_TYPE << 3 | _VARINT) + _varint(piece.type)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes, bytes]]:
    """(number, value, all bytes) of each field of a message; values of fixed width are bytes.

    Raises ValueError or IndexError where the bytes are no message.
    """
    place = 0
    while place < len(data):
        start = place
        key, place = _read_varint(data, place)
        wire, value = key & 7, b""
        if wire == _VARINT:
            number, place = _read_varint(data, place)
            yield key >> 3, number, data[start:place]
            continue
        if wire == _BYTES:
            length, place = _read_varint(data, place)
        elif wire in {_FIXED32, _FIXED64}:
            length = 4 if wire == _FIXED32 else 8
        else:
            message = f"wire type {wire} at byte {start}"
            raise ValueError(message)
        value = data[place : place + length]
        if len(value) < length:
            message = f"it ends within the field that begins at byte {start}"
            raise ValueError(message)
        place += length
        yield key >> 3, value, data[start:place]


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count in range(_VARINT_BYTES):
        if place + count >= len(data):
            break
        byte = data[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:  # noqa: PLR2004 - the high bit says that more follow
            return value, place + count + 1
    message = f"a number at byte {place} does not end"
    raise ValueError(message)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - as above
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))


def _length_delimited(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content
