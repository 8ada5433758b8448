"""Files that a worker needs besides those of the crawl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Resources:
    """Files that a unit needs besides its own: where the configuration's references lie on this machine."""

    host_lists: str | None = None
    items: tuple[str, ...] = ()
    classifier: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Resources:
        """The opposite of `as_dict`."""
        return cls(**{**data, "items": tuple(data["items"])})
