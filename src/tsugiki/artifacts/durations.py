"""Lengths of time as a person reads them: what something took, and about what it will take."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def taken(seconds: float, space: str = " ") -> str:
    """What was measured: `0.42 s`, `3.4 s`, `84 s`, `12 min 30 s`, `3 h 20 min`, `50 h 0 min`.

    space: between a number and its unit.
    """
    if seconds < 1:
        return f"{seconds:.2f}{space}s"
    if seconds < 9.95:  # noqa: PLR2004 - where one decimal would show 10.0
        return f"{seconds:.1f}{space}s"
    whole = round(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole}{space}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}{space}min {whole % _MINUTE}{space}s"
    minutes = round(whole / _MINUTE)
    return f"{minutes // 60}{space}h {minutes % 60}{space}min"


def about(seconds: float) -> str:
    """What is estimated, or left of it, in one unit: `0.4 s`, `40 s`, `12 min`, `3.1 h`, `2.2 days`.

    The unit changes at 90 seconds, 90 minutes and 48 hours: below these the smaller number says more.
    """
    if 0 < seconds < 0.95:  # noqa: PLR2004 - where one digit would show 1
        return f"{seconds:.1g} s" if seconds >= 0.05 else "0 s"  # noqa: PLR2004
    for limit, size, unit, digits in (
        (1.5 * _MINUTE, 1, "s", 0),
        (1.5 * _HOUR, _MINUTE, "min", 0),
        (2 * _DAY, _HOUR, "h", 1),
    ):
        if seconds < limit:
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds / _DAY:.1f} days"
