"""The differentiable edge extractor (Sec. III-D of the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qefpn.losses.filters import EDGE_FILTERS, Kernel

#: added under the square root, which has no gradient at 0; a flat region therefore reads √ε = 0.001
EPSILON = 1e-6


def full_precision(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is where it has float64 already."""
    return x if x.dtype == torch.float64 else x.float()


def edge_kernel(filter: str | Kernel) -> Tensor:
    """The pair of normalised filters of a name, or of the rows of the horizontal one: (2, 1, K, K) float64, horizontal
    then vertical.

    Each filter is divided by the sum of its positive weights, so that its response to values in [0, 1] lies
    in [-1, 1] whatever the filter: edge losses of different filters are then of one scale.

    Raises:
        ValueError: no filter has that name, or the filter registered under it is not square and of odd
            size, or has no positive weight.
    """
    name = filter if isinstance(filter, str) else "of your own"
    rows = EDGE_FILTERS.get(filter)() if isinstance(filter, str) else filter
    horizontal = torch.tensor(rows, dtype=torch.float64)
    if horizontal.ndim != 2 or horizontal.shape[0] != horizontal.shape[1] or horizontal.shape[0] % 2 == 0:
        raise ValueError(f"edge filter {name!r} is {tuple(horizontal.shape)}; it must be square and odd")
    scale = horizontal.clamp(min=0).sum()
    if scale <= 0:
        raise ValueError(f"edge filter {name!r} has no positive weight")
    return torch.stack([horizontal, horizontal.T])[:, None] / scale


def gradient_magnitude(x: Tensor, kernel: Tensor) -> Tensor:
    """Edges of ``x`` (B, C, H, W), each channel by itself, by a ``kernel`` from `edge_kernel`.

    G = √((Gx² + Gy²) / 2 + ε), clamped to at most 1: Eq. 13 and 14 with the scale that keeps G in [0, 1].
    The border is replicated, so that the frame of the picture is never an edge: an object that leaves the
    picture has no contour there, neither in the prediction nor in the mask. Computed in float32 (float64
    for float64 input) even under autocast, where ε would vanish.
    """
    if x.ndim != 4:
        raise ValueError(f"edges are taken of a (B, C, H, W) tensor, not of shape {tuple(x.shape)}")
    with torch.autocast(device_type=x.device.type, enabled=False):
        x = full_precision(x)
        batch, channels, height, width = x.shape
        reach = kernel.shape[-1] // 2
        padded = F.pad(x.reshape(batch * channels, 1, height, width), [reach] * 4, mode="replicate")
        gradient = F.conv2d(padded, kernel.to(x))
        magnitude = (gradient.square().mean(dim=1, keepdim=True) + EPSILON).sqrt()
        return magnitude.clamp(max=1.0).reshape(x.shape)


def edges(x: Tensor, filter: str | Kernel = "sobel") -> Tensor:
    """Edges of saliency maps, differentiably. The function under `EdgeExtractor`, which see."""
    return gradient_magnitude(x, edge_kernel(filter))


class EdgeExtractor(nn.Module):
    """Extracts the edges of saliency maps; fixed filters, no parameters, no state to save.

    Args:
        filter: "sobel", "prewitt", "frei_chen", "laplacian" or "scharr"; or the rows of the horizontal filter.

    Shape:
        probabilities in [0, 1], (B, 1, H, W), any floating dtype → edges in [0.001, 1], same shape, float32
        (float64 for float64). A straight axis-parallel step between 0 and 1 reads 1/√2; only a pixel where
        both directions respond in full reads 1.

    Raises:
        ValueError: unknown filter name (the message lists the names), or an input that is not 4-D.

    Source: Eq. 12-14 and 16, normalised as `edge_kernel` and `gradient_magnitude` say.
    """

    kernel: Tensor

    def __init__(self, filter: str | Kernel = "sobel") -> None:
        super().__init__()
        self.name = filter if isinstance(filter, str) else "of your own"
        self.register_buffer("kernel", edge_kernel(filter), persistent=False)

    def forward(self, probabilities: Tensor) -> Tensor:
        return gradient_magnitude(probabilities, self.kernel)

    def extra_repr(self) -> str:
        return repr(self.name)
