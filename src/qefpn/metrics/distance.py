"""Distances to the nearest pixel of foreground, exact, and which pixel that is."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from qefpn.metrics.inputs import UInt8

REACH = 3
"""How far, in Chebyshev distance, background can lie from the foreground whose window it enters."""

_FAR = 2 * REACH * REACH  # the largest squared distance of a pixel within that reach
_PAD = int(_FAR**0.5)  # no coordinate of an offset of that length is larger
_EXACT = 300.0
"""OpenCV's float32 distances, squared and rounded, are exact up to here. Its way on one thread errs by up to 7e-7 of
the distance, which is 0.13 of a square there; at 800 it is enough to round wrongly."""


def squared_distances(mask: UInt8) -> npt.NDArray[np.float64] | npt.NDArray[np.float32]:
    """Squared Euclidean distance of every pixel to the nearest foreground.

    Args:
        mask: (H, W) uint8 with at least one non-zero pixel.

    Returns:
        (H, W) floats that hold integers, 0 in the foreground.

    >>> squared_distances(np.array([[0, 0, 255, 0]], np.uint8)).tolist()
    [[4.0, 1.0, 0.0, 1.0]]
    """
    background = (mask == 0).view(np.uint8)
    distance = cv2.distanceTransform(background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if distance.max() > _EXACT:
        return np.rint(distance_transform_edt(background) ** 2)
    return np.rint(cv2.multiply(distance, distance))


def _nearest_offsets() -> npt.NDArray[np.int64]:
    """(19, 8, 2) for each squared distance up to 18 the (row, column) offsets of that length.

    They come in the order in which scipy prefers equally near pixels: by column, then by row. Places left
    over repeat the first offset.
    """
    table = np.zeros((_FAR + 1, 8, 2), np.int64)
    reach = range(-_PAD, _PAD + 1)
    for length in range(1, _FAR + 1):
        offsets = [(row, column) for column in reach for row in reach if row**2 + column**2 == length]
        if offsets:
            table[length] = offsets + offsets[:1] * (8 - len(offsets))
    return table


_OFFSETS = _nearest_offsets()


def fill_near_background(
    values: npt.NDArray[np.float64], mask: UInt8, squared: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Give each pixel of background near the foreground the value of its nearest pixel of foreground.

    Args:
        values: (H, W) values; only those of the foreground are read.
        mask: (H, W) uint8, non-zero in the foreground.
        squared: (H, W) squared distances to the foreground.

    Returns:
        (H, W): the values in the foreground, those of the nearest foreground within :data:`REACH` of it
        (ties by scipy's rule) and 0 or the like further away.
    """
    rows, columns = mask.shape
    wide = columns + 2 * _PAD
    inner = slice(_PAD, -_PAD), slice(_PAD, -_PAD)
    inside = np.zeros((rows + 2 * _PAD, wide), np.bool_)
    inside[inner] = mask
    lengths = np.zeros(inside.shape, squared.dtype)
    lengths[inner] = squared
    filled = np.zeros(inside.shape)
    np.multiply(values, inside[inner], out=filled[inner])
    flat_inside, flat = inside.reshape(-1), filled.reshape(-1)

    place = np.flatnonzero(((lengths <= _FAR) & (lengths > 0)).reshape(-1))
    length = lengths.reshape(-1)[place].astype(np.intp)
    for steps in (_OFFSETS[..., 0] * wide + _OFFSETS[..., 1]).T:
        source = place + steps[length]
        hit = flat_inside[source]
        flat[place] = flat[source]  # a miss reads 0 or a neighbour's loan, and is written again
        miss = np.flatnonzero(~hit)
        if len(miss) == 0:
            break
        place, length = place[miss], length[miss]
    return np.ascontiguousarray(filled[inner])
