"""Picture by picture against code that is not ours: PySODMetrics, and a slow transcription of f3net."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from tests.metrics import reference_f3net
from tests.metrics.maps import Pair, pairs
from tests.metrics.oracle_pysod import pysod_scores

from qefpn.metrics import SaliencyMetrics, saliency_scores

BOUND = {"weighted_f": 1e-10}
ORACLES = {"pysod": pysod_scores, "f3net": reference_f3net.scores}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The scores that differ by more than their bound, or are NaN in one of the two only."""
    wrong = []
    for name, expected in theirs.items():
        bound = BOUND.get(name, 1e-12)  # relative above 1: a picture of one pixel has an E-measure of 1 / eps
        if not np.allclose(ours[name], expected, rtol=bound, atol=bound, equal_nan=True):
            wrong.append(f"{name}: {ours[name]!r} against {expected!r}"[:200])
    return wrong


def compare(protocol: str, sample: Iterable[Pair]) -> list[dict[str, Any]]:
    """Check every picture; give the oracle's records."""
    oracle: Callable[..., dict[str, Any]] = ORACLES[protocol]
    records, wrong = [], []
    for name, saliency, mask in sample:
        records.append(oracle(saliency, mask))
        ours = saliency_scores(saliency, mask, protocol, curves=True)
        wrong += [f"{name}: {text}" for text in differences(ours, records[-1])]
    assert not wrong, "\n".join(wrong[:10])
    return records


@pytest.mark.parametrize("protocol", ORACLES)
def test_each_picture_and_the_set(protocol: str) -> None:
    sample = list(pairs(200, seed=20))
    records = compare(protocol, sample)
    undefined = sum(np.isnan(record["s_measure"]) for record in records)
    assert 5 < undefined < 100  # the sample has pictures without an S-measure, and most have one

    metric = SaliencyMetrics(protocol)
    metric.update([s for _, s, _ in sample[:77]], [m for _, _, m in sample[:77]])
    metric.update([s for _, s, _ in sample[77:]], [m for _, _, m in sample[77:]])
    figures = {name: value.numpy() for name, value in metric.compute().items()}
    assert figures["images"] == 200
    assert figures["undefined"] == undefined
    assert not differences(figures, set_figures(protocol, records))


def set_figures(protocol: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """A set's figures from the oracle's records."""
    if protocol == "f3net":
        return reference_f3net.of_set(records)
    means = (name for name in records[0] if not name.startswith("max"))
    figures = {name: np.nanmean([r[name] for r in records], axis=0) for name in means}
    figures["max_f"], figures["max_e"] = figures["f_curve"].max(), figures.pop("e_curve").max()
    return figures


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ORACLES)
def test_a_thousand_pictures(protocol: str) -> None:
    compare(protocol, pairs(1000, seed=21))


STEP = 17  # of the thresholds: the slow reference goes over the pixels for each


def compare_large(protocol: str, sample: Iterable[Pair]) -> None:
    """As :func:`compare`, with every 17th point of the curves."""
    for name, saliency, mask in sample:
        ours = saliency_scores(saliency, mask, protocol, curves=True)
        if protocol == "pysod":
            theirs = pysod_scores(saliency, mask)
        else:
            theirs = reference_f3net.scores(saliency, mask, STEP)
            theirs = {key: value for key, value in theirs.items() if key not in reference_f3net.OF_CURVES}
            ours |= {curve: np.array(ours[curve])[::STEP] for curve in reference_f3net.CURVES}
        assert not differences(ours, theirs), name


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ORACLES)
@pytest.mark.parametrize("size", [(352, 352), (400, 300), (1024, 1024), (683, 1023)])
def test_large_pictures(protocol: str, size: tuple[int, int]) -> None:
    compare_large(protocol, pairs(16 if max(size) < 500 else 4, seed=22, size=size))


@pytest.mark.parametrize("protocol", ORACLES)
@pytest.mark.parametrize("size", [(290, 280), (20, 1300), (1201, 15)])
def test_errors_far_from_the_foreground(protocol: str, size: tuple[int, int]) -> None:
    """More than 256 and 1000 px away, on maps that are wrong everywhere and on such that are wrong far away only."""
    rng = np.random.default_rng(26)
    mask = np.zeros(size, np.uint8)
    mask[:2, :3] = 255
    everywhere = rng.integers(0, 256, size).astype(np.uint8)
    far = mask // 2
    far[-9:, -9:] = everywhere[-9:, -9:]
    compare_large(protocol, [("everywhere", everywhere, mask), ("far", far, mask)])


@pytest.mark.parametrize("protocol", ORACLES)
def test_false_pixels_on_one_side_of_the_foreground(protocol: str) -> None:
    """What matters of a picture reaches from the foreground to the false pixels, whichever side they are on."""
    rng = np.random.default_rng(27)
    mask = np.zeros((40, 44), np.uint8)
    mask[15:25, 16:28] = 255
    sample = []
    for row in (2, 20, 37):
        for column in (1, 22, 42):
            saliency = np.where(mask > 0, rng.integers(128, 256, mask.shape), 0).astype(np.uint8)
            saliency[row, column] = 200
            saliency[15, 16] = 255
            sample.append((f"false at {row}, {column}", saliency, mask))
    compare(protocol, sample)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (8, 8)])
@pytest.mark.parametrize("protocol", ORACLES)
def test_every_mask_of_a_tiny_picture(protocol: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(23)
    size = shape[0] * shape[1]
    numbers = range(2**size) if size < 7 else rng.integers(0, 2**63, 24)
    bits = [[int(number) >> bit & 1 for bit in range(size)] for number in numbers]
    masks = [np.array(row, np.uint8).reshape(shape) * 255 for row in bits]
    maps = [rng.choice([0, 51, 102, 153, 255], shape).astype(np.uint8) for _ in masks]
    compare(protocol, zip(map(str, masks), maps, masks, strict=True))


def test_the_protocols_agree_where_they_say_the_same() -> None:
    """Up to the order in which they normalise: rounding moves some levels by one threshold."""
    same = ("mae", "weighted_f", "binary_ratio")
    agreed = 0
    for name, saliency, mask in pairs(200, seed=24):
        if set(np.unique(mask)) != {0, 255} or saliency.min() == saliency.max():
            continue
        first, second = (saliency_scores(saliency, mask, p, curves=True) for p in ("f3net", "pysod"))
        assert [first[key] for key in same] == pytest.approx([second[key] for key in same], abs=1e-7), name
        moved = np.abs(np.subtract(first["recall"], second["recall"])) > 1e-12
        assert moved.sum() <= 48, name
        agreed += 1
    assert agreed > 60


def test_an_exact_tie_with_the_threshold_is_decided_by_numpys_rounding() -> None:
    """Twice the mean equals a level exactly: the rounding of the field's own sum says which side it is on."""
    rng = np.random.default_rng(25)
    mask = np.zeros((1, 6), np.uint8)
    mask[0, :3] = 255
    exact, outcomes = 0, set()
    for _ in range(4000):
        saliency = rng.integers(0, 30, (1, 6)).astype(np.uint8)
        shifted = saliency.astype(int) - saliency.min()
        if shifted.max() == 0 or 2 * shifted.sum() not in 6 * shifted:
            continue
        exact += 1
        oracle, ours = pysod_scores(saliency, mask), saliency_scores(saliency, mask, "pysod")
        assert ours["mean_f"] == pytest.approx(oracle["mean_f"], abs=1e-12)
        assert ours["e_measure"] == pytest.approx(oracle["e_measure"], abs=1e-12)
        levels = (saliency / 255 - saliency.min() / 255) / (saliency.max() / 255 - saliency.min() / 255)
        level = levels.ravel()[np.flatnonzero(6 * shifted.ravel() == 2 * shifted.sum())[0]]
        outcomes.add(np.sign(level - 2 * levels.mean()))
    assert exact > 100
    assert outcomes == {-1.0, 0.0, 1.0}  # rounding goes either way: exact arithmetic would not do


def test_a_uniform_quadrant_scores_as_numpys_mean_rounds() -> None:
    """The S-measure of a quadrant of one value is 1 or 0, as the mean of equal numbers is exact or not."""
    mask = np.zeros((40, 50), np.uint8)
    mask[2:12, 3:13] = mask[27:37, 35:45] = 255  # nothing in the upper right and the lower left
    saliency = mask // 2
    right = slice(0, 20), slice(24, 50)
    scores = {}
    for value in range(5, 250, 6):
        saliency[right] = value
        saliency[0, 0] = 255
        scores[value] = saliency_scores(saliency, mask, "pysod")["s_measure"]
        assert scores[value] == pytest.approx(pysod_scores(saliency, mask)["s_measure"], abs=1e-12)
    steps = np.abs(np.diff(list(scores.values())))
    assert steps.min() < 0.01 < 0.1 < steps.max()  # a neighbouring value scores half the quadrant's area less
