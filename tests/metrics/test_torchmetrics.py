"""The classes as torchmetrics metrics: forward, reset, merging, and two processes."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.metrics.maps import pairs
from torchmetrics import MetricCollection
from torchmetrics.utilities.data import dim_zero_sum

from qefpn import metrics
from qefpn.metrics import SaliencyMetrics, saliency_metrics

SINGLE = {
    "MAE": ("mae",),
    "FMeasure": ("mean_f", "max_f", "mean_curve_f", "f_curve"),
    "WeightedFMeasure": ("weighted_f",),
    "SMeasure": ("s_measure",),
    "EMeasure": ("e_measure", "max_e", "mean_e", "e_curve"),
    "PrecisionRecallCurve": ("precision", "recall"),
    "BinaryRatio": ("binary_ratio",),
}


def sample(count: int = 24) -> tuple[list[np.ndarray], list[np.ndarray]]:
    found = list(pairs(count, seed=40))
    return [s for _, s, _ in found], [m for _, _, m in found]


def as_dict(value: Any, entries: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return value if isinstance(value, dict) else {entries[0]: value}


@pytest.mark.parametrize("protocol", ["f3net", "pysod"])
@pytest.mark.parametrize("name", SINGLE)
def test_each_class_gives_its_part_of_the_whole(name: str, protocol: str) -> None:
    maps, masks = sample()
    whole, single = SaliencyMetrics(protocol), getattr(metrics, name)(protocol)
    for first in range(0, 24, 9):
        whole.update(maps[first : first + 9], masks[first : first + 9])
        single.update(maps[first : first + 9], masks[first : first + 9])
    expected, found = whole.compute(), as_dict(single.compute(), SINGLE[name])
    for entry in SINGLE[name]:
        assert found[entry].dtype == torch.float64
        torch.testing.assert_close(found[entry], expected[entry], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", [*SINGLE, "SaliencyMetrics"])
def test_forward_reset_and_merging(name: str) -> None:
    maps, masks = sample()
    make = getattr(metrics, name)
    metric, alone, first, rest = make(), make(), make(), make()
    of_batch = metric(maps[:7], masks[:7])
    metric(maps[7:], masks[7:])
    alone.update(maps[:7], masks[:7])
    first.update(maps[:7], masks[:7])
    rest.update(maps[7:], masks[7:])

    def flat(value: Any) -> torch.Tensor:
        parts = value.values() if isinstance(value, dict) else [value]
        return torch.cat([part.reshape(-1) for part in parts])

    assert flat(of_batch).equal(flat(alone.compute()))
    whole = flat(metric.compute())
    assert not whole.equal(flat(of_batch))
    first.merge_state(rest)
    torch.testing.assert_close(flat(first.compute()), whole, rtol=1e-13, atol=1e-13)
    again = pickle.loads(pickle.dumps(metric))
    assert flat(again.compute()).equal(whole)
    metric.reset()
    metric.update(maps[:7], masks[:7])
    assert flat(metric.compute()).equal(flat(of_batch))


def test_states_are_sums_of_integers() -> None:
    for name in [*SINGLE, "SaliencyMetrics"]:
        metric = getattr(metrics, name)()
        assert set(metric._reductions.values()) == {dim_zero_sum}
        metric.half()  # Lightning converts modules; sums must not lose their digits
        assert {getattr(metric, state).dtype for state in metric._defaults} == {torch.int64}
        assert len(metric._defaults) == 1


def test_a_collection_reads_pixels_once(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = sample()
    collection = MetricCollection([getattr(metrics, name)() for name in SINGLE if name != "BinaryRatio"])
    collection.update(maps[:5], masks[:5])
    measured: list[int] = []

    def counted(*args: Any) -> Any:
        measured.append(1)
        return metrics.measure(*args)

    monkeypatch.setattr(saliency_metrics, "measure", counted)
    collection.update(maps[5:], masks[5:])
    assert len(measured) == 1
    whole = SaliencyMetrics()
    whole.update(maps[:5], masks[:5])
    whole.update(maps[5:], masks[5:])
    expected, found = whole.compute(), collection.compute()
    assert found["MAE"].equal(expected["mae"]) and found["max_f"].equal(expected["max_f"])


def test_the_binary_ratio_needs_no_mask() -> None:
    maps, masks = sample()
    ratio = metrics.BinaryRatio("pysod")
    ratio.update(maps)
    ratio.update(torch.from_numpy(maps[0]))
    expected = [100 * np.mean((m > 0.9 * 255) | (m < 0.1 * 255)) for m in [*maps, maps[0]]]
    assert ratio.compute().item() == pytest.approx(np.mean(expected), abs=1e-12)


def test_an_undefined_score_is_left_out_and_counted() -> None:
    mask = np.zeros((6, 6), np.uint8)
    mask[-1] = 255  # the centroid's row is the last: the lower quadrants are empty
    fine = np.zeros((6, 6), np.uint8)
    fine[1:4, 1:4] = 255
    metric = metrics.SMeasure("pysod")
    metric.update([mask, fine], [mask, fine])
    assert metric.compute().item() == pytest.approx(1.0)
    assert metric.undefined.sum() == 1


def run_rank(rank: int, start: int, stop: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    maps, masks = sample()
    metric = SaliencyMetrics("pysod")
    for i in range(start, stop):
        metric.update(maps[i], masks[i])
    figures = metric.compute()
    metric.sync()
    sums = {state: getattr(metric, state) for state in metric._defaults}
    torch.save({"figures": figures, "sums": sums}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_uneven_shares(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    shares = [(0, 0, 5), (1, 5, 24)]
    processes = [context.Process(target=run_rank, args=(*share, str(tmp_path))) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    maps, masks = sample()
    alone = SaliencyMetrics("pysod")
    alone.update(maps, masks)
    expected = alone.compute()
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt")
        for state, value in got["sums"].items():
            assert value.equal(getattr(alone, state)), state
        for entry, value in expected.items():
            assert got["figures"][entry].equal(value), entry
