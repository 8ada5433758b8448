"""From the stage's settings to an extension: which texts, how many pieces, by which method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tsugiki.artifacts.contract import Inputs, Workspace
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.config import Config, final_rows, size_ladder
from tsugiki.vocabulary.curve import CURVE_CHARACTERS, Point, choose_point, measure_sizes
from tsugiki.vocabulary.extend import (
    Candidates,
    Corpus,
    Extension,
    check_extendable,
    read_corpus,
    with_candidates,
)
from tsugiki.vocabulary.learner import Limits
from tsugiki.vocabulary.segmenters import cut_of_corpus
from tsugiki.vocabulary.words import (
    TrainingTexts,
    Watched,
    measuring_split,
    sample_documents,
    training_texts,
)


@dataclass(frozen=True)
class Learnt:
    """What was learnt, and on what.

    curve: tokens of held-out text by the number of new pieces, the base's first.
    """

    base: TextTokenizer
    extension: Extension
    words: Corpus
    texts: TrainingTexts
    curve: tuple[Point, ...]


def learn_extension(
    config: Config, inputs: Inputs, out: Workspace, base: TextTokenizer, base_rows: int
) -> Learnt:
    """Learn pieces as the settings say; `base_rows` are those of the base's embedding, padding included.

    Raises InputError for a tokenizer that can't be extended, DataError where there is too little text.
    """
    check_extendable(base)
    out.progress(0, 5, "steps", "reading documents")
    directory = inputs.path(config.corpus)
    texts = training_texts(directory, config.sample)
    cut = cut_of_corpus(directory) if config.keep_words else None
    watched = Watched(texts, lambda count: out.progress(0, 5, "steps", f"{count:,} documents read"))
    words = read_corpus(base, watched, minimum_count=config.minimum_count, cut=cut)
    out.progress(0, 5, "steps", f"learning {config.add:,} pieces")
    keeps_ascii = words.mostly_ascii if config.ascii_pieces == "auto" else config.ascii_pieces == "keep"
    sizes = [final_rows(base_rows, add, config.multiple_of) - base.size for add in size_ladder(config.add)]
    limits = Limits(sizes[-1], config.minimum_count, config.max_piece_characters, keeps_ascii)
    held_out = held_out_texts(directory)

    def measured(candidates: Candidates) -> list[tuple[Point, Extension | None]]:
        out.progress(0, 5, "steps", "choosing pieces")
        apart = config.method == "append"
        return measure_sizes(base, candidates, limits, sorted(set(sizes)), held_out, apart=apart)

    found = with_candidates(
        measured,
        base,
        words,
        limits,
        config.method,
        scores=config.scores,
    )
    points = [point for point, _ in found]
    place = len(points) - 1
    if config.doubling_saves is not None:
        place = choose_point(points, config.doubling_saves)
    extension = next(one for _, one in found[place:] if one is not None)
    out.log.info(
        "%d pieces added to %d (%d of them fragments of characters); ASCII pieces %s",
        extension.added,
        extension.base_size,
        extension.fragments,
        "kept" if keeps_ascii else "dropped",
    )
    return Learnt(base, extension, words, texts, tuple(points))


def held_out_texts(directory: Path, maximum_characters: int = CURVE_CHARACTERS) -> Sequence[str]:
    """The texts of the split to measure on, or an even sample of them."""
    split = measuring_split(directory)
    return [row["text"] for row in sample_documents(directory, maximum_characters, split=split)]
