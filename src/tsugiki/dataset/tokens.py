"""Token units, opened for reading: documents by number, from memory maps, checked before use."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tsugiki.dataset.kernels import GROUP_DOCUMENTS
from tsugiki.dataset.tokenise import BYTES, DOCUMENTS, HEADER, TOKENS, UnitHeader, read_header, token_dtype
from tsugiki.errors import DataError, InputError

if TYPE_CHECKING:
    from tsugiki.models.tokenizer import TextTokenizer

AGAIN = "delete the directory of token units and run the stage again: they are made anew"


@dataclass(frozen=True)
class TokenUnit:
    """One unit, memory-mapped: tokens, D + 1 offsets into them, UTF-8 bytes of each of D documents."""

    directory: Path
    tokens: NDArray[np.unsignedinteger]
    offsets: NDArray[np.int64]
    document_bytes: NDArray[np.uint32]

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.offsets) - 1


@dataclass(frozen=True)
class TokenSource:
    """The documents of one source as tokens. Build it with `open_tokens`.

    Documents are numbered over all units. `GROUP_DOCUMENTS` consecutive ones of a unit are a group (the last
    of a unit may be smaller): tokens_G are a group's tokens, unit_G its unit, first_G its first document
    within that unit. Memory: 24 bytes a group; the rest stays on the disk.
    """

    name: str
    tokens: int
    text_bytes: int
    vocabulary_size: int
    units: tuple[TokenUnit, ...]
    tokens_G: NDArray[np.int64]
    unit_G: NDArray[np.int64]
    first_G: NDArray[np.int64]
    _first_document_of_unit: NDArray[np.int64]

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return int(self._first_document_of_unit[-1])

    def document(self, number: int) -> NDArray[np.unsignedinteger]:
        """The tokens of document `number` (0-based over all units), as a view of the memory map."""
        unit, place = self._place(number)
        return unit.tokens[int(unit.offsets[place]) : int(unit.offsets[place + 1])]

    def document_bytes(self, number: int) -> int:
        """The UTF-8 bytes of the text of document `number`."""
        unit, place = self._place(number)
        return int(unit.document_bytes[place])

    def _place(self, number: int) -> tuple[TokenUnit, int]:
        index = int(np.searchsorted(self._first_document_of_unit, number, side="right")) - 1
        return self.units[index], number - int(self._first_document_of_unit[index])


def open_tokens(
    name: str, units: Sequence[Path], tokenizer: TextTokenizer, *, rows: int | None = None
) -> TokenSource:
    """Open token units made by `tokenise`, as one source.

    rows: rows of the model's embedding, where a model will read the tokens.

    Raises InputError where a unit was made by another tokenizer, is cut short or does not add up, or where
    the model has fewer rows than the tokenizer has entries; DataError where there is no document at all.
    """
    if rows is not None and rows < tokenizer.size:
        raise InputError(
            f'"{name}" has ids up to {tokenizer.size - 1}; the model has {rows} rows',
            hint="take the tokenizer and the model from one directory",
        )
    headers = [_checked_header(unit, tokenizer) for unit in units]
    if not sum(header.documents for header in headers):
        raise DataError(
            f'"{name}" holds no documents to train on',
            hint="check that the corpus has documents in this split; an empty corpus trains nothing",
        )
    opened = tuple(_open_unit(unit, header) for unit, header in zip(units, headers, strict=True))
    starts = [np.arange(0, unit.documents, GROUP_DOCUMENTS, dtype=np.int64) for unit in opened]
    return TokenSource(
        name=name,
        tokens=sum(header.tokens for header in headers),
        text_bytes=sum(header.bytes for header in headers),
        vocabulary_size=tokenizer.size,
        units=opened,
        tokens_G=np.concatenate(
            [
                np.diff(unit.offsets[np.append(first, unit.documents)])
                for unit, first in zip(opened, starts, strict=True)
            ]
        ),
        unit_G=np.repeat(np.arange(len(opened)), [len(first) for first in starts]),
        first_G=np.concatenate(starts),
        _first_document_of_unit=np.cumsum([0, *(unit.documents for unit in opened)]),
    )


def _open_unit(path: Path, header: UnitHeader) -> TokenUnit:
    unit = TokenUnit(
        path,
        _memory_map(path / TOKENS, header.dtype, random=True),
        _memory_map(path / DOCUMENTS, "<i8"),
        _memory_map(path / BYTES, "<u4"),
    )
    ends = (int(unit.offsets[0]), int(unit.offsets[-1]))
    if ends != (0, header.tokens) or (unit.offsets[1:] < unit.offsets[:-1]).any():
        raise InputError(f"{path / DOCUMENTS} does not agree with {TOKENS} beside it", hint=AGAIN)
    if int(unit.document_bytes.sum(dtype=np.int64)) != header.bytes:
        raise InputError(f"{path / BYTES} does not agree with {HEADER} beside it", hint=AGAIN)
    return unit


def _memory_map(path: Path, dtype: str, *, random: bool = False) -> NDArray[Any]:
    """A file's numbers without reading them; random: they will be asked for here and there.

    The kernel reads ahead of every access otherwise, on some machines 8 MB for the 2 kB of a document: 300
    times what a batch needs.
    """
    if path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if random and hasattr(mmap, "MADV_RANDOM"):  # not on Windows
        mapped.madvise(mmap.MADV_RANDOM)
    # As a plain array: numba takes long to look at the subclass memmap.
    return np.frombuffer(mapped, dtype=dtype)


def _checked_header(unit: Path, tokenizer: TextTokenizer) -> UnitHeader:
    header = read_header(unit)
    if header.tokenizer_sha256 != tokenizer.sha256 or header.vocabulary_size != tokenizer.size:
        raise InputError(
            f"{unit} was tokenised with another tokenizer: {header.tokenizer_sha256[:12]}… of "
            f"{header.vocabulary_size} entries; {tokenizer.sha256[:12]}… of {tokenizer.size} is expected",
            hint=AGAIN,
        )
    if header.dtype != token_dtype(header.vocabulary_size):
        raise InputError(f"{unit} says dtype {header.dtype}, which its vocabulary does not have", hint=AGAIN)
    expected = {
        TOKENS: header.tokens * np.dtype(header.dtype).itemsize,
        DOCUMENTS: (header.documents + 1) * 8,
        BYTES: header.documents * 4,
    }
    for file, size in expected.items():
        path = unit / file
        found = path.stat().st_size if path.exists() else None
        if found != size:
            seen = "missing" if found is None else f"{found} bytes long"
            raise InputError(f"{path} is {seen}; its header says {size} bytes", hint=AGAIN)
    return header
