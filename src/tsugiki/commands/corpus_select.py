"""`tsugiki corpus select`: a language's records out of Common Crawl, by its index."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from tsugiki.artifacts.durations import about
from tsugiki.commands.terminal import Json, print_json

if TYPE_CHECKING:
    from tsugiki.corpus.selection.ask import Ask
    from tsugiki.corpus.transfer import Transfer

_DryRun = Annotated[bool, Parameter(name=["--dry-run", "--estimate"], negative="", show_default=False)]
_COMMON_CRAWL = "https://data.commoncrawl.org/"  # as in corpus.remote, which is too heavy for --help
_EVERY_SECONDS = 2.0


def select(
    out: Path,
    *,
    language: str,
    snapshot: str | None = None,
    index: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    base: str = _COMMON_CRAWL,
    languages: Literal["primary", "any"] = "primary",
    sample: float = 1.0,
    limit: int | None = None,
    index_files: int | None = None,
    block_hosts: Path | None = None,
    max_record_bytes: int = 4 << 20,
    file_bytes: int = 512 << 20,
    gap: int = 64 << 10,
    connections: int = 8,
    attempts: int = 8,
    max_failed: float = 0.01,
    name: str | None = None,
    dry_run: _DryRun = False,
    json: Json = False,
) -> None:
    """Fetch the records of one language out of Common Crawl, and none of the others.

    Common Crawl publishes an index of each snapshot that names every page's language and where its record
    lies. This reads the index, picks the rows of the language, and fetches their byte ranges alone: for
    Japanese, about 5 % of a snapshot's bytes. The records are written as they are, into files that
    `tsugiki corpus` reads: `tsugiki corpus docs --source 'OUT/*.warc.gz' --language ja`.

    Begin small. `--dry-run --index-files 3` reads 3 of the index's 300 files and says how many records,
    bytes, requests and hours it would be. `--sample 0.01` takes every hundredth page, chosen by a hash of its
    URL, so that a larger sample later holds the smaller one.

    Killed at any moment, the same command goes on where it was and ends with the same bytes. What could not
    be fetched, or is not what the index promised, is listed in OUT/failures.jsonl. OUT/selection.json says
    what was asked and what came.

    Example: `tsugiki corpus select crawl/ja --language ja --snapshot CC-MAIN-2024-51 --sample 0.01`

    Args:
        out: Directory of the result; made if absent.
        language: Code of the language pack, e.g. ja; the pack says what the index calls the language.
        snapshot: A snapshot of Common Crawl, e.g. CC-MAIN-2024-51 (list: https://index.commoncrawl.org).
        index: Index files instead of a snapshot: paths, globs, addresses (https, s3, …), *.paths.gz.
        base: Where the index and the WARC files lie: a mirror, a folder, s3://commoncrawl/.
        languages: primary: pages whose main language it is; any: also those that have some of it.
        sample: Share of the pages to take.
        limit: Take at most so many pages, spread over the whole by the same hash.
        index_files: Read only so many of the index's files, spread evenly over it.
        block_hosts: File of hosts to leave out with all below them, one a line.
        max_record_bytes: Leave out records that are longer than this (compressed).
        file_bytes: Begin another output file from this size on.
        gap: Fetch neighbouring records together if at most so many bytes lie between them.
        connections: Requests in flight, at most 32. Be polite: the server is shared.
        attempts: Tries of a request, with growing waits between them.
        max_failed: Share of the records that may fail before the whole is given up.
        name: Beginning of the output files' names; by default from snapshot and language.
        dry_run: Say what would be fetched, and fetch no page. What the index said is kept for the real run.
        json: Print JSON.
    """
    from tsugiki.corpus.selection.ask import make_ask
    from tsugiki.corpus.selection.select import finished_result
    from tsugiki.corpus.selection.select import select as run
    from tsugiki.corpus.transfer import Policy, Transfer
    from tsugiki.languages import load_pack

    ask = make_ask(
        load_pack(language),
        snapshot=snapshot,
        index=tuple(index or ()),
        base=base,
        languages=languages,
        maximum_bytes=max_record_bytes,
        blocked_hosts=block_hosts,
        sample=sample,
        limit=limit,
        index_files=index_files,
        file_bytes=file_bytes,
        gap=gap,
        connections=connections,
        maximum_failed=max_failed,
        name=name,
    )
    with Transfer(Policy(attempts=attempts, connections=connections)) as transfer:
        show = _Progress(transfer, silent=json)
        if dry_run and finished_result(out, ask) is None:
            _say_plan(out, ask, transfer, show, as_json=json)
            return
        result = run(out, ask, transfer, show)
    show.end()
    if json:
        print_json({"directory": str(out), **result})
    else:
        _say_result(out, result)


def _say_plan(out: Path, ask: Ask, transfer: Transfer, show: _Progress, *, as_json: bool) -> None:
    from tsugiki.corpus.selection.estimate import estimate
    from tsugiki.corpus.selection.plan import make_plan

    plan = make_plan(out, ask, transfer, show)
    show.end()
    found = estimate(plan, ask, transfer)
    if as_json:
        facts = {key: value for key, value in asdict(plan).items() if key != "files"}
        print_json({"directory": str(out), **facts, **asdict(found)})
        return
    of = f"{plan.index_files} of {plan.index_files_known} index files, {plan.index_rows} rows"
    print(f"records    {plan.records} ({of})")
    if plan.index_files < plan.index_files_known:
        print(f"           about {found.scaled_records} in the whole index; all below is for {plan.records}")
    for reason, count in plan.left_out.items():
        print(f"           {count} left out: {reason}")
    whole = found.bytes_of_whole_warc_files
    share = f", {plan.bytes_fetched / whole:.1%} of the files' {_size(whole)}" if whole else ""
    print(f"to fetch   {_size(plan.bytes_fetched)} ({_size(plan.bytes)} of records{share})")
    print(f"requests   {plan.requests} to {plan.warc_files} WARC files")
    basis = "measured on the index" if found.measured else "assumed"
    line = f"{_size(found.bytes_per_second)}/s ({basis}), {found.seconds_per_request:.2f} s a request"
    print(f"time       about {about(found.seconds)} at {line}, {ask.connections} connections")
    print(f"result     {plan.units} files in {out}")


def _say_result(out: Path, result: dict[str, Any]) -> None:
    counts = result["counts"]
    print(
        f"{counts['records']} records of {counts['records_wanted']} in {len(result['files'])} files in {out}"
    )
    saved = counts["bytes_saved"]
    rest = f"; {_size(saved)} of the WARC files left where they are" if saved is not None else ""
    print(f"{_size(counts['bytes_fetched'])} fetched in {counts['requests']} requests{rest}")
    for reason, count in result["failed"].items():
        print(f"{count} failed: {reason} (see {out / 'failures.jsonl'})")


class _Progress:
    """One line on standard error: rewritten on a terminal, every ten seconds elsewhere."""

    def __init__(self, transfer: Transfer, *, silent: bool) -> None:
        self._transfer = transfer
        self._silent = silent
        self._terminal = sys.stderr.isatty()
        self._every = _EVERY_SECONDS if self._terminal else 5 * _EVERY_SECONDS
        self._phase = ""
        self._start = self._last = 0.0
        self._first = (0, 0)

    def __call__(self, phase: str, done: int, total: int, size: int) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._start, self._last, self._first = phase, now, now, (done, size)
        if self._silent or now - self._last < self._every:
            return
        self._last = now
        line = progress_line(
            phase, (done, total), (done - self._first[0], size - self._first[1]), now - self._start
        )
        if self._transfer.traffic.retries:
            line += f", {self._transfer.traffic.retries} retries"
        sys.stderr.write(f"\r{line}\x1b[K" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the terminal tidy."""
        if self._terminal and not self._silent:
            sys.stderr.write("\r\x1b[K")


def progress_line(phase: str, at: tuple[int, int], gained: tuple[int, int], seconds: float) -> str:
    """How far, how fast, how long still. at: done and total; gained: records and bytes of this call."""
    done, total = at
    records, size = gained
    unit = "index files" if phase == "index" else "records"
    rate = records / seconds if seconds else 0.0
    rest = about((total - done) / rate) if rate else "?"
    speed = f"{rate:.1f} {unit}/s" if phase == "index" else f"{rate:.0f} records/s"
    speed += f", {size / max(seconds, 1e-9) / 1e6:.1f} MB/s"
    return f"{done}/{total} {unit} ({done / max(1, total):.0%}), {speed}, ETA {rest}"


def _size(number: float) -> str:
    unit, size = next(
        (pair for pair in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if number >= pair[1]),
        ("bytes", 1),
    )
    return f"{number / size:.3g} {unit}" if size > 1 else f"{number:.0f} bytes"
