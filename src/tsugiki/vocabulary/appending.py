"""Pieces learnt apart from the base's segmentation, from characters on, as a tokenizer of its own would be.

This is how Swallow added its pieces (arXiv 2404.17790): train on the corpus alone, drop what the base has,
append the rest. The base's merges still come first, so a piece may never arise from what they leave: such
pieces are pruned by `extend.choose_pieces`. Continued byte-pair encoding (`candidates`) has none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tsugiki.models.spelling import byte_of
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.candidates import SLACK_PIECES, Candidate
from tsugiki.vocabulary.characters import learnable_contents, saved_by_character
from tsugiki.vocabulary.learner import Limits, learn_merges
from tsugiki.vocabulary.pieces import Scripts, describe_pieces
from tsugiki.vocabulary.words import Words

_GROWTH = 1.5
"""By how much more is learnt where too many pieces turn out to be the base's."""


def append_candidates(
    base: TextTokenizer, words: Words, limits: Limits, slack: int = SLACK_PIECES
) -> list[Candidate]:
    """Pieces that are learnt on `words` from bytes or characters on, without those that the base has.

    slack: pieces to learn beyond those wanted.
    """
    atoms, atom_words = _in_atoms(base, words)
    asked = limits.wanted + slack
    while True:
        candidates, learnt = _learn(base, words, (atoms, atom_words), limits._replace(wanted=asked))
        enough = sum(candidate.is_whole for candidate in candidates) >= limits.wanted + slack
        if enough or learnt < asked:
            return candidates
        asked = int(asked * _GROWTH)


def _in_atoms(base: TextTokenizer, words: Words) -> tuple[list[bytes], Words]:
    """The words in bytes, or in characters for SentencePiece-style tokenizers, whose bytes never merge."""
    contents = [*learnable_contents(base), *(character.encode() for character in words.new_characters)]
    borders = np.flatnonzero(np.diff(words.word_S, prepend=-1))
    ends = [*borders[1:].tolist(), len(words.token_S)]
    number_of: dict[bytes, int] = {}
    tokens: list[int] = []
    lengths: list[int] = []
    for start, end in zip(borders.tolist(), ends, strict=True):
        content = b"".join(contents[number] or b"" for number in words.token_S[start:end].tolist())
        parts = (
            [bytes([byte]) for byte in content]
            if base.is_byte_level
            else [character.encode() for character in content.decode()]
        )
        tokens += [number_of.setdefault(part, len(number_of)) for part in parts]
        lengths.append(len(parts))
    # Numbered by content, so that the order of the words does not matter.
    atoms = sorted(number_of)
    place_of = {atom: place for place, atom in enumerate(atoms)}
    places = np.array([place_of[atom] for atom in number_of], dtype=np.int32)
    return atoms, Words(
        places[np.array(tokens, dtype=np.int64)],
        np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        words.count_W,
        words.characters,
    )


def _learn(
    base: TextTokenizer, words: Words, atoms: tuple[list[bytes], Words], limits: Limits
) -> tuple[list[Candidate], int]:
    """The candidates that the base lacks, by number; and how many whole pieces were learnt in all."""
    contents, atom_words = atoms
    scripts = Scripts()
    table = describe_pieces(contents, len(contents) + 3 * limits.wanted, scripts)
    merges = learn_merges(atom_words, contents, table, scripts.table(words.characters), limits)
    old = _ids_of_contents(base)
    candidates = [
        Candidate(number, character.encode(), [], saved_by_character(character, words.characters[character]))
        for number, character in enumerate(words.new_characters, start=base.size)
    ]
    numbers = {candidate.content: candidate.number for candidate in candidates}
    spelt = list(contents)
    whole = 0
    rows = zip(merges.merges_M3.tolist(), merges.counts_M.tolist(), strict=True)
    for rank, ((left, right, target), count) in enumerate(rows):
        content = spelt[left] + spelt[right]
        if target == len(spelt):
            spelt.append(content)
            whole += _is_text(content)
        if content in old:
            continue
        if content not in numbers:
            numbers[content] = base.size + len(candidates)
            candidates.append(Candidate(numbers[content], content, [], count))
        parts = [old[part] if part in old else numbers[part] for part in (spelt[left], spelt[right])]
        candidates[numbers[content] - base.size].merges.append((rank, parts[0], parts[1]))
    return candidates, whole


def _ids_of_contents(base: TextTokenizer) -> dict[bytes, int]:
    """The base's pieces that merges may join, by content; bytes to fall back to are not among them."""
    return {
        content: number
        for number, (piece, content) in enumerate(zip(base.pieces, base.contents, strict=True))
        if content is not None and (base.is_byte_level or byte_of(piece) is None)
    }


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def idle_fragments(
    merges: Sequence[Sequence[str]], pieces: Sequence[str], fragments: Sequence[str]
) -> set[str]:
    """Which of `fragments` no encoding of `pieces` passes through; all as tokenizer.json spells them.

    A fragment of a character can't be encoded alone. Where pieces were learnt apart, the base's merges may
    lead to a character on another way; a fragment that is on no way is never given.
    """
    rank = {(left, right): place for place, (left, right) in enumerate(merges)}
    wanted = set(fragments)
    for piece in pieces:
        if not any(fragment in piece for fragment in wanted):
            continue
        symbols = list(piece)
        while len(symbols) > 1:
            pairs = list(pairwise(symbols))
            known = [(rank[pair], place) for place, pair in enumerate(pairs) if pair in rank]
            if not known:
                break
            _, place = min(known)
            symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
            wanted.discard(symbols[place])
    return wanted
