"""Reading the facts of manifests and comparisons without trusting their shape.

A stage of an older code version may have recorded less, or in another form. The report then says "not
recorded" at that place; one odd fact must never cost the reader the whole page. What has the wrong type
counts as absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]


def section(values: Any, *path: str) -> Row:
    """The mapping at `path` below `values`; empty where there is none."""
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def rows(values: Any, *path: str) -> list[Row]:
    """The list of mappings at `path`; entries that are not mappings are left out."""
    *parents, last = path
    found = section(values, *parents).get(last)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []


def number(values: Any, *path: str) -> float | None:
    """The finite number at `path` (integers stay integers), or None."""
    *parents, last = path
    found = section(values, *parents).get(last)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return found if math.isfinite(found) else None


def text(values: Any, *path: str) -> str:
    """The string at `path`, or an empty one."""
    *parents, last = path
    found = section(values, *parents).get(last)
    return found if isinstance(found, str) else ""


def texts(values: Any, *path: str) -> list[str]:
    """The strings of the list at `path`."""
    *parents, last = path
    found = section(values, *parents).get(last)
    return [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []


def pairs(values: Any, *path: str) -> list[tuple[str, float]]:
    """The numeric entries of the mapping at `path`, by name."""
    found = section(values, *path)
    return [(key, value) for key in sorted(found) if (value := number(found, key)) is not None]


def known(*values: float | None) -> list[float]:
    """The values that are there."""
    return [value for value in values if value is not None]


def ratio(part: float | None, whole: float | None) -> float | None:
    """`part / whole`, or None where one is unknown or the whole is zero."""
    return part / whole if part is not None and whole else None
