"""Weighted F-measure (Margolin et al., CVPR 2014)."""

from __future__ import annotations

import cv2
import numpy as np

from qefpn.metrics.distance import REACH, fill_near_background, squared_distances
from qefpn.metrics.histogram import Float
from qefpn.metrics.inputs import UInt8
from qefpn.metrics.protocol import EPS

_SIGMA = 5.0
_GAUSS = np.exp(-(np.arange(-REACH, REACH + 1.0) ** 2) / (2 * _SIGMA**2))
_GAUSS /= _GAUSS.sum()
_DECAY = np.log(0.5) / 5


def weighted_f_measure(saliency: UInt8, mask: UInt8, levels: Float) -> float:
    """``2 P R / (P + R + eps)`` with precision and recall from weighted errors.

    The error of a pixel of foreground is the smaller of its own, ``E = |S - G|``, and the Gaussian mean
    (7 x 7, sigma 5, zero outside the picture) of its neighbours', where a pixel of background lends the error
    of the foreground nearest to it. An error in the background weighs ``2 - exp(ln(0.5) / 5 * d)``, d its
    distance to the foreground. So only background within 3 px of the foreground has to know which pixel is
    nearest, and distances matter only where the map is not 0 in the background.

    Args:
        saliency: (H, W) uint8.
        mask: (H, W) uint8, 255 in the foreground.
        levels: (256,) the level in [0, 1] of each 8-bit value.

    Returns:
        a score in [0, 1]; 0 for an empty mask.
    """
    lowest = np.uint8(np.count_nonzero(levels <= 0))
    false = ((saliency >= lowest) & (mask == 0)).view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return 0.0
    # the window that holds the foreground, its surroundings and every false pixel: distances inside are exact
    window = _box(left, top, width, height, mask.shape)
    if cv2.countNonZero(false):
        other = cv2.boundingRect(false)
        right, bottom = max(left + width, other[0] + other[2]), max(top + height, other[1] + other[3])
        x, y = min(left, other[0]), min(top, other[1])
        window = _box(x, y, right - x, bottom - y, mask.shape)
    saliency, mask, false = saliency[window], mask[window], false[window]
    squared = squared_distances(mask)

    wrong = np.flatnonzero(false.view(np.bool_))
    distance = np.sqrt(squared.reshape(-1)[wrong].astype(np.float64))
    false_sum = (levels[saliency.reshape(-1)[wrong]] * (2 - np.exp(_DECAY * distance))).sum()

    near = _box(left - window[1].start, top - window[0].start, width, height, mask.shape)
    near_mask = np.ascontiguousarray(mask[near])
    error = cv2.LUT(saliency[near], 1 - levels)
    spread = fill_near_background(error, near_mask, squared[near])
    mean = cv2.sepFilter2D(spread, cv2.CV_64F, _GAUSS, _GAUSS, borderType=cv2.BORDER_CONSTANT)
    inside = np.flatnonzero(near_mask != 0)
    missed = np.minimum(error.reshape(-1)[inside], mean.reshape(-1)[inside]).sum()

    positives = len(inside)
    hit_sum = positives - missed
    precision = hit_sum / (hit_sum + false_sum + EPS)
    recall = 1 - missed / positives
    return float(2 * recall * precision / (recall + precision + EPS))


def _box(x: int, y: int, width: int, height: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The slices of a rectangle widened by :data:`REACH`, within a picture of that shape."""
    rows = slice(max(y - REACH, 0), min(y + height + REACH, shape[0]))
    return rows, slice(max(x - REACH, 0), min(x + width + REACH, shape[1]))
