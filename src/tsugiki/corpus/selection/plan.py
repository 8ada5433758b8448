"""What to fetch: the index's wanted rows, sorted and dealt out to output files. Resumable by index file."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.files import atomic_path, read_json, write_json
from tsugiki.corpus.remote import RemoteFile, expand, name_of, open_file
from tsugiki.corpus.selection.ask import Ask, refuse_drift
from tsugiki.corpus.selection.fetch import in_order
from tsugiki.corpus.selection.index import ROWS, Seen, wanted_rows
from tsugiki.corpus.selection.ranges import (
    apply_limit,
    cut_units,
    limit_threshold,
    merge,
    rows_of,
    sort_table,
    sorted_batches,
)
from tsugiki.corpus.transfer import Transfer
from tsugiki.errors import InputError

_PIECE_ROWS = 1_000_000
_INDEX_THREADS = 4
_SUBSET = "/subset="  # Common Crawl's listing also names the index of robots.txt and of failed fetches
_ASKED_FOR_SIZE = 32

OnProgress = Callable[[str, int, int, int], None]
"""Phase, done, total, bytes that came in this call."""


@dataclass(frozen=True)
class Plan:
    """What there is to fetch. Bytes are compressed ones."""

    units: int
    records: int
    bytes: int
    requests: int
    bytes_fetched: int
    warc_files: int
    index_files: int
    index_files_known: int
    index_rows: int
    left_out: dict[str, int]
    files: list[str]
    """Up to 32 of the WARC files, spread evenly, for asking how large they are."""


def make_plan(out: Path, ask: Ask, transfer: Transfer, on_progress: OnProgress) -> Plan:
    """Read the index, and write down what to fetch in which output file. No WARC data is fetched."""
    work = begin(out, ask)
    if (work / "plan.json").exists():
        return Plan(**read_json(work / "plan.json"))
    files, known = _index_files(work, ask, transfer)
    parts = _read_index(work, files, ask, transfer, on_progress)
    plan = _write_units(work, ask, parts, len(files), known)
    write_json(work / "plan.json", vars(plan))
    return plan


def begin(out: Path, ask: Ask) -> Path:
    """The work directory; refuses one where records of another question came, and one that is not ours."""
    work = out / "work"
    if (work / "asked.json").exists():
        before = read_json(work / "asked.json")
        if before == ask.as_dict():
            return work
        if (work / "done").exists():
            refuse_drift(out, before, ask.as_dict())
        shutil.rmtree(work)  # only planned so far, as a dry run does: another question begins anew
    if out.exists() and any(path.name != "work" for path in out.iterdir()):
        raise InputError(f"{out} holds files that no selection made", hint="choose an empty directory")
    write_json(work / "asked.json", ask.as_dict())
    return work


def _index_files(work: Path, ask: Ask, transfer: Transfer) -> tuple[list[RemoteFile], int]:
    """The index files to read, and how many there are; read from the listing once."""
    note = work / "index.json"
    if not note.exists():
        found = {
            file.address: None
            for address in ask.index
            for file in expand(address, transfer, unique_names=False)
        }
        addresses = list(found)
        if any(_SUBSET in address for address in addresses):
            addresses = [address for address in addresses if f"{_SUBSET}warc/" in address]
        write_json(note, sorted(addresses, key=lambda address: (name_of(address), address)))
    addresses = read_json(note)
    known = len(addresses)
    count = min(ask.index_files or known, known)
    return [RemoteFile(addresses[i * known // count]) for i in range(count)], known


def _read_index(
    work: Path, files: list[RemoteFile], ask: Ask, transfer: Transfer, on_progress: OnProgress
) -> list[Path]:
    """The wanted rows of each index file as sorted pieces; the notes of the files, in their order."""
    notes = [work / "rows" / f"{i:05d}.json" for i in range(len(files))]
    jobs = [(file, note) for file, note in zip(files, notes, strict=True) if not note.exists()]
    done = len(files) - len(jobs)
    on_progress("index", done, len(files), transfer.traffic.bytes)
    threads = min(_INDEX_THREADS, ask.connections)
    executor = ThreadPoolExecutor(threads)
    try:
        for _ in in_order(executor, lambda job: _read_one(*job, ask, transfer), jobs, threads):
            done += 1
            on_progress("index", done, len(files), transfer.traffic.bytes)
    finally:
        shut(executor, transfer, failed=done < len(files))
    return notes


def shut(executor: ThreadPoolExecutor, transfer: Transfer, *, failed: bool) -> None:
    """End the threads; after a failure their requests are not waited for."""
    if failed:
        transfer.close()
    executor.shutdown(wait=True, cancel_futures=True)


def _read_one(file: RemoteFile, note: Path, ask: Ask, transfer: Transfer) -> None:
    """Write the wanted rows of one index file beside `note`, then `note` itself."""
    seen = Seen()
    held: list[pa.Table] = []
    pieces: list[str] = []

    def flush() -> None:
        path = note.with_name(f"{note.stem}-{len(pieces):03d}.parquet")
        with atomic_path(path) as partial:
            table = sort_table(pa.concat_tables(held)) if held else ROWS.empty_table()
            pq.write_table(table, partial, compression="zstd", row_group_size=1 << 16)
        pieces.append(path.name)
        held.clear()

    with open_file(file.address, transfer) as opened:
        for table in wanted_rows(opened, file.name, ask.wanted, seen):
            held.append(table)
            if sum(part.num_rows for part in held) >= _PIECE_ROWS:
                flush()
    if held:
        flush()
    write_json(note, {"pieces": pieces, "rows": seen.rows, "left_out": seen.left_out})


def _write_units(work: Path, ask: Ask, notes: list[Path], read: int, known: int) -> Plan:
    """Write one table of rows for each output file; they depend on the rows alone."""
    said = [read_json(note) for note in notes]
    parts = [
        note.with_name(name) for note, facts in zip(notes, said, strict=True) for name in facts["pieces"]
    ]
    tables = sorted_batches(parts)
    if ask.limit is not None:
        tables = apply_limit(tables, *limit_threshold(parts, ask.limit))
    counts: Counter[str] = Counter()
    files: dict[str, None] = {}
    for number, table in enumerate(cut_units(tables, ask.file_bytes)):
        with atomic_path(unit_path(work, number)) as partial:
            pq.write_table(table, partial, compression="zstd")
        requests = merge(rows_of(table), ask.gap)
        counts["records"] += table.num_rows
        counts["bytes"] += sum(row.length for request in requests for row in request.rows)
        counts["requests"] += len(requests)
        counts["bytes_fetched"] += sum(request.length for request in requests)
        counts["units"] += 1
        files |= dict.fromkeys(request.file for request in requests)
    left_out = sum((Counter(facts["left_out"]) for facts in said), Counter())
    names = list(files)
    some = min(_ASKED_FOR_SIZE, len(names))
    return Plan(
        **{key: counts[key] for key in ("units", "records", "bytes", "requests", "bytes_fetched")},
        warc_files=len(names),
        index_files=read,
        index_files_known=known,
        index_rows=sum(facts["rows"] for facts in said),
        left_out=dict(sorted(left_out.items())),
        files=[names[i * len(names) // some] for i in range(some)],
    )


def unit_path(work: Path, number: int) -> Path:
    """The rows of one output file."""
    return work / "plan" / f"{number:05d}.parquet"
