"""Mean, deviation and difference of rows that were trained with several seeds, and what they tell, in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qefpn.reporting.tables import finite

#: two-sided level of Welch's test
LEVEL = 0.05
#: pairs of rows that are named one by one
MOST_NAMED = 3


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
    return None if a.deviation is None or b.deviation is None else math.hypot(a.deviation, b.deviation)


def within_spread(a: Stat, b: Stat) -> bool | None:
    """Whether the means differ by less than the seeds' spread (or not at all); None with a single seed."""
    width, difference = spread(a, b), abs(a.mean - b.mean)
    return None if width is None else difference < width or difference == 0


def welch(a: Stat, b: Stat) -> float | None:
    """Two-sided p of Welch's t-test (unequal variances); None with a single seed or without any spread."""
    if a.deviation is None or b.deviation is None or a.deviation == b.deviation == 0:
        return None
    from scipy.stats import ttest_ind_from_stats

    return float(ttest_ind_from_stats(a.mean, a.deviation, a.n, b.mean, b.deviation, b.n, equal_var=False).pvalue)


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

    def describe(self) -> str:
        """In a sentence, which names pairs where they are few."""
        within, unclear, apart = self.within, self.unclear, self.apart
        if not within and not unclear:
            return "the seeds tell every two rows apart, by the spread and by Welch's test."
        if len(within) + len(unclear) <= MOST_NAMED or len(within) == self.pairs:
            parts = [f"smaller than the seeds' spread between {listed(within, self.pairs)}"] if within else []
            between = listed(unclear, self.pairs)
            parts += [f"larger, but not significant by Welch's test, between {between}"] if unclear else []
            return f"the difference is {', and '.join(parts)}."
        counts = f"{len(within)} of the {self.pairs} differences between two rows are smaller than the seeds' spread"
        counts += f", {len(unclear)} larger, but not significant by Welch's test" if unclear else ""
        if not apart:
            return f"{counts}: no two rows are told apart."
        if len(apart) <= MOST_NAMED:
            return f"{counts}; told apart: {listed(apart, self.pairs)}."
        return f"{counts}; the other {len(apart)} tell the rows apart."


def differences(stats: Mapping[str, Stat | None]) -> Differences:
    """Compare each two rows with several seeds; rows with one seed are left out."""
    out = Differences([], [], [])
    present = [(label, one) for label, one in stats.items() if one is not None and one.deviation is not None]
    for index, (first, a) in enumerate(present):
        for second, b in present[index + 1 :]:
            p = welch(a, b)
            kind = out.within if within_spread(a, b) else out.unclear if p is not None and p >= LEVEL else out.apart
            kind.append((first, second))
    return out


def listed(pairs: Sequence[tuple[str, str]], total: int) -> str:
    """Pairs of rows in words, short where it is all of them."""
    if len(pairs) == total and total > 1:
        return "every two rows"
    return "; ".join(f"{first} and {second}" for first, second in pairs)
