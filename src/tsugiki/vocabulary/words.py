"""Documents to distinct words, segmented by the base tokenizer: what the learner learns on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tsugiki.artifacts.documents import HELD_OUT, TRAIN, document_files, iterate_documents
from tsugiki.errors import DataError
from tsugiki.models.spelling import TokenizerKind
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.characters import Borders, characters_to_add, with_characters

BATCH_DOCUMENTS = 256

Cut = Callable[[str], Sequence[int]]
"""A text -> the offsets at which a new word begins, ascending."""


@dataclass(frozen=True)
class Words:
    """Distinct words W as symbols S of the base tokenizer, one word after another.

    token_S: base ids. word_S: the word each symbol belongs to. count_W: how often the word occurs.
    characters: how often each character occurs. A word is what no piece ever crosses the border of: what the
    base's pre-tokenizer cuts, or for SentencePiece-style tokenizers, which cut nothing, what `Borders` says.
    new_characters: of such a tokenizer, those that it has only as bytes and that may become pieces; they are
    symbols too, numbered from the base's size on.
    """

    token_S: NDArray[np.int32]
    word_S: NDArray[np.int32]
    count_W: NDArray[np.int64]
    characters: Counter[str]
    new_characters: tuple[str, ...] = ()

    @property
    def mostly_ascii(self) -> bool:
        """Whether more than half of the letters are ASCII."""
        return is_mostly_ascii(self.characters)


def is_mostly_ascii(characters: Mapping[str, int]) -> bool:
    """Whether more than half of the letters are ASCII, given how often each character occurs."""
    letters = [(letter, count) for letter, count in characters.items() if letter.isalpha()]
    ascii_letters = sum(count for letter, count in letters if letter.isascii())
    return 2 * ascii_letters > sum(count for _, count in letters)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in lists of at most `BATCH_DOCUMENTS`."""
    remaining = iter(texts)
    while batch := list(islice(remaining, BATCH_DOCUMENTS)):
        yield batch


def segment_words(
    tokenizer: TextTokenizer, texts: Iterable[str], *, minimum_count: int = 2, cut: Cut | None = None
) -> Words:
    """Cut texts into words and those into the tokenizer's pieces.

    texts: read twice for SentencePiece-style tokenizers; an iterator is then held in memory. minimum_count:
    occurrences that a character needs to become a piece. cut: the places in a text where a word ends besides
    (`segmenters`), as offsets in characters.

    Raises DataError where there is no word.
    """
    characters: Counter[str] = Counter()
    new_characters: tuple[str, ...] = ()
    borders = None
    if tokenizer.kind is TokenizerKind.SENTENCE_PIECE:
        texts = list(texts) if isinstance(texts, Iterator) else texts
        for text in texts:
            characters.update(tokenizer.after_normaliser(text))
        new_characters = characters_to_add(tokenizer, characters, minimum_count)
        tokenizer = with_characters(tokenizer, new_characters)
        borders = Borders.of(tokenizer)
    counts = _count_words(tokenizer, texts, borders, cut, None if borders else characters)
    if not counts:
        raise DataError("the documents hold no text to learn pieces from", hint="name a corpus with text")
    words = sorted(counts)  # so that the order of the documents does not matter
    lengths = [len(word) // 4 for word in words]
    return Words(
        token_S=np.frombuffer(b"".join(words), dtype=np.int32),
        word_S=np.repeat(np.arange(len(words), dtype=np.int32), lengths),
        count_W=np.array([counts[word] for word in words], dtype=np.int64),
        characters=characters,
        new_characters=new_characters,
    )


def _count_words(
    tokenizer: TextTokenizer,
    texts: Iterable[str],
    borders: Borders | None,
    cut: Cut | None,
    characters: Counter[str] | None,
) -> Counter[bytes]:
    """How often each word occurs, as the bytes of its int32 ids; `characters` counts the texts' if given."""
    counts: Counter[bytes] = Counter()
    for batch in batches(texts):
        for text, encoding in zip(
            batch, tokenizer.tokenizer.encode_batch(batch, add_special_tokens=False), strict=True
        ):
            if characters is not None:
                characters.update(tokenizer.after_normaliser(text))
            if not encoding.ids:
                continue
            ids_T = np.array(encoding.ids, dtype=np.int32)
            number_T = np.array(
                [_NO_WORD if word is None else word for word in encoding.word_ids], dtype=np.int64
            )
            if borders is not None:
                number_T = borders.words(ids_T, number_T)
            if cut is not None:
                number_T = _cut_further(number_T, encoding.offsets, cut(text))
            starts = np.flatnonzero(np.diff(number_T, prepend=_BEFORE_WORDS))
            ends = np.append(starts[1:], len(ids_T))
            counts.update(
                ids_T[start:end].tobytes()
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
                if number_T[start] != _NO_WORD
            )
    return counts


def _cut_further(
    number_T: NDArray[np.int64], offsets: Sequence[tuple[int, int]], cuts: Sequence[int]
) -> NDArray[np.int64]:
    """Word numbers that change as well at each of `cuts`.

    A token of the base that lies across a cut belongs to no word: what is built on it would cross it, too.
    """
    begin_T = np.array([begin for begin, _ in offsets], dtype=np.int64)
    last_T = np.maximum(np.array([end for _, end in offsets], dtype=np.int64) - 1, begin_T)
    places = np.asarray(cuts, dtype=np.int64)
    # The bytes of one character share its offsets.
    segment_T = np.searchsorted(places, begin_T, side="right")
    is_across_T = segment_T != np.searchsorted(places, last_T, side="right")
    finer_T = number_T * (len(begin_T) + len(cuts) + 2) + segment_T
    return np.where((number_T == _NO_WORD) | is_across_T, _NO_WORD, finer_T)


_NO_WORD = -1  # special and added tokens belong to no word
_BEFORE_WORDS = -2


def sample_documents(
    directory: Path, maximum_characters: int, *, split: str | None = None, columns: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Documents with `text` and `columns`, of the train and held-out split or of one of them.

    Where they exceed `maximum_characters`, an even sample of about that size. Whether a document is in it
    depends on its id alone, not on the order or number of files.
    """
    splits = (TRAIN, HELD_OUT) if split is None else (split,)
    share = min(1.0, maximum_characters / max(_characters(directory, splits), 1))
    for row in iterate_documents(directory, columns=list(dict.fromkeys(("id", "text", "split", *columns)))):
        draw = int.from_bytes(hashlib.sha256(row["id"].encode()).digest()[:8], "little") / 2**64
        if row["split"] in splits and draw < share:
            yield row


@dataclass(frozen=True)
class TrainingTexts:
    """Texts of the train split, or a sample of them (`sample_documents`); read anew by each loop."""

    directory: Path
    maximum_characters: int

    def __iter__(self) -> Iterator[str]:
        """The texts, in the order of the files."""
        for row in sample_documents(self.directory, self.maximum_characters, split=TRAIN):
            yield row["text"]


@dataclass(frozen=True)
class Watched:
    """Texts, and a function that is told now and then how many were read in this loop over them."""

    texts: Iterable[str]
    tell: Callable[[int], None]

    def __iter__(self) -> Iterator[str]:
        """The texts, unchanged."""
        for count, text in enumerate(self.texts):
            if count % BATCH_DOCUMENTS == 0:
                self.tell(count)
            yield text


def training_texts(directory: Path, maximum_characters: int) -> TrainingTexts:
    """Texts of the train split, or a sample of them."""
    return TrainingTexts(directory, maximum_characters)


def _characters(directory: Path, splits: Sequence[str]) -> int:
    total = 0
    for file in document_files(directory):
        for batch in pq.ParquetFile(file).iter_batches(columns=["text", "split"]):
            kept = batch.filter(pc.is_in(batch["split"], pa.array(splits)))
            total += pc.sum(pc.utf8_length(kept["text"])).as_py() or 0
    return total


def count_documents(directory: Path) -> int:
    """Documents of the train and held-out split: those that `sample_documents` draws from."""
    return sum(
        pc.sum(pc.is_in(batch["split"], pa.array((TRAIN, HELD_OUT)))).as_py() or 0
        for file in document_files(directory)
        for batch in pq.ParquetFile(file).iter_batches(columns=["split"])
    )


def measuring_split(directory: Path) -> str:
    """The split to measure on: held-out documents, or those of the train split where none are held out."""
    held_out = next(iterate_documents(directory, split=HELD_OUT, columns=["split"]), None)
    return TRAIN if held_out is None else HELD_OUT
