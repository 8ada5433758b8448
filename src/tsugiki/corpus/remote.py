"""Files of a corpus wherever they lie: here, behind HTTP, in an object store.

    local path or glob             crawl/*.warc.gz
    http(s) address of one file    https://data.commoncrawl.org/crawl-data/…/CC-MAIN-….warc.gz
    listing, here or remote        …/warc.paths.gz   (a path a line, as Common Crawl publishes them)
    s3://, gs://, hf://, …         through fsspec, globs too; s3:// and gs:// need no package beside pyarrow

The ids of documents are made from file names, so two files of one corpus may not share a name. Those of
Common Crawl never do: each holds two times of the crawl and a serial number (CC-MAIN-…-…-00000.warc.gz).
"""

from __future__ import annotations

import glob
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.transfer import Transfer
from tsugiki.corpus.transfer_answers import HttpStatusError, shown
from tsugiki.errors import DependencyError, InputError, StageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

COMMON_CRAWL = "https://data.commoncrawl.org/"
LISTINGS = (".paths", ".paths.gz")
_LISTING_BYTES = 64 << 20  # warc.paths.gz of a snapshot has 0.2 MB, its text 13 MB
_LISTING_TEXT_BYTES = 512 << 20
_ROOTS = ("crawl-data/", "cc-index/")  # how the paths in Common Crawl's listings begin
_ARROW = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]")
_NOT_FOUND, _NOT_SATISFIABLE = 404, 416


@dataclass(frozen=True)
class RemoteFile:
    """A file by its address; `bytes` is its size where that is known without asking for each file."""

    address: str
    bytes: int | None = None

    @property
    def name(self) -> str:
        """The base name, safe to be used for a local file."""
        return name_of(self.address)


def scheme_of(address: str) -> str:
    """`http`, `s3`, …; empty for a local path."""
    scheme, colon, rest = address.partition("://")
    return scheme.lower() if colon and rest and re.fullmatch(r"[A-Za-z][\w+.-]*", scheme) else ""


def is_web(address: str) -> bool:
    """Whether the address is read over HTTP."""
    return scheme_of(address) in {"http", "https"}


def is_local(address: str) -> bool:
    """Whether the address is a path of this machine."""
    return not scheme_of(address)


def name_of(address: str) -> str:
    """The last part of an address's path; raises InputError where it can't name a file."""
    name = address.rpartition("/")[2]
    if not is_local(address):
        name = unquote(urlsplit(address).path.rpartition("/")[2])
    if not name or name in {".", ".."} or _UNSAFE.search(name):
        raise InputError(f"{_said(address)} does not end in a file's name", hint="check the address")
    return name


def expand(
    address: str, transfer: Transfer, base: str | None = None, *, unique_names: bool = True
) -> list[RemoteFile]:
    """The files that an address stands for, sorted by name, or by address where names need not be unique.

    base: what the paths of a listing are relative to. By default those that begin as Common Crawl's do
    belong to the listing's own server (or to Common Crawl's, for a local listing), others to its folder.
    Raises InputError where there is no such file, where a listing is broken, or where two files share a name;
    DependencyError where the package for a kind of store is missing.
    """
    if urlsplit(address).path.endswith(LISTINGS) or address.endswith(LISTINGS):
        files = [RemoteFile(line) for line in read_listing(address, transfer, base)]
    elif is_web(address):
        files = [RemoteFile(address, transfer.size_of(address))]
    elif is_local(address):
        names = [address] if Path(address).is_file() else glob.glob(address, recursive=True)  # noqa: PTH207
        paths = map(Path, names)
        files = [RemoteFile(str(path), path.stat().st_size) for path in paths if path.is_file()]
    else:
        files = _stored(address)
    if not files:
        raise InputError(f"{_said(address)} stands for no file", hint="check the address or the glob")
    return check_names(files) if unique_names else sorted(files, key=lambda file: file.address)


def check_names(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files, sorted by name; raises InputError where two share one."""
    found: dict[str, RemoteFile] = {}
    for file in files:
        known = found.setdefault(file.name, file)
        if known.address != file.address:
            raise InputError(
                f"two files are named {file.name}: {_said(known.address)} and {_said(file.address)}",
                hint="leave one out: the ids of documents are made from file names",
            )
    return [found[name] for name in sorted(found)]


def read_listing(address: str, transfer: Transfer, base: str | None = None) -> list[str]:
    """The addresses in a listing, in its order; see `expand`."""
    data = read_small(address, transfer, _LISTING_BYTES)
    try:
        text = (_inflate(data, address) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the listing {_said(address)} is not UTF-8 text", hint="check the address"
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    return [_resolve(address, line, base) for line in lines if line and not line.startswith("#")]


def _inflate(data: bytes, address: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as file:
            text = file.read(_LISTING_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"the listing {_said(address)} is damaged gzip ({error})", hint="download it again"
        ) from error
    if len(text) > _LISTING_TEXT_BYTES:
        raise InputError(
            f"the listing {_said(address)} has more than {_LISTING_TEXT_BYTES} bytes of text",
            hint="check the address",
        )
    return text


def _resolve(listing: str, line: str, base: str | None) -> str:
    """The address that a line of a listing means."""
    if scheme_of(line) or line.startswith("/"):
        return line
    if base is None and line.startswith(_ROOTS):
        before, found, _ = listing.rpartition(_ROOTS[0])
        root = urljoin(listing, "/") if is_web(listing) else COMMON_CRAWL
        return join(before if found else root, line)
    return join(base if base is not None else listing.rpartition("/")[0] or ".", line)


def join(base: str, path: str) -> str:
    """A relative path below a base address; raises InputError for a path that leads out of it."""
    if ".." in path.split("/") or path.startswith("/") or scheme_of(path) or re.search(r"[\x00-\x20]", path):
        raise InputError(
            f"{path[:200]!r} is no path below {_said(base)}", hint="the listing or index is broken"
        )
    return f"{base.rstrip('/')}/{path}"


def filesystem(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of fsspec for an address, and the path in it.

    s3:// and gs:// use s3fs and gcsfs where they are installed, else the clients that pyarrow brings along.
    Raises DependencyError where the scheme's package is missing, InputError for an unknown scheme.
    """
    from fsspec.core import url_to_fs

    scheme = scheme_of(address)
    try:
        return url_to_fs(address)
    except ImportError as error:
        if scheme in _ARROW:
            return _arrow(address)
        raise DependencyError(
            f"{scheme}:// addresses need a package that is not installed ({error})",
            hint="install the package that the message names",
        ) from error
    except ValueError as error:
        if "not known" in str(error):
            raise InputError(
                f"{scheme}:// addresses are unknown", hint="known: http, https, s3, gs, hf, and fsspec's"
            ) from error
        raise InputError(f"{_said(address)} can't be read: {error}", hint="check the address") from error


def _arrow(address: str) -> tuple[AbstractFileSystem, str]:
    """The client of pyarrow itself for a store, as a file system of fsspec.

    The address may carry Arrow's options, e.g. `?endpoint_override=host:9000&scheme=http&region=eu-west-1`.
    """
    import pyarrow as pa
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow import fs

    scheme, _, rest = address.partition("://")
    path, question, options = rest.partition("?")
    bucket = path.partition("/")[0]
    name = {"s3a": "s3", "gcs": "gs"}.get(scheme.lower(), scheme.lower())
    try:
        found, _ = fs.FileSystem.from_uri(f"{name}://{bucket}{question}{options}")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DependencyError(
            f"{name}:// can't be read with this pyarrow ({error})",
            hint=f"pip install {_ARROW[scheme.lower()]}",
        ) from error
    return ArrowFSWrapper(found), path.rpartition("@")[2]


def _stored(address: str) -> list[RemoteFile]:
    """The files of an object store that an address or a glob stands for."""
    store, path = filesystem(address)
    scheme, _, rest = address.partition("://")
    _, question, options = rest.partition("?")
    suffix = question + options if "=" in options else ""  # Arrow's options, not a glob's question mark
    with _store_errors(address):
        found = store.glob(path, detail=True) if glob.has_magic(path) else {path: store.info(path)}
    return [
        RemoteFile(f"{scheme}://{name.lstrip('/') if scheme != 'file' else name}{suffix}", info["size"])
        for name, info in found.items()
        if info["type"] == "file"
    ]


def read_small(address: str, transfer: Transfer, limit: int) -> bytes:
    """A whole file of at most `limit` bytes."""
    if is_web(address):
        return transfer.get_small(address, limit)
    with open_file(address, transfer) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"{_said(address)} has more than {limit} bytes", hint="check the address")
    return data


def open_file(address: str, transfer: Transfer) -> IO[bytes]:
    """A file for reading at any place."""
    if is_web(address):
        return transfer.open(address)  # type: ignore[return-value]
    with _store_errors(address):
        if is_local(address):
            return Path(address).open("rb")
        store, path = filesystem(address)
        return store.open(path, "rb")


def size_of(address: str, transfer: Transfer) -> int:
    """The size of a file in bytes."""
    if is_web(address):
        return transfer.size_of(address)
    with _store_errors(address):
        if is_local(address):
            return Path(address).stat().st_size
        store, path = filesystem(address)
        return int(store.size(path))


def read_range(address: str, offset: int, length: int, transfer: Transfer) -> bytes:
    """Exactly `length` bytes from `offset` on; raises HttpStatusError (404, 416) as `Transfer.get_range`."""
    if is_web(address):
        return transfer.get_range(address, offset, length)
    with _store_errors(address):
        if is_local(address):
            with Path(address).open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        else:
            store, path = filesystem(address)
            with store.open(path, "rb", cache_type="none") as remote:
                remote.seek(offset)
                data = remote.read(length)
    transfer.count(len(data))
    if len(data) != length:
        raise HttpStatusError(
            f"{_said(address)}: {len(data)} of {length} bytes at {offset}; the range ends after the file",
            hint="index and file do not belong together",
            status=_NOT_SATISFIABLE,
        )
    return data


@contextmanager
def local_copy(address: str, directory: Path, transfer: Transfer) -> Iterator[Path]:
    """The file under its own name in `directory`, gone again afterwards; a local file is given as it is.

    Killed on the way, the next call goes on where the download was. One worker uses one at a time, so that at
    most one file a worker lies on the disk.
    """
    if is_local(address):
        yield Path(address)
        return
    target = directory / name_of(address)
    if not (target.exists() and target.stat().st_size == size_of(address, transfer)):
        if is_web(address):
            transfer.download(address, target)
        else:
            store, path = filesystem(address)
            with _store_errors(address), atomic_path(target) as partial:
                store.get_file(path, str(partial))
    try:
        yield target
    finally:
        target.unlink(missing_ok=True)


@contextmanager
def _store_errors(address: str) -> Iterator[None]:
    """What a store or the operating system says, as errors of ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise HttpStatusError(
            f"{_said(address)} does not exist", hint="check the address", status=_NOT_FOUND
        ) from error
    except PermissionError as error:
        raise InputError(
            f"{_said(address)}: permission denied", hint="check the credentials of this store"
        ) from error
    except OSError as error:
        raise StageError(
            f"{_said(address)} can't be read: {type(error).__name__}: {str(error)[:300]}",
            hint="check the network and the credentials; the same command goes on where it was",
        ) from error


def _said(address: str) -> str:
    return address if is_local(address) else shown(address)
