"""A selection from beginning to end. Killed at any moment, the same call goes on: the same bytes come out.

OUT/<name>-00000.warc.gz …   the records, byte for byte as Common Crawl has them
OUT/failures.jsonl           records that did not come, or were not what the index promised
OUT/selection.json           what was asked, what came; written last
OUT/work/                    until then: index.json, rows/ (of each index file), plan/, done/ (of each output)
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tsugiki.artifacts.files import read_json, write_json, write_text
from tsugiki.corpus.remote import join, read_range
from tsugiki.corpus.selection.ask import Ask, refuse_drift
from tsugiki.corpus.selection.estimate import whole_bytes
from tsugiki.corpus.selection.fetch import GAVE_UP, Failure, Unit, fetch_unit
from tsugiki.corpus.selection.index import ROWS
from tsugiki.corpus.selection.plan import OnProgress, Plan, make_plan, shut, unit_path
from tsugiki.corpus.selection.ranges import merge, rows_of
from tsugiki.corpus.transfer import Transfer
from tsugiki.errors import DataError, StageError

RESULT = "selection.json"
FAILURES = "failures.jsonl"


def select(out: Path, ask: Ask, transfer: Transfer, on_progress: OnProgress) -> dict[str, Any]:
    """Make the selection, or go on with it; what `selection.json` says.

    Raises DriftError where `out` holds another one, InputError for a broken index, DataError where it holds
    no page of the language, StageError where too many records failed.
    """
    done = finished_result(out, ask)
    if done is not None:
        shutil.rmtree(out / "work", ignore_errors=True)
        return done
    plan = make_plan(out, ask, transfer, on_progress)
    units = _fetch_all(out, ask, plan, transfer, on_progress)
    return _finish(out, ask, plan, units, transfer)


def finished_result(out: Path, ask: Ask) -> dict[str, Any] | None:
    """What `selection.json` says, where there is one; raises DriftError where it was asked something else."""
    if not (out / RESULT).exists():
        return None
    done: dict[str, Any] = read_json(out / RESULT)
    refuse_drift(out, done["asked"], ask.as_dict())
    return done


def _fetch_all(out: Path, ask: Ask, plan: Plan, transfer: Transfer, on_progress: OnProgress) -> list[Unit]:
    """Every output file: those that are finished are kept, others fetched one after another."""
    if not plan.records:
        raise DataError(
            f"the index holds no page to fetch: {plan.index_rows} rows in {plan.index_files} files; "
            f"of the language's, left out: {plan.left_out or 'nothing'}",
            hint="check language, sample and index; --languages any also takes pages with a second language",
        )
    count = _Count(ask, plan, transfer, on_progress)
    executor = ThreadPoolExecutor(ask.connections)
    units: list[Unit] = []
    try:
        for number in range(plan.units):
            unit = _finished(out, ask, number)
            if unit is None:
                unit = _fetch_one(out, ask, number, transfer=transfer, executor=executor, count=count)
            else:
                count(unit.records + len(unit.failures), unit.failures)
            units.append(unit)
    finally:
        shut(executor, transfer, failed=len(units) < plan.units)
    return units


@dataclass
class _Count:
    """Records so far. Ends it all as soon as more have failed than may."""

    ask: Ask
    plan: Plan
    transfer: Transfer
    on_progress: OnProgress
    records: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def __call__(self, records: int, failures: list[Failure]) -> None:
        self.records += records
        self.failures.update(failure.reason for failure in failures)
        self.on_progress("fetch", self.records, self.plan.records, self.transfer.traffic.bytes)
        allowed = int(self.ask.maximum_failed * self.plan.records)
        failed = self.failures.total()
        if failures and failed > allowed:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in self.failures.most_common(5))
            raise StageError(
                f"{failed} of the first {self.records} records failed; at most {allowed} of "
                f"{self.plan.records} may: {reasons}. The last: {failures[-1].message}",
                hint="check that --base holds this index's files; --max-failed allows more",
            )


def _fetch_one(
    out: Path, ask: Ask, number: int, *, transfer: Transfer, executor: ThreadPoolExecutor, count: _Count
) -> Unit:
    requests = merge(rows_of(pq.read_table(unit_path(out / "work", number), schema=ROWS)), ask.gap)

    def read(file: str, offset: int, length: int) -> bytes:
        return read_range(join(ask.base, file), offset, length, transfer)

    target = _file(out, ask, number)
    unit = fetch_unit(requests, target, read, executor=executor, threads=ask.connections, on_records=count)
    write_json(_done_path(out, number), unit.as_dict())
    return unit


def _file(out: Path, ask: Ask, number: int) -> Path:
    return out / f"{ask.name}-{number:05d}.warc.gz"


def _done_path(out: Path, number: int) -> Path:
    return out / "work" / "done" / f"{number:05d}.json"


def _finished(out: Path, ask: Ask, number: int) -> Unit | None:
    """A finished output file; None if it is gone, or if requests for it were given up: they may work now."""
    if not _done_path(out, number).exists():
        return None
    unit = Unit.from_dict(read_json(_done_path(out, number)))
    path = _file(out, ask, number)
    size = path.stat().st_size if path.exists() else 0
    again = any(failure.reason == GAVE_UP for failure in unit.failures)
    return None if again or size != unit.bytes else unit


def _finish(out: Path, ask: Ask, plan: Plan, units: list[Unit], transfer: Transfer) -> dict[str, Any]:
    failures = [failure for unit in units for failure in unit.failures]
    lines = [json.dumps(vars(failure), ensure_ascii=False) + "\n" for failure in failures]
    write_text(out / FAILURES, "".join(lines))
    fetched = sum(unit.bytes_fetched for unit in units)
    whole = whole_bytes(plan, ask, transfer)
    result = {
        "asked": ask.as_dict(),
        "counts": {
            "index_files": plan.index_files,
            "index_files_known": plan.index_files_known,
            "index_rows": plan.index_rows,
            "records_wanted": plan.records,
            "records": sum(unit.records for unit in units),
            "failed": len(failures),
            "requests": sum(unit.requests for unit in units),
            "warc_files": plan.warc_files,
            "bytes_asked": sum(unit.bytes_asked for unit in units),
            "bytes_fetched": fetched,
            "bytes_of_whole_warc_files": whole,
            "bytes_saved": None if whole is None else whole - fetched,
        },
        "left_out": plan.left_out,
        "failed": dict(Counter(failure.reason for failure in failures).most_common()),
        "files": {
            unit.name: {"records": unit.records, "bytes": unit.bytes, "sha256": unit.sha256}
            for unit in units
            if unit.records
        },
    }
    write_json(out / RESULT, result)
    shutil.rmtree(out / "work")
    return result
