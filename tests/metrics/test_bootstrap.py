"""Bootstrap intervals against scipy's, and what they leave out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.metrics.maps import pairs

from qefpn.errors import UserError
from qefpn.metrics import bootstrap, bootstrap_interval, combine, get_protocol, paired_bootstrap, saliency_scores
from qefpn.metrics.bootstrap import Resampled, resample_counts, set_figures

CURVES = ("precision", "recall", "f_curve", "e_curve")
SCORES = ("mae", "mean_f", "weighted_f", "s_measure", "e_measure", "binary_ratio")


def records(values: Any) -> list[dict[str, Any]]:
    return [{"name": f"{i:04}", "mae": float(value)} for i, value in enumerate(values)]


def two_methods(number: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(50)
    difficulty = rng.gamma(2.0, 0.03, number)  # shared by both: what pairing takes out
    return difficulty + rng.gamma(1.0, 0.004, number), difficulty + rng.gamma(1.0, 0.006, number)


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_a_paired_interval_is_scipys(confidence: float) -> None:
    a, b = two_methods()
    ours = paired_bootstrap(records(a), records(b), "mae", confidence=confidence, resamples=40_000)
    theirs = stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis=axis) - y.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=40_000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(51),
        batch=2000,
    )
    assert ours.difference == pytest.approx(a.mean() - b.mean(), abs=1e-15)
    spread = theirs.standard_error  # an end of the interval is drawn with about 0.03 of it
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * spread)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * spread)
    test = stats.ttest_rel(a, b)
    assert ours.p_value == pytest.approx(test.pvalue, rel=0.5, abs=0.004)
    assert (ours.pictures, ours.undefined, ours.unpaired) == (120, 0, 0)


def test_an_interval_of_one_method_is_scipys() -> None:
    a, _ = two_methods()
    ours = bootstrap_interval(records(a), "mae", resamples=40_000)
    theirs = stats.bootstrap((a,), np.mean, n_resamples=40_000, method="percentile", rng=np.random.default_rng(52))
    assert ours.mean == pytest.approx(a.mean(), abs=1e-15)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * theirs.standard_error)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * theirs.standard_error)


def test_pairing_tells_apart_what_two_intervals_would_not() -> None:
    a, b = two_methods()
    paired = paired_bootstrap(records(a), records(b), "mae")
    assert paired.high < 0  # a is better
    assert paired.p_value < 0.05
    alone = [bootstrap_interval(records(values), "mae") for values in (a, b)]
    assert alone[0].high > alone[1].low
    back = paired_bootstrap(records(b), records(a), "mae")
    assert (back.low, back.high, back.p_value) == pytest.approx((-paired.high, -paired.low, paired.p_value))


def test_equal_methods_do_not_differ() -> None:
    a, _ = two_methods()
    same = paired_bootstrap(records(a), records(a), "mae", resamples=200)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_under_equal_methods_the_p_value_is_uniform() -> None:
    rng = np.random.default_rng(53)
    found = [
        paired_bootstrap(records(rng.normal(size=80)), records(rng.normal(size=80)), "mae", resamples=400).p_value
        for _ in range(300)
    ]
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def test_pairs_come_by_name_and_what_is_missing_is_counted() -> None:
    a, b = two_methods(40)
    first, second = records(a), records(b)
    first[3]["mae"] = math.nan
    first[4]["mae"] = second[4]["mae"] = math.nan
    second[5]["mae"] = "nan"  # as scores.csv holds it
    rng = np.random.default_rng(54)
    shuffled = [second[i] for i in rng.permutation(40)][:-2]
    gone = {record["name"] for record in second} - {record["name"] for record in shuffled}
    found = paired_bootstrap(first, [*shuffled, {"name": "extra", "mae": 1.0}], "mae")
    kept = [i for i in range(40) if i not in (3, 4, 5) and f"{i:04}" not in gone]
    assert found.pictures == len(kept)
    assert found.undefined == 40 - 2 - len(kept)
    assert found.unpaired == 3
    expected = paired_bootstrap([first[i] for i in kept], [second[i] for i in kept], "mae")
    assert (found.difference, found.low, found.high, found.p_value) == (
        *(expected.difference, expected.low, expected.high, expected.p_value),
    )


def test_memory_is_bounded_and_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    a, _ = two_methods()
    whole = bootstrap_interval(records(a), "mae", resamples=3000)
    assert bootstrap_interval(records(a), "mae", resamples=3000) == whole
    assert bootstrap_interval(records(a), "mae", resamples=3000, seed=1) != whole
    monkeypatch.setattr(bootstrap, "_CHUNK", 1000)
    chunked = bootstrap_interval(records(a), "mae", resamples=3000)
    spread = a.std() / len(a) ** 0.5
    assert chunked.low == pytest.approx(whole.low, abs=0.2 * spread)
    assert chunked.high == pytest.approx(whole.high, abs=0.2 * spread)


def test_scores_a_picture_go_straight_in() -> None:
    names, maps, masks = zip(*pairs(30, seed=55), strict=True)
    scored = saliency_scores(maps, masks, "pysod", names=names)
    worse = saliency_scores([255 - m for m in maps], masks, "pysod", names=names)
    found = paired_bootstrap(scored, worse, "s_measure", resamples=500)
    assert found.pictures + found.undefined == 30
    assert found.undefined == sum(math.isnan(record["s_measure"]) for record in scored) > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: paired_bootstrap(r, r, "mea"), "no score 'mea'; it has: mae"),
        (lambda r: paired_bootstrap(r, [], "mae"), "no picture in common"),
        (lambda r: paired_bootstrap(r + r, r, "mae"), "'0000' has two records"),
        (lambda r: paired_bootstrap([{"mae": 1.0}], r, "mae"), "no 'name'"),
        (lambda r: paired_bootstrap(r, r, "mae", confidence=95), "between 0 and 1"),
        (lambda r: bootstrap_interval(r, "mae", resamples=0), "at least 1"),
        (lambda r: bootstrap_interval([{"mae": ""}], "mae"), "not a number"),
        (lambda r: bootstrap_interval([{"mae": math.nan}], "mae"), "no picture whose 'mae'"),
    ],
)
def test_a_mistake_is_one_clear_line(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call(records([0.1, 0.2]))
    assert "\n" not in str(caught.value)


# ---- every figure of a set under one matrix of counts --------------------------------------------------------------


def scored(number: int, protocol: str, seed: int, noise: float = 40) -> list[dict[str, Any]]:
    """Records with curves of maps that are their masks, blurred and noisy; two of them blank."""
    rng = np.random.default_rng(seed)
    names, _, masks = zip(*pairs(number, seed=60), strict=True)
    maps = [np.clip(0.7 * mask + 30 + rng.normal(0, noise, mask.shape), 0, 255).astype(np.uint8) for mask in masks]
    maps[0][:], maps[1][:] = 0, 0
    named = [f"{i:03}" for i in range(len(names))]
    found: list[dict[str, Any]] = saliency_scores(maps, masks, protocol, names=named, curves=True)
    return found


def resampled(records: list[dict[str, Any]], counts: Any, protocol: str) -> dict[str, Resampled]:
    scores = {name: [record[name] for record in records] for name in SCORES}
    curves = {name: np.array([record[name] for record in records]) for name in CURVES}
    return set_figures(scores, curves, counts, curve_of_means=get_protocol(protocol).curve_of_means)


@pytest.mark.parametrize("protocol", ["f3net", "pysod"])
def test_a_resample_is_the_set_of_the_pictures_that_were_drawn(protocol: str) -> None:
    records = scored(25, protocol, 61)
    counts = resample_counts(25, 6, seed=1)
    assert counts.sum(axis=1).tolist() == [25] * 6
    found = resampled(records, counts, protocol)
    assert {*found} >= {*SCORES, "max_f", "mean_curve_f", "max_e", "mean_e"}
    whole = combine(records, protocol)
    for key, figure in found.items():
        assert figure.value == pytest.approx(whole[key], rel=1e-6)
        assert figure.peak == key.startswith("max_")
    for draw, row in enumerate(counts):
        drawn = combine([record for record, times in zip(records, row, strict=True) for _ in range(times)], protocol)
        assert {key: figure.draws[draw] for key, figure in found.items()} == pytest.approx(
            {key: drawn[key] for key in found}, rel=1e-5
        )
    for left in (0, 7):
        others = combine([record for i, record in enumerate(records) if i != left], protocol)
        assert {key: figure.without[left] for key, figure in found.items()} == pytest.approx(
            {key: others[key] for key in found}, rel=1e-5
        )


def max_f_of(records: list[dict[str, Any]]) -> Any:
    """scipy's statistic: the max F (pysod) of the pictures with these numbers."""
    curves = np.array([record["f_curve"] for record in records])
    return lambda drawn, axis=-1: curves[drawn.astype(int)].mean(axis=-2).max(axis=-1)


def test_the_interval_of_a_maximum_is_scipys_bca_and_not_the_percentile_one() -> None:
    records = scored(40, "pysod", 62)
    found = resampled(records, resample_counts(40, 5000), "pysod")["max_f"]
    theirs = stats.bootstrap(  # of the same draws; it leaves out each picture itself
        (np.arange(40),), max_f_of(records), n_resamples=0, method="BCa", vectorized=True,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=found.draws),
    )  # fmt: skip
    assert found.interval() == pytest.approx(tuple(theirs.confidence_interval), abs=1e-6)
    # why: the peak of a resample's noisy curve lies above the set's own more often than below
    assert np.mean(found.draws > found.value) > 0.51
    assert found.interval() != pytest.approx(tuple(np.quantile(found.draws, [0.025, 0.975])), abs=1e-3)


def test_the_difference_of_two_maxima_is_scipys_paired_one() -> None:
    first, second = scored(40, "pysod", 64), scored(40, "pysod", 65, noise=55)
    counts = resample_counts(40, 10_000)
    found = resampled(first, counts, "pysod")["max_f"].minus(resampled(second, counts, "pysod")["max_f"])
    one, two = max_f_of(first), max_f_of(second)
    theirs = stats.bootstrap(
        (np.arange(40), np.arange(40)), lambda a, b, axis=-1: one(a) - two(b), paired=True, n_resamples=10_000,
        method="percentile", batch=500, vectorized=True, rng=np.random.default_rng(66),
    )  # fmt: skip
    assert not found.peak
    low, high = found.interval()
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.1 * theirs.standard_error)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.1 * theirs.standard_error)
    assert (found.p_value() < 0.05) == (low > 0 or high < 0)


def test_pictures_that_do_not_count_are_left_out_of_curves() -> None:
    records = scored(20, "pysod", 68)
    counts = resample_counts(20, 50)
    seen = np.arange(20) >= 5
    scores = {name: [record[name] for record in records] for name in SCORES}
    curves = {name: np.array([record[name] for record in records]) for name in CURVES}
    found = set_figures(scores, curves, counts, curve_of_means=False, seen=seen)
    part = combine(records[5:], "pysod")
    assert found["max_f"].value == pytest.approx(part["max_f"], rel=1e-6)
    assert found["mean_f"].value == pytest.approx(part["mean_f"], rel=1e-12)
    assert found["mae"].value == pytest.approx(combine(records, "pysod")["mae"], rel=1e-12)
    assert np.isfinite(found["max_f"].draws).all()
