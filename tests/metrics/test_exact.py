"""Sums in any order, and means that are rounded once."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qefpn.metrics.exact import mean, split

SCORE = st.floats(0.0, 100.0) | st.floats(-1.0, 1.0) | st.just(2.0**52)


@settings(max_examples=200)
@given(st.lists(SCORE, min_size=1, max_size=40), st.randoms())
def test_the_order_does_not_matter_and_the_mean_is_rounded_once(values: list[float], random: object) -> None:
    total = split(np.array(values)).sum(axis=1)
    shuffled = values.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = split(np.array(shuffled[: len(values) // 2])), split(np.array(shuffled[len(values) // 2 :]))
    assert (first.sum(axis=1) + second.sum(axis=1) == total).all()
    exact = sum(map(Fraction, values)) / len(values)
    found = mean(total[:, None], len(values)).item()
    assert abs(Fraction(found) - exact) <= Fraction(1, 2**73) + Fraction(math.ulp(found)) / 2


def test_a_million_of_the_largest() -> None:
    values = [100.0, 2.0**-72, 0.1, 2.0**52]
    found = mean(split(np.array(values)) * 500_000, 500_000)
    assert found.tolist() == values


def test_means_of_many_with_counts_of_their_own() -> None:
    values = np.array([[0.25, 0.5], [0.75, 0.0]])
    found = mean(split(values).sum(axis=1), [2, 0])
    assert found[0] == pytest.approx(0.5) and math.isnan(found[1])
