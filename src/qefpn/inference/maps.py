"""From logits to 8-bit saliency maps at each picture's own size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qefpn.models import QEFPN


def to_maps(logits: Tensor, sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Upsample the logits, then sigmoid, then 8 bits.

    Args:
        logits: (B, 1, h, w), any floating type.
        sizes: (H, W) of each picture.

    Returns:
        One uint8 array (H, W) a picture, 0 to 255: what a saved PNG holds.
    """
    maps = []
    for one, size in zip(logits.float(), sizes, strict=True):
        full = F.interpolate(one[None], size=tuple(int(n) for n in size), mode="bilinear", align_corners=False)
        # in place: three more copies of a photograph of 200 megapixels would be 2.4 GB
        maps.append(full[0, 0].sigmoid_().mul_(255).round_().to(torch.uint8).cpu().numpy())
    return maps


@torch.no_grad()
def predict_maps(
    network: QEFPN, images: Tensor, sizes: Sequence[tuple[int, int]], unroll: int | None = None
) -> list[np.ndarray]:
    """Saliency maps of images (B, 3, H, W), uint8 or floating-point in [0, 1], each at its own size; ``unroll`` as
    :meth:`QEFPN.run` has it."""
    return to_maps(network.run(images, unroll=unroll).logits, sizes)
