"""Sums in any order, and means that are rounded once."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qefpn.metrics.sums import add, mean


def split(values: np.ndarray) -> np.ndarray:
    """(3, ...) the limbs of numbers, by NumPy."""
    rest, limbs = np.asarray(values, np.float64), []
    for digits, rounded in ((-8, np.trunc), (32, np.trunc), (72, np.rint)):
        limbs.append(rounded(np.ldexp(rest, digits)))
        rest = rest - np.ldexp(limbs[-1], -digits)
    return np.stack(limbs).astype(np.int64)


def summed(values: list[float]) -> np.ndarray:
    """(3, 1) the limbs of a sum, by the compiled function."""
    sums = np.zeros((3, 1, 1), np.int64)
    add(np.array(values, np.float64).reshape(1, -1, 1), sums)
    return sums[:, 0]


SCORE = st.floats(0.0, 100.0) | st.floats(-1.0, 1.0) | st.just(2.0**52)


@settings(max_examples=200)
@given(st.lists(SCORE, min_size=1, max_size=40), st.randoms())
def test_the_order_does_not_matter_and_the_mean_is_rounded_once(values: list[float], random: object) -> None:
    total = summed(values)
    assert (total[:, 0] == split(np.array(values)).sum(axis=1)).all()
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert (summed(shuffled[: len(values) // 2]) + summed(shuffled[len(values) // 2 :]) == total).all()
    exact = sum(map(Fraction, values)) / len(values)
    found = mean(total, len(values)).item()
    assert abs(Fraction(found) - exact) <= Fraction(1, 2**73) + Fraction(math.ulp(found)) / 2


def test_a_million_of_the_largest() -> None:
    values = [100.0, 2.0**-72, 0.1, 2.0**52]
    found = mean(np.concatenate([summed([one]) for one in values], axis=1) * 500_000, 500_000)
    assert found.tolist() == values


def test_means_of_many_with_counts_of_their_own() -> None:
    values = np.array([[0.25, 0.5], [0.75, 0.0]])
    sums = np.zeros((3, 1, 2), np.int64)
    add(values[None], sums)
    assert (sums[:, 0] == split(values).sum(axis=1)).all()
    found = mean(sums[:, 0], [2, 0])
    assert found[0] == pytest.approx(0.5) and math.isnan(found[1])
