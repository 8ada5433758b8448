"""Documents to distinct words, segmented by the base tokenizer: what the learner learns on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
from tsugiki.models.tokenizer import TextTokenizer

BATCH_DOCUMENTS = 256


@dataclass(frozen=True)
class Words:
    """Distinct words W as symbols S of the base tokenizer, one word after another.

    token_S: base ids. word_S: the word each symbol belongs to. count_W: how often the word occurs.
    characters: how often each character occurs. A word is what the base's pre-tokenizer cuts: no piece ever
    crosses its border.
    """

    token_S: NDArray[np.int32]
    word_S: NDArray[np.int32]
    count_W: NDArray[np.int64]
    characters: Counter[str]

    @property
    def mostly_ascii(self) -> bool:
        """Whether more than half of the letters are ASCII."""
        letters = [(letter, count) for letter, count in self.characters.items() if letter.isalpha()]
        ascii_letters = sum(count for letter, count in letters if letter.isascii())
        return 2 * ascii_letters > sum(count for _, count in letters)


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in lists of at most `BATCH_DOCUMENTS`."""
    remaining = iter(texts)
    while batch := list(islice(remaining, BATCH_DOCUMENTS)):
        yield batch


def segment_words(tokenizer: TextTokenizer, texts: Iterable[str]) -> Words:
    """Cut texts into words and those into the tokenizer's pieces; raises DataError where there is no word."""
    counts: Counter[bytes] = Counter()
    normaliser = tokenizer.tokenizer.normalizer
    characters: Counter[str] = Counter()
    for batch in batches(texts):
        for text, encoding in zip(
            batch, tokenizer.tokenizer.encode_batch(batch, add_special_tokens=False), strict=True
        ):
            characters.update(text if normaliser is None else normaliser.normalize_str(text))
            if not encoding.ids:
                continue
            ids = np.array(encoding.ids, dtype=np.int32)
            numbers = np.array(
                [_NO_WORD if word is None else word for word in encoding.word_ids], dtype=np.int64
            )
            starts = np.flatnonzero(np.diff(numbers, prepend=_BEFORE_WORDS))
            ends = np.append(starts[1:], len(ids))
            counts.update(
                ids[start:end].tobytes()
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
                if numbers[start] != _NO_WORD
            )
    if not counts:
        raise DataError("the documents hold no text to learn pieces from", hint="name a corpus with text")
    words = sorted(counts)  # so that the order of the documents does not matter
    lengths = [len(word) // 4 for word in words]
    return Words(
        token_S=np.frombuffer(b"".join(words), dtype=np.int32),
        word_S=np.repeat(np.arange(len(words), dtype=np.int32), lengths),
        count_W=np.array([counts[word] for word in words], dtype=np.int64),
        characters=characters,
    )


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


def training_texts(directory: Path, maximum_characters: int) -> Iterator[str]:
    """Texts of the train split, or a sample of them (`sample_documents`)."""
    for row in sample_documents(directory, maximum_characters, split=TRAIN):
        yield row["text"]


def _characters(directory: Path, splits: Sequence[str]) -> int:
    total = 0
    for file in document_files(directory):
        for batch in pq.ParquetFile(file).iter_batches(columns=["text", "split"]):
            kept = batch.filter(pc.is_in(batch["split"], pa.array(splits)))
            total += pc.sum(pc.utf8_length(kept["text"])).as_py() or 0
    return total


def measuring_split(directory: Path) -> str:
    """The split to measure on: held-out documents, or those of the train split where none are held out."""
    held_out = next(iterate_documents(directory, split=HELD_OUT, columns=["split"]), None)
    return TRAIN if held_out is None else HELD_OUT
