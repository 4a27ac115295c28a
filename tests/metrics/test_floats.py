"""Maps of floats and of 16 bits, measured as they are: against PySODMetrics, a slow f3net, and 8-bit maps as floats."""

from __future__ import annotations

from typing import Any

import numpy as np
import py_sod_metrics as psm
import pytest
import torch
from tests.metrics import reference_f3net
from tests.metrics.maps import Pair, pairs
from tests.metrics.test_figures import HANDLERS
from tests.metrics.test_inputs import bicubic

from qefpn.metrics import PROTOCOLS, SaliencyMetrics, combine, resize_map, saliency_scores, to_uint8

BOUND = 1e-12


def floats(count: int, seed: int) -> list[Pair]:
    """Maps of many values, of some that repeat, and of few, of less than the full range; masks of 0 and 255."""
    rng = np.random.default_rng(seed)
    found = []
    for number, (name, saliency, mask) in enumerate(pairs(count, seed)):
        levels = saliency / 255
        if number % 3:
            levels = (levels * rng.uniform(0.3, 1) + 0.05 * rng.random(levels.shape)).clip(0, 1)
        if number % 3 == 2:
            levels = np.round(levels, 2)
        kind = (np.float64, np.float32)[number % 2]
        if levels.min() < levels.max():
            found.append((f"{name} {number}", levels.astype(kind), np.where(mask > 128, np.uint8(255), np.uint8(0))))
    return found


def by_pysodmetrics(levels: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """PySODMetrics takes floats as they are, and thresholds floor(255 x)."""
    levels, truth = levels.astype(np.float64), mask > 128
    levels = (levels - levels.min()) / (levels.max() - levels.min())
    found: dict[str, Any] = {}
    with np.errstate(all="ignore"):
        results: dict[str, Any] = {}
        for kind in (psm.MAE, psm.Fmeasure, psm.WeightedFmeasure, psm.Smeasure, psm.Emeasure):
            metric = kind()
            metric.step(levels, truth, normalize=False)
            results |= metric.get_results()
        wanted = {"with_dynamic": True, "with_adaptive": True, "with_binary": True}
        v2 = psm.FmeasureV2({name: handler(**wanted) for name, handler in HANDLERS.items()})
        v2.step(levels, truth, normalize=False)
        context = psm.ContextMeasure()
        try:
            context.step(levels, truth, normalize=False)
            found["context_measure"] = context.get_results()["cm"]
        except np.linalg.LinAlgError:
            found["context_measure"] = np.nan
    for name, values in v2.get_results().items():
        found |= {f"{name}_adaptive": values["adaptive"], f"{name}_binary": values["binary"]}
        found[f"{name}_curve"] = values["dynamic"]
    return found | {
        "mae": results["mae"], "mean_f": results["fm"]["adp"], "f_curve": results["fm"]["curve"],
        "weighted_f": results["wfm"], "s_measure": results["sm"], "e_measure": results["em"]["adp"],
        "e_curve": results["em"]["curve"], "precision": results["pr"]["p"], "recall": results["pr"]["r"],
    }  # fmt: skip


def differences(name: str, ours: dict[str, Any], theirs: dict[str, Any], bound: float = BOUND) -> list[str]:
    return [
        f"{name}: {key} {ours[key]!r} against {value!r}"[:200]
        for key, value in theirs.items()
        if not np.allclose(ours[key], value, rtol=bound, atol=bound, equal_nan=True)
    ]


ASKED = ("context_measure", *HANDLERS)


@pytest.mark.parametrize("count", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_against_pysodmetrics(count: int) -> None:
    sample, wrong, rounded = floats(count, 301), [], 0
    for name, levels, mask in sample:
        ours = saliency_scores(levels, mask, "pysod", curves=True, metrics=ASKED, quantize=False)
        wrong += differences(name, ours, by_pysodmetrics(levels, mask), 1e-9)
        rounded += abs(ours["mae"] - saliency_scores(levels, mask, "pysod")["mae"]) > 1e-6
    assert not wrong, "\n".join(wrong[:10])
    assert len(sample) > 0.7 * count and rounded > 0.4 * count


def test_against_a_slow_f3net() -> None:
    sample, wrong = floats(60, 302), []
    for name, levels, mask in sample:
        theirs = reference_f3net.scores(levels.astype(np.float64), mask)
        if theirs["mae"]:  # else blank
            theirs["binary_ratio"] = 100 * np.mean((levels > 0.9) | (levels < 0.1))
        wrong += differences(name, saliency_scores(levels, mask, curves=True, quantize=False), theirs)
    assert len(sample) > 40 and not wrong, "\n".join(wrong[:10])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_maps_of_eight_bits_score_the_same_as_floats(protocol: str) -> None:
    """To rounding: the same levels in other operations, so that exact ties may be decided otherwise."""
    asked, other, total = ("iou", "kappa", "msiou", "biou", "si_f"), 0, 0
    for _, saliency, mask in pairs(150, seed=303):
        as_bytes = saliency_scores(saliency, mask, protocol, curves=True, metrics=asked)
        as_floats = saliency_scores(saliency / 255, mask, protocol, curves=True, metrics=asked, quantize=False)
        constant = saliency.min() == saliency.max()
        for name in ("mae", "weighted_f", "s_measure", "binary_ratio", "blank_map"):
            if name in as_bytes:
                assert as_floats[name] == pytest.approx(as_bytes[name], rel=BOUND, abs=BOUND, nan_ok=True)
        total += not constant
        other += bool(differences("", as_floats, as_bytes)) and not constant
    assert other < 0.45 * total  # (255 levels) times a scale may land on either side of an integer


def test_sixteen_bits_and_bytes_in_one_batch() -> None:
    rng = np.random.default_rng(304)
    mask = np.zeros((30, 40), np.uint8)
    mask[8:20, 10:33] = 255
    deep = rng.integers(0, 65536, mask.shape).astype(np.uint16)
    eight, wide = rng.integers(0, 256, mask.shape).astype(np.uint8), rng.random((15, 20)).astype(np.float32)
    maps: list[Any] = [deep, eight, wide, torch.from_numpy(rng.random(mask.shape))]
    metric = SaliencyMetrics("pysod", quantize=False, metrics=["iou"])
    records = metric.score_batch(maps, [mask] * 4, curves=True)
    assert records[0] == saliency_scores(deep / 65535, mask, "pysod", quantize=False, curves=True, metrics=["iou"])
    assert records[1] == saliency_scores(eight, mask, "pysod", curves=True, metrics=["iou"])
    resized = resize_map(wide, mask.shape, PROTOCOLS["pysod"])
    assert resized.dtype == np.float32
    assert records[2] == saliency_scores(resized, mask, "pysod", quantize=False, curves=True, metrics=["iou"])
    for key, value in combine(records, "pysod", ["iou"]).items():
        np.testing.assert_allclose(metric.compute()[key].numpy(), value, rtol=1e-14)
    assert records[0]["mae"] != saliency_scores(deep, mask, "pysod")["mae"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("value", [0.0, 0.3, 0.6, 1.0])
def test_a_map_of_one_value(protocol: str, value: float) -> None:
    mask = np.zeros((9, 12), np.uint8)
    mask[2:6, 3:9] = 255
    found = saliency_scores(np.full(mask.shape, value), mask, protocol, quantize=False)
    level = value if protocol == "pysod" else float(value > 0)
    error = np.abs(level - mask / 255).mean()
    expected = np.nan if protocol == "saleval" else 0.0 if protocol == "f3net" and value == 0 else error
    assert found["mae"] == pytest.approx(expected, abs=BOUND, nan_ok=True)


@pytest.mark.parametrize("size", [(40, 64), (9, 7), (23, 5), (12, 61)])
def test_saleval_resizes_in_floats_as_matlab_does(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(305)
    saliency = rng.integers(0, 256, (12, 16)).astype(np.uint8)
    found = resize_map(saliency, size, PROTOCOLS["saleval"])
    expected = bicubic(bicubic(saliency / 255, size[0]).T, size[1]).T
    np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND)
    mask = np.where(rng.random(size) < 0.4, np.uint8(255), np.uint8(0))
    record = saliency_scores(saliency, mask, "saleval")
    levels, truth = expected / expected.max(), mask / 255
    stretched = (levels - levels.min()) / (levels.max() - levels.min())
    assert record["mae"] == pytest.approx(np.abs(stretched - truth).mean(), abs=BOUND)
    assert record != saliency_scores(to_uint8(expected.clip(0, 1)), mask, "saleval")
    flat = saliency_scores(np.full((12, 16), 77, np.uint8), mask, "saleval")
    assert np.isnan(flat["mae"]) and flat["mean_f"] == saliency_scores(mask * 0 + 77, mask, "saleval")["mean_f"]
