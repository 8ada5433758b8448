"""What is asked of a selection: typed, checked, and written down so that a rerun can compare."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tsugiki.artifacts.identity import differences
from tsugiki.corpus.remote import COMMON_CRAWL
from tsugiki.corpus.selection.index import Wanted
from tsugiki.errors import DriftError, InputError
from tsugiki.languages import LanguagePack, read_list

FORMAT = 1
"""Of the selection's files; rises when the same question would give other bytes."""
MOST_CONNECTIONS = 32
"""Common Crawl's server slows down clients with more."""
_SNAPSHOT = re.compile(r"CC-MAIN-\d{4}(-\d{2}|-\d{2,4}-\d{2})?")


@dataclass(frozen=True)
class Ask:
    """One selection.

    The fields up to `limit` decide what comes out. gap, connections and the rest only decide how.
    """

    language: str
    wanted: Wanted
    index: tuple[str, ...]
    """Addresses of index files or listings of them."""
    base: str = COMMON_CRAWL
    """Where the index's `warc_filename`s are."""
    name: str = "selected"
    """Output files are called <name>-00000.warc.gz."""
    file_bytes: int = 512 << 20
    index_files: int | None = None
    """Read only so many of the index's files, spread evenly."""
    limit: int | None = None
    gap: int = 64 << 10
    """Neighbouring records at most so many bytes apart are fetched together."""
    connections: int = 8
    maximum_failed: float = 0.01

    def as_dict(self) -> dict[str, Any]:
        """What decides the result, as plain data."""
        wanted = self.wanted
        blocked = "\n".join(sorted(wanted.blocked)).encode()
        return {
            "format": FORMAT,
            "language": self.language,
            "index_languages": list(wanted.labels),
            "languages": wanted.where,
            "index": list(self.index),
            "index_files": self.index_files,
            "base": self.base,
            "mime_types": list(wanted.mime_types),
            "maximum_record_bytes": wanted.maximum_bytes,
            "blocked_hosts": len(wanted.blocked),
            "blocked_hosts_sha256": hashlib.sha256(blocked).hexdigest(),
            "sample": wanted.sample,
            "limit": self.limit,
            "gap": self.gap,
            "file_bytes": self.file_bytes,
            "name": self.name,
        }


def make_ask(
    pack: LanguagePack,
    *,
    snapshot: str | None = None,
    index: tuple[str, ...] = (),
    base: str = COMMON_CRAWL,
    languages: Literal["primary", "any"] = "primary",
    maximum_bytes: int = Wanted.maximum_bytes,
    blocked_hosts: Path | None = None,
    sample: float = 1.0,
    **options: Any,
) -> Ask:
    """A checked `Ask`; `options` are further fields of it. Raises InputError with what is wrong."""
    if not pack.identification.index_languages:
        raise InputError(
            f'the language pack "{pack.code}" does not say what Common Crawl\'s index calls the language',
            hint='add index_languages = ["..."] (ISO 639-3) to [identification] in its pack.toml',
        )
    if (snapshot is None) == (not index):
        raise InputError(
            "give either a snapshot or index files", hint="--snapshot CC-MAIN-2024-51, or --index PATH"
        )
    base = base if base.endswith("/") else base + "/"
    name = "selected"
    if snapshot is not None:
        if not _SNAPSHOT.fullmatch(snapshot):
            raise InputError(
                f'"{snapshot}" is no snapshot of Common Crawl', hint="they are named like CC-MAIN-2024-51"
            )
        index = (f"{base}crawl-data/{snapshot}/cc-index-table.paths.gz",)
        name = f"selected-{snapshot}-{pack.code}"
    blocked = read_list(blocked_hosts) if blocked_hosts is not None else ()
    wanted = Wanted(
        labels=pack.identification.index_languages,
        where=languages,
        maximum_bytes=maximum_bytes,
        sample=sample,
        blocked=frozenset(host.lower().rstrip(".") for host in blocked),
    )
    options = {"name": name, **{key: value for key, value in options.items() if value is not None}}
    ask = Ask(pack.code, wanted, index, base, **options)
    _check(ask)
    return ask


def _check(ask: Ask) -> None:
    """Raises InputError where a number is out of its range."""
    ranges = {
        "sample": (ask.wanted.sample, 0 < ask.wanted.sample <= 1, "more than 0, at most 1"),
        "limit": (ask.limit, ask.limit is None or ask.limit > 0, "at least 1"),
        "index-files": (ask.index_files, ask.index_files is None or ask.index_files > 0, "at least 1"),
        "max-record-bytes": (ask.wanted.maximum_bytes, ask.wanted.maximum_bytes > 0, "at least 1"),
        "gap": (ask.gap, ask.gap >= 0, "at least 0"),
        "file-bytes": (ask.file_bytes, ask.file_bytes > 0, "at least 1"),
        "max-failed": (ask.maximum_failed, 0 <= ask.maximum_failed <= 1, "0 to 1"),
        "connections": (
            ask.connections,
            0 < ask.connections <= MOST_CONNECTIONS,
            f"1 to {MOST_CONNECTIONS}: the server is shared with others",
        ),
    }
    for name, (value, right, expected) in ranges.items():
        if not right:
            raise InputError(f"--{name} is {value}", hint=f"expected: {expected}")
    if not re.fullmatch(r"[\w.-]+", ask.name):
        raise InputError(f'--name is "{ask.name}"', hint="letters, digits, dots, dashes and underscores")


def refuse_drift(directory: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises DriftError where a selection in `directory` was asked something else."""
    found = [str(difference) for difference in differences(before, now)]
    if found:
        raise DriftError(
            f"{directory} holds another selection: {'; '.join(found)}",
            hint="choose another directory, or ask for the same; delete the directory to begin anew",
        )
