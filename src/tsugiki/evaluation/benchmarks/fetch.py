"""Downloading the benchmarks' files: GitHub at a commit, datasets of the hub; checked, and pinned for later.

Each file is written aside and takes its name only when its hash is right. Hashes of files that nobody had
pinned go into the folder's pins.json: from then on the folder can't change unseen.
"""

from __future__ import annotations

import hashlib
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

from tsugiki.artifacts.files import atomic_path, read_json, sha256_of, write_json
from tsugiki.errors import InputError, StorageError
from tsugiki.evaluation.benchmarks.manifest import commit_of, manifest
from tsugiki.evaluation.benchmarks.schema import Origin, TaskSpec
from tsugiki.evaluation.benchmarks.store import PINS, PREFIX, expanded_files

GITHUB = "https://raw.githubusercontent.com"
ATTEMPTS = 3
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 60.0
MAXIMUM_BYTES = 1 << 30
_BLOCK = 1 << 20
_NO_SUCH_FILE = 404
_SERVER_FAULT = 500

Where = Literal["any", "github", "hub"]


@dataclass(frozen=True)
class Fetched:
    """What became of a file. state: fetched, kept (it was there), or by hand (it has no public address)."""

    task: str
    split: str
    source: str
    file: str
    state: Literal["fetched", "kept", "by hand"]
    bytes: int = 0
    sha256: str = ""
    licence: str = ""
    note: str = ""


@dataclass(frozen=True)
class _Order:
    """What is fetched where: one split, from one origin."""

    task: TaskSpec
    split: str
    origin: Origin
    folder: Path
    accept: Sequence[str]


def fetch_task(
    task: TaskSpec,
    folder: Path,
    *,
    where: Where = "any",
    accept: Sequence[str] = (),
    address: str = GITHUB,
    hub_address: str | None = None,
    notify: Callable[[Fetched], None] = lambda _: None,
) -> list[Fetched]:
    """Fetch every split of a task from its first origin that has a public address.

    accept: first 16 digits of SHA-256 that are taken although another one is pinned.
    Raises InputError for a hash that is not the pinned one and for an address without the file, StorageError
    where the connection fails again and again.
    """
    done = []
    for split, origins in task.splits.items():
        origin = _chosen(origins, where)
        if origin is None:
            if origins:
                names = ", ".join(expanded_files(origins[0], task)[:2])
                done.append(Fetched(task.name, split, "", names, "by hand", note=f"{folder / task.name}"))
                notify(done[-1])
            continue
        order = _Order(task, split, origin, folder, accept)
        rows = _from_github(order, address) if origin.repository else _from_hub(order, hub_address)
        for row in rows:
            done.append(row)
            notify(row)
    _pin(folder, done)
    return done


def _chosen(origins: Sequence[Origin], where: Where) -> Origin | None:
    for origin in origins:
        if (origin.repository and where != "hub") or (origin.hub and where != "github"):
            return origin
    return None


def _from_github(order: _Order, address: str) -> Iterator[Fetched]:
    task, split, origin, folder = order.task, order.split, order.origin, order.folder
    repository = str(origin.repository)
    for name in [*expanded_files(origin, task), *_beside(origin, task)]:
        commit = origin.commit or commit_of(repository, name)
        if commit is None:
            raise InputError(
                f"no commit is known for {name} of github.com/{repository}",
                hint="write `commit` into the task's file",
            )
        target = folder / repository / name
        pin = _known(folder, repository, name)
        licence = next((row.licence for row in manifest().values() if row.repository == repository), "")
        state: Literal["fetched", "kept"] = "kept"
        if not (target.is_file() and _fits(sha256_of(target), pin, order.accept)):
            url = f"{address}/{repository}/{commit}/{urllib.parse.quote(name)}"
            _download(url, target, pin, order.accept)
            state = "fetched"
        facts = (target.stat().st_size, sha256_of(target), licence or task.licence, commit)
        yield Fetched(task.name, split, repository, name, state, *facts)


def _beside(origin: Origin, task: TaskSpec) -> list[str]:
    """Files that the loader reads beside those that are named (BBH's prompts)."""
    prompts = origin.options.get("prompts")
    return [str(prompts).replace("{subject}", subject) for subject in task.subjects] if prompts else []


def _from_hub(order: _Order, address: str | None) -> Iterator[Fetched]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    task, origin, folder = order.task, order.origin, order.folder
    name = str(origin.hub)
    target = folder / name
    patterns = expanded_files(origin, task)
    try:
        snapshot_download(
            name,
            repo_type="dataset",
            revision=origin.revision,
            allow_patterns=patterns,
            local_dir=target,
            endpoint=address,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise StorageError(
            f"the hub dataset {name} could not be fetched: {str(error).splitlines()[0]}",
            hint="check the connection and, for a gated dataset, the login; then run the same command again",
        ) from error
    files = [path for pattern in patterns for path in sorted(target.glob(pattern))]
    if not files:
        raise InputError(
            f"the hub dataset {name} has no file {', '.join(patterns[:2])}",
            hint="its layout has changed: write the files' names into the task's file",
        )
    for path in files:
        relative, digest = path.relative_to(target).as_posix(), sha256_of(path)
        if not _fits(digest, _known(folder, name, relative), order.accept):
            raise _other_hash(str(path), digest, _known(folder, name, relative))
        size = path.stat().st_size
        yield Fetched(task.name, order.split, name, relative, "fetched", size, digest, task.licence)


def _download(url: str, target: Path, pin: str, accept: Sequence[str]) -> None:
    """Fetch one address; a connection that breaks is tried again, an answer that says no is not."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with atomic_path(target) as partial:
                digest = _stream(url, partial)
                if not _fits(digest, pin, accept):
                    raise _other_hash(url, digest, pin)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < _SERVER_FAULT:
                what = "is not there" if error.code == _NO_SUCH_FILE else f"is refused ({error.code})"
                raise InputError(
                    f"{url} {what}", hint="has the repository moved? Fetch it by hand"
                ) from error
            fault: Exception = error
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            fault = error
        if attempt < ATTEMPTS:
            time.sleep(PAUSE_SECONDS * attempt)
    raise StorageError(
        f"{url} could not be fetched in {ATTEMPTS} attempts: {fault}",
        hint="check the connection (and the variable https_proxy), then run the same command again",
    ) from fault


def _stream(url: str, path: Path) -> str:
    """Write what an address gives to a file; returns its SHA-256."""
    if not url.startswith(("https://", "http://")):
        raise InputError(f"{url} is not an address of the web", hint="addresses begin with https://")
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, path.open("wb") as file:  # noqa: S310
        expected = answer.headers.get("Content-Length")
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > MAXIMUM_BYTES:
                raise InputError(f"{url} gives more than {MAXIMUM_BYTES} bytes", hint="that is no benchmark")
            digest.update(block)
            file.write(block)
    if expected is not None and expected.isdigit() and int(expected) != size:
        message = f"{size} of {expected} bytes came"
        raise ConnectionError(message)
    return digest.hexdigest()


def _fits(digest: str, pin: str, accept: Sequence[str]) -> bool:
    return not pin or digest.startswith(pin) or digest[:PREFIX] in accept


def _other_hash(what: str, digest: str, pin: str) -> InputError:
    return InputError(
        f"{what} has a SHA-256 that begins with {digest[:PREFIX]}; {pin[:PREFIX]} is pinned",
        hint=f"if you trust the new file, accept its hash: --accept-hash {digest[:PREFIX]}",
    )


def _known(folder: Path, source: str, name: str) -> str:
    """The pinned beginning of a file's hash, of the manifest or of the folder; "" where there is none."""
    row = manifest().get((source, name))
    if row is not None and row.sha256:
        return row.sha256
    return str(_pins(folder).get(f"{source}/{name}", {}).get("sha256", ""))


def _pins(folder: Path) -> dict[str, Any]:
    path = folder / PINS
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise InputError(f"{path} does not hold pins", hint="delete it, then fetch again")
    return found


def _pin(folder: Path, rows: Sequence[Fetched]) -> None:
    """Write down what was fetched, with its licence, beside what was fetched before."""
    new = {
        f"{row.source}/{row.file}": {key: asdict(row)[key] for key in ("sha256", "bytes", "licence", "note")}
        for row in rows
        if row.sha256
    }
    if new:
        write_json(folder / PINS, dict(sorted({**_pins(folder), **new}.items())))
