"""The joint histogram of a picture, compiled."""

from __future__ import annotations

import numba
import numpy as np

from qefpn.metrics.histogram import Int
from qefpn.metrics.inputs import UInt8
from qefpn.metrics.numba_compile import BYTES, compiled


@compiled()
def _centroid(mask, matlab):  # type: ignore[no-untyped-def]
    """As ``histogram.centroid_split``."""
    height, width = mask.shape
    total, down, across = np.int64(0), np.int64(0), np.int64(0)
    for row in range(height):
        inside = mask[row]
        number, places = np.int32(0), np.int64(0)
        for c in range(width):
            number += np.int32(inside[c] & 1)
            places += np.int64(np.int32(c) if inside[c] else np.int32(0))
        total += number
        down += row * np.int64(number)
        across += places
    if total == 0:
        return height, width
    if matlab:
        return (2 * (down + total) + total) // (2 * total), (2 * (across + total) + total) // (2 * total)
    return np.int64(np.rint(down / total)) + 1, np.int64(np.rint(across / total)) + 1


@compiled()
def _count_part(saliency, mask, top, bottom, left, right, bins):  # type: ignore[no-untyped-def]
    """Count a quadrant into four sets of bins, since adding to a bin that has just been written makes a processor
    wait, and neighbours are often equal."""
    whole = (right - left) // 4 * 4
    b0, b1, b2, b3 = bins[0], bins[1], bins[2], bins[3]
    for row in range(top, bottom):
        values, inside = saliency[row, left:right], mask[row, left:right]
        for c in range(0, whole, 4):
            b0[inside[c] & 1, values[c]] += np.uint32(1)
            b1[inside[c + 1] & 1, values[c + 1]] += np.uint32(1)
            b2[inside[c + 2] & 1, values[c + 2]] += np.uint32(1)
            b3[inside[c + 3] & 1, values[c + 3]] += np.uint32(1)
        for c in range(whole, right - left):
            b0[inside[c] & 1, values[c]] += np.uint32(1)


@compiled(numba.types.UniTuple(numba.int64, 2)(BYTES, BYTES, numba.boolean, numba.int64[:, :, ::1]))
def _count(saliency, mask, matlab, counts):  # type: ignore[no-untyped-def]
    height, width = mask.shape
    upper, left = _centroid(mask, matlab)
    bins = np.empty((4, 2, 256), np.uint32)
    for quadrant in range(4):
        top, bottom = (0, upper) if quadrant < 2 else (upper, height)
        start, stop = (0, left) if quadrant % 2 == 0 else (left, width)
        bins[:] = 0
        _count_part(saliency, mask, top, bottom, start, stop, bins)
        for side in range(2):
            for value in range(256):
                number = np.int64(bins[0, side, value]) + np.int64(bins[1, side, value])
                counts[side, quadrant, value] = number + np.int64(bins[2, side, value]) + np.int64(bins[3, side, value])
    return upper, left


def count(saliency: UInt8, mask: UInt8, matlab: bool, counts: Int) -> tuple[int, int]:
    """As ``histogram.count``."""
    split: tuple[int, int] = _count(saliency, mask, matlab, counts)
    return split
