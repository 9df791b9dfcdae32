"""Lengths of time as a user writes and reads them."""

import re

from pet_cifar.errors import InputError

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def seconds_of(option: str, text: str) -> float:
    """The seconds of a length of time such as ``90s``, ``10min``, ``1.5h`` or ``1h30min``.

    Args:
        option: The option whose value it is.
        text: The length of time.

    Raises:
        InputError: The text is none, lacks a unit, or is no time at all.
    """
    parts = _PART.findall(text.lower())
    written = re.fullmatch(f"(?:{_PART.pattern})+", text.strip().lower())
    seconds = sum(float(number) * _UNITS.get(unit, 0) for number, unit in parts)
    if not written or any(unit not in _UNITS for _, unit in parts) or seconds <= 0:
        raise InputError(f"{option} {text}: expected a length of time such as 90s, 10min or 1h30min")
    return seconds


def described(seconds: float) -> str:
    """A length of time in its two largest units, such as ``9 min 52 s``."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
