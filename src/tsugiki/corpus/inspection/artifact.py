"""A finished corpus, opened for reading: its files, its columns, and the rules that chose its documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.contract import ArtifactType
from tsugiki.artifacts.documents import BASE_FIELDS, KEPT, REJECTED, document_files
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.corpus.config import QUALITY
from tsugiki.corpus.inspection.cuts import Cut, cut_of, split_reason
from tsugiki.corpus.rules import rules_of
from tsugiki.errors import InputError, did_you_mean
from tsugiki.languages import LanguagePack, load_pack

NEAR_DUPLICATE: Final = "near_duplicate"
PACK_RULES: Final = "pack"
NO_RULES: Final = "none"

_BASE: Final = frozenset(field.name for field in BASE_FIELDS)


@dataclass(frozen=True)
class Corpus:
    """The directory of a finished corpus stage."""

    directory: Path
    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    counts: Mapping[str, float]
    pack: LanguagePack
    cuts: tuple[Cut, ...]
    kept: tuple[Path, ...]
    rejected: tuple[Path, ...]
    columns: Mapping[str, pa.DataType]

    @property
    def files(self) -> tuple[Path, ...]:
        """All parts: kept ones, then rejected ones."""
        return (*self.kept, *self.rejected)

    @property
    def features(self) -> list[str]:
        """The numeric columns besides those of every documents file, in stored order."""
        return [
            name
            for name, kind in self.columns.items()
            if name not in _BASE and (pa.types.is_integer(kind) or pa.types.is_floating(kind))
        ]

    def is_rule_reason(self, reason: str) -> bool:
        """Whether a reason is that of a threshold on a stored feature."""
        parts = split_reason(reason)
        return parts is not None and parts[0] in self.columns


def open_corpus(directory: Path) -> Corpus:
    """Open a corpus.

    Raises InputError where `directory` is no finished corpus stage, or its language pack is not to be had.
    """
    if not is_finished(directory):
        inside = sorted(path.parent.parent.name for path in directory.glob(f"*/{KEPT}/part-*.parquet"))
        hint = "name the directory of a finished corpus stage"
        raise InputError(
            f"{directory} holds no finished corpus (no manifest.json)",
            hint=f"did you mean {' or '.join(str(directory / name) for name in dict.fromkeys(inside))}?"
            if inside
            else hint,
        )
    manifest = read_manifest(directory)
    if manifest.type is not ArtifactType.DOCUMENTS:
        raise InputError(
            f"{directory} holds {manifest.type.value}, not documents",
            hint="name the directory of a corpus stage",
        )
    config = manifest.config
    pack = load_pack(str(config.get("language", "")), _pack_folders(config))
    kept = document_files(directory)
    return Corpus(
        directory=directory,
        config=config,
        facts=manifest.facts,
        counts=manifest.counts,
        pack=pack,
        cuts=(
            *rule_cuts(pack, str(config.get("rules", PACK_RULES)), config.get("rule_overrides") or {}),
            *_classifier_cut(config),
        ),
        kept=tuple(kept),
        rejected=tuple(document_files(directory, REJECTED)),
        columns=_columns(kept[0]),
    )


def _classifier_cut(config: Mapping[str, Any]) -> Iterator[Cut]:
    """The threshold of the quality classifier, where one rejects."""
    classifier = config.get("classifier")
    minimum = classifier.get("minimum") if isinstance(classifier, Mapping) else None
    if isinstance(minimum, int | float):
        yield Cut(QUALITY, QUALITY, "<", float(minimum))


def _pack_folders(config: Mapping[str, Any]) -> tuple[Path, ...]:
    given = config.get("language_packs") or ()
    return tuple(Path(one) for one in ([given] if isinstance(given, str) else given))


def rule_cuts(pack: LanguagePack, rules: str, overrides: Mapping[str, float]) -> tuple[Cut, ...]:
    """The thresholds of `pack`, `none`, or a named rule set; raises InputError for an unknown one."""
    if rules == NO_RULES:
        return ()
    if rules != PACK_RULES:
        if rules not in pack.rule_sets:
            known = [PACK_RULES, NO_RULES, *pack.rule_sets]
            raise InputError(
                f'the pack "{pack.code}" has no rule set "{rules}"', hint=did_you_mean(rules, known)
            )
        pack = pack.model_copy(update={"rules": pack.rule_sets[rules]})
    return tuple(map(cut_of, rules_of(pack, overrides)))


def _columns(file: Path) -> dict[str, pa.DataType]:
    with reading(file) as parquet:
        schema = parquet.schema_arrow
    return dict(zip(schema.names, schema.types, strict=True))


@contextmanager
def reading(file: Path) -> Iterator[Any]:
    """Open a Parquet part; raises InputError where it, or what is read of it inside the block, is damaged."""
    try:
        with pq.ParquetFile(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        hint = "delete its stage's directory and run the stage again"
        raise InputError(f"{file} can't be read: {error}", hint=hint) from error


def batches(file: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The columns of a part, up to `rows` rows at a time.

    Raises InputError where the part is damaged or lacks a column.
    """
    with reading(file) as parquet:
        missing = sorted(set(columns) - set(parquet.schema_arrow.names))
        if missing:
            raise InputError(
                f"{file} has no column {', '.join(missing)}", hint="make it again with a corpus stage"
            )
        yield from parquet.iter_batches(batch_size=rows, columns=list(columns))


def row_count(files: Sequence[Path]) -> int:
    """The rows of all files together, from their footers."""
    total = 0
    for file in files:
        with reading(file) as parquet:
            total += parquet.metadata.num_rows
    return total


def as_floats(column: pa.Array) -> npt.NDArray[np.float64]:
    """A numeric column as float64, nulls as NaN."""
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
