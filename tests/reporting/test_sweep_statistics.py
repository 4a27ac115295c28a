"""Mean, deviation, spread and Welch's test against the standard library and scipy."""

from __future__ import annotations

import math
import statistics

import pytest

from qefpn.reporting.sweep_statistics import Stat, differences, listed, spread, stat, welch, within_spread


def test_mean_and_deviation_are_those_of_the_standard_library() -> None:
    values = [0.812, 0.797, 0.833, 0.805]
    found = stat(values)
    assert found is not None
    assert found.mean == pytest.approx(statistics.mean(values), abs=1e-15)
    assert found.deviation == pytest.approx(statistics.stdev(values), abs=1e-15)
    assert found.n == 4


def test_what_is_not_finite_is_left_out() -> None:
    assert stat([0.5, None, float("nan"), "x"]) == Stat(0.5, None, 1)
    assert stat([None, float("inf")]) is None


@pytest.mark.parametrize("a, b", [((0.7, 0.72, 0.75), (0.8, 0.83)), ((1.0, 1.5, 1.2, 1.1), (1.3, 1.35, 1.29))])
def test_welch_is_scipys(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    from scipy.stats import ttest_ind

    one, two = stat(a), stat(b)
    assert one and two
    assert welch(one, two) == pytest.approx(ttest_ind(a, b, equal_var=False).pvalue, rel=1e-9)


def test_spread_is_that_of_the_difference_of_two_runs() -> None:
    a, b = Stat(1.0, 0.3, 3), Stat(1.4, 0.4, 3)
    assert spread(a, b) == pytest.approx(0.5)
    assert within_spread(a, b) is True
    assert within_spread(a, Stat(1.6, 0.4, 3)) is False
    assert within_spread(a, Stat(1.4, None, 1)) is None and welch(a, Stat(1.4, None, 1)) is None


def test_rows_without_any_spread() -> None:
    a, b = Stat(0.5, 0.0, 2), Stat(0.6, 0.0, 2)
    assert within_spread(a, b) is False and within_spread(a, a) is True and welch(a, b) is None
    assert differences({"a": a, "b": b}).apart == [("a", "b")]


def test_pairs_are_sorted_by_what_the_seeds_tell() -> None:
    stats = {
        "a": Stat(0.50, 0.01, 3),
        "b": Stat(0.505, 0.01, 3),  # within
        "c": Stat(0.52, 0.01, 3),  # from a: beyond √2 · 0.01, p ≈ 0.07
        "d": Stat(0.70, 0.01, 3),
        "one seed": Stat(0.9, None, 1),
        "none": None,
    }
    found = differences(stats)
    assert found.within == [("a", "b")]
    assert ("a", "c") in found.unclear and ("b", "c") in found.unclear
    assert {pair[1] for pair in found.apart} == {"d"} and found.pairs == 6
    p = welch(stats["a"], stats["c"])  # type: ignore[arg-type]
    assert p is not None and 0.05 < p < 0.1 and math.isfinite(p)


def test_pairs_in_words() -> None:
    assert listed([("a", "b"), ("a", "c")], 3) == "a and b; a and c"
    assert listed([("a", "b"), ("a", "c"), ("b", "c")], 3) == "every two rows"
    assert listed([("a", "b")], 1) == "a and b"
