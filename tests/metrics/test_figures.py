"""IoU and its kind, and what needs a pass of its own, against PySODMetrics' handlers and newer classes."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tests.metrics.maps import Pair, a_mask, pairs
from tests.metrics.oracle_pysod import pysod_scores

from qefpn.errors import UserError
from qefpn.metrics import SaliencyMetrics, choose, combine, saliency_scores
from qefpn.metrics.counted import counted_values
from qefpn.metrics.figures import COUNTED, GROUPS, PASSES, known_names

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import py_sod_metrics as psm

BOUND = 1e-9
HANDLERS = {
    "iou": psm.IOUHandler, "dice": psm.DICEHandler, "specificity": psm.SpecificityHandler, "fpr": psm.FPRHandler,
    "ber": psm.BERHandler, "kappa": psm.KappaHandler, "overall_accuracy": psm.OverallAccuracyHandler,
}  # fmt: skip


class ExactMSIoU(psm.MSIoU):
    """With edges whose sums are exact: PySODMetrics adds them in half precision."""

    def get_edge(self, mask: np.ndarray) -> np.ndarray:
        return super().get_edge(mask).astype(np.float64)


def _ratio(numerator: Any, denominator: Any) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator != 0)


def _kappa(tp: Any, fp: Any, tn: Any, fn: Any) -> Any:
    chance = _ratio((tp + fp) * (tp + fn) + (tn + fn) * (tn + tp), (tp + fp + tn + fn) ** 2)
    return _ratio(_ratio(tp + tn, tp + fp + tn + fn) - chance, 1 - chance)


def _f1(tp: Any, fp: Any, tn: Any, fn: Any) -> Any:
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    return _ratio(2 * precision * recall, precision + recall)


FORMULAS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "iou": lambda tp, fp, tn, fn: _ratio(tp, tp + fp + fn),
    "dice": lambda tp, fp, tn, fn: _ratio(2 * tp, tp + fn + tp + fp),
    "f1": _f1,
    "specificity": lambda tp, fp, tn, fn: _ratio(tn, tn + fp),
    "fpr": lambda tp, fp, tn, fn: _ratio(fp, tn + fp),
    "ber": lambda tp, fp, tn, fn: 1 - 0.5 * (_ratio(tp, tp + fn) + _ratio(tn, tn + fp)),
    "kappa": _kappa,
    "overall_accuracy": lambda tp, fp, tn, fn: _ratio(tp + tn, tp + fp + tn + fn),
}


def test_compiled_figures_are_their_formulas() -> None:
    rng = np.random.default_rng(96)
    pixels = rng.integers(1, 5_000_000, 60)
    positives = rng.integers(0, pixels + 1)
    positives[:4], positives[4:8] = 0, pixels[4:8]
    shares = np.sort(rng.random((60, 2, 258)), axis=2)
    shares[::3, :, :40], shares[1::3, :, 200:] = 0, 1
    whole = np.stack([pixels - positives, positives], axis=1)[..., None]
    selected = np.rint(shares * whole).astype(np.int64)
    fp, tp = selected[:, 0], selected[:, 1]
    fn, tn = whole[:, 1] - tp, whole[:, 0] - fp
    found = counted_values(COUNTED, selected, positives, pixels)
    assert {*FORMULAS} == {*COUNTED}
    for name, formula in FORMULAS.items():
        expected = formula(tp, fp, tn, fn)
        parts = (found[f"{name}_curve"], found[f"{name}_adaptive"][:, None], found[f"{name}_binary"][:, None])
        np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, rtol=0, atol=1e-12, err_msg=name)
        assert expected.std() > 0.01


def edge_cases() -> Iterator[Pair]:
    """60 of them: what a map or mask has least or most of."""
    rng = np.random.default_rng(95)
    for number in range(12):
        size = int(rng.integers(1, 40)), int(rng.integers(1, 40))
        full, point = np.full(size, 255, np.uint8), np.zeros(size, np.uint8)
        point[rng.integers(size[0]), rng.integers(size[1])] = 255
        soft = rng.integers(0, 256, size).astype(np.uint8)
        line = np.where(np.arange(size[0])[:, None] == size[0] // 2, full, 0).astype(np.uint8)
        for name, saliency, mask in (
            ("full", soft, full), ("empty", soft, full - 255), ("point", soft, point), ("line", soft, line),
            ("constant", np.full(size, 40 * (number % 7), np.uint8), point),
        ):  # fmt: skip
            yield f"{name} {number} {size}", saliency, mask


def theirs(saliency: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """PySODMetrics' figures of a picture, those it fails on aside."""
    found: dict[str, Any] = {}
    wanted = {"with_dynamic": True, "with_adaptive": True, "with_binary": True}
    handlers = {name: handler(**wanted) for name, handler in HANDLERS.items()}
    handlers["f1"] = psm.FmeasureHandler(**wanted, beta=1)
    metric = psm.FmeasureV2(handlers)
    metric.step(saliency, mask)
    for name, values in metric.get_results().items():
        found[f"{name}_adaptive"], found[f"{name}_binary"] = values["adaptive"], values["binary"]
        found[f"{name}_curve"] = values["dynamic"]
        found[f"{name}_mean"], found[f"{name}_max"] = values["dynamic"].mean(), values["dynamic"].max()
    return found


def theirs_of_passes(saliency: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """The same of what needs a pass of its own."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        msiou = ExactMSIoU(with_dynamic=False, with_adaptive=True, with_binary=True)
        msiou.step(saliency, mask)
        found |= {f"msiou_{name}": value for name, value in msiou.get_results().items()}
        hce = psm.HumanCorrectionEffortMeasure()
        hce.step(saliency, mask)
        found |= hce.get_results()
        context = psm.ContextMeasure()
        try:
            context.step(saliency, mask)
            found["context_measure"] = context.get_results()["cm"]
        except np.linalg.LinAlgError:  # the mask's pixels lie on a line
            found["context_measure"] = np.nan
        if not (mask > 128).all():  # its boxes need a background
            mae = psm.SizeInvarianceMAE()
            mae.step(saliency, mask)
            if not np.isnan(mae.get_results()["si_mae"]):  # a box that is the whole picture
                found |= mae.get_results()
            f = psm.SizeInvarianceFmeasureV2({"f": psm.FmeasureHandler(with_dynamic=True, with_adaptive=True)})
            f.step(saliency, mask)
            values = f.get_results()["f"]
            curve = np.mean(values["dynamic"][0], axis=0)
            found |= {"si_f_adaptive": values["adaptive"], "si_f_curve": curve}
            found |= {"si_f_mean": curve.mean(), "si_f_max": curve.max()}
    return found


def check(sample: list[Pair], oracle: Any, metrics: tuple[str, ...]) -> list[dict[str, Any]]:
    expected, wrong = [], []
    for name, saliency, mask in sample:
        expected.append(oracle(saliency, mask))
        found = saliency_scores(saliency, mask, "pysod", curves=True, metrics=metrics)
        for key, value in expected[-1].items():
            if not np.allclose(found[key], value, rtol=0, atol=BOUND, equal_nan=True):
                wrong.append(f"{name}: {key} {found[key]!r} against {value!r}"[:200])
    assert not wrong, "\n".join(wrong[:10])
    return expected


def test_from_the_histogram() -> None:
    check([*pairs(150, seed=91), *edge_cases()], theirs, COUNTED)


@pytest.mark.slow
def test_from_the_histogram_a_thousand_times() -> None:
    check(list(pairs(1000, seed=92)), theirs, COUNTED)


def test_in_passes_of_their_own() -> None:
    expected = check([*pairs(60, seed=93), *edge_cases()], theirs_of_passes, tuple(PASSES))
    assert sum("si_mae" in one for one in expected) > 60
    assert sum(one["hce"] > 3 for one in expected) > 20


@pytest.mark.slow
def test_in_passes_of_their_own_a_thousand_times() -> None:
    check(list(pairs(1000, seed=94)), theirs_of_passes, tuple(PASSES))


def test_hce_without_scikit_image_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.morphology", None)
    mask = np.full((5, 5), 255, np.uint8)
    with pytest.raises(UserError, match="hce needs scikit-image: pip install scikit-image"):
        saliency_scores(mask, mask, metrics="dis")


def slow_erosion(mask: np.ndarray, steps: int) -> np.ndarray:
    """By the 3 x 3 square, background outside, pixel by pixel."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        shifts = [padded[r : r + mask.shape[0], c : c + mask.shape[1]] for r in range(3) for c in range(3)]
        mask = np.logical_and.reduce(shifts)
    return mask


def test_boundary_iou_from_its_definition() -> None:
    different = 0
    for name, saliency, mask in [*pairs(60, seed=97), *edge_cases()]:
        found = saliency_scores(saliency, mask, "pysod", metrics="biou")["biou"]
        low, high = int(saliency.min()), int(saliency.max())
        levels = (saliency / 255 - low / 255) / (high / 255 - low / 255) if high > low else saliency / 255
        depth = max(1, round(0.02 * np.hypot(*mask.shape)))
        rims = [part & ~slow_erosion(part, depth) for part in (levels > 0.5, mask > 128)]
        union = (rims[0] | rims[1]).sum()
        expected = (rims[0] & rims[1]).sum() / union if union else 1.0
        assert found == pytest.approx(expected, abs=BOUND), name
        different += 0 < expected < 1
    assert different > 20


def test_mean_boundary_accuracy_from_its_definition() -> None:
    """Five bands, each of the pixels that a disk around a pixel of the mask's border reaches."""
    rng = np.random.default_rng(98)
    for _ in range(12):
        size = tuple(rng.integers(150, 420, 2))
        mask = a_mask(rng, *size)[1]
        saliency = cv2.GaussianBlur(np.roll(mask, 3, 0), (0, 0), 4)
        found = saliency_scores(saliency, mask, "pysod", metrics="mba")["mba"]
        truth, levels = mask > 128, saliency / 255
        if levels.max() > levels.min():
            levels = (levels - levels.min()) / (levels.max() - levels.min())
        accuracies = []
        for step in range(5):
            radius = 1 + int((sum(size) / 300 - 1) / 5 * step)
            disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)) > 0
            has_object, has_ground = np.zeros(size, bool), np.zeros(size, bool)
            padded, there = np.pad(truth, radius), np.pad(np.ones(size, bool), radius)
            for r, c in np.argwhere(disk):
                shifted, inside = padded[r:, c:][: size[0], : size[1]], there[r:, c:][: size[0], : size[1]]
                has_object |= shifted & inside
                has_ground |= ~shifted & inside
            band = has_object & has_ground
            accuracies.append(((levels > 0.5) == truth)[band].mean() if band.any() else np.nan)
        assert found == pytest.approx(np.mean(accuracies), abs=BOUND, nan_ok=True)


def test_means_over_a_set() -> None:
    sample = list(pairs(40, seed=99))
    metric = SaliencyMetrics("pysod", metrics="all")
    records = metric.score_batch([s for _, s, _ in sample], [m for _, _, m in sample], curves=True)
    found = metric.compute()
    expected = [theirs(saliency, mask) for _, saliency, mask in sample]
    for name in COUNTED:
        curve = np.mean([one[f"{name}_curve"] for one in expected], axis=0)
        for kind, value in (("max", curve.max()), ("mean", curve.mean())):
            assert found[f"{name}_{kind}"].item() == pytest.approx(value, abs=BOUND)
        for kind in ("adaptive", "binary"):
            mean = np.mean([one[f"{name}_{kind}"] for one in expected])
            assert found[f"{name}_{kind}"].item() == pytest.approx(mean, abs=BOUND)
    again = combine(records, "pysod", metrics="all")
    assert set(again) == set(found)
    for name, value in again.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-14, equal_nan=True)
    assert found["hce"].item() == pytest.approx(np.mean([record["hce"] for record in records]))


def of_the_pool() -> list[Pair]:
    return [*pairs(1000, seed=100), *edge_cases()]


def run_rank(rank: int, start: int, stop: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    metric = SaliencyMetrics("pysod", metrics="all")
    share = of_the_pool()[start:stop]
    for first in range(0, len(share), 9):
        some = share[first : first + 9]
        metric.update([s for _, s, _ in some], [m for _, _, m in some])
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


OWN = {"biou", "mba", "binary_ratio"}  # which PySODMetrics does not have


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_pysodmetrics(tmp_path: Path) -> None:
    sample = of_the_pool()
    context = multiprocessing.get_context("spawn")
    shares = ((0, 0, 417), (1, 417, len(sample)))
    processes = [context.Process(target=run_rank, args=(*share, str(tmp_path))) for share in shares]
    for process in processes:
        process.start()
    alone = SaliencyMetrics("pysod", metrics="all")
    records = alone.score_batch([s for _, s, _ in sample], [m for _, _, m in sample], curves=True)
    oracle = [{**pysod_scores(s, m), **theirs(s, m), **theirs_of_passes(s, m)} for _, s, m in sample]
    for process in processes:
        process.join(500)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    expected = alone.compute()
    assert {*first} == {*second} == {*expected}
    for name, value in expected.items():
        for got in (first, second):
            torch.testing.assert_close(got[name], value, rtol=0, atol=0, equal_nan=True)
    assert expected["images"].item() == len(sample) == 1060
    for name in (*alone.figures.scores, *alone.figures.curves):
        # where PySODMetrics fails on a picture, ours stands in
        assert sum(name not in one for one in oracle) < (1061 if name in OWN else 250), name
        values = np.array([one.get(name, record[name]) for one, record in zip(oracle, records, strict=True)])
        mean = np.nanmean(values, axis=0)
        # of a picture of one pixel E is 2^52: hence beside the bound some roundings
        np.testing.assert_allclose(first[name].numpy(), mean, rtol=1e-14, atol=BOUND, err_msg=name)
        if name in alone.figures.curves[2:]:
            stem = name.removesuffix("_curve")
            for kind, found in (("max", mean.max()), ("mean", mean.mean())):
                assert first[f"{stem}_{kind}"].item() == pytest.approx(found, rel=1e-14, abs=BOUND), f"{stem}_{kind}"


def test_what_can_be_asked_for() -> None:
    assert choose("sod") == choose([]) == choose(["mae", "e_mean", "f_max"])
    assert choose("all").counted == COUNTED and choose("all").passes == tuple(PASSES)
    assert choose(["iou", "iou_max", "f1_mean"]).counted == ("iou", "f1")
    assert choose(["si_f_curve"]).passes == ("si_f",) and choose("cod").counted == GROUPS["cod"]
    for name in known_names():
        choose(name)


@pytest.mark.parametrize(("name", "hint"), [("iuo", "'iou'"), ("hcee", "'hce'"), ("smeasure", "'s_measure'")])
def test_a_metric_that_there_is_not(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"there is no metric '{name}'; did you mean {hint}") as caught:
        SaliencyMetrics(metrics=["mae", name])
    assert "\n" not in str(caught.value)
