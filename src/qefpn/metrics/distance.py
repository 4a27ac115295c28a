"""Distances to the nearest pixel of foreground, exact within 256 px, and which pixel that is."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from qefpn.metrics.inputs import UInt8

UInt16 = npt.NDArray[np.uint16]

REACH = 3
"""How far, in Chebyshev distance, background can lie from the foreground whose window it enters."""

FAR = 65535
"""What :func:`near_squared_distances` gives for every pixel that is 256 px or more away."""

NEAR = 2 * REACH * REACH
"""The largest squared distance of a pixel within that reach."""

PAD = int(NEAR**0.5)
"""The largest coordinate of an offset of that length."""


def near_squared_distances(mask: UInt8) -> UInt16:
    """Squared Euclidean distance of every pixel to the nearest foreground, as far as it matters.

    Args:
        mask: (H, W) uint8 with at least one non-zero pixel.

    Returns:
        (H, W) uint16: 0 in the foreground, exact below 256 px, and :data:`FAR` from there on.

    >>> near_squared_distances(np.array([[0, 0, 255, 0] + 300 * [0]], np.uint8))[0, [0, 3, 257, 258]].tolist()
    [4, 1, 65025, 65535]
    """
    # Intel's transform, which one thread would get, is slower than OpenCV's own and errs ten times as much
    intel = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)  # of the calling thread only
    try:
        background = (mask == 0).view(np.uint8)
        distance = cv2.distanceTransform(background, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    finally:
        cv2.ipp.setUseIPP(intel)
    squared: UInt16 = cv2.multiply(distance, distance, dtype=cv2.CV_16U)  # rounds, and stops at 65535
    return squared


def _nearest_offsets() -> npt.NDArray[np.int64]:
    """(19, 8, 2) for each squared distance up to 18 the (row, column) offsets of that length.

    They come in the order in which scipy prefers equally near pixels: by column, then by row. Places left
    over repeat the first offset.
    """
    table = np.zeros((NEAR + 1, 8, 2), np.int64)
    reach = range(-PAD, PAD + 1)
    for length in range(1, NEAR + 1):
        offsets = [(row, column) for column in reach for row in reach if row**2 + column**2 == length]
        if offsets:
            table[length] = offsets + offsets[:1] * (8 - len(offsets))
    return table


OFFSETS = _nearest_offsets()
"""Where to look for the nearest foreground, in which order, by its squared distance."""


def lend_to_background(saliency: UInt8, squared: UInt16) -> UInt8:
    """Give each pixel of background near the foreground the value of its nearest pixel of foreground.

    Args:
        saliency: (H, W) uint8.
        squared: (H, W) squared distances to the foreground, of :func:`near_squared_distances`.

    Returns:
        (H, W): ``saliency``, and in the background within :data:`REACH` of the foreground the value of the nearest
        (ties by scipy's rule). It is of use nowhere else.
    """
    border = (PAD, PAD, PAD, PAD, cv2.BORDER_CONSTANT)
    filled = cv2.copyMakeBorder(saliency, *border)
    wide = filled.shape[1]
    lengths = cv2.copyMakeBorder(squared, *border, value=FAR).reshape(-1)
    flat = filled.reshape(-1)
    place = np.flatnonzero(lengths - np.uint16(1) < NEAR)  # 0 wraps to 65535
    length = lengths[place].astype(np.intp)
    for steps in (OFFSETS[..., 0] * wide + OFFSETS[..., 1]).T:
        source = place + steps[length]
        flat[place] = flat[source]  # where the source is background it is written again
        miss = np.flatnonzero(lengths[source])
        if len(miss) == 0:
            break
        place, length = place[miss], length[miss]
    lent: UInt8 = filled[PAD:-PAD, PAD:-PAD]
    return lent
