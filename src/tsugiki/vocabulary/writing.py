"""The extended tokenizer's files: tokenizer.json, and SentencePiece's tokenizer.model in step with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tsugiki.errors import InputError
from tsugiki.models.sentencepiece_file import ModelPiece, PieceType, append_pieces, read_sentencepiece
from tsugiki.models.spelling import TokenizerKind, byte_of, spell
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.candidates import Candidate

SENTENCE_PIECE_FILE = "tokenizer.model"


def build_tokenizer(
    data: Mapping[str, Any], base: TextTokenizer, kept: Sequence[Candidate], *, every_split: bool
) -> TextTokenizer:
    """The base with the kept pieces after its own, and their merges after its merges.

    data: the base's tokenizer.json. every_split: whether each piece is given by all its splits into two
    pieces, or by the merges that were learnt. SentencePiece needs the first: it merges any two neighbours
    that together are a piece.
    """
    kind = base.kind
    names = dict(enumerate(base.pieces))
    model = {**data["model"], "vocab": dict(data["model"]["vocab"]), "merges": list(data["model"]["merges"])}
    # Added tokens that are not among the model's own would be numbered anew when the file is read.
    model["vocab"].update({token["content"]: token["id"] for token in data["added_tokens"]})
    for number, candidate in enumerate(kept, start=base.size):
        names[candidate.number] = spell(kind, candidate.content)
        model["vocab"][names[candidate.number]] = number
    if every_split:
        model["merges"] += _all_splits(base, [names[candidate.number] for candidate in _by_rank(kept)])
    else:
        merges = sorted(merge for candidate in kept for merge in candidate.merges)
        model["merges"] += [
            [names[left], names[right]] for _, left, right in merges if {left, right} <= names.keys()
        ]
    side_files = {name: content for name, content in base.side_files.items() if name != SENTENCE_PIECE_FILE}
    if kind is TokenizerKind.SENTENCE_PIECE and SENTENCE_PIECE_FILE in base.side_files:
        side_files[SENTENCE_PIECE_FILE] = _extended_model(base, data, kept, names)
    text = json.dumps({**data, "model": model}, ensure_ascii=False)
    return TextTokenizer(Tokenizer.from_str(text), base.bos_id, base.eos_id, side_files)


def _by_rank(kept: Iterable[Candidate]) -> list[Candidate]:
    """In the order in which they are merged, characters (which are not) first."""
    return sorted(kept, key=lambda candidate: candidate.merges[0][0] if candidate.merges else -1)


def _all_splits(base: TextTokenizer, names: Sequence[str]) -> list[list[str]]:
    """For each new piece, in order, all splits into two pieces; several of one piece by the parts' ids.

    The order in which transformers converts SentencePiece models (`generate_merges`).
    """
    ids = {
        piece: number
        for number, (piece, content) in enumerate(zip(base.pieces, base.contents, strict=True))
        if content is not None and byte_of(piece) is None
    }
    ids |= {name: base.size + place for place, name in enumerate(names)}
    found = []
    for name in names:
        splits = [(name[:place], name[place:]) for place in range(1, len(name))]
        known = [(left, right) for left, right in splits if left in ids and right in ids]
        found += [list(split) for split in sorted(known, key=lambda split: (ids[split[0]], ids[split[1]]))]
    return found


def _extended_model(
    base: TextTokenizer, data: Mapping[str, Any], kept: Sequence[Candidate], names: Mapping[int, str]
) -> bytes:
    """tokenizer.model with the new pieces, which score below all old ones, in the order of their merges.

    SentencePiece merges the neighbours whose piece has the highest score first: so the old ones keep their
    priority. Added tokens that only tokenizer.json has take their places as pieces, so that ids agree.
    """
    file = base.side_files[SENTENCE_PIECE_FILE]
    model = read_sentencepiece(file)
    if not model.is_bpe:
        raise InputError(
            "tokenizer.json is BPE, but tokenizer.model is not",
            hint="the files belong to different tokenizers: fetch the model again",
        )
    _check_same_pieces(base, [piece.text for piece in model.pieces])
    special = {token["id"]: bool(token["special"]) for token in data["added_tokens"]}
    scores = _scores_below(min(piece.score for piece in model.pieces), len(kept))
    added = [
        ModelPiece(
            base.pieces[number], 0.0, PieceType.CONTROL if special.get(number) else PieceType.USER_DEFINED
        )
        for number in range(len(model.pieces), base.size)
    ]
    score = {candidate.number: score for candidate, score in zip(_by_rank(kept), scores, strict=True)}
    added += [
        ModelPiece(names[candidate.number], score[candidate.number], PieceType.NORMAL) for candidate in kept
    ]
    return append_pieces(file, added)


def _scores_below(lowest: float, count: int) -> list[float]:
    """`count` different float32 scores below `lowest`, falling: by 1, or by more where float32 needs it.

    Mistral 7B has pieces of score -1e9, where the next float32 is 64 away; equal scores would merge from the
    left rather than in order.
    """
    score, found = np.float32(lowest), []
    for _ in range(count):
        score = min(score - np.float32(1), np.nextafter(score, np.float32(-np.inf)))
        found.append(float(score))
    return found


def _check_same_pieces(base: TextTokenizer, texts: Sequence[str]) -> None:
    for number, text in enumerate(texts):
        if number >= base.size or base.pieces[number] != text:
            seen = base.pieces[number] if number < base.size else "nothing"
            raise InputError(
                f"piece {number} is {text!r} in tokenizer.model and {seen!r} in tokenizer.json",
                hint="the files belong to different tokenizers: fetch the model again, or delete "
                "tokenizer.model where nothing reads it",
            )
