"""From words to the extended tokenizer, every new piece reachable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tsugiki.errors import DataError, InputError, StageError
from tsugiki.models.spelling import SPACE, TokenizerKind
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.appending import append_candidates, idle_fragments
from tsugiki.vocabulary.candidates import (
    SLACK_PIECES,
    Candidate,
    excluded_at_first,
    learn_candidates,
    select,
)
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.unigram import check_unigram, choose_unigram_pieces, is_uncut
from tsugiki.vocabulary.unigram_candidates import Ranking, rank_candidates
from tsugiki.vocabulary.unigram_scores import BaseScores, Scores
from tsugiki.vocabulary.unigram_words import UnigramWords, segment_lines
from tsugiki.vocabulary.words import Cut, Words, segment_words
from tsugiki.vocabulary.writing import build_tokenizer

Method = Literal["continued", "append"]
Result = TypeVar("Result")

Corpus = Words | UnigramWords
"""What pieces are learnt on: of a BPE tokenizer, and of a Unigram one."""

Candidates = Sequence[Candidate] | Ranking
"""What could be added to the one and the other."""


@dataclass(frozen=True)
class Extension:
    """An extended tokenizer.

    tokenizer: the base's pieces under their old ids, then the new ones. base_size: pieces of the base.
    components: for each new piece, the base's ids that it is made of, in order (the base's own encoding of
    it). fragments: how many new pieces are part of one character only; they exist because a whole one needs
    them. facts: how a Unigram tokenizer's scores were estimated, for the manifest.
    """

    tokenizer: TextTokenizer
    base_size: int
    components: tuple[tuple[int, ...], ...]
    fragments: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keeps_ids(self) -> bool:
        """Whether text that uses no new piece is sure to have the base's ids."""
        return self.facts.get("scores") != "re-estimate"

    @property
    def added(self) -> int:
        """The number of new pieces."""
        return self.tokenizer.size - self.base_size


def check_extendable(tokenizer: TextTokenizer) -> dict[str, Any]:
    """The tokenizer.json of a BPE tokenizer that has every byte, or of a Unigram one.

    Raises InputError for any other kind.
    """
    data: dict[str, Any] = json.loads(tokenizer.tokenizer.to_str())
    model = data["model"]
    hint = (
        "choose a model with a BPE or Unigram tokenizer: byte-level (GPT-2, Llama 3, Qwen) or "
        "SentencePiece's (Llama 2, LLM-jp)"
    )
    if model.get("type") == "Unigram":
        check_unigram(data)
        return data
    if model.get("type") != "BPE":
        raise InputError(
            f"the tokenizer is of kind {model.get('type')}; only BPE and Unigram are extended: in other "
            "kinds a new piece changes how text without it is cut",
            hint=hint,
        )
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise InputError("the tokenizer marks pieces within words by a prefix or suffix", hint=hint)
    if tokenizer.kind is TokenizerKind.OTHER:
        raise InputError(
            "the tokenizer is BPE without bytes to fall back to: characters that it lacks are lost", hint=hint
        )
    return data


def read_corpus(
    base: TextTokenizer, texts: Iterable[str], *, minimum_count: int = 2, cut: Cut | None = None
) -> Corpus:
    """Texts as what pieces of this tokenizer are learnt on; raises DataError where they hold none."""
    if base.kind is TokenizerKind.UNIGRAM:
        return segment_lines(base, texts, cut=cut)
    return segment_words(base, texts, minimum_count=minimum_count, cut=cut)


def extend_tokenizer(
    base: TextTokenizer,
    words: Corpus,
    limits: Limits,
    *,
    method: Method = "continued",
    scores: Scores = "keep",
) -> Extension:
    """Add exactly `limits.wanted` pieces, learnt on `words`, to a BPE or Unigram tokenizer.

    method: "continued" goes on from the base's own segmentation; "append" learns from characters on and
    appends what the base lacks.

    New merges follow the base's, so text without a new piece keeps its ids. Whole pieces come in the order
    of what they save, each with the fragments (or, in SentencePiece-style tokenizers, characters) it needs
    that are not there yet; fragments that no kept piece needs are left out (leaf pruning: no other piece is
    built on them). Pieces that the extended tokenizer does not give for their own text are dropped and
    replaced by the next ones.

    scores: of a Unigram tokenizer's old pieces (`unigram_scores`). Its new pieces need no merges.

    Raises InputError for a tokenizer of another kind, DataError where the words hold too few pieces.
    """
    check_extendable(base)
    return with_candidates(
        lambda candidates: choose_pieces(base, candidates, limits, apart=method == "append"),
        base,
        words,
        limits,
        method,
        scores=scores,
    )


def with_candidates(
    use: Callable[[Candidates], Result],
    base: TextTokenizer,
    words: Corpus,
    limits: Limits,
    method: Method,
    *,
    scores: Scores = "keep",
) -> Result:
    """What `use` makes of candidates; where it raises DataError for too few, more are learnt while there are.

    How many turn out to be unreachable is known only once they are chosen: beside a base whose merges join
    parts of several characters (GPT-2's), pieces that are learnt apart often are.
    """
    slack, before = SLACK_PIECES, -1
    while True:
        candidates = find_candidates(base, words, limits, method, scores, slack=slack)
        try:
            return use(candidates)
        except DataError:
            if isinstance(candidates, Ranking) or len(candidates) <= before:
                raise
        slack, before = 4 * slack, len(candidates)


def find_candidates(
    base: TextTokenizer,
    words: Corpus,
    limits: Limits,
    method: Method,
    scores: Scores = "keep",
    *,
    slack: int = SLACK_PIECES,
) -> Candidates:
    """Pieces that could be added, learnt in one of two ways. words: `read_corpus` for this base."""
    if isinstance(words, UnigramWords):
        own = BaseScores.of(check_extendable(base))
        return rank_candidates(base, own, words, limits, apart=method == "append", mode=scores)
    learn = append_candidates if method == "append" else learn_candidates
    return learn(base, words, limits, slack)


def choose_pieces(
    base: TextTokenizer, candidates: Candidates, limits: Limits, *, apart: bool = False
) -> Extension:
    """The extension by the best `limits.wanted` of the candidates that can be reached.

    apart: whether they were learnt apart from the base's segmentation (`appending`); each is then given by
    all its splits, and fragments that the base's merges go around are pruned, too.

    Raises DataError where there are fewer.
    """
    data = check_extendable(base)
    if isinstance(candidates, Ranking):
        return _choose_unigram(base, data, candidates, limits)
    every_split = apart or base.kind is TokenizerKind.SENTENCE_PIECE
    excluded = excluded_at_first(base, candidates)
    while True:
        kept = select(candidates, base.size, limits.wanted, excluded)
        if len(kept) < limits.wanted:
            raise DataError(
                f"the corpus gives {len(kept)} new pieces that occur {limits.minimum_count} times or more; "
                f"{limits.wanted} are wanted",
                hint="give more text, ask for fewer pieces, or lower minimum_count",
            )
        tokenizer = build_tokenizer(data, base, kept, every_split=every_split)
        missed = unreachable_pieces(tokenizer, base.size)
        if apart and not missed:
            missed = _idle_fragments(tokenizer, base.size)
        if not missed:
            break
        excluded |= {kept[number - base.size].number for number in missed}
    _check_old_ids(base, tokenizer)
    components = _components(base, kept)
    return Extension(tokenizer, base.size, components, sum(not candidate.is_whole for candidate in kept))


def _choose_unigram(
    base: TextTokenizer, data: Mapping[str, Any], ranking: Ranking, limits: Limits
) -> Extension:
    chosen = choose_unigram_pieces(base, data, ranking, limits)
    _check_old_ids(base, chosen.tokenizer)
    missed = unreachable_pieces(chosen.tokenizer, base.size)
    if missed:
        raise StageError(
            f"{len(missed)} new pieces do not win their own text, such as "
            f"{chosen.tokenizer.pieces[missed[0]]!r}",
            hint="this is a fault in Tsugiki; please report it with the base model's name",
        )
    components = tuple(tuple(ids) for ids in base.encode_within(chosen.texts))
    return Extension(chosen.tokenizer, base.size, components, 0, chosen.facts)


def unreachable_pieces(tokenizer: TextTokenizer, first: int) -> list[int]:
    """Ids from `first` on that no text can give.

    A whole piece has to be the encoding of its own text; of a Unigram tokenizer one that its pre-tokenizer
    leaves whole, of a SentencePiece-style one what its normaliser leaves as it is (NFKC knows no full-width
    letter). A fragment of a character can't be encoded alone; it is reachable if a reachable piece is built
    on it, which is so by construction (`select`).
    """
    texts: dict[int, str] = {}
    for number in range(first, tokenizer.size):
        try:
            texts[number] = (tokenizer.contents[number] or b"").decode()
        except UnicodeDecodeError:
            continue
    encoded = tokenizer.encode_within(list(texts.values()))
    missed = {number for number, ids in zip(texts, encoded, strict=True) if ids != [number]}
    if tokenizer.kind is TokenizerKind.UNIGRAM:
        missed |= {number for number in texts if not is_uncut(tokenizer, tokenizer.pieces[number])}
    if tokenizer.kind is TokenizerKind.SENTENCE_PIECE:
        missed |= {
            number
            for number, text in texts.items()
            if tokenizer.pieces[number] not in _normalised(tokenizer, text)
        }
    return sorted(missed)


def _normalised(tokenizer: TextTokenizer, text: str) -> str:
    return tokenizer.after_normaliser(text).replace(" ", SPACE)


def _idle_fragments(tokenizer: TextTokenizer, first: int) -> list[int]:
    """Ids from `first` on of fragments that no whole new piece is made through."""
    whole: dict[str, int] = {}
    fragments: dict[str, int] = {}
    for number in range(first, tokenizer.size):
        content = tokenizer.contents[number] or b""
        is_whole = content.decode("utf-8", "ignore").encode() == content
        (whole if is_whole else fragments)[tokenizer.pieces[number]] = number
    if not fragments:
        return []
    merges = json.loads(tokenizer.tokenizer.to_str())["model"]["merges"]
    return [fragments[piece] for piece in sorted(idle_fragments(merges, list(whole), list(fragments)))]


def _check_old_ids(base: TextTokenizer, extended: TextTokenizer) -> None:
    if extended.pieces[: base.size] != base.pieces:
        raise StageError(
            "a piece of the base has another id in the extended tokenizer",
            hint="this is a fault in Tsugiki; please report it with the base model's name",
        )


def _components(base: TextTokenizer, kept: Sequence[Candidate]) -> tuple[tuple[int, ...], ...]:
    """The base's own encoding of each piece; of a fragment, what its first merge is made of."""
    whole = [candidate for candidate in kept if candidate.is_whole]
    encoded = base.encode_within([candidate.content.decode() for candidate in whole])
    found = {candidate.number: tuple(ids) for candidate, ids in zip(whole, encoded, strict=True)}
    for candidate in kept:
        if candidate.number not in found:
            found[candidate.number] = _fragment_components(candidate, base.size, found)
    return tuple(found[candidate.number] for candidate in kept)


def _fragment_components(
    candidate: Candidate, base_size: int, found: Mapping[int, tuple[int, ...]]
) -> tuple[int, ...]:
    return tuple(
        number for part in candidate.parts for number in ((part,) if part < base_size else found[part])
    )
