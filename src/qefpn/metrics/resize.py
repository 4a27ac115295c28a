"""Bicubic resizing of an 8-bit map to the size of its mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image


def resize_map(saliency: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Resize as MATLAB's ``imresize`` does: bicubic with ``a = -0.5``, antialiased when it shrinks.

    Pillow's ``BICUBIC`` has the same kernel and the same antialiasing (OpenCV's has ``a = -0.75`` and none).
    Both protocols use it; a map that has its mask's size already comes back as it is.

    Args:
        saliency: (H, W) uint8.
        size: the (rows, columns) wanted.

    Returns:
        (rows, columns) uint8.

    >>> resize_map(np.full((2, 3), 7, np.uint8), (4, 5)).tolist()[3]
    [7, 7, 7, 7, 7]
    """
    rows, columns = int(size[0]), int(size[1])
    if saliency.shape == (rows, columns):
        return saliency
    resized = Image.fromarray(saliency).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8))
