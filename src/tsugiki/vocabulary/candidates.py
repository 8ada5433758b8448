"""Pieces that could be added: what the learner finds, in the order of what they save, and which are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tsugiki.errors import StageError
from tsugiki.models.spelling import TokenizerKind
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.characters import learnable_contents, saved_by_character
from tsugiki.vocabulary.learner import Limits, learn_merges
from tsugiki.vocabulary.pieces import Scripts, describe_pieces
from tsugiki.vocabulary.words import Words

SLACK_PIECES = 64
"""Learnt beyond what was asked for: replacements for pieces that turn out to be unreachable. Where they are
too few, `extend.with_candidates` learns more."""


_MOST_FRAGMENTS = 2
"""A character has up to four bytes, so a whole piece needs at most two fragments beside itself."""


@dataclass
class Candidate:
    """A piece that was learnt: its bytes, the merges that give it, and what it saves.

    A merge is (rank, left, right). The first one is how the piece was found; others, of a later rank, join
    other splits of the same bytes. A character that a SentencePiece-style tokenizer lacks has none.
    gain: tokens of the corpus that it saved when it was learnt.
    """

    number: int
    content: bytes
    merges: list[tuple[int, int, int]]
    gain: int = 0
    is_whole: bool = field(init=False)

    def __post_init__(self) -> None:
        try:
            self.content.decode()
            self.is_whole = True
        except UnicodeDecodeError:
            self.is_whole = False

    @property
    def is_support(self) -> bool:
        """Whether it comes along with a piece that is built on it: a fragment, or a character alone."""
        return not self.is_whole or not self.merges

    @property
    def parts(self) -> tuple[int, ...]:
        """The two pieces that its first merge joins, if it has one."""
        return self.merges[0][1:] if self.merges else ()


def learn_candidates(
    base: TextTokenizer, words: Words, limits: Limits, slack: int = SLACK_PIECES
) -> list[Candidate]:
    """What can be learnt on `words`, most useful first (ties by number): continued byte-pair encoding.

    slack: pieces to learn beyond those wanted.
    """
    contents = [*learnable_contents(base), *(character.encode() for character in words.new_characters)]
    # Each whole piece needs at most two new fragments (a character has up to four bytes).
    capacity = len(contents) + 3 * (limits.wanted + slack)
    scripts = Scripts()
    table = describe_pieces(contents, capacity, scripts)
    generous = limits._replace(wanted=limits.wanted + slack)
    merges = learn_merges(words, contents, table, scripts.table(words.characters), generous)
    candidates = [
        Candidate(number, character.encode(), [], saved_by_character(character, words.characters[character]))
        for number, character in enumerate(words.new_characters, start=base.size)
    ]
    rows = zip(merges.merges_M3.tolist(), merges.counts_M.tolist(), strict=True)
    for rank, ((left, right, target), count) in enumerate(rows):
        content = _content(left, contents, candidates, base.size)
        content += _content(right, contents, candidates, base.size)
        if target - base.size == len(candidates):
            candidates.append(Candidate(target, content, [], count))
        candidate = candidates[target - base.size]
        if candidate.content != content:
            raise StageError(
                f"the pieces {candidate.content!r} and {content!r} have the same hash",
                hint="this is a one in 2^60 event; change minimum_count by one",
            )
        candidate.merges.append((rank, left, right))
    return candidates


def _content(
    number: int, contents: Sequence[bytes | None], candidates: Sequence[Candidate], base_size: int
) -> bytes:
    content = contents[number] if number < base_size else candidates[number - base_size].content
    return content or b""


def select(
    candidates: Sequence[Candidate], base_size: int, wanted: int, excluded: set[int]
) -> list[Candidate]:
    """The `wanted` pieces that save most, with all that they are built on, in the order of their numbers.

    candidates: by number from `base_size` on. Pieces in `excluded`, and those built on them, are left out; so
    is every fragment that no kept piece needs (leaf pruning). Where whole pieces are lacking, there are fewer
    than `wanted`.
    """
    taken: set[int] = set()
    # Merges save less and less, so this order leaves them as they were learnt; characters fall in between.
    order = sorted(candidates, key=lambda one: (-one.gain, one.number))
    for candidate in order:
        if not candidate.is_whole or candidate.number in taken:
            continue
        needed = _needed(candidate, candidates, base_size, taken)
        blocked = [piece for piece in needed[:-1] if not candidates[piece - base_size].is_support]
        if blocked or excluded & set(needed) or len(taken) + len(needed) > wanted:
            continue
        taken.update(needed)
        if len(taken) == wanted:
            break
    left_over = wanted - len(taken)
    for candidate in order if left_over <= _MOST_FRAGMENTS else ():
        # A last row that no whole piece fits into: a fragment on its own shortens rare characters.
        if len(taken) < wanted and not candidate.is_whole:
            needed = _needed(candidate, candidates, base_size, taken)
            if not excluded & set(needed):
                taken.update(needed[: wanted - len(taken)])
    return [candidate for candidate in candidates if candidate.number in taken]


def _needed(
    candidate: Candidate, candidates: Sequence[Candidate], base_size: int, taken: set[int]
) -> list[int]:
    """The piece and all that its first merge is built on, parts first, without what was taken already."""
    needed: list[int] = []
    for part in candidate.parts:
        if part >= base_size and part not in taken and part not in needed:
            needed += _needed(candidates[part - base_size], candidates, base_size, taken)
    return [*needed, candidate.number]


def excluded_at_first(base: TextTokenizer, candidates: Sequence[Candidate]) -> set[int]:
    """Candidates that can't be pieces beside those of the base.

    An added token may be spelled like one: its text is cut out before any merge, unless it has to be a word
    of its own. And in a SentencePiece-style tokenizer any two neighbours merge that give a piece, so a new
    piece that with another gives an old one would change text that then uses no new piece.
    """
    spelt = {piece.encode() for piece in base.pieces}
    found = {candidate.number for candidate in candidates if candidate.content in spelt}
    if base.kind is TokenizerKind.SENTENCE_PIECE:
        found |= _completed_to_old(base, candidates)
    return found


def _completed_to_old(base: TextTokenizer, candidates: Sequence[Candidate]) -> set[int]:
    numbers = {candidate.content: candidate.number for candidate in candidates}
    old = {content for content in base.contents if content is not None}
    found = set()
    for content in old:
        for place in range(1, len(content)):
            left, right = content[:place], content[place:]
            for one, other in ((left, right), (right, left)):
                if one in numbers and (other in old or other in numbers):
                    found.add(numbers[one])
    return found
