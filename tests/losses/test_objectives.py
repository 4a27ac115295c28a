"""Each objective against hand-computed values and independent formulas."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qefpn.errors import UserError
from qefpn.losses import (
    LOSSES,
    boundary_iou_loss,
    build_loss,
    edge_cross_entropy,
    edges,
    iou_loss,
    mask_cross_entropy,
    ssim_loss,
)
from qefpn.losses.functional import MARGIN, ssim

NAMES = ["low_level_edges", "no_edges", "paper", "ssim", "weighted_iou"]
EXTRA_TERM = {
    "low_level_edges": "edge",
    "no_edges": None,
    "paper": "edge",
    "ssim": "ssim",
    "weighted_iou": "boundary_iou",
}


def tensor(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)[None, None]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_names() -> None:
    build_loss("paper")
    assert LOSSES.names() == NAMES


def test_cross_entropy_by_hand() -> None:
    logits = tensor([[0.0, math.log(3.0)]])  # probabilities 1/2 and 3/4
    target = tensor([[1.0, 0.2]])
    expected = (math.log(2) - 0.2 * math.log(0.75) - 0.8 * math.log(0.25)) / 2
    assert mask_cross_entropy(logits, target).item() == pytest.approx(expected, rel=1e-12)


def test_iou_by_hand_and_a_mean_over_pictures() -> None:
    probabilities = torch.cat([tensor([[1.0, 0.5], [0.0, 0.0]]), tensor([[0.0, 0.0], [0.0, 0.0]])])
    target = torch.cat([tensor([[1.0, 1.0], [0.0, 1.0]]), tensor([[0.0, 0.0], [0.0, 0.0]])])
    # first: inter 1.5, union 1.5 + 3 = 4.5 -> 1 - 2.5 / 4; second: both empty -> 0
    assert iou_loss(probabilities, target).item() == pytest.approx((1 - 2.5 / 4) / 2, rel=1e-12)


def test_edge_cross_entropy_by_hand() -> None:
    predicted, target = tensor([[0.25, 1.0]]), tensor([[0.5, 0.0]])
    first = -0.5 * math.log(0.25) - 0.5 * math.log(0.75)
    second = -math.log(MARGIN)  # 1 is kept away from the logarithm of 0
    assert edge_cross_entropy(predicted, target).item() == pytest.approx((first + second) / 2, rel=1e-9)


def test_boundary_iou_by_hand() -> None:
    predicted, target = tensor([[0.5, 0.0]]), tensor([[0.5, 1.0]])
    # inter 0.25, squares 0.25 + 1.25
    assert boundary_iou_loss(predicted, target).item() == pytest.approx(1 - 1.5 / 2.5, rel=1e-12)
    assert boundary_iou_loss(target, target).item() == pytest.approx(0.0, abs=1e-12)
    both = boundary_iou_loss(torch.cat([predicted, target]), torch.cat([target, target]))  # a mean over pictures
    assert both.item() == pytest.approx((1 - 1.5 / 2.5) / 2, rel=1e-12)


def test_ssim_agrees_with_kornia_away_from_the_border() -> None:
    kornia = pytest.importorskip("kornia")
    a, b = torch.rand(2, 2, 1, 24, 26, dtype=torch.float64)
    theirs = kornia.metrics.ssim(a, b, window_size=11, eps=0.0)
    torch.testing.assert_close(ssim(a, b)[..., 5:-5, 5:-5], theirs[..., 5:-5, 5:-5], rtol=1e-6, atol=1e-9)


def test_ssim_by_hand_on_constants() -> None:
    a, b = torch.full((1, 1, 4, 4), 0.25).double(), torch.full((1, 1, 4, 4), 0.75).double()
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)  # no variance: structure is 1
    assert ssim_loss(a, b).item() == pytest.approx(1 - expected, rel=1e-9)
    assert ssim_loss(a, a).item() == pytest.approx(0.0, abs=1e-12)


def test_paper_is_equation_15() -> None:
    logits, target = draw(3, 1, 8, 9), draw(3, 1, 8, 9, seed=1).sigmoid()
    total, terms = build_loss("paper")(logits, target)
    p = logits.sigmoid()
    inter, union = (p * target).sum((1, 2, 3)), (p + target).sum((1, 2, 3))
    expected = (
        F.binary_cross_entropy(edges(p), edges(target))
        + F.binary_cross_entropy(p, target)
        + (1 - (inter + 1) / (union - inter + 1)).mean()
    )
    torch.testing.assert_close(total, expected)
    assert set(terms) == {"ce", "iou", "edge"}
    assert all(not term.requires_grad and term.ndim == 0 for term in terms.values())


@pytest.mark.parametrize("name", NAMES)
def test_terms_and_weights(name: str) -> None:
    logits, target = draw(2, 1, 16, 16), draw(2, 1, 16, 16, seed=1).sigmoid()
    edge_logits = draw(2, 1, 4, 4, seed=2)
    term = EXTRA_TERM[name]
    weights = {"ce": 2.0, "iou": 3.0} | ({term: 5.0} if term else {})
    total, terms = build_loss(name, **weights)(logits, target, edge_logits=edge_logits)
    assert set(terms) == set(weights)
    expected = sum(weight * terms[key].item() for key, weight in weights.items())
    assert total.item() == pytest.approx(expected, rel=1e-12)
    assert all(value > 0 for value in terms.values())


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str) -> None:
    target = (draw(2, 1, 5, 6) > 0).double()
    loss = build_loss(name)
    logits = draw(2, 1, 5, 6, seed=3).requires_grad_()
    side = draw(2, 1, 5, 6, seed=4).requires_grad_()
    edge = draw(2, 1, 3, 3, seed=5).requires_grad_()

    def total(logits: Tensor, side: Tensor, edge: Tensor) -> Tensor:
        value: Tensor = loss(logits, target, side_logits=(side,), edge_logits=edge)[0]
        return value

    assert torch.autograd.gradcheck(total, (logits, side, edge))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_saturated_predictions_have_finite_gradients(name: str, sign: int, filled: float) -> None:
    """Certain and wrong, certain and right, on empty and on full masks, in the dtype of training."""
    logits = torch.full((2, 1, 16, 16), 1e4 * sign)
    logits[0, 0, 4:9, 4:9] *= -1
    logits.requires_grad_()
    target = torch.full((2, 1, 16, 16), filled)
    edge = torch.full((2, 1, 8, 8), 1e4 * sign, requires_grad=True)
    total, _ = build_loss(name)(logits, target, edge_logits=edge)
    total.backward()
    assert torch.isfinite(total) and logits.grad is not None and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_right_prediction_scores_better(name: str) -> None:
    target = torch.zeros(1, 1, 24, 24)
    target[..., 6:18, 8:20] = 1
    right = (target * 2 - 1) * 8
    shifted = right.roll(3, dims=-1)
    edge = edges(target).logit()
    loss = build_loss(name)
    good = loss(right, target, edge_logits=edge)[0]
    bad = loss(shifted, target, edge_logits=edge.roll(3, dims=-1))[0]
    assert good < bad / 2


def test_paper_edges_reward_decided_values() -> None:
    """The claim of Sec. III-D: grey specks inside an object cost more with the edge term."""
    target = torch.zeros(1, 1, 24, 24)
    target[..., 6:18, 6:18] = 1
    specks = (target * 2 - 1) * 6
    specks[..., 10:12, 10:12] = 0.0
    clean = (target * 2 - 1) * 6
    terms = [build_loss("paper")(x, target)[1]["edge"] for x in (specks, clean)]
    assert terms[0] > terms[1] * 1.05


def test_low_level_edges_uses_and_needs_its_own_logits() -> None:
    target = (draw(1, 1, 8, 8) > 0).double()
    loss = build_loss("low_level_edges", edge_filter="prewitt")
    edge = draw(1, 1, 8, 8, seed=1)
    _, terms = loss(draw(1, 1, 8, 8, seed=2), target, edge_logits=edge)
    expected = F.binary_cross_entropy_with_logits(edge, edges(target, "prewitt"))
    torch.testing.assert_close(terms["edge"], expected)
    with pytest.raises(ValueError, match="low_level_edges=True"):
        loss(edge, target)
    with pytest.raises(ValueError, match="edge_logits of shape"):
        loss(edge, target, edge_logits=edge[0])


@pytest.mark.parametrize("size", [(4, 5), (8, 3), (3, 10), (16, 30), (8, 10)])
def test_low_level_edges_of_any_size_are_resized_as_opencv_does(size: tuple[int, int]) -> None:
    """Bilinear between the centres of pixels, along either axis, up and down."""
    target = (draw(2, 1, 8, 10) > 0).double()
    edge = draw(2, 1, *size, seed=1)
    _, terms = build_loss("low_level_edges")(draw(2, 1, 8, 10, seed=2), target, edge_logits=edge)
    resized = [cv2.resize(one[0].numpy(), (10, 8), interpolation=cv2.INTER_LINEAR) for one in edge]
    expected = F.binary_cross_entropy_with_logits(torch.from_numpy(np.stack(resized))[:, None], edges(target))
    torch.testing.assert_close(terms["edge"], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 2, 8, 8), (2, 1, 8), (2, 1, 1, 8, 8)])
def test_low_level_edges_of_another_batch_are_named(shape: tuple[int, ...]) -> None:
    target = torch.zeros(2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"edge_logits of shape \(.*must be \(B, 1, h, w\)"):
        build_loss("low_level_edges")(target, target, edge_logits=torch.zeros(shape))


def test_one_objective_asks_for_edges_of_low_levels() -> None:
    assert [name for name in NAMES if LOSSES.get(name).needs_edge_logits] == ["low_level_edges"]


@pytest.mark.parametrize("name", NAMES)
def test_terms_weigh_one_unless_told_and_sides_half(name: str) -> None:
    logits, target = draw(2, 1, 16, 16), draw(2, 1, 16, 16, seed=1).sigmoid()
    given = {"edge_logits": draw(2, 1, 4, 4, seed=2), "side_logits": [draw(2, 1, 16, 16, seed=3)]}
    total, terms = build_loss(name)(logits, target, **given)
    side = terms.pop("side")
    assert total.item() == pytest.approx(sum(term.item() for term in terms.values()) + 0.5 * side.item(), rel=1e-12)


def test_side_predictions_add_the_mask_terms() -> None:
    logits, target = draw(2, 1, 8, 8), draw(2, 1, 8, 8, seed=1).sigmoid()
    sides = (draw(2, 1, 8, 8, seed=2), draw(2, 1, 8, 8, seed=3))
    alone = build_loss("paper")(logits, target)[0]
    total, terms = build_loss("paper", side=0.25, iou=2.0)(logits, target, side_logits=sides)
    mask = [mask_cross_entropy(side, target) + 2 * iou_loss(side.sigmoid(), target) for side in sides]
    alone = alone + iou_loss(logits.sigmoid(), target)  # iou=2
    torch.testing.assert_close(total, alone + 0.25 * sum(mask))
    torch.testing.assert_close(terms["side"], mask[0] + mask[1])


def test_the_module_says_its_weights() -> None:
    assert "ce=1, iou=2, side=0.5, edge=1" in repr(build_loss("paper", iou=2))


def test_the_edge_filter_matters() -> None:
    logits, target = draw(2, 1, 12, 12), (draw(2, 1, 12, 12, seed=1) > 0).double()
    sobel, laplacian = (build_loss("paper", edge_filter=f)(logits, target)[1] for f in ("sobel", "laplacian"))
    assert sobel["edge"].item() != pytest.approx(laplacian["edge"].item(), rel=1e-3)


def test_autocast_and_half_inputs_are_computed_in_float32() -> None:
    logits, target = draw(2, 1, 16, 16).float(), (draw(2, 1, 16, 16, seed=1) > 0).float()
    for name in NAMES:
        loss = build_loss(name)
        edge = draw(2, 1, 8, 8, seed=2).float()
        plain = loss(logits, target, edge_logits=edge)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under = loss(logits, target, edge_logits=edge)[0]
            half = loss(logits.bfloat16(), target, edge_logits=edge.bfloat16())[0]
        assert under.dtype == half.dtype == torch.float32
        torch.testing.assert_close(under, plain)
        torch.testing.assert_close(half, plain, rtol=2e-2, atol=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'paper'"):
        build_loss("papr")
    with pytest.raises(UserError, match=r"no weight 'edges'; its weights are: ce, iou, side, edge"):
        build_loss("paper", edges=1.0)
    with pytest.raises(UserError, match="ce=-1"):
        build_loss("paper", ce=-1.0)
    for wrong in (True, "1", None):
        with pytest.raises(UserError, match=r"loss\.ce must be a number, not"):
            build_loss("paper", ce=wrong)
    with pytest.raises(UserError, match="no weight 'edge'"):
        build_loss("no_edges", edge=1.0)
    with pytest.raises(ValueError, match=r"logits of shape \(1, 1, 4, 4\)"):
        build_loss("paper")(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
    target = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="side_logits of shape"):
        build_loss("paper")(target, target, side_logits=[torch.zeros(1, 1, 2, 2)])
