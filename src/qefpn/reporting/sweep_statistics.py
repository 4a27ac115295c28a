"""Mean, deviation and difference of rows that were trained with several seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qefpn.reporting.tables import finite

#: two-sided level of Welch's test
LEVEL = 0.05


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (n − 1) over seeds; no deviation of a single one."""

    mean: float
    deviation: float | None
    n: int


def stat(values: Iterable[Any]) -> Stat | None:
    """Of the finite values; None where there is none."""
    numbers = [number for number in map(finite, values) if number is not None]
    if not numbers:
        return None
    return Stat(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))


def spread(a: Stat, b: Stat) -> float | None:
    """√(s₁² + s₂²): how far two runs, one of each row, differ by their seeds alone; None with a single seed."""
    if a.deviation is None or b.deviation is None:
        return None
    return math.hypot(a.deviation, b.deviation)


def within_spread(a: Stat, b: Stat) -> bool | None:
    """Whether the means differ by less than the seeds' spread (or not at all); None with a single seed."""
    width = spread(a, b)
    if width is None:
        return None
    difference = abs(a.mean - b.mean)
    return difference < width or difference == 0


def welch(a: Stat, b: Stat) -> float | None:
    """Two-sided p of Welch's t-test (unequal variances); None with a single seed or without any spread."""
    if a.deviation is None or b.deviation is None or a.deviation == b.deviation == 0:
        return None
    from scipy.special import stdtr

    one, two = a.deviation**2 / a.n, b.deviation**2 / b.n
    t = (a.mean - b.mean) / math.sqrt(one + two)
    freedom = (one + two) ** 2 / (one**2 / (a.n - 1) + two**2 / (b.n - 1))
    return float(2 * stdtr(freedom, -abs(t)))


@dataclass(frozen=True)
class Differences:
    """The pairs of rows of one metric, by what their seeds tell.

    Attributes:
        within: the difference is smaller than the seeds' spread.
        unclear: it is larger, but Welch's test does not tell the rows apart at `LEVEL`.
        apart: the others.
    """

    within: list[tuple[str, str]]
    unclear: list[tuple[str, str]]
    apart: list[tuple[str, str]]

    @property
    def pairs(self) -> int:
        return len(self.within) + len(self.unclear) + len(self.apart)


def differences(stats: Mapping[str, Stat | None]) -> Differences:
    """Compare each two rows with several seeds; rows with one seed are left out."""
    out = Differences([], [], [])
    present = [(label, one) for label, one in stats.items() if one is not None and one.deviation is not None]
    for index, (first, a) in enumerate(present):
        for second, b in present[index + 1 :]:
            p = welch(a, b)
            if within_spread(a, b):
                out.within.append((first, second))
            elif p is not None and p >= LEVEL:
                out.unclear.append((first, second))
            else:
                out.apart.append((first, second))
    return out


def listed(pairs: Sequence[tuple[str, str]], total: int) -> str:
    """Pairs of rows in words, short where it is all of them."""
    if len(pairs) == total and total > 1:
        return "every two rows"
    return "; ".join(f"{first} and {second}" for first, second in pairs)
