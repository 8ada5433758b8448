"""From merges to the extended tokenizer: which pieces to keep, tokenizer.json, and reachability."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from tsugiki.errors import DataError, InputError, StageError
from tsugiki.models.byte_level import byte_alphabet, piece_to_bytes
from tsugiki.models.tokenizer import TextTokenizer, is_byte_level
from tsugiki.vocabulary.learner import Limits, learn_merges
from tsugiki.vocabulary.pieces import Scripts, describe_pieces
from tsugiki.vocabulary.words import Words

_SLACK_PIECES = 64
"""Learnt beyond what was asked for: replacements for pieces that turn out to be unreachable."""


@dataclass
class Candidate:
    """A piece that was learnt: its bytes, the merges that give it, and whether it is whole characters.

    A merge is (rank, left, right). The first one is how the piece was found; others, of a later rank, join
    other splits of the same bytes.
    """

    number: int
    content: bytes
    merges: list[tuple[int, int, int]]
    is_whole: bool = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.content.decode()
            self.is_whole = True
        except UnicodeDecodeError:
            self.is_whole = False


@dataclass(frozen=True)
class Extension:
    """An extended tokenizer.

    tokenizer: the base's pieces under their old ids, then the new ones. base_size: pieces of the base.
    components: for each new piece, the base's ids that it is made of, in order (the base's own encoding of
    it). fragments: how many new pieces are part of one character only; they exist because a whole one needs
    them.
    """

    tokenizer: TextTokenizer
    base_size: int
    components: tuple[tuple[int, ...], ...]
    fragments: int

    @property
    def added(self) -> int:
        """The number of new pieces."""
        return self.tokenizer.size - self.base_size


def check_extendable(tokenizer: TextTokenizer) -> dict[str, Any]:
    """The tokenizer.json of a byte-level BPE tokenizer; raises InputError for any other kind."""
    data: dict[str, Any] = json.loads(tokenizer.tokenizer.to_str())
    model = data["model"]
    hint = "choose a model with a byte-level BPE tokenizer (GPT-2, Llama 3, Qwen); other kinds are to come"
    if model.get("type") != "BPE":
        raise InputError(
            f"the tokenizer is of kind {model.get('type')}; only byte-level BPE is extended", hint=hint
        )
    if not is_byte_level(data):
        raise InputError(
            "the tokenizer is SentencePiece-style BPE (Llama 2, Mistral); only byte-level BPE is extended",
            hint=hint,
        )
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise InputError("the tokenizer marks pieces within words by a prefix or suffix", hint=hint)
    return data


def extend_tokenizer(base: TextTokenizer, words: Words, limits: Limits) -> Extension:
    """Add exactly `limits.wanted` pieces, learnt on `words`, to a byte-level BPE tokenizer.

    New merges follow the base's, so text without a new piece keeps its ids. Whole pieces come in the order
    they were learnt, each with the fragments it needs that are not there yet; fragments that no kept piece
    needs are left out (leaf pruning: no other piece is built on them). Pieces that the extended tokenizer
    does not give for their own text are dropped and replaced by the next ones.

    Raises InputError for a tokenizer that is not byte-level BPE, DataError where the words hold too few
    pieces.
    """
    data = check_extendable(base)
    learnt = _learn_candidates(base, words, limits)
    # An added token may be spelled like a learnt piece: its text is cut out before any merge, unless it has
    # to be a word of its own.
    spelt = {piece.encode() for piece in base.pieces}
    unreachable = {candidate.number for candidate in learnt if candidate.content in spelt}
    while True:
        kept = _select(learnt, base.size, limits.wanted, unreachable)
        if len(kept) < limits.wanted:
            raise DataError(
                f"the corpus gives {len(kept)} new pieces that occur {limits.minimum_count} times or more; "
                f"{limits.wanted} are wanted",
                hint="give more text, ask for fewer pieces, or lower minimum_count",
            )
        tokenizer = _build(data, base, kept)
        missed = unreachable_pieces(tokenizer, base.size)
        if not missed:
            break
        unreachable |= {kept[number - base.size].number for number in missed}
    _check_old_ids(base, tokenizer)
    components = _components(kept, base.size)
    return Extension(tokenizer, base.size, components, sum(not candidate.is_whole for candidate in kept))


def _learn_candidates(base: TextTokenizer, words: Words, limits: Limits) -> list[Candidate]:
    contents = base_contents(base)
    # Each whole piece needs at most two new fragments (a character has up to four bytes).
    capacity = base.size + 3 * (limits.wanted + _SLACK_PIECES)
    scripts = Scripts()
    table = describe_pieces(contents, capacity, scripts)
    generous = limits._replace(wanted=limits.wanted + _SLACK_PIECES)
    merges = learn_merges(words, contents, table, scripts.table(words.characters), generous)
    candidates: list[Candidate] = []
    for rank, (left, right, target) in enumerate(merges.merges_M3.tolist()):
        content = _content(left, contents, candidates) + _content(right, contents, candidates)
        if target - base.size == len(candidates):
            candidates.append(Candidate(target, content, []))
        candidate = candidates[target - base.size]
        if candidate.content != content:
            raise StageError(
                f"the pieces {candidate.content!r} and {content!r} have the same hash",
                hint="this is a one in 2^60 event; change minimum_count by one",
            )
        candidate.merges.append((rank, left, right))
    return candidates


def base_contents(base: TextTokenizer) -> list[bytes | None]:
    """The bytes of each piece by id; None for special and added tokens, which nothing is built on."""
    added = base.tokenizer.get_added_tokens_decoder()
    return [None if number in added else piece_to_bytes(piece) for number, piece in enumerate(base.pieces)]


def _content(number: int, contents: Sequence[bytes | None], candidates: Sequence[Candidate]) -> bytes:
    content = contents[number] if number < len(contents) else candidates[number - len(contents)].content
    return content or b""


def _select(
    learnt: Sequence[Candidate], base_size: int, wanted: int, unreachable: set[int]
) -> list[Candidate]:
    """The first `wanted` pieces in learning order, with all that they are built on."""
    taken: set[int] = set()
    for candidate in learnt:
        if not candidate.is_whole or candidate.number in taken:
            continue
        needed = _needed(candidate, learnt, base_size, taken)
        whole_parts = [piece for piece in needed[:-1] if learnt[piece - base_size].is_whole]
        if whole_parts or unreachable & set(needed) or len(taken) + len(needed) > wanted:
            continue
        taken.update(needed)
        if len(taken) == wanted:
            break
    for candidate in learnt:
        # A last row that no whole piece fits into: a fragment on its own shortens rare characters.
        if len(taken) < wanted and not candidate.is_whole:
            taken.update(_needed(candidate, learnt, base_size, taken)[: wanted - len(taken)])
    return [candidate for candidate in learnt if candidate.number in taken]


def _needed(candidate: Candidate, learnt: Sequence[Candidate], base_size: int, taken: set[int]) -> list[int]:
    """The piece and all that its first merge is built on, parts first, without what was taken already."""
    needed: list[int] = []
    for part in candidate.merges[0][1:]:
        if part >= base_size and part not in taken and part not in needed:
            needed += _needed(learnt[part - base_size], learnt, base_size, taken)
    return [*needed, candidate.number]


def _build(data: dict[str, Any], base: TextTokenizer, kept: Sequence[Candidate]) -> TextTokenizer:
    """tokenizer.json with the kept pieces after the base's, and their merges after the base's merges."""
    spelling = {byte: character for character, byte in byte_alphabet().items()}
    names = dict(enumerate(base.pieces))
    model = {**data["model"], "vocab": dict(data["model"]["vocab"]), "merges": list(data["model"]["merges"])}
    # Added tokens that are not among the model's own would be numbered anew when the file is read.
    model["vocab"].update({token["content"]: token["id"] for token in data["added_tokens"]})
    for number, candidate in enumerate(kept, start=base.size):
        names[candidate.number] = "".join(spelling[byte] for byte in candidate.content)
        model["vocab"][names[candidate.number]] = number
    merges = sorted(merge for candidate in kept for merge in candidate.merges)
    model["merges"] += [
        [names[left], names[right]] for _, left, right in merges if {left, right} <= names.keys()
    ]
    text = json.dumps({**data, "model": model}, ensure_ascii=False)
    side_files = {name: content for name, content in base.side_files.items() if name != "tokenizer.model"}
    return TextTokenizer(Tokenizer.from_str(text), base.bos_id, base.eos_id, side_files)


def unreachable_pieces(tokenizer: TextTokenizer, first: int) -> list[int]:
    """Ids from `first` on that no text can give.

    A whole piece has to be the encoding of its own text. A fragment of a character can't be encoded alone;
    it is reachable if a reachable piece is built on it, which is so by construction (`_select`).
    """
    texts: dict[int, str] = {}
    for number in range(first, tokenizer.size):
        content = piece_to_bytes(tokenizer.pieces[number]) or b""
        try:
            texts[number] = content.decode()
        except UnicodeDecodeError:
            continue
    encoded = tokenizer.encode_batch(list(texts.values()))
    return [number for number, ids in zip(texts, encoded, strict=True) if ids.tolist() != [number]]


def _check_old_ids(base: TextTokenizer, extended: TextTokenizer) -> None:
    if extended.pieces[: base.size] != base.pieces:
        raise StageError(
            "a piece of the base has another id in the extended tokenizer",
            hint="this is a fault in Tsugiki; please report it with the base model's name",
        )


def _components(kept: Sequence[Candidate], base_size: int) -> tuple[tuple[int, ...], ...]:
    found: dict[int, tuple[int, ...]] = {}
    for candidate in kept:
        _, left, right = candidate.merges[0]
        found[candidate.number] = tuple(
            number for part in (left, right) for number in ((part,) if part < base_size else found[part])
        )
    return tuple(found.values())
