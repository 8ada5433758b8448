"""Numbers as text, the same way everywhere: a true minus, a thin space before the unit, `–` for "not known".

Counts below 10,000 are exact; above they have three significant digits and k, M, B or T (10^3 to 10^12), as
in recipes. Sizes are decimal (1 MB = 10^6 bytes).
"""

from __future__ import annotations

from typing import Final

from markupsafe import Markup, escape

from tsugiki.artifacts.durations import taken

NARROW_SPACE: Final = "\u202f"
MINUS: Final = "\u2212"
UNKNOWN: Final = "–"
_SUFFIXES: Final = ("", "k", "M", "B", "T")
_SIZES: Final = ("B", "kB", "MB", "GB", "TB")
_EXACT_BELOW: Final = 10_000
_PLAIN_FROM: Final = 1e-3
_THOUSAND: Final = 1000


def _signed(text: str) -> str:
    return text.replace("-", MINUS)


def exact(number: float | None) -> str:
    """All digits of a whole number, in groups of three: `1,234,567`."""
    return UNKNOWN if number is None else _signed(f"{round(number):,}")


def count(number: float | None, unit: str = "") -> str:
    """A count for reading: `9,876`, `12.3 k`, `1.23 M tokens`."""
    if number is None:
        return UNKNOWN
    suffix = ""
    if abs(number) < _EXACT_BELOW:
        text = f"{round(number):,}"
    else:
        text, suffix = _three_digits(number, _SUFFIXES)
    return _signed(NARROW_SPACE.join(part for part in (text, suffix, unit) if part))


def _three_digits(number: float, suffixes: tuple[str, ...]) -> tuple[str, str]:
    scaled, index = float(number), 0
    # 999.5 is where three digits would show 1000
    while abs(scaled) >= _THOUSAND - 0.5 and index < len(suffixes) - 1:
        scaled, index = scaled / _THOUSAND, index + 1
    decimals = max(0, 3 - len(f"{abs(scaled):.0f}")) if index else 0
    return f"{scaled:.{decimals}f}", suffixes[index]


def size(number: float | None) -> str:
    """Bytes: `812 B`, `1.23 MB`."""
    return UNKNOWN if number is None else NARROW_SPACE.join(_three_digits(number, _SIZES))


def fixed(number: float | None, digits: int = 3) -> str:
    """A plain decimal number; zero has no sign."""
    if number is None:
        return UNKNOWN
    text = f"{number:.{digits}f}"
    return _signed(text if float(text) else f"{0:.{digits}f}")


def signed(number: float | None, digits: int = 3) -> str:
    """A difference: always with its sign, `+0.012` or `−0.120`; zero has none."""
    if number is None:
        return UNKNOWN
    text = fixed(number, digits)
    return f"+{text}" if number > 0 and text != fixed(0, digits) else text


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """`−0.77 to −0.65`, or the sign of the unknown where an end is missing."""
    if low is None or high is None:
        return UNKNOWN
    return f"{fixed(low, digits)} to {fixed(high, digits)}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one as per cent: `23.5 %`."""
    return UNKNOWN if share is None else f"{fixed(100 * share, digits)}{NARROW_SPACE}%"


def signed_percent(share: float | None, digits: int = 1) -> str:
    """A relative change: `−23.5 %`."""
    return UNKNOWN if share is None else f"{signed(100 * share, digits)}{NARROW_SPACE}%"


def duration(seconds: float | None) -> str:
    """`0.42 s`, `3.4 s`, `84 s`, `12 min 30 s`, `3 h 20 min`."""
    return UNKNOWN if seconds is None else taken(seconds, NARROW_SPACE)


def scientific(number: float | None, digits: int = 2) -> Markup:
    """`3.1 × 10⁻⁶` with the exponent in `<sup>`; numbers from 0.001 to 10,000 are written out."""
    if number is None:
        return escape(UNKNOWN)
    if number == 0:
        return Markup("0")
    if _PLAIN_FROM <= abs(number) < _EXACT_BELOW:
        return escape(_signed(f"{number:.{digits + 1}g}"))
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    power = Markup("10<sup>{}</sup>").format(_signed(str(int(exponent))))
    # no spaces that could break: the number stays on one line
    return Markup("{0}{2}×{2}{1}").format(_signed(mantissa), power, NARROW_SPACE)


def p_value(number: float | None) -> str:
    """`0.032`, or `< 0.001`."""
    if number is None:
        return UNKNOWN
    return "< 0.001" if number < 0.001 else f"{number:.3f}"  # noqa: PLR2004


def moment(iso: str) -> str:
    """An ISO 8601 time to the second: `2026-11-21 05:00:48 UTC`; other offsets are kept as they are."""
    if not iso:
        return UNKNOWN
    offset = "UTC" if iso.endswith(("+00:00", "Z")) else iso[len("2026-11-21T05:00:48") :]
    return f"{iso[:10]} {iso[11:19]} {offset}".rstrip()


def plural(number: float, noun: str) -> str:
    """`1 page`, `214 pages`; nouns with a regular plural only."""
    return f"{count(number)} {noun}" if round(number) == 1 else f"{count(number)} {noun}s"
