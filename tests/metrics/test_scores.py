"""Records a picture, and the figures of a set made from them."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from tests.metrics.maps import Pair, pairs

from qefpn.metrics import SaliencyMetrics, combine, measure, saliency_scores
from qefpn.metrics.figures import ALIASES, BASE
from qefpn.metrics.histogram import JointHistogram
from qefpn.metrics.inputs import Picture
from qefpn.metrics.protocol import F3NET
from qefpn.metrics.scores import Measured

PROTOCOLS = ("f3net", "pysod", "saleval")


@pytest.fixture(scope="module")
def sample() -> list[Pair]:
    return list(pairs(60, seed=32))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_batch_gives_each_picture_its_score_to_the_last_bit(protocol: str, sample: list[Pair]) -> None:
    maps, masks = [s for _, s, _ in sample], [m for _, _, m in sample]
    together = saliency_scores(maps, masks, protocol, curves=True)
    for record, saliency, mask in zip(together, maps, masks, strict=True):
        assert repr(record) == repr(saliency_scores(saliency, mask, protocol, curves=True))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_pass_gives_records_and_set(protocol: str, sample: list[Pair]) -> None:
    names, maps, masks = zip(*sample, strict=True)
    once, metric = SaliencyMetrics(protocol), SaliencyMetrics(protocol)
    records = once.score_batch(list(maps), list(masks), names=names)
    metric.update(list(maps), list(masks))
    assert [record["name"] for record in records] == list(names)
    assert repr(records) == repr(saliency_scores(maps, masks, protocol, names=names))
    first, second = once.compute(), metric.compute()
    assert set(first) == set(second)
    assert all(first[key].equal(second[key]) for key in first)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_records_combine_into_the_figures_of_the_set(protocol: str, sample: list[Pair]) -> None:
    names, maps, masks = zip(*sample, strict=True)
    metric = SaliencyMetrics(protocol)
    records = metric.score_batch(list(maps), list(masks), names=names, curves=True)
    expected = {key: value.numpy() for key, value in metric.compute().items()}
    figures = combine(json.loads(json.dumps(records)), protocol)  # plain values survive a file
    assert set(figures) == set(expected)
    for key, value in figures.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-12, atol=1e-12)
    assert expected["undefined"] == sum(math.isnan(r[key]) for r in records for key in BASE) > 0
    without = combine([{k: v for k, v in r.items() if k != "f_curve"} for r in records], protocol)
    assert "max_f" not in without
    assert without["mae"] == figures["mae"]


def test_a_set_without_pictures_has_no_figures() -> None:
    figures = combine([])
    assert figures["images"] == 0
    assert math.isnan(figures["mae"])
    metric = SaliencyMetrics()
    metric.update([], [])
    assert metric.compute()["images"] == 0
    assert metric.compute()["max_f"].isnan()


def test_the_names_of_the_figures(sample: list[Pair]) -> None:
    _, saliency, mask = sample[0]
    metric = SaliencyMetrics("f3net")
    metric.update(saliency, mask)
    figures = metric.compute()
    assert set(figures) == {
        *("mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure", "binary_ratio", "images"),
        *("mean_curve_f", "mean_e", "max_e", "precision", "recall", "f_curve", "e_curve", "undefined"),
        *("f_adaptive", "f_mean", "f_max", "e_adaptive", "e_mean", "e_max"),
    }
    assert {str(value.dtype) for value in figures.values()} == {"torch.float64"}
    assert set(saliency_scores(saliency, mask)) == {
        *("mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure", "binary_ratio"),
        *("mean_curve_f", "mean_e", "max_e"),
        *("f_adaptive", "f_mean", "f_max", "e_adaptive", "e_mean", "e_max"),
    }
    for name, old in ALIASES.items():
        assert figures[name].equal(figures[old])


def test_the_curve_of_a_set_is_of_its_means_in_one_protocol_only() -> None:
    maps = np.array([[[255, 0, 255, 0]], [[128, 255, 255, 255]]], np.uint8)
    masks = np.array([[[255, 0, 0, 0]], [[0, 255, 255, 255]]], np.uint8)
    figures = {}
    for protocol in PROTOCOLS:
        metric = SaliencyMetrics(protocol)
        metric.update(maps, masks)
        figures[protocol] = metric.compute()
    # threshold 255: precision 1/2 and 1, recall 1 and 1
    assert figures["f3net"]["max_f"].item() == pytest.approx(1.3 * 0.75 / (0.3 * 0.75 + 1))
    assert figures["pysod"]["max_f"].item() == pytest.approx((1.3 * 0.5 / (0.3 * 0.5 + 1) + 1) / 2)


def test_what_has_been_measured_cannot_be_changed(sample: list[Pair]) -> None:
    _, saliency, mask = sample[0]
    records = [measure(saliency, mask), F3NET, Picture(saliency, mask, False), JointHistogram(*[np.zeros(1)] * 9)]
    for record in records:
        with pytest.raises(FrozenInstanceError):
            setattr(record, next(iter(vars(record))), None)
    assert isinstance(records[0], Measured)
