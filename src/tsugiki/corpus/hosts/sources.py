"""Block lists as they come: folders and archives in UT1's form, and plain files of hosts.

UT1 (Université Toulouse Capitole, dsi.ut-capitole.fr/blacklists, CC BY-SA) is one folder a category with the
files `domains` (hosts), `urls` (host and path) and `usage`; it is shipped as one archive a category or as one
of all. Archives are read as streams: nothing is unpacked to the disk, so no name in them can reach a path,
and what comes out is limited. Lists are made by strangers: odd lines are counted, never fatal.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from tsugiki.corpus.hosts import kernels
from tsugiki.corpus.hosts.names import comparable_host
from tsugiki.errors import InputError

NG_CATEGORIES = frozenset(
    {
        *("adult", "shopping", "cryptojacking", "games", "redirector", "strict_redirector", "vpn"),
        *("strong_redirector", "social_networks", "ddos", "gambling", "publicite", "bitcoin", "dating"),
        *("phishing", "filehosting", "agressif", "chat", "mixed_adult", "celebrity", "financial", "manga"),
        *("remote-control", "webmail", "malware", "doh", "warez", "custom"),
    }
)
"""Swallow's categories that reject (swallow-corpus/ngurl.py; corpus.md §1.5); it allows audio-video, blog and
radio. UT1's folder `mixed_adult` is "mixed adult" there; both names are taken for one."""

CUSTOM = "custom"
"""The category of a plain file of hosts; the one that Swallow's `custom-remove-list.txt` has."""

MAX_UNPACKED_BYTES = 1 << 30
"""All of UT1 is about 150 MB unpacked; an archive that gives more than this is damaged or a bomb."""
MAX_LINE_BYTES = 4096
MAX_WARNINGS = 100
_CHUNK = 8 << 20
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_PARTS = ("domains", "urls", "usage")
_USAGE_BYTES = 1 << 16
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, OSError)
_TYPE = re.compile(r"^\s*(?:DEFAULT_TYPE\s*:\s*)?(black|white|grey|gray)\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass
class Entries:
    """The keys of one category: hosts, and hosts with a path."""

    hosts: list[kernels.UInt64s] = field(default_factory=list)
    urls: list[tuple[int, int]] = field(default_factory=list)
    """(key of host and path, key of the host)."""
    kind: str = ""
    """`black`, `white`, `grey`, or empty where the list does not say."""


@dataclass
class Reading:
    """What was read from the lists, and what was passed over."""

    categories: dict[str, Entries] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def of(self, category: str) -> Entries:
        """The entries of a category, made where there are none yet."""
        return self.categories.setdefault(category, Entries())

    def warn(self, place: str, message: str) -> None:
        """Count something passed over, and remember the first of them."""
        self.counts["odd"] += 1
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(f"{place}: {message}")


def read_source(path: Path, reading: Reading) -> None:
    """Read one source: a folder, an archive or a plain file of hosts.

    Raises InputError where it is missing, holds no list, or is a damaged or oversized archive.
    """
    if path.is_dir():
        _read_folder(path, reading)
    elif path.name.endswith(_ARCHIVES):
        _read_archive(path, reading)
    elif path.is_file():
        with path.open("rb") as file:
            _read_part(file, "domains", CUSTOM, reading, str(path))
    else:
        raise InputError(f"there is no block list {path}", hint="name a folder, a .tar.gz or a file of hosts")


def category_name(name: str) -> str:
    """A category's name in one form: `mixed adult` is `mixed_adult`."""
    return name.strip().lower().replace(" ", "_")


def _read_folder(path: Path, reading: Reading) -> None:
    """A folder of categories, of archives or of both; UT1's own archive unpacks to `blacklists/`."""
    if (path / "domains").is_file() or (path / "urls").is_file():
        _read_category(path, reading)
        return
    if (path / "blacklists").is_dir():
        path /= "blacklists"
    found = False
    for place in sorted(path.iterdir()):
        if place.is_dir() and any((place / part).is_file() for part in ("domains", "urls")):
            _read_category(place, reading)
        elif place.is_file() and place.name.endswith(_ARCHIVES):
            _read_archive(place, reading)
        else:
            continue
        found = True
    if not found:
        raise InputError(
            f"{path} holds no block list",
            hint="expected: a folder for each category with a file `domains` or `urls`, or .tar.gz of such",
        )


def _read_category(path: Path, reading: Reading) -> None:
    category = category_name(path.resolve().name)
    for part in _PARTS:
        if (path / part).is_file():
            with (path / part).open("rb") as file:
                _read_part(file, part, category, reading, str(path / part))


def _read_archive(path: Path, reading: Reading) -> None:
    """Stream an archive. Links, devices and names with `..` are passed over and counted."""
    unpacked = 0
    found = False
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                unpacked += max(member.size, 0)
                if unpacked > MAX_UNPACKED_BYTES:
                    raise InputError(
                        f"{path} unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB (at {member.name!r})",
                        hint="fetch it again; if it is really so large, unpack it and name the folder",
                    )
                if member.isdir() or name.name not in _PARTS or len(name.parts) < 2:  # noqa: PLR2004
                    continue
                if not member.isreg() or name.is_absolute() or ".." in name.parts:
                    reading.warn(str(path), f"{member.name!r} is no plain file inside of the archive")
                    continue
                file = archive.extractfile(member)
                if file is not None:
                    found = True
                    category = category_name(name.parts[-2])
                    _read_part(file, name.name, category, reading, f"{path}:{member.name}")
    except _DAMAGE as error:
        raise InputError(
            f"{path} is a damaged archive: {error}", hint="fetch it again, or take it out of the folder"
        ) from error
    if not found:
        raise InputError(
            f"{path} holds no block list", hint="expected: <category>/domains or <category>/urls in it"
        )


def _read_part(file: IO[bytes], part: str, category: str, reading: Reading, place: str) -> None:
    if part == "usage":
        kind = _TYPE.search(file.read(_USAGE_BYTES).decode("utf-8", "replace"))
        reading.of(category).kind = kind[1].lower() if kind else ""
        return
    entries = reading.of(category)
    for block in _whole_lines(file, reading, place):
        if part == "domains":
            keys, others = kernels.line_keys(np.frombuffer(bytearray(block), np.uint8))
            entries.hosts.append(keys)
            lines: Sequence[bytes] = [block[start:stop] for start, stop in others.tolist()]
        else:
            lines = [line for line in block.split(b"\n") if line.strip() and not line.startswith(b"#")]
        _read_lines(lines, entries, reading, place)


def _read_lines(lines: Sequence[bytes], entries: Entries, reading: Reading, place: str) -> None:
    """Lines that are no plain host: with a path, a port, a comment, other scripts, or nonsense."""
    hosts = []
    for line in lines:
        found = None if len(line) > MAX_LINE_BYTES else split_entry(line.decode("utf-8", "replace"))
        if found is None:
            reading.warn(place, f"{line[:60]!r} is neither a host nor a host with a path")
        elif found[1]:
            entries.urls.append((key_of("".join(found)), key_of(found[0])))
        else:
            hosts.append(key_of(found[0]))
    entries.hosts.append(np.array(hosts, np.uint64))


def split_entry(line: str) -> tuple[str, str] | None:
    """An entry as (host, path): the path begins with its separator, or is empty. None for nonsense.

    Comments behind the entry, a scheme, `*.` before a host and the address of a hosts file (`0.0.0.0 host`)
    are dropped. With a path the host loses its `www.`, and the path its case and last slash: both sides of
    every comparison do (as squidGuard, for which UT1 is made, compares).
    """
    words = line.split(" #", 1)[0].split()
    if len(words) == 2 and words[0].replace(".", "").replace(":", "").isdigit():  # noqa: PLR2004 (address, host)
        words = words[1:]
    if len(words) != 1:
        return None
    text = words[0].partition("://")[2] or words[0]
    place = re.search(r"[/?#]", text)
    authority, path = (text[: place.start()], text[place.start() :]) if place else (text, "")
    host = comparable_host(authority.removeprefix("*").removeprefix("."))
    if host is None or any(character.isspace() for character in host):
        return None
    path = comparable_path(path)
    return (host.removeprefix("www."), path) if path else (host, "")


def comparable_path(path: str) -> str:
    """A path as it is compared: percent signs resolved, lower case, no slash at its end."""
    from urllib.parse import unquote

    return unquote(path, errors="replace").lower().rstrip("/") if path else ""


def key_of(name: str) -> int:
    """The 64-bit key of a name."""
    data = bytes_of(name)
    return int(kernels.name_key(data, 0, data.size))


def bytes_of(name: str) -> kernels.UInt8s:
    """The bytes of a name as the kernels take them (they want memory that may be written)."""
    return np.frombuffer(bytearray(name, "utf-8", "replace"), np.uint8)


def _whole_lines(file: IO[bytes], reading: Reading, place: str) -> Iterator[bytes]:
    """The file in blocks that end at a line's end; lines longer than a block are dropped and counted."""
    rest = b""
    total = 0
    while chunk := file.read(_CHUNK):
        total += len(chunk)
        if total > MAX_UNPACKED_BYTES:
            raise InputError(
                f"{place} is larger than {MAX_UNPACKED_BYTES >> 20} MiB", hint="check that it is a block list"
            )
        block, found, left = (rest + chunk).rpartition(b"\n")
        rest = left
        if len(rest) > _CHUNK:
            if not rest.startswith(b"#"):
                reading.warn(place, "a line of more than 8 MiB")
            rest = b"#"  # what follows of that line is a comment now
        if found:
            yield block
    if rest:
        yield rest
