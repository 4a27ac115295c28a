"""Argument checks shared by the records of this package."""

from __future__ import annotations

import math


def check_count(owner: str, name: str, value: object, *, least: int = 1) -> None:
    """``value`` is a whole number of at least ``least``; otherwise ``TypeError`` or ``ValueError``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{owner}: {name} must be at least {least}, got {value}")


def check_number(
    owner: str, name: str, value: object, *, low: float, high: float = math.inf, open_low: bool = False
) -> None:
    """``value`` is a finite number in [low, high], or in (low, high] with ``open_low``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    inside = (low < value if open_low else low <= value) and value <= high and math.isfinite(value)
    if not inside:
        bounds = f"{'(' if open_low else '['}{low:g}, {high:g}{']' if math.isfinite(high) else ')'}"
        raise ValueError(f"{owner}: {name} must be in {bounds}, got {value}")


def check_flag(owner: str, name: str, value: object) -> None:
    """``value`` is True or False; otherwise ``TypeError``."""
    if not isinstance(value, bool):
        raise TypeError(f"{owner}: {name} must be true or false, got {value!r}")
