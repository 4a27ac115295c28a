"""What runs on an accelerator, run on the CPU: the same scores as the way over single pictures."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from tests.metrics.maps import pairs

from qefpn.metrics import F3NET, SaliencyMetrics, device, device_weighted_f, measure
from qefpn.metrics.distance import FAR
from qefpn.metrics.scores import CURVES, SCORES

PROTOCOLS = ("f3net", "pysod")
SIZES = [(1, 1), (1, 2), (2, 1), (3, 2), (8, 8), (7, 40), (41, 9), (64, 64), (75, 90)]


@pytest.fixture
def as_if_on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_lies_on_device", lambda *tensors: True)


def batch(size: tuple[int, int], count: int = 24, seed: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    found = list(pairs(count, seed=seed, size=size))
    return torch.from_numpy(np.stack([s for _, s, _ in found])), torch.from_numpy(np.stack([m for _, _, m in found]))


def compare(maps: torch.Tensor, masks: torch.Tensor, protocol: str) -> None:
    on_device = measure(maps, masks, protocol).values
    expected = measure(maps.numpy(), masks.numpy(), protocol).values
    for name in (*SCORES, *CURVES):
        if name == "weighted_f":
            np.testing.assert_allclose(on_device[name], expected[name], rtol=0, atol=1e-12)
        else:
            np.testing.assert_array_equal(on_device[name], expected[name], err_msg=name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("as_if_on_device")
def test_scores_are_those_of_the_cpu(size: tuple[int, int], protocol: str) -> None:
    compare(*batch(size), protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.usefixtures("as_if_on_device")
def test_memory_is_bounded(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "PIXELS", 64 * 64 * 5 + 1)
    monkeypatch.setattr(device_weighted_f, "_CHUNK", 10_000)
    maps, masks = batch((64, 64), seed=61)
    assert [len(part) for part in device.DeviceBatch(maps, masks > 128).parts()] == [5, 5, 5, 5, 4]
    compare(maps, masks, protocol)


@pytest.mark.parametrize("shape", [(600, 30), (30, 600), (290, 300)])
@pytest.mark.usefixtures("as_if_on_device")
def test_foreground_far_away(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(62)
    mask = np.zeros((2, *shape), np.uint8)
    mask[0, 0, :2] = 255
    mask[1, -1, -1] = mask[1, 3, 5] = 255
    maps = torch.from_numpy(rng.integers(0, 256, mask.shape).astype(np.uint8))
    compare(maps, torch.from_numpy(mask), "f3net")
    squared = device_weighted_f.near_squared_distances(torch.from_numpy(mask) > 0).numpy()
    for one, found in zip(mask, squared, strict=True):
        assert (found == np.minimum(np.rint(distance_transform_edt(one == 0) ** 2), FAR)).all()


@pytest.mark.usefixtures("as_if_on_device")
def test_an_exact_tie_with_the_threshold() -> None:
    rng = np.random.default_rng(63)
    maps = rng.integers(0, 12, (1000, 1, 6)).astype(np.uint8)
    masks = np.zeros_like(maps)
    masks[:, :, :3] = 255
    for protocol in PROTOCOLS:
        compare(torch.from_numpy(maps), torch.from_numpy(masks), protocol)


@pytest.mark.usefixtures("as_if_on_device")
def test_every_form_of_input() -> None:
    maps, masks = batch((33, 20), seed=64)
    expected = measure(maps.numpy(), masks.numpy()).values
    forms: list[tuple[Any, Any]] = [
        (maps[:, None], masks),
        (maps.float() / 255, masks.double()[:, None] / 255),
        (maps.permute(1, 2, 0).contiguous().permute(2, 0, 1), masks),
    ]
    for pred, target in forms:
        assert device.device_batch(pred, target, F3NET) is not None
        found = measure(pred, target).values
        for name in SCORES:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-12, err_msg=name)
    halves = maps.float().div(255).half()
    np.testing.assert_array_equal(measure(halves, masks).values["mae"], measure(list(halves), masks).values["mae"])
    inside = masks > 128
    np.testing.assert_array_equal(measure(maps, inside).values["mae"], measure(list(maps), inside).values["mae"])
    assert measure(maps[0], masks[0]).values["mae"].shape == (1,)


@pytest.mark.usefixtures("as_if_on_device")
def test_mistakes_are_those_of_the_cpu() -> None:
    maps, masks = batch((5, 6), 2)
    for pred, message in ((maps / 100, "outside"), (maps.float() * float("nan"), "NaN"), (maps[:1], "1 maps for 2")):
        with pytest.raises(ValueError, match=message):
            measure(pred, masks)
    with pytest.raises(TypeError, match="int64"):
        measure(maps.long(), masks)
    with pytest.warns(UserWarning, match="0 and 255"):
        measure(maps, torch.ones_like(masks), "pysod")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(maps, torch.ones_like(masks), "f3net")
    small = measure(maps, torch.nn.functional.pad(masks, (1, 2)))  # the CPU resizes
    assert len(small) == 2


def test_tensors_in_memory_take_the_other_way() -> None:
    maps, masks = batch((5, 6), 2)
    assert device.device_batch(maps, masks, F3NET) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [*SIZES, (352, 352), (300, 400)])
def test_on_a_cuda_device(size: tuple[int, int], protocol: str) -> None:
    maps, masks = batch(size, 32)
    cpu, cuda = SaliencyMetrics(protocol), SaliencyMetrics(protocol).cuda()
    cpu.update(maps, masks)
    cuda.update(maps.cuda(), masks.cuda())
    expected = cpu.compute()
    for name, value in cuda.compute().items():
        bound = 1e-10 if name == "weighted_f" else 1e-12
        torch.testing.assert_close(value.cpu(), expected[name], rtol=bound, atol=bound, equal_nan=True)
