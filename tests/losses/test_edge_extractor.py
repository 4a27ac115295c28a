"""The extractor against hand-computed values, kornia and autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from qefpn.losses import EDGE_FILTERS, EdgeExtractor, edges
from qefpn.losses.extractor import EPSILON, edge_kernel

FILTERS = ["frei_chen", "laplacian", "prewitt", "scharr", "sobel"]


def step(height: int = 5, width: int = 6) -> Tensor:
    """Zeros on the left half, ones on the right half."""
    x = torch.zeros(1, 1, height, width)
    x[..., width // 2 :] = 1
    return x


def corner(size: int = 7) -> Tensor:
    """A quarter of ones."""
    x = torch.zeros(1, 1, size, size)
    x[..., size // 2 :, size // 2 :] = 1
    return x


def test_the_registry_lists_every_filter() -> None:
    assert EDGE_FILTERS.names() == FILTERS


@pytest.mark.parametrize("name", FILTERS)
def test_a_straight_step_reads_one_over_root_two(name: str) -> None:
    out = edges(step(), name)
    left = out[0, 0, :, 2]  # the last column of zeros, whose right neighbour is one
    torch.testing.assert_close(left, torch.full((5,), math.sqrt(1 / 2 + EPSILON)))
    assert torch.allclose(out[0, 0, :, 0], torch.tensor(1e-3))  # flat: √ε
    assert torch.allclose(out[0, 0, :, 5], torch.tensor(1e-3))  # the frame makes no edge


@pytest.mark.parametrize(
    ("name", "gx", "gy"),
    # at the zero diagonally outside the quarter, one diagonal weight of each direction sees a one
    [
        ("sobel", 1 / 4, 1 / 4),
        ("prewitt", 1 / 3, 1 / 3),
        ("frei_chen", 1 / (2 + math.sqrt(2)), 1 / (2 + math.sqrt(2))),
        ("scharr", 3 / 16, 3 / 16),
        ("laplacian", 0.0, 0.0),
    ],
)
def test_diagonal_weights_by_hand(name: str, gx: float, gy: float) -> None:
    out = edges(corner(), name)
    expected = math.sqrt((gx**2 + gy**2) / 2 + EPSILON)
    assert out[0, 0, 2, 2].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "largest"),
    [("sobel", 3 / 4), ("prewitt", 2 / 3), ("frei_chen", 1 / math.sqrt(2)), ("scharr", 13 / 16), ("laplacian", 1.0)],
)
def test_a_diagonal_step_is_seen_by_every_filter(name: str, largest: float) -> None:
    """Beside the 1/√2 of a straight step: the paper's reason for Table VI does not hold (docs/reproduction.md)."""
    diagonal = torch.triu(torch.ones(9, 9)).flip(1)[None, None]  # the side that the one-sided difference sees
    assert edges(diagonal, name)[0, 0, 2:7, 2:7].max().item() == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("name", ["sobel", "prewitt", "frei_chen", "scharr"])
def test_the_corner_pixel_itself_by_hand(name: str) -> None:
    rows = EDGE_FILTERS.get(name)()
    side, middle = rows[0][0], rows[1][0]
    # right column minus left column, of which the top diagonal is outside the quarter
    response = (middle + side) / (2 * side + middle)
    out = edges(corner(), name)
    assert out[0, 0, 3, 3].item() == pytest.approx(math.sqrt(response**2 + EPSILON), rel=1e-6)


def test_laplacian_is_the_forward_difference() -> None:
    x = torch.rand(2, 1, 6, 5, dtype=torch.float64)
    out = edges(x, "laplacian")
    dx = x[..., :-1, 1:] - x[..., :-1, :-1]
    dy = x[..., 1:, :-1] - x[..., :-1, :-1]
    torch.testing.assert_close(out[..., :-1, :-1], ((dx**2 + dy**2) / 2 + EPSILON).sqrt())


def test_sobel_agrees_with_kornia() -> None:
    """Kornia normalises by the sum of |weights| (8, not 4), pads by replication too, and keeps no √2."""
    kornia = pytest.importorskip("kornia")
    x = torch.rand(2, 1, 9, 11, dtype=torch.float64)
    theirs = kornia.filters.sobel(x, normalized=True, eps=0.0)
    torch.testing.assert_close(edges(x), (2 * theirs.square() + EPSILON).sqrt())


def test_vertical_is_the_transpose() -> None:
    for name in FILTERS:
        kernel = edge_kernel(name)
        assert torch.equal(kernel[0, 0], kernel[1, 0].T)
        assert kernel.sum().abs() < 1e-12  # a derivative filter ignores a constant
        x = torch.rand(1, 1, 6, 8)
        torch.testing.assert_close(edges(x, name).mT, edges(x.mT, name))


@pytest.mark.parametrize("name", FILTERS)
def test_range_on_binary_masks(name: str) -> None:
    masks = (torch.rand(8, 1, 32, 32) > 0.5).float()
    out = edges(masks, name)
    assert out.min() >= 0 and out.max() <= 1
    assert out.max() > 0.7


def test_a_pixel_with_both_directions_in_full_is_clamped_to_one() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    assert edges(x, "laplacian").max().item() == 1.0  # √(1 + ε) before the clamp


@pytest.mark.parametrize("name", FILTERS)
def test_gradcheck(name: str) -> None:
    x = torch.rand(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: edges(value, name), (x,))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradient_is_finite_where_the_mask_is_flat(value: float) -> None:
    x = torch.full((1, 1, 8, 8), value, requires_grad=True)
    edges(x).sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()


def test_computed_in_float32_under_autocast() -> None:
    x = torch.rand(2, 1, 16, 16)
    extract = EdgeExtractor("sobel")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = extract(x)
        low = extract(x.bfloat16())
    assert out.dtype == low.dtype == torch.float32
    assert torch.equal(out, edges(x))


def test_module_has_nothing_to_train_or_save() -> None:
    extract = EdgeExtractor("scharr")
    assert not list(extract.parameters()) and not extract.state_dict()
    assert extract.double()(torch.rand(1, 1, 4, 4, dtype=torch.float64)).dtype == torch.float64


def test_filters_are_exact_in_double_precision() -> None:
    kernel = edge_kernel("frei_chen")[0, 0]
    assert kernel.dtype == torch.float64
    assert kernel[1, 0].item() == pytest.approx(math.sqrt(2) / (2 + math.sqrt(2)), abs=1e-15)


def test_a_filter_of_another_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 5x5 derivative against SciPy's correlation, with the border replicated."""
    weights = np.outer([1, 4, 6, 4, 1], [1, 2, 0, -2, -1]).astype(float)
    monkeypatch.setattr(EDGE_FILTERS, "get", lambda name: lambda: tuple(map(tuple, weights.tolist())))
    x = np.random.default_rng(0).random((9, 11))
    gx, gy = (scipy.ndimage.correlate(x, w / (16 * 3), mode="nearest") for w in (weights, weights.T))
    expected = np.minimum(np.sqrt((gx**2 + gy**2) / 2 + EPSILON), 1)
    found = edges(torch.from_numpy(x)[None, None], "wide")
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (((1.0, -1.0), (1.0, -1.0)), r"is \(2, 2\); it must be square and odd"),
        (((1.0, 0.0, -1.0),), r"is \(1, 3\); it must be square and odd"),
        ((1.0, 0.0, -1.0), r"is \(3,\); it must be square and odd"),
        ((((1.0,),),), r"is \(1, 1, 1\); it must be square and odd"),
        (((0.0,),), "has no positive weight"),
        (((-1.0,),), "has no positive weight"),
    ],
)
def test_impossible_filters_are_named(rows: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EDGE_FILTERS, "get", lambda name: lambda: rows)
    with pytest.raises(ValueError, match="edge filter 'own' " + message):
        edge_kernel("own")


def test_the_module_says_its_filter() -> None:
    assert repr(EdgeExtractor()) == "EdgeExtractor('sobel')"
    assert repr(EdgeExtractor("scharr")) == "EdgeExtractor('scharr')"


def test_one_pixel_wide() -> None:
    assert edges(torch.rand(1, 1, 7, 1)).shape == (1, 1, 7, 1)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'sobel'.*prewitt"):
        EdgeExtractor("sobl")
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        edges(torch.rand(4, 4))
