"""What a result is made from, as one hash, and how two such descriptions differ.

Identity holds what determines the content: kind, code version, resolved configuration without its
execution fields, the identities of the inputs, seed. Paths, hosts, device and worker counts are never in it
(the split that marin arrived at: docs/architecture.md, "Identity against execution").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Payload = Mapping[str, Any]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spare spaces.

    Raises TypeError for anything without a stable text form (a function, an object), ValueError for NaN:
    guessing with `str()` would give an identity that changes with the memory address.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def identity_of(payload: Payload) -> str:
    """The first 16 hexadecimal digits (64 bits) of the SHA-256 of the canonical JSON of `payload`."""
    return hashlib.sha256(canonical_json(payload).encode("utf-8")).hexdigest()[:16]


@dataclass(frozen=True)
class Difference:
    """One field that differs: its dotted path, the value on disk and the value of the recipe."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.before)} -> {_shown(self.after)}"


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


ABSENT = _Absent()


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, _Absent) else json.dumps(value, ensure_ascii=False)


def differences(before: Any, after: Any, field: str = "") -> Iterator[Difference]:
    """Walk two payloads side by side and yield the leaves that differ, in order of their paths."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            path = f"{field}.{key}" if field else str(key)
            yield from differences(before.get(key, ABSENT), after.get(key, ABSENT), path)
    elif before != after:
        yield Difference(field, before, after)
