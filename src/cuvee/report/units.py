"""How numbers are told, on pages and in the terminal."""

from __future__ import annotations

from math import isfinite, log10


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def brief(seconds: float | None) -> str:
    """Three digits in seconds or thousandths of one; a dash where nothing was measured."""
    if seconds is None:
        return "-"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def number(value: float) -> str:
    """Three digits; a dash where there is nothing to tell."""
    return f"{value:.3g}" if isfinite(value) else "-"


def power(value: float) -> str:
    """A power of ten as 10³; all else as a number, as are those that are as short."""
    exponent = round(log10(value)) if value > 0 else 0
    if abs(exponent) < 3 or value != 10.0**exponent:
        return number(value)
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if isfinite(share) else "-"
