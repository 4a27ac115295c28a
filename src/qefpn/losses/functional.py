"""The terms that the objectives are made of, each a scalar: means over pictures.

All of them take ``probabilities`` or ``logits`` and ``target`` of one shape (B, 1, H, W), the target in
[0, 1] and possibly soft, and expect full precision: `qefpn.losses.objectives` sees to it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: a probability that enters a logarithm stays this far from 0 and 1; equals the floor of the edge maps
MARGIN = 1e-3


def mask_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """CE(S, E) of Eq. 15: -E log S - (1 - E) log(1 - S), mean over pixels, stable at any logit."""
    return F.binary_cross_entropy_with_logits(logits, target)


def edge_cross_entropy(predicted: Tensor, target: Tensor) -> Tensor:
    """CE(G(S), G(E)) of Eq. 15 between two edge maps in [0, 1], mean over pixels.

    The prediction is kept `MARGIN` away from 0 and 1, which bounds the slope by 1 / `MARGIN`. Edge maps are
    soft, so a perfect prediction leaves the entropy of the target, not 0.
    """
    predicted = predicted.clamp(MARGIN, 1.0 - MARGIN)
    return -(target * predicted.log() + (1.0 - target) * (1.0 - predicted).log()).mean()


def iou_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """IoU(S, E) of Eq. 15: 1 - (inter + 1) / (union - inter + 1) a picture, mean over pictures.

    ``inter`` is ΣSE and ``union`` ΣS + ΣE; the ones keep an empty mask well defined.
    """
    inter = (probabilities * target).sum(dim=(1, 2, 3))
    union = (probabilities + target).sum(dim=(1, 2, 3))
    return (1.0 - (inter + 1.0) / (union - inter + 1.0)).mean()


def boundary_iou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Overlap of two edge maps: 1 - (2 Σpg + 1) / (Σp² + Σg² + 1) a picture, mean over pictures.

    The boundary term of Luo et al. (CVPR 2017), a Dice coefficient of gradient magnitudes. Squares below
    the line make equal maps score 0 although their values lie between 0 and 1. The paper's Table V calls it
    "weighted IoU loss", its text "boundary-aware IoU loss [21]".
    """
    inter = (predicted * target).sum(dim=(1, 2, 3))
    total = (predicted.square() + target.square()).sum(dim=(1, 2, 3))
    return (1.0 - (2.0 * inter + 1.0) / (total + 1.0)).mean()


def _gaussian(size: int, sigma: float, like: Tensor) -> Tensor:
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return (weights / weights.sum()).to(like)


def ssim(a: Tensor, b: Tensor, size: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity at every pixel, (B, 1, H, W) in [-1, 1], of two maps in [0, 1].

    Wang et al. (2004) with a Gaussian window, C1 = 0.01² and C2 = 0.03². The border is replicated, so that
    maps smaller than the window are allowed.
    """
    window = _gaussian(size, sigma, a)
    maps = torch.cat([a, b, a * a, b * b, a * b])
    maps = F.pad(maps, [size // 2] * 4, mode="replicate")
    maps = F.conv2d(F.conv2d(maps, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
    mean_a, mean_b, square_a, square_b, product = maps.chunk(5)
    luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a.square() + mean_b.square() + 1e-4)
    spread = square_a - mean_a.square() + square_b - mean_b.square()
    structure = (2 * (product - mean_a * mean_b) + 9e-4) / (spread + 9e-4)
    return luminance * structure


def ssim_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 - mean SSIM: the patch term of BASNet's hybrid loss (Qin et al., CVPR 2019)."""
    return 1.0 - ssim(probabilities, target).mean()
