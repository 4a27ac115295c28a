"""Shapes, types, sizes, and what a mistake says."""

from __future__ import annotations

import warnings
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tests.metrics.maps import pairs

from qefpn.metrics import SaliencyMetrics, resize_map, saliency_scores, to_uint8
from qefpn.metrics.inputs import binarize
from qefpn.metrics.protocol import F3NET, PYSOD, SALEVAL


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    sample = list(pairs(5, seed=3, size=(24, 31)))
    return np.stack([s for _, s, _ in sample]), np.stack([m for _, _, m in sample])


def test_every_form_of_input_scores_the_same(batch: tuple[np.ndarray, np.ndarray]) -> None:
    maps, masks = batch
    expected = [repr(saliency_scores(s, m)) for s, m in zip(maps, masks, strict=True)]
    forms: list[tuple[Any, Any]] = [
        (maps, masks),
        (maps[:, None], masks),
        (torch.from_numpy(maps), torch.from_numpy(masks)[:, None]),
        (torch.from_numpy(maps)[:, None].float() / 255, masks / 255),
        (list(maps), [torch.from_numpy(m)[None] for m in masks]),
        (maps.astype(np.float32) / np.float32(255), torch.from_numpy(masks)),
        (np.asfortranarray(maps), masks[:, ::-1][:, ::-1]),
    ]
    for pred, target in forms:
        assert [repr(record) for record in saliency_scores(pred, target)] == expected


def test_other_types_of_element_score_the_same(batch: tuple[np.ndarray, np.ndarray]) -> None:
    maps, masks = batch
    binary = (masks > 128).astype(np.uint8)
    expected = [repr(saliency_scores(s, 255 * m)) for s, m in zip(maps, binary, strict=True)]
    cutouts = [np.dstack([np.full((*s.shape, 3), 99, np.uint8), s]) for s in maps]
    forms: list[tuple[Any, Any]] = [
        (maps.astype(np.uint16) * 257, binary.astype(np.int64)),
        (maps.astype(np.int32), binary.astype(bool)),
        (maps / 255 * (1 + 3e-8), torch.from_numpy(binary).long()),
        (maps / 255 - 3e-8, [m.tolist() for m in binary]),
        (cutouts, [m.astype(float).tolist() for m in binary]),
        (maps.tolist(), (255 * binary.astype(int)).tolist()),
    ]
    for pred, target in forms:
        assert [repr(record) for record in saliency_scores(pred, target)] == expected
    written_out = saliency_scores(maps[0].tolist(), binary[0].tolist())
    assert repr(written_out) == expected[0]


def test_one_picture_gives_one_record(batch: tuple[np.ndarray, np.ndarray]) -> None:
    maps, masks = batch
    assert isinstance(saliency_scores(maps[0], masks[0]), dict)
    assert len(saliency_scores(maps[:1], masks[:1])) == 1
    assert isinstance(saliency_scores(maps[0], masks[:1]), list) and isinstance(
        saliency_scores(maps[:1], masks[0]), list
    )
    assert saliency_scores([], []) == []


def test_boolean_masks_and_half_precision() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2:6, 3:7] = True
    soft = torch.rand(9, 9, generator=torch.Generator().manual_seed(0)).half()
    grey = mask.astype(np.uint8) * 255
    assert saliency_scores(soft, torch.from_numpy(mask)) == saliency_scores(soft.float(), grey)
    assert saliency_scores(soft.bfloat16(), grey) == saliency_scores(soft.bfloat16().float(), grey)
    assert saliency_scores(soft.float().requires_grad_(), grey) == saliency_scores(soft.float(), grey)


def test_a_float_map_becomes_what_a_png_would_hold(tmp_path: Any) -> None:
    rng = np.random.default_rng(5)
    values = rng.random((30, 40)).astype(np.float32)
    assert (to_uint8(values) == np.rint(255 * values)).all()
    _, _, mask = next(pairs(1, seed=6, size=(30, 40)))
    Image.fromarray(to_uint8(values)).save(tmp_path / "map.png")
    saved = np.asarray(Image.open(tmp_path / "map.png"))
    for protocol in ("f3net", "pysod"):
        in_memory = saliency_scores(torch.from_numpy(values)[None], mask[None], protocol)
        assert repr(in_memory[0]) == repr(saliency_scores(saved, mask, protocol))


def test_floats_are_rounded_in_their_own_precision() -> None:
    """Just below and just above half way between two values, and at it, where the even one is taken."""
    for value in range(255):
        half = (value + 0.5) / 255
        assert to_uint8(np.array([half - 1e-9, half + 1e-9])).tolist() == [value, value + 1]
    halves = np.arange(0, 1, 1 / 2048).astype(np.float16)
    wanted = np.rint(halves.astype(np.float64) * 255)
    assert (to_uint8(halves) == wanted).all()
    assert (to_uint8(torch.from_numpy(halves)) == wanted).all()
    assert (np.rint(halves * np.float16(255)) != wanted).any()  # half precision itself would not do


def test_the_foreground_of_a_mask() -> None:
    grey = np.array([[40, 99, 100, 128, 129, 160]], np.uint8)
    assert binarize(grey, F3NET).tolist() == [[0, 0, 255, 255, 255, 255]]  # half way between 40 and 160
    assert binarize(grey, PYSOD).tolist() == [[0, 0, 0, 0, 255, 255]]
    for value, under_f3net, under_pysod, under_saleval in (
        (0, 0, 0, 0), (1, 255, 0, 0), (26, 255, 0, 255), (128, 255, 0, 255), (129, 255, 255, 255), (255, 255, 255, 255),
    ):  # fmt: skip
        one = np.full((2, 2), value, np.uint8)
        found = tuple(binarize(one, protocol).max() for protocol in (F3NET, PYSOD, SALEVAL))
        assert found == (under_f3net, under_pysod, under_saleval), value
    assert binarize(np.array([[0, 25, 26, 255]], np.uint8), SALEVAL).tolist() == [[0, 0, 255, 255]]


def test_a_grey_half_way_falls_as_floating_point_has_it() -> None:
    sides = set()
    for low in range(0, 200, 3):
        for half in range(1, 27):
            grey = np.array([[low, low + half, low + 2 * half]], np.uint8)
            level = (low + half) * (1 / (2 * half)) + (-low * (1 / (2 * half)))
            assert binarize(grey, F3NET).tolist() == [[0, 255 * (level >= 0.5), 255]]
            sides.add(level >= 0.5)
    assert sides == {True, False}


@pytest.mark.parametrize("protocol", ["f3net", "pysod"])
def test_a_blank_picture_counts(protocol: str) -> None:
    mask = np.zeros((12, 12), np.uint8)
    mask[3:7, 3:9] = 255
    metric = SaliencyMetrics(protocol)
    metric.update([mask, 0 * mask, mask], [mask, mask, 0 * mask])
    result = metric.compute()
    assert result["images"] == 3
    expected_mae = 0 if protocol == "f3net" else 2 * 24 / 144 / 3
    assert result["mae"].item() == pytest.approx(expected_mae, abs=1e-15)
    if protocol == "f3net":
        assert result["mean_f"].item() == pytest.approx(1 / 3, abs=1e-15)
    assert result["recall"][255].item() == pytest.approx((1 if protocol == "f3net" else 2) / 3, abs=1e-15)


def keys(a: float) -> Any:
    """Keys' cubic kernel."""

    def kernel(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    return kernel


def bicubic(values: np.ndarray, length: int) -> np.ndarray:
    """MATLAB's imresize along the first axis: the kernel widens when the picture shrinks."""
    scale = length / len(values)
    centre = (np.arange(length) + 0.5) / scale - 0.5
    wide = min(scale, 1.0)
    taps = np.arange(-12, 13)
    place = np.floor(centre).astype(int)[:, None] + taps
    weights = keys(-0.5)(wide * (centre[:, None] - place))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = np.pad(values, ((30, 30), (0, 0)), mode="symmetric")
    return np.einsum("ot,otc->oc", weights, mirrored[place + 30])


@pytest.mark.parametrize("size", [(40, 64), (95, 130), (40, 130), (41, 63)])
def test_resizing_is_that_of_matlab(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    small = rng.random((12, 16))
    picture = np.rint(255 * bicubic(bicubic(small, 80).T, 100).T.clip(0, 1)).astype(np.uint8)
    across = np.rint(bicubic(picture.astype(float).T, size[1]).T.clip(0, 255))  # 8 bits after each pass
    expected = bicubic(across, size[0]).clip(0, 255)
    ours = resize_map(picture, size)
    inner = slice(5, -5), slice(5, -5)  # MATLAB mirrors at the border, Pillow cuts the kernel off
    assert ours.shape == size
    assert np.abs(ours - expected)[inner].max() < 1.6  # a step of the first pass, half a step of the second
    assert np.abs(ours - expected)[inner].mean() < 0.35  # the rounding of two passes
    bilinear = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))
    assert np.abs(bilinear - expected)[inner].max() > 2


def test_pysod_resizes_as_opencv_does_bilinearly() -> None:
    _, saliency, mask = next(pairs(1, seed=8, size=(40, 50)))
    small = cv2.resize(saliency, (23, 31))
    expected = cv2.resize(small, (50, 40), interpolation=cv2.INTER_LINEAR)
    assert (resize_map(small, (40, 50), PYSOD) == expected).all()
    assert saliency_scores(small, mask, "pysod") == saliency_scores(expected, mask, "pysod")
    assert saliency_scores(small, mask, "f3net") != saliency_scores(expected, mask, "f3net")


def test_a_map_of_another_size_takes_the_size_of_its_mask() -> None:
    _, saliency, mask = next(pairs(1, seed=8, size=(40, 50)))
    other = resize_map(saliency, (20, 30))
    assert saliency_scores(other, mask) == saliency_scores(resize_map(other, (40, 50)), mask)
    SaliencyMetrics().update([other, saliency], [mask, mask])


MAP = np.zeros((4, 5), np.uint8)
MISTAKES = [
    (MAP, MAP, "psod", "did you mean 'pysod'"),
    (np.full((4, 5), 1.5), MAP, "f3net", "apply a sigmoid"),
    (np.full((4, 5), -0.1, np.float32), MAP, "f3net", r"outside \[0, 1\]"),
    (np.full((4, 5), np.nan), MAP, "f3net", "holds NaN"),
    (torch.full((4, 5), torch.inf), MAP, "f3net", r"outside \[0, 1\]"),
    (MAP, np.full((4, 5), np.nan), "f3net", "the mask holds NaN"),
    (np.zeros((2, 3, 4, 5), np.uint8), MAP, "f3net", r"the map has the shape \(2, 3, 4, 5\)"),
    (np.zeros(5, np.uint8), MAP, "f3net", r"must be \(H, W\)"),
    (np.zeros((2, 4, 5), np.uint8), MAP, "f3net", "2 maps for 1 masks"),
    ([MAP, np.zeros((2, 4, 5), np.uint8)], [MAP, MAP], "f3net", "map 1 of the list"),
    (np.zeros((4, 0), np.uint8), MAP, "f3net", "no pixel"),
    (np.full((4, 5), 256), MAP, "f3net", "the map holds int64 from 256 to 256; it must be uint8 0-255"),
    (np.full((4, 5), -1, np.int8), MAP, "f3net", "the map holds int8 from -1 to -1"),
    (MAP, np.full((4, 5), 70000, np.uint32), "f3net", "the mask holds uint32"),
    (np.full((4, 5), 1.00001), MAP, "f3net", r"outside \[0, 1\]"),
    ([np.zeros((4, 5, 3), np.uint8)], [MAP], "f3net", "take one channel, or its luminance"),
    ([MAP], [np.zeros((4, 5, 4), np.uint8)], "f3net", "mask 0 of the list has the shape"),
]


@pytest.mark.parametrize(("pred", "target", "protocol", "message"), MISTAKES)
def test_a_mistake_is_one_clear_line(pred: Any, target: Any, protocol: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        saliency_scores(pred, target, protocol)
    assert "\n" not in str(caught.value)


def test_a_mask_of_zeros_and_ones_is_told_apart_from_an_empty_one() -> None:
    with pytest.warns(UserWarning, match="0 and 255"):
        saliency_scores(MAP, MAP + 1, "pysod")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mask, protocol in ((MAP, "pysod"), (MAP + 2, "pysod"), (MAP + 255, "pysod"), (MAP + 1, "f3net")):
            saliency_scores(MAP + 3, mask, protocol)


def test_other_mistakes() -> None:
    with pytest.raises(TypeError, match="not complex128"):
        saliency_scores(np.zeros((4, 5), complex), MAP)
    with pytest.raises(ValueError, match="3 names for 1 pictures"):
        saliency_scores(MAP[None], MAP[None], names=["a", "b", "c"])
    with pytest.raises(ValueError, match="unknown protocol"):
        SaliencyMetrics("matlab")
