"""Weighted F-measure (Margolin et al., CVPR 2014)."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np

from qefpn.metrics.distance import FAR, REACH, UInt16, lend_to_background, near_squared_distances
from qefpn.metrics.histogram import Float
from qefpn.metrics.inputs import UInt8
from qefpn.metrics.protocol import EPS

Number = TypeVar("Number", float, Float)

_SIGMA = 5.0
GAUSS = np.exp(-(np.arange(-REACH, REACH + 1.0) ** 2) / (2 * _SIGMA**2))
GAUSS /= GAUSS.sum()
"""(7,) one side of the separable window."""

_DECAY = np.log(0.5) / 5
WEIGHTS = 2 - np.exp(_DECAY * np.sqrt(np.arange(FAR + 1))) - (np.arange(FAR + 1) == 0)
"""The weight of an error in the background by squared distance, 0 in the foreground; from 256 px on it is 2 to within
4e-16."""
_SPARSE = 4  # below one false pixel in so many, gathering them is faster than computing everywhere
_STRIP = 1 << 14


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
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        return 0.0
    lowest = np.uint8(np.count_nonzero(levels <= 0))
    false = cv2.bitwise_and((saliency >= lowest).view(np.uint8), cv2.bitwise_not(mask))
    # the window that holds the foreground, its surroundings and every false pixel: distances inside are exact
    window = _box(left, top, width, height, mask.shape)
    x, y, columns, rows = cv2.boundingRect(false)
    if columns:
        right, bottom = max(left + width, x + columns), max(top + height, y + rows)
        x, y = min(left, x), min(top, y)
        window = _box(x, y, right - x, bottom - y, mask.shape)
    saliency, mask, false = saliency[window], mask[window], false[window]
    squared = near_squared_distances(mask)
    false_sum = _false_sum(saliency, false, squared, levels)

    near = _box(left - window[1].start, top - window[0].start, width, height, mask.shape)
    near_mask = mask[near]
    spread = cv2.LUT(lend_to_background(saliency[near], squared[near]), 1 - levels)
    mean = cv2.sepFilter2D(spread, cv2.CV_64F, GAUSS, GAUSS, borderType=cv2.BORDER_CONSTANT)
    missed = cv2.mean(cv2.min(spread, mean), near_mask)[0]  # of the foreground, whose own values spread keeps

    return weighted_f_of_errors(missed, false_sum, float(cv2.countNonZero(near_mask)))


def weighted_f_of_errors(missed: Number, false_sum: Number, positives: Number) -> Number:
    """The measure from its two errors, of one picture or of many.

    Args:
        missed: mean weighted error of the foreground.
        false_sum: sum of the weighted errors of the background.
        positives: pixels of foreground, at least 1.
    """
    recall = 1 - missed
    hit_sum = positives * recall
    precision = hit_sum / (hit_sum + false_sum + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


def _false_sum(saliency: UInt8, false: UInt8, squared: UInt16, levels: Float) -> float:
    """Sum over the false pixels of level times weight; the arrays are views of one window, ``false`` of 0 and 1."""
    if cv2.countNonZero(false) * _SPARSE < false.size:
        wrong = np.flatnonzero(false.view(np.bool_))
        return float(levels[saliency.reshape(-1)[wrong]] @ WEIGHTS[squared.reshape(-1)[wrong]])
    lowest = np.uint8(np.count_nonzero(levels <= 0) - 1)
    total = 0.0
    step = max(1, _STRIP // false.shape[1])
    for first in range(0, false.shape[0], step):  # strips stay in a processor's cache
        strip = slice(first, first + step)
        # no selection: the value is 0 where a false pixel is not, or the weight is, in the foreground
        values = (saliency[strip] - lowest).astype(np.float64)
        total += float(values.reshape(-1) @ cv2.LUT(squared[strip], WEIGHTS).reshape(-1))
    return total * float(levels[255] - levels[0]) / 255  # a level is the value above the lowest, to scale


def _box(x: int, y: int, width: int, height: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The slices of a rectangle widened by :data:`REACH`, within a picture of that shape."""
    rows = slice(max(y - REACH, 0), min(y + height + REACH, shape[0]))
    return rows, slice(max(x - REACH, 0), min(x + width + REACH, shape[1]))
