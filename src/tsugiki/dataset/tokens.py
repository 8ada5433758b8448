"""Token units, opened for reading: documents by number, from memory maps, checked before use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tsugiki.dataset.tokenise import DOCUMENTS, TOKENS, UnitHeader, read_header, token_dtype
from tsugiki.errors import DataError, InputError

if TYPE_CHECKING:
    from tsugiki.models.tokenizer import TextTokenizer

_AGAIN = "delete the directory of token units and run the stage again: they are made anew"


@dataclass(frozen=True)
class TokenSource:
    """The documents of one source as tokens; `lengths_D[d]` is the number of tokens of document d.

    Build it with `open_tokens`. Memory: 16 bytes a document; the tokens stay on the disk.
    """

    name: str
    lengths_D: NDArray[np.int64]
    text_bytes: int
    _starts_D: NDArray[np.int64]
    _first_document_of_unit: NDArray[np.int64]
    _units: tuple[NDArray[np.unsignedinteger], ...]

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.lengths_D)

    @property
    def tokens(self) -> int:
        """How many tokens there are, bos and eos of each document included."""
        return int(self.lengths_D.sum())

    def document(self, number: int) -> NDArray[np.unsignedinteger]:
        """The tokens of document `number` (0-based over all units), as a view of the memory map."""
        unit = int(np.searchsorted(self._first_document_of_unit, number, side="right")) - 1
        start = int(self._starts_D[number])
        return self._units[unit][start : start + int(self.lengths_D[number])]


def open_tokens(name: str, units: Sequence[Path], tokenizer: TextTokenizer) -> TokenSource:
    """Open token units made by `tokenise`, as one source.

    Raises InputError where a unit was made by another tokenizer, is cut short or does not add up, and
    DataError where there is no document at all.
    """
    headers = [_checked_header(unit, tokenizer) for unit in units]
    maps, starts, lengths, first = [], [], [], [0]
    for unit, header in zip(units, headers, strict=True):
        offsets = np.fromfile(unit / DOCUMENTS, dtype="<i8").astype(np.int64)
        if offsets[0] != 0 or offsets[-1] != header.tokens or (np.diff(offsets) < 0).any():
            raise InputError(f"{unit / DOCUMENTS} does not agree with {TOKENS} beside it", hint=_AGAIN)
        maps.append(_memory_map(unit / TOKENS, header))
        starts.append(offsets[:-1])
        lengths.append(np.diff(offsets))
        first.append(first[-1] + header.documents)
    if first[-1] == 0:
        raise DataError(
            f'"{name}" holds no documents to train on',
            hint="check that the corpus has documents in this split; an empty corpus trains nothing",
        )
    return TokenSource(
        name=name,
        lengths_D=np.concatenate(lengths),
        text_bytes=sum(header.bytes for header in headers),
        _starts_D=np.concatenate(starts),
        _first_document_of_unit=np.asarray(first[:-1], dtype=np.int64),
        _units=tuple(maps),
    )


def _memory_map(path: Path, header: UnitHeader) -> NDArray[np.unsignedinteger]:
    if header.tokens == 0:
        return np.empty(0, dtype=header.dtype)
    return np.memmap(path, dtype=header.dtype, mode="r")


def _checked_header(unit: Path, tokenizer: TextTokenizer) -> UnitHeader:
    header = read_header(unit)
    if header.tokenizer_sha256 != tokenizer.sha256 or header.vocabulary_size != tokenizer.size:
        raise InputError(
            f"{unit} was tokenised with another tokenizer: {header.tokenizer_sha256[:12]}… of "
            f"{header.vocabulary_size} entries; {tokenizer.sha256[:12]}… of {tokenizer.size} is expected",
            hint=_AGAIN,
        )
    if header.dtype != token_dtype(header.vocabulary_size):
        raise InputError(f"{unit} says dtype {header.dtype}, which its vocabulary does not have", hint=_AGAIN)
    expected = {
        TOKENS: header.tokens * np.dtype(header.dtype).itemsize,
        DOCUMENTS: (header.documents + 1) * 8,
    }
    for file, size in expected.items():
        path = unit / file
        found = path.stat().st_size if path.exists() else None
        if found != size:
            seen = "missing" if found is None else f"{found} bytes long"
            raise InputError(f"{path} is {seen}; its header says {size} bytes", hint=_AGAIN)
    return header
