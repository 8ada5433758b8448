"""Block lists in memory: a URL's category by its host, a parent domain, or host and path.

A listed `example.com` blocks `www.example.com` too, up to the registered domain; a public suffix blocks
nothing unless that is asked for. Swallow's code compares whole host names only, so its sub-domains and UT1's
`urls` never match (corpus.md §1.10).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.hosts import kernels
from tsugiki.corpus.hosts.names import comparable_host, is_address, registered_domain, split_url
from tsugiki.corpus.hosts.sources import (
    NG_CATEGORIES,
    Entries,
    Reading,
    bytes_of,
    category_name,
    comparable_path,
    read_source,
)
from tsugiki.errors import InputError, did_you_mean

FORMAT = "tsugiki-host-lists-1"
_MAX_CATEGORIES = 255
_REMEMBERED = 1 << 17

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class HostLists:
    """Block lists as sorted 64-bit keys with a category's number each: 9 bytes an entry (UT1: 41 MB).

    Made by `from_directory` or `from_paths`; goes to worker processes by pickle or by `save` and `load`.
    A look-up is exact but for key collisions (see `kernels`). `counts` says what was read.
    """

    categories: tuple[str, ...]
    host_keys: Keys
    host_categories: Numbers
    url_keys: Keys
    url_categories: Numbers
    url_hosts: Keys
    suffixes: bool = False
    """Whether a listed public suffix (`co.jp`, `github.io`) blocks all that is below it."""
    counts: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    _known: dict[str, tuple[str, int, bool]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_directory(
        cls, path: Path, categories: Iterable[str] | None = None, *, suffixes: bool = False
    ) -> Self:
        """Read one source; see `from_paths`."""
        return cls.from_paths([path], categories, suffixes=suffixes)

    @classmethod
    def from_paths(
        cls, paths: Sequence[Path], categories: Iterable[str] | None = None, *, suffixes: bool = False
    ) -> Self:
        """Read block lists: folders and archives in UT1's form, and plain files of hosts.

        categories: which ones count; by default Swallow's (`NG_CATEGORIES`), save those whose `usage` says
        that they are no black list. The same lists give the same object whatever the order of the paths.
        Raises InputError for a source that can't be read, an unknown category, or where nothing is left.
        """
        reading = Reading()
        for path in paths:
            read_source(Path(path), reading)
        chosen = _chosen(reading, categories)
        hosts, numbers = _merge([reading.categories[name].hosts for name in chosen])
        pairs = [reading.categories[name].urls for name in chosen]
        urls, url_numbers = _merge([[np.array([key for key, _ in part], np.uint64)] for part in pairs])
        owners = np.unique(np.array([host for part in pairs for _, host in part], np.uint64))
        counts = {"hosts": int(hosts.size), "urls": int(urls.size), "odd_lines": reading.counts["odd"]}
        warnings = tuple(reading.warnings)
        return cls(tuple(chosen), hosts, numbers, urls, url_numbers, owners, suffixes, counts, warnings)

    def category_of(self, url: object) -> str | None:
        """The category under which a URL's host, a parent of it, or its beginning is listed; else None."""
        authority, rest = split_url(url)
        known = self._known.get(authority)
        if known is None:
            known = self._look_up(authority)
        host, found, has_urls = known
        if found < 0 and has_urls:
            found = self._find_url(host, rest)
            return None if found < 0 else self.categories[self.url_categories[found]]
        return None if found < 0 else self.categories[self.host_categories[found]]

    def _look_up(self, authority: str) -> tuple[str, int, bool]:
        """(host without `www.`, place among the listed hosts or -1, whether some of its URLs are listed)."""
        host = comparable_host(authority) or ""
        data = bytes_of(host)
        domain = host if is_address(host) else registered_domain(host)
        last = len(host) - len(domain) if domain else -1
        if self.suffixes and host and not is_address(host):
            last = len(host) - 1
        found = int(kernels.find_host(data, last, self.host_keys)) if data.size else -1
        bare = host.removeprefix("www.")
        owner = bytes_of(bare)
        key = np.uint64(kernels.name_key(owner, 0, owner.size))
        has_urls = kernels.position(self.url_hosts, key) >= 0
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        known = self._known[authority] = (bare, found, has_urls)
        return known

    def _find_url(self, host: str, rest: str) -> int:
        return int(kernels.find_prefix(bytes_of(host + comparable_path(rest)), len(host), self.url_keys))

    @property
    def digest(self) -> str:
        """SHA-256 of what decides every answer; for a stage's identity."""
        state = hashlib.sha256(repr((FORMAT, self.categories, self.suffixes)).encode())
        for array in self._arrays().values():
            state.update(array.size.to_bytes(8, "little"))
            state.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return state.hexdigest()

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        names = ("host_keys", "host_categories", "url_keys", "url_categories", "url_hosts")
        return {name: getattr(self, name) for name in names}

    def save(self, path: Path) -> None:
        """Write one .safetensors file, from which `load` makes an equal object in milliseconds."""
        from safetensors.numpy import save_file

        facts = {"format": FORMAT, "categories": list(self.categories), "suffixes": self.suffixes}
        with atomic_path(path) as partial:
            save_file(
                self._arrays(), partial, metadata={"tsugiki": json.dumps(facts)}
            )  # one key: safetensors shuffles them

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; raises InputError for any other file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {}).get("tsugiki", "{}"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"{path} can't be read as host lists: {error}", hint="make it again from the block lists"
            ) from error
        categories = tuple(facts.get("categories", ()))
        if facts.get("format") != FORMAT or not _sound(arrays, len(categories)):
            raise InputError(f"{path} does not hold host lists", hint="make it again from the block lists")
        return cls(categories, **arrays, suffixes=facts["suffixes"])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}


def _chosen(reading: Reading, wanted: Iterable[str] | None) -> list[str]:
    """The categories to use, sorted by name, so that numbers don't depend on the order of reading."""
    have = reading.categories
    if wanted is None:
        chosen = sorted(name for name in have if name in NG_CATEGORIES and have[name].kind in {"", "black"})
    else:
        chosen = sorted({category_name(name) for name in wanted})
        for name in chosen:
            if name not in have:
                raise InputError(
                    f'the block lists have no category "{name}"', hint=did_you_mean(name, sorted(have))
                )
    if not any(_size(have[name]) for name in chosen):
        raise InputError(
            f"nothing of the block lists is used; their categories: {', '.join(sorted(have)) or 'none'}",
            hint="name the categories that are to count",
        )
    if len(chosen) > _MAX_CATEGORIES:
        raise InputError(f"{len(chosen)} categories are named", hint=f"name at most {_MAX_CATEGORIES}")
    return chosen


def _size(entries: Entries) -> int:
    return sum(part.size for part in entries.hosts) + len(entries.urls)


def _merge(parts: Sequence[Sequence[Keys]]) -> tuple[Keys, Numbers]:
    """Sorted distinct keys with their category; of several the first category (by name) counts."""
    whole = [np.concatenate([*part, np.empty(0, np.uint64)]) for part in parts]
    keys = np.concatenate([*whole, np.empty(0, np.uint64)])
    numbers = np.repeat(np.arange(len(whole), dtype=np.uint8), [part.size for part in whole])
    distinct, first = np.unique(keys, return_index=True)  # the first of equal ones: np.unique sorts stably
    return distinct, numbers[first]


def _sound(arrays: Mapping[str, npt.NDArray[Any]], categories: int) -> bool:
    """Whether loaded arrays are what `save` writes: types, lengths, order, numbers within bounds."""
    kinds = {
        "host_keys": np.uint64,
        "host_categories": np.uint8,
        "url_keys": np.uint64,
        "url_categories": np.uint8,
        "url_hosts": np.uint64,
    }
    if set(arrays) != set(kinds) or any(arrays[name].dtype != kind for name, kind in kinds.items()):
        return False
    if any(array.ndim != 1 for array in arrays.values()):
        return False
    rising = bool((arrays["url_hosts"][1:] > arrays["url_hosts"][:-1]).all())
    for name in ("host", "url"):
        keys, numbers = arrays[f"{name}_keys"], arrays[f"{name}_categories"]
        rising = rising and bool((keys[1:] > keys[:-1]).all())
        if keys.size != numbers.size or (numbers.size and int(numbers.max()) >= categories):
            return False
    return rising
