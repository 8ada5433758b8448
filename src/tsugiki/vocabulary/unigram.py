"""Extending a Unigram tokenizer: the union of its pieces and a new language's, with estimated scores.

LLM-jp made its tokenizers so (llm-jp-tokenizer, scripts/howToCreateModel_ver2.md). A new piece is of use only
where it wins: where its score is above that of every other way to write its text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from tsugiki.errors import DataError, InputError
from tsugiki.models.sentencepiece_file import (
    ModelPiece,
    PieceType,
    append_pieces,
    read_sentencepiece,
    replace_scores,
)
from tsugiki.models.spelling import SPACE
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.unigram_candidates import Ranking
from tsugiki.vocabulary.unigram_lattice import Lattices, best_splits, build_trie
from tsugiki.vocabulary.unigram_scores import BaseScores, Estimate, estimate, written_scores
from tsugiki.vocabulary.writing import SENTENCE_PIECE_FILE

_SLACK = 20
"""One in so many pieces more than wanted get scores: replacements for those that never win."""
_LEAST_SLACK = 64

_MARGIN = 2.0**-12
"""How far a new piece's score has to be above its text's best split: more than sums of up to 256 scores (the
longest piece) of 16 or less are off in float32."""


@dataclass(frozen=True)
class Chosen:
    """An extended Unigram tokenizer: itself, the new pieces' texts, and facts for the manifest."""

    tokenizer: TextTokenizer
    texts: tuple[str, ...]
    facts: Mapping[str, Any]


def check_unigram(data: Mapping[str, Any]) -> None:
    """Raise InputError for a tokenizer.json with a Unigram model that can't be extended."""
    hint = "choose a model whose tokenizer SentencePiece made, or transformers from its file"
    model = data["model"]
    if "ByteLevel" in json.dumps([data.get("decoder"), data.get("pre_tokenizer")]):
        raise InputError(
            "the tokenizer is a Unigram model over bytes; only one over characters is extended", hint=hint
        )
    if model.get("unk_id") is None:
        raise InputError("the Unigram tokenizer has no piece for unknown characters (unk_id)", hint=hint)
    if not BaseScores.of(data).texts:
        raise InputError("the Unigram tokenizer has no piece with a score below 0", hint=hint)


def choose_unigram_pieces(
    base: TextTokenizer, data: Mapping[str, Any], ranking: Ranking, limits: Limits
) -> Chosen:
    """The extension by the best `limits.wanted` candidates that win their own text.

    data: the base's tokenizer.json. Raises DataError where there are fewer.
    """
    scores = BaseScores.of(data)
    lattices = Lattices.of(ranking.words.lines.items())
    usable = [
        place
        for place, text in enumerate(ranking.texts)
        if len(text) <= limits.maximum_characters and is_uncut(base, text)
    ]
    slack = max(_LEAST_SLACK, limits.wanted // _SLACK)
    while True:
        tried = usable[: limits.wanted + slack]
        texts = [ranking.texts[place] for place in tried]
        found = estimate(lattices, scores, texts, ranking.log_weight_Q[tried], ranking.scores)
        old_P, new_Q = _as_written(scores, found, ranking)
        splits = best_splits(
            texts, build_trie([*scores.texts, *texts]), np.append(old_P, new_Q), scores.unknown
        )
        winners = np.flatnonzero(new_Q >= splits + _MARGIN)
        if len(winners) >= limits.wanted:
            break
        if len(tried) == len(usable):
            raise DataError(
                f"the corpus gives {len(winners)} new pieces that occur {limits.minimum_count} times or more "
                f"and win their text; {limits.wanted} are wanted",
                hint="give more text, ask for fewer pieces, or lower minimum_count",
            )
        slack *= 2
    # Fewer pieces beside it never keep a piece from winning, so the rest may go without another estimate.
    kept = winners[: limits.wanted].tolist()
    new = [(texts[place], float(new_Q[place])) for place in kept]
    old = {} if ranking.scores == "keep" else dict(zip(scores.ids, old_P.tolist(), strict=True))
    facts = {
        "scores": ranking.scores,
        "objective": [round(value, 9) for value in found.objective],
        "never_winning": len(texts) - len(winners),
    }
    return Chosen(_build(base, data, new, old), tuple(text for text, _ in new), facts)


def _as_written(scores: BaseScores, found: Estimate, ranking: Ranking) -> tuple[Any, Any]:
    if ranking.scores == "keep":
        lowest, highest = float(scores.log_weight_P.min()), float(scores.log_weight_P.max())
        return scores.log_weight_P, written_scores(found.new_Q, lowest, highest)
    finite = np.concatenate((found.old_P, found.new_Q[np.isfinite(found.new_Q)]))
    lowest, highest = float(finite.min()), float(finite.max())
    return written_scores(found.old_P, lowest, highest), written_scores(found.new_Q, lowest, highest)


def is_uncut(tokenizer: TextTokenizer, piece: str) -> bool:
    """Whether normaliser and pre-tokenizer leave a piece whole, but for a space that they put before it."""
    stretches = tokenizer.stretches(piece.replace(SPACE, " "))
    return bool(stretches) and len(stretches[-1]) - len(piece) in {0, 1} and stretches[-1].endswith(piece)


def _build(
    base: TextTokenizer, data: Mapping[str, Any], new: Sequence[tuple[str, float]], old: Mapping[int, float]
) -> TextTokenizer:
    """The base with new pieces and, for some ids, other scores, in tokenizer.json and tokenizer.model."""
    vocabulary = [
        [piece, old.get(number, score)] for number, (piece, score) in enumerate(data["model"]["vocab"])
    ]
    lowest = min(old.values()) if old else min(score for _, score in vocabulary)
    if old:
        # What SentencePiece leaves out of its search must not decide here what an unknown character scores.
        vocabulary = [[piece, max(score, lowest)] for piece, score in vocabulary]
    # Added tokens that are not among the model's own would be numbered anew when the file is read.
    vocabulary += [[base.pieces[number], lowest] for number in range(len(vocabulary), base.size)]
    model = {**data["model"], "vocab": [*vocabulary, *(list(one) for one in new)]}
    side_files = dict(base.side_files)
    if SENTENCE_PIECE_FILE in side_files:
        side_files[SENTENCE_PIECE_FILE] = _extended_model(base, data, new, old)
    text = json.dumps({**data, "model": model}, ensure_ascii=False)
    return TextTokenizer(Tokenizer.from_str(text), base.bos_id, base.eos_id, side_files)


def _extended_model(
    base: TextTokenizer, data: Mapping[str, Any], new: Sequence[tuple[str, float]], old: Mapping[int, float]
) -> bytes:
    file = base.side_files[SENTENCE_PIECE_FILE]
    model = read_sentencepiece(file)
    if model.is_bpe:
        raise InputError(
            "tokenizer.json is Unigram, but tokenizer.model is BPE",
            hint="the files belong to different tokenizers: fetch the model again",
        )
    _check_same_pieces(base, model.pieces)
    special = {token["id"]: bool(token["special"]) for token in data["added_tokens"]}
    added = [
        ModelPiece(
            base.pieces[number], 0.0, PieceType.CONTROL if special.get(number) else PieceType.USER_DEFINED
        )
        for number in range(len(model.pieces), base.size)
    ]
    added += [ModelPiece(text, score, PieceType.NORMAL) for text, score in new]
    return append_pieces(replace_scores(file, old), added)


def _check_same_pieces(base: TextTokenizer, pieces: Sequence[ModelPiece]) -> None:
    """Special pieces may be spelled otherwise: LLM-jp writes `<s|LLM-jp>` in tokenizer.json."""
    for number, piece in enumerate(pieces):
        seen = base.pieces[number] if number < base.size else "nothing"
        if number >= base.size or (
            seen != piece.text and piece.type not in {PieceType.CONTROL, PieceType.UNKNOWN}
        ):
            raise InputError(
                f"piece {number} is {piece.text!r} in tokenizer.model and {seen!r} in tokenizer.json",
                hint="the files belong to different tokenizers: fetch the model again, or delete "
                "tokenizer.model where nothing reads it",
            )
