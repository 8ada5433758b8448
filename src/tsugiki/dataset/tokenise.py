"""Documents -> token units: memory-mapped little-endian token ids with the places where documents begin.

    <out>/part-00000/tokens.bin      uint16 where the vocabulary has at most 65,536 entries, else uint32
    <out>/part-00000/documents.bin   int64: documents + 1 offsets into tokens.bin, the first one 0
    <out>/part-00000/bytes.bin       uint32: UTF-8 bytes of each document's text
    <out>/part-00000/header.json     what they are: tokenizer, counts, bytes of the text, split, origin
    <out>/part-00000/origin.json     size and time of the Parquet part: while they stay, it is not read again

One unit for one Parquet part of the documents. A unit appears whole or not at all, so a killed run goes on
with the first unit that is missing; which units there are, and their bytes, depends on the documents and the
tokenizer only: not on the number of cores, nor on the library that encodes (`encoders`).
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tsugiki.artifacts.documents import TRAIN, document_files
from tsugiki.artifacts.files import atomic_directory, read_json, sha256_of, write_json
from tsugiki.dataset.encoders import (
    SAMPLE_BYTES,
    Encoded,
    Encoder,
    fastest_encoder,
    first_difference,
    reference_encoder,
)
from tsugiki.errors import InputError, StageError, StorageError

if TYPE_CHECKING:
    from tsugiki.models.tokenizer import TextTokenizer

TOKENS = "tokens.bin"
DOCUMENTS = "documents.bin"
BYTES = "bytes.bin"
HEADER = "header.json"
ORIGIN = "origin.json"
FORMAT: Literal[2] = 2

SMALL_VOCABULARY = 2**16
"""Up to this many entries every id fits in 16 bits."""

CHECKED_DOCUMENTS = 256
"""One document of so many is encoded by the reference too, all the way through."""

_BATCH_DOCUMENTS = 4096
_WORTH_A_CHECK = 4 * SAMPLE_BYTES
"""Bytes of text below which the reference is faster than choosing the fastest."""

_LOG = logging.getLogger(__name__)

OnUnit = Callable[[int, int], None]
"""Called after each unit with (units done, units in all)."""


class UnitHeader(BaseModel):
    """The contents of `header.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[2] = FORMAT
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


@dataclass(frozen=True)
class _Texts:
    """Some documents' texts, and the UTF-8 bytes of each."""

    texts: list[str]
    byte_counts: NDArray[np.int64]


class _OtherIdsError(Exception):
    """The encoder gave ids that the reference does not; the text's start is the message."""


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
    encoder: Encoder | None = None,
    log: logging.Logger = _LOG,
) -> list[Path]:
    """Tokenise the documents of one split into units below `out`; returns the units' directories in order.

    Each document becomes [bos] + tokens + [eos], without those that the tokenizer lacks; an empty text is
    passed over. Units that exist and were made from the same part by the same tokenizer are kept, others are
    made anew. All cores are used. encoder: by default the fastest that gives the reference's ids on a sample
    of the documents; of every `CHECKED_DOCUMENTS` documents one is compared throughout, and where ids differ
    the unit is made anew with the reference. log: where the choice and its reason are written.

    Raises InputError where `source` holds no documents or a part has no text.
    """
    parts = document_files(source)
    units = []
    for number, part in enumerate(parts):
        unit = out / part.stem
        if not _is_current(unit, tokenizer, split, part):
            encoder = encoder or _choose_encoder(parts, tokenizer, split, log)
            try:
                _write_unit(part, tokenizer, encoder, unit, split=split)
            except _OtherIdsError as difference:
                encoder = reference_encoder(tokenizer, f"{encoder.name} gave other ids for {difference}")
                log.warning("%s: %s; going on with %s", part.name, encoder.reason, encoder.name)
                _write_unit(part, tokenizer, encoder, unit, split=split)
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


def _is_current(unit: Path, tokenizer: TextTokenizer, split: str, part: Path) -> bool:
    """Whether the unit was made of this part's bytes by this tokenizer.

    A restart must not read the corpus: the bytes are compared only where the part's size or time has changed.
    """
    if not (unit / HEADER).exists():
        return False
    data = read_json(unit / HEADER)
    if isinstance(data, dict) and data.get("format") != FORMAT:
        return False  # of another version: made anew
    header = read_header(unit)
    if (header.tokenizer_sha256, header.split, header.source) != (tokenizer.sha256, split, part.name):
        return False
    stamp = _stamp(part)
    if (unit / ORIGIN).exists() and read_json(unit / ORIGIN) == stamp:
        return True
    if header.source_sha256 != sha256_of(part):
        return False
    with contextlib.suppress(OSError, StorageError):  # several may write it at once
        write_json(unit / ORIGIN, stamp)
    return True


def _stamp(part: Path) -> dict[str, int]:
    facts = part.stat()
    return {"size": facts.st_size, "modified_ns": facts.st_mtime_ns}


def _choose_encoder(
    parts: Sequence[Path], tokenizer: TextTokenizer, split: str, log: logging.Logger
) -> Encoder:
    """The fastest encoder, proved on the start of the documents."""
    if sum(map(_text_bytes, parts)) < _WORTH_A_CHECK:
        encoder = reference_encoder(tokenizer, "there is too little text for a choice to pay")
    else:
        encoder = fastest_encoder(tokenizer, _sample(parts, split))
    log.info("tokenising with %s: %s", encoder.name, encoder.reason)
    return encoder


def _sample(parts: Sequence[Path], split: str) -> list[str]:
    """Texts from the start of the documents, about SAMPLE_BYTES together."""
    sample: list[str] = []
    size = 0
    for batch in (batch for part in parts for batch in _batches(part, split)):
        for text, count in zip(batch.texts, batch.byte_counts.tolist(), strict=True):
            sample.append(text[: SAMPLE_BYTES // 4])  # one huge document is no sample
            size += min(count, SAMPLE_BYTES)
            if size >= SAMPLE_BYTES:
                return sample
    return sample


def _text_bytes(part: Path) -> int:
    """Bytes of the part's text, from the file's footer."""
    with _damage_named(part):
        facts = pq.ParquetFile(part).metadata
    columns = (
        facts.row_group(group).column(c)
        for group in range(facts.num_row_groups)
        for c in range(facts.num_columns)
    )
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")


def _write_unit(part: Path, tokenizer: TextTokenizer, encoder: Encoder, unit: Path, *, split: str) -> None:
    stamp, origin = _stamp(part), sha256_of(part)
    dtype = token_dtype(tokenizer.size)
    frame = document_frame(tokenizer)
    tokens = 0
    offsets, byte_counts = [np.zeros(1, dtype="<i8")], [np.empty(0, dtype="<u4")]
    if unit.exists():
        _remove_unit(unit)
    with atomic_directory(unit) as directory:
        with (directory / TOKENS).open("wb") as file:
            for batch, encoded in _encoded(_batches(part, split), encoder, reference_encoder(tokenizer)):
                ids, ends = framed(encoded, *frame)
                if ids.size and int(ids.max()) >= tokenizer.size:
                    raise StageError(
                        f"{part}: {encoder.name} gave id {ids.max()} for a vocabulary of {tokenizer.size}",
                        hint="this is a fault in Tsugiki or in that library; please report it",
                    )
                file.write(ids.astype(dtype).data)
                offsets.append((ends + tokens).astype("<i8"))
                byte_counts.append(batch.byte_counts.astype("<u4"))
                tokens += len(ids)
        (directory / DOCUMENTS).write_bytes(np.concatenate(offsets).tobytes())
        (directory / BYTES).write_bytes(np.concatenate(byte_counts).tobytes())
        header = UnitHeader(
            tokenizer_sha256=tokenizer.sha256,
            vocabulary_size=tokenizer.size,
            dtype=dtype,
            tokens=tokens,
            documents=sum(map(len, byte_counts)),
            bytes=sum(int(counts.sum(dtype=np.int64)) for counts in byte_counts),
            split=split,
            source=part.name,
            source_sha256=origin,
        )
        write_json(directory / ORIGIN, stamp)
        write_json(directory / HEADER, header.model_dump(mode="json"))


def framed(
    encoded: Encoded, first: NDArray[np.uint32], last: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Put `first` before and `last` after every text's ids; gives all ids, and where each text ends."""
    lengths = np.diff(encoded.offsets)
    ends = np.cumsum(lengths + (len(first) + len(last)))
    starts = ends - lengths - (len(first) + len(last))
    out = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint32)
    moved = np.repeat(starts + len(first) - encoded.offsets[:-1], lengths)
    out[np.arange(len(encoded.ids)) + moved] = encoded.ids
    for place, special in enumerate(first):
        out[starts + place] = special
    for place, special in enumerate(last):
        out[ends - len(last) + place] = special
    return out, ends


def _encoded(
    batches: Iterator[_Texts], encoder: Encoder, reference: Encoder
) -> Iterator[tuple[_Texts, Encoded]]:
    """Encode batches while the next one is read; raises _OtherIdsError where a checked document differs."""
    trusted = encoder.name == reference.name
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            try:
                encoded = encoder.encode(batch.texts)
            except Exception as error:
                if trusted:
                    raise
                raise _OtherIdsError(f"a batch ({error})") from error
            if not trusted:
                _check(batch.texts, encoded, reference)
            yield batch, encoded


def _check(texts: Sequence[str], encoded: Encoded, reference: Encoder) -> None:
    chosen = range(0, len(texts), CHECKED_DOCUMENTS)
    parts = [encoded.text(number) for number in chosen]
    found = Encoded(np.concatenate(parts), np.cumsum([0, *map(len, parts)]))
    difference = first_difference(lambda _: found, reference.encode, [texts[number] for number in chosen])
    if difference is not None:
        raise _OtherIdsError(repr(difference))


def _batches(part: Path, split: str) -> Iterator[_Texts]:
    """The texts of one split, a few thousand at a time; raises InputError for a part that is not ours."""
    with _damage_named(part):
        file = pq.ParquetFile(part)
        for column in ("text", "split"):
            if column not in file.schema_arrow.names:
                raise InputError(
                    f'{part} has no column "{column}"', hint="name documents that a corpus stage has made"
                )
        for batch in file.iter_batches(batch_size=_BATCH_DOCUMENTS, columns=["text", "split"]):
            counts = pc.binary_length(batch["text"].cast(pa.large_binary()))
            wanted = pc.and_(pc.equal(batch["split"], split), pc.greater(counts, 0))
            texts = batch["text"].filter(wanted)
            if len(texts):
                yield _Texts(texts.to_pylist(), counts.filter(wanted).to_numpy().astype(np.int64))


@contextlib.contextmanager
def _damage_named(part: Path) -> Iterator[None]:
    """Turn what Arrow says of a damaged file into an InputError that names the file."""
    try:
        yield
    except pa.ArrowException as error:
        raise InputError(
            f"{part} can't be read: {error}", hint="delete its stage's directory and run the stage again"
        ) from error


def _remove_unit(unit: Path) -> None:
    # The header goes first: a unit without one counts as missing, whenever the process dies.
    (unit / HEADER).unlink(missing_ok=True)
    shutil.rmtree(unit)
