"""Documents -> token units: memory-mapped little-endian token ids with the places where documents begin.

    <out>/part-00000/tokens.bin      uint16 where the vocabulary has at most 65,536 entries, else uint32
    <out>/part-00000/documents.bin   int64: documents + 1 offsets into tokens.bin, the first one 0
    <out>/part-00000/header.json     what the two are: tokenizer, counts, bytes of the text, split, origin

One unit for one Parquet part of the documents. A unit appears whole or not at all, so a killed run goes on
with the first unit that is missing; which units there are depends on the documents only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tsugiki.artifacts.documents import TRAIN, document_files
from tsugiki.artifacts.files import atomic_directory, read_json, sha256_of, write_json
from tsugiki.errors import InputError

if TYPE_CHECKING:
    from tsugiki.models.tokenizer import TextTokenizer

TOKENS = "tokens.bin"
DOCUMENTS = "documents.bin"
HEADER = "header.json"

SMALL_VOCABULARY = 2**16
"""Up to this many entries every id fits in 16 bits."""

_BATCH_DOCUMENTS = 1024

OnUnit = Callable[[int, int], None]
"""Called after each unit with (units done, units in all)."""


class UnitHeader(BaseModel):
    """The contents of `header.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = 1
    tokenizer_sha256: str
    vocabulary_size: int = Field(gt=0)
    dtype: str
    tokens: int = Field(ge=0)
    documents: int = Field(ge=0)
    bytes: int = Field(ge=0)
    """UTF-8 bytes of the text that the tokens stand for."""
    split: str
    source: str
    """The name of the Parquet part."""
    source_sha256: str


def token_dtype(vocabulary_size: int) -> str:
    """`<u2` or `<u4`: the smallest little-endian type that holds every id of the vocabulary."""
    return "<u2" if vocabulary_size <= SMALL_VOCABULARY else "<u4"


def tokenise(
    source: Path,
    tokenizer: TextTokenizer,
    out: Path,
    *,
    split: str = TRAIN,
    on_unit: OnUnit = lambda _done, _total: None,
) -> list[Path]:
    """Tokenise the documents of one split into units below `out`; returns the units' directories in order.

    Each document becomes [bos] + tokens + [eos], without those that the tokenizer lacks; an empty text is
    passed over. Units that exist and were
    made from the same part by the same tokenizer are kept, others are made anew.

    Raises InputError where `source` holds no documents or a part has no text.
    """
    parts = document_files(source)
    units = []
    for number, part in enumerate(parts):
        unit = out / part.stem
        origin = sha256_of(part)
        if not _is_current(unit, tokenizer, split, origin):
            _write_unit(part, tokenizer, unit, split, origin)
        units.append(unit)
        on_unit(number + 1, len(parts))
    return units


def document_frame(tokenizer: TextTokenizer) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """What stands before and after each document: bos and eos, or nothing where the tokenizer has none."""
    first, last = ([] if special is None else [special] for special in (tokenizer.bos_id, tokenizer.eos_id))
    return np.asarray(first, dtype=np.uint32), np.asarray(last, dtype=np.uint32)


def read_header(unit: Path) -> UnitHeader:
    """Read a unit's header; raises InputError where it is missing or is not one."""
    path = unit / HEADER
    data = read_json(path)
    try:
        return UnitHeader.model_validate(data)
    except ValidationError as error:
        raise InputError(
            f"{path} is not a token header: {error.error_count()} fields are wrong",
            hint="delete the directory and tokenise again",
        ) from error


def _is_current(unit: Path, tokenizer: TextTokenizer, split: str, origin: str) -> bool:
    if not (unit / HEADER).exists():
        return False
    header = read_header(unit)
    return (header.tokenizer_sha256, header.split, header.source_sha256) == (tokenizer.sha256, split, origin)


def _write_unit(part: Path, tokenizer: TextTokenizer, unit: Path, split: str, origin: str) -> None:
    dtype = token_dtype(tokenizer.size)
    first, last = document_frame(tokenizer)
    offsets = [0]
    text_bytes = 0
    if unit.exists():
        _remove_unit(unit)
    with atomic_directory(unit) as directory:
        with (directory / TOKENS).open("wb") as file:
            for texts in _text_batches(part, split):
                for ids in tokenizer.encode_batch(texts):
                    file.write(np.concatenate((first, ids, last)).astype(dtype).tobytes())
                    offsets.append(offsets[-1] + len(first) + len(ids) + len(last))
                text_bytes += sum(len(text.encode("utf-8")) for text in texts)
        (directory / DOCUMENTS).write_bytes(np.asarray(offsets, dtype="<i8").tobytes())
        header = UnitHeader(
            tokenizer_sha256=tokenizer.sha256,
            vocabulary_size=tokenizer.size,
            dtype=dtype,
            tokens=offsets[-1],
            documents=len(offsets) - 1,
            bytes=text_bytes,
            split=split,
            source=part.name,
            source_sha256=origin,
        )
        write_json(directory / HEADER, header.model_dump(mode="json"))


def _text_batches(part: Path, split: str) -> Iterator[list[str]]:
    file = pq.ParquetFile(part)
    for column in ("text", "split"):
        if column not in file.schema_arrow.names:
            raise InputError(
                f'{part} has no column "{column}"', hint="name documents that a corpus stage has made"
            )
    for batch in file.iter_batches(batch_size=_BATCH_DOCUMENTS, columns=["text", "split"]):
        texts = [row["text"] for row in batch.to_pylist() if row["split"] == split and row["text"]]
        if texts:
            yield texts


def _remove_unit(unit: Path) -> None:
    # The header goes first: a unit without one counts as missing, whenever the process dies.
    for name in (HEADER, TOKENS, DOCUMENTS):
        (unit / name).unlink(missing_ok=True)
    unit.rmdir()
