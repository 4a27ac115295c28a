"""Whatever map and mask: every score finite and in its range, or NaN where that is documented; and no order matters."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.metrics.reference_f3net import mat2gray
from tests.metrics.reference_f3net import mean as in_columns

from qefpn.metrics import SaliencyMetrics, combine, get_protocol, resize_map, saliency_scores
from qefpn.metrics.protocol import EPS

MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None)
pytestmark = pytest.mark.filterwarnings("ignore:a mask of 0 and 1 is empty")
PROTOCOLS = pytest.mark.parametrize("protocol", ["f3net", "pysod", "saleval"])
SIDE = 24
UNITS = ("mae", "mean_f", "weighted_f", "max_f", "mean_curve_f", "precision", "recall", "f_curve")
UNITS += ("f_adaptive", "f_mean", "f_max", "blank_map")
ALIGNED = ("e_measure", "max_e", "mean_e", "e_curve", "e_adaptive", "e_mean", "e_max")
ROUNDING = 1e-12


@st.composite
def pictures(draw: st.DrawFn, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) of one size, uint8 or float of 0-1: of any values, of few, of one, or thin."""
    sort = draw(st.sampled_from(["any", "few", "two", "constant", "blank", "full", "row", "column", "point"]))
    if sort in ("any", "few", "two"):
        values = {"any": st.integers(0, 255), "few": st.sampled_from([0, 1, 64, 127, 128, 129, 254, 255])}
        picture = draw(arrays(np.uint8, shape, elements=values.get(sort, st.sampled_from([0, 255]))))
    else:
        one = draw(st.integers(0, 255)) if sort == "constant" else 255 * (sort == "full")
        picture = np.full(shape, one, np.uint8)
        row, column = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        if sort in ("row", "column", "point"):
            rows = slice(None) if sort == "column" else slice(row, row + 1)
            columns = slice(None) if sort == "row" else slice(column, column + 1)
            picture[rows, columns] = draw(st.integers(1, 255))
    kind = draw(st.sampled_from([np.uint8, np.uint8, np.float32, np.float64]))
    return picture if kind is np.uint8 else (picture / 255).astype(kind)


SHAPES = st.tuples(st.integers(1, SIDE), st.integers(1, SIDE))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A map and a mask, most often of one size."""
    shape = draw(SHAPES)
    other = draw(SHAPES) if draw(st.integers(0, 3)) == 3 else shape
    return draw(pictures(other)), draw(pictures(shape))


def as_bytes(picture: np.ndarray) -> np.ndarray:
    return picture if picture.dtype == np.uint8 else np.rint(picture.astype(np.float64) * 255).astype(np.uint8)


def plain(saliency: np.ndarray, mask: np.ndarray, protocol: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """The map in [0, 1] after min-max, the mask as booleans, whether the picture counts as 0: from the definitions."""
    values = resize_map(as_bytes(saliency), mask.shape, get_protocol(protocol)).astype(np.float64)
    grey = as_bytes(mask).astype(np.float64)
    blank = values.max() == 0
    if protocol == "saleval":
        constant = values.min() == values.max()
        return (values > 0) * 1.0 if constant else values / values.max(), grey / 255 >= 0.1, False
    if protocol == "pysod":
        levels = values / 255
        if levels.max() > levels.min():
            levels = (levels - levels.min()) / (levels.max() - levels.min())
        return levels, grey > 128, False
    levels, truth = mat2gray(values), mat2gray(grey) >= 0.5
    return levels, truth, bool(blank or not truth.any())


def no_quadrant(truth: np.ndarray, protocol: str) -> bool:
    """Whether the centroid lies in the last row or column, so that a quadrant has no pixel."""
    if truth.all() or not truth.any():
        return False  # these have a formula of their own
    for places, length in zip(np.nonzero(truth), truth.shape, strict=True):
        centre = Fraction(int(places.sum()), len(places))
        last = math.floor(centre + 1 + Fraction(1, 2)) if protocol != "pysod" else round(centre) + 1
        if last == length:
            return True
    return False


def one_value(saliency: np.ndarray, mask: np.ndarray, protocol: str) -> bool:
    """Whether the map, as it is measured, has one value."""
    return len(np.unique(resize_map(as_bytes(saliency), mask.shape, get_protocol(protocol)))) == 1


@PROTOCOLS
@MANY
@given(pair=pairs())
@example(pair=(np.full((1, 1), 255, np.uint8), np.full((1, 1), 255, np.uint8)))
@example(pair=(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8)))
def test_every_score_is_in_its_range(protocol: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    saliency, mask = pair
    record = saliency_scores(saliency, mask, protocol, curves=True)
    _, truth, blank = plain(saliency, mask, protocol)
    aligned = mask.size / (mask.size - 1 + EPS)  # the field divides by N - 1, and of one pixel by eps
    bounds = {name: (0.0, 1.0) for name in UNITS} | {name: (0.0, aligned) for name in ALIGNED}
    bounds |= {"binary_ratio": (0.0, 100.0), "s_measure": (-0.5 if protocol == "f3net" else 0.0, 1.0)}
    if protocol != "saleval":
        del bounds["blank_map"]
    assert bounds.keys() == record.keys()
    for name, (low, high) in bounds.items():
        values = np.asarray(record[name])
        if name == "s_measure" and no_quadrant(truth, protocol) and not blank:
            assert np.isnan(values)
            continue
        if name == "mae" and protocol == "saleval" and one_value(saliency, mask, protocol):
            assert np.isnan(values)  # its own division by 0
            continue
        assert np.isfinite(values).all(), name
        assert values.min() >= low - ROUNDING and values.max() <= high + ROUNDING * max(1, high), (name, values)
    if blank:
        assert all(np.all(np.asarray(value) == 0) for value in record.values())


@PROTOCOLS
@MANY
@given(pair=pairs())
def test_plain_formulas_agree(protocol: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    record = saliency_scores(*pair, protocol)
    levels, truth, blank = plain(*pair, protocol)
    if blank:
        assert record["mae"] == record["mean_f"] == 0
        return
    if protocol == "saleval":
        low = levels.min()
        stretched = (levels - low) / (1 - low) if low < levels.max() else np.full(levels.shape, np.nan)
        assert record["mae"] == pytest.approx(np.abs(stretched - truth).mean(), abs=ROUNDING, nan_ok=True)
    else:
        assert record["mae"] == pytest.approx(np.abs(levels - truth).mean(), abs=ROUNDING)
    threshold = 2 * (levels.mean() if protocol == "pysod" else in_columns(levels))
    chosen = levels >= min(threshold, 1)
    hits = (chosen & truth).sum()
    expected = 0.0
    if hits:
        precision, recall = hits / chosen.sum(), hits / truth.sum()
        expected = 1.3 * precision * recall / (0.3 * precision + recall)
    assert record["mean_f"] == pytest.approx(expected, abs=ROUNDING)


def close(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(
            np.asarray(value), np.asarray(other[name]), rtol=ROUNDING, atol=ROUNDING, err_msg=name
        )


@PROTOCOLS
@MANY
@given(data=st.data(), some=st.lists(pairs(), min_size=1, max_size=5))
def test_a_batch_is_its_pictures_in_any_order(protocol: str, data: st.DataObject, some: list[Any]) -> None:
    alone = [saliency_scores(*pair, protocol, curves=True) for pair in some]
    order = data.draw(st.permutations(range(len(some))))
    maps, masks = [some[i][0] for i in order], [some[i][1] for i in order]
    together, by_one = SaliencyMetrics(protocol), SaliencyMetrics(protocol)
    records = together.score_batch(maps, masks, curves=True)
    for i, record in zip(order, records, strict=True):
        close(record, alone[i])
    for saliency, mask in some:
        by_one.update(saliency, mask)
    figures = together.compute()
    close(figures, by_one.compute())
    close(combine(alone, protocol), figures)
    if protocol == "saleval":
        return  # a set of blank maps has no mean
    assert all(value.isfinite().all() for name, value in figures.items() if name != "s_measure")
    assert bool(figures["s_measure"].isnan()) == (figures["undefined"] == len(some))
