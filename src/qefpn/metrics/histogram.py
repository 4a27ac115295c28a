"""The joint histogram value x mask x quadrant of an 8-bit map: all that most saliency metrics need of it.

MAE, the F-measures, the precision-recall curve, the S- and E-measures, the binary ratio and the adaptive
threshold are functions of 2048 counts, so that the pixels are read once and a batch of pictures of mixed
sizes becomes one array. Where exact arithmetic meets a tie (a level that equals the adaptive threshold, a
quadrant of one value), the rounding of the field's own sums decides the score: those rare cases are summed
again over the pixels in NumPy's order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from qefpn.metrics.inputs import UInt8

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_UNIT = np.arange(256) / 255
_INSIDE, _LOWER = np.uint8(1), np.uint8(1 << 4)
_CODE, _CODES = np.dtype("<u2"), 1 << 13
_EXACT_IN_FLOAT32 = 1 << 24  # OpenCV counts in float32, which holds every integer up to here


@dataclass(frozen=True)
class JointHistogram:
    """Counts of a batch of B pictures.

    Args:
        counts: (B, 2, 4, 256) pixels by mask (background, foreground), quadrant (upper left, upper right,
            lower left, lower right) and 8-bit value.
        sizes: (B, 2) rows and columns.
        split: (B, 2) rows and columns of the upper-left quadrant, the centroid's own included.
        levels: (B, 256) the value in [0, 1] that an 8-bit value has after the picture's min-max.
        mean: (B,) mean of the map after min-max.
        blank: (B,) pictures whose scores are all 0 under the protocol.
    """

    counts: Int
    sizes: Int
    split: Int
    levels: Float
    mean: Float
    blank: Bool

    @cached_property
    def by_mask(self) -> Int:
        """(B, 2, 256) counts by mask and value."""
        return self.counts.sum(axis=2)

    @cached_property
    def pixels(self) -> Int:
        """(B,) pixels a picture."""
        return self.sizes[:, 0] * self.sizes[:, 1]

    @cached_property
    def positives(self) -> Int:
        """(B,) pixels of foreground."""
        return self.by_mask[:, 1].sum(axis=1)

    @cached_property
    def above(self) -> Int:
        """(B, 2, 256) pixels by mask at or above each threshold; index 0 is the threshold 255.

        A pixel's value is ``floor(255 * x)`` of its level x after min-max, as the field counts it.
        """
        batch = len(self.counts)
        bins = (np.clip(self.levels, 0, 1) * 255).astype(np.uint8).astype(np.int64)
        place = (np.arange(batch * 2) * 256).reshape(batch, 2, 1) + bins[:, None, :]
        # float64 sums of integers are exact far beyond any picture's size
        binned = np.bincount(place.ravel(), weights=self.by_mask.ravel(), minlength=batch * 512)
        return binned.astype(np.int64).reshape(batch, 2, 256)[:, :, ::-1].cumsum(axis=2)

    def at_adaptive_threshold(self, strict: bool) -> tuple[Int, Int]:
        """(B,) pixels of foreground and of background selected by the threshold ``min(2 * mean, 1)``.

        Args:
            strict: select with ``>``, and then without the upper bound of 1 (which would change nothing).
        """
        threshold = 2 * self.mean
        if strict:
            selected = self.levels > threshold[:, None]
        else:
            selected = self.levels >= np.minimum(threshold, 1)[:, None]
        chosen = (self.by_mask * selected[:, None]).sum(axis=2)
        return chosen[:, 1], chosen[:, 0]


def min_max_levels(low: int, high: int) -> Float:
    """(256,) the level after min-max of each 8-bit value, of a map whose extremes are ``low`` and ``high``.

    The operations come in PySODMetrics' order, so that every level is its to the last bit. A constant map is
    not normalised. Values outside the extremes get levels outside [0, 1]; no pixel has them.

    >>> min_max_levels(10, 20)[[10, 15, 20]].tolist()
    [0.0, 0.5, 1.0]
    """
    if low == high:
        return _UNIT
    return (_UNIT - _UNIT[low]) / (_UNIT[high] - _UNIT[low])


def count(saliency: UInt8, mask: UInt8, matlab: bool, counts: Int) -> tuple[int, int]:
    """Count one picture, from one histogram of 16-bit codes.

    The high byte of a code tells mask (bit 0), right half (bit 3), lower half (bit 4) and, in bits 1 and 2, the column
    modulo 4. That last part means nothing: it spreads neighbours of one value, of which a saliency map is full, over
    four bins, since adding to a bin that has just been written makes a processor wait.

    Args:
        saliency: (H, W) uint8.
        mask: (H, W) uint8, 255 in the foreground.
        matlab: how :func:`centroid_split` rounds.
        counts: (2, 4, 256) int64, filled, as in :class:`JointHistogram`.

    Returns:
        the split.
    """
    split = centroid_split(mask, matlab)
    rows, columns = mask.shape
    across = np.arange(columns)
    pattern = ((across % 4) << 1 | (across >= split[1]) << 3).astype(np.uint8)
    high = mask & _INSIDE
    high |= pattern
    high[split[0] :] |= _LOWER
    codes = cv2.merge((saliency, high)).view(_CODE)
    step = max(1, _EXACT_IN_FLOAT32 // columns)
    total = np.zeros(_CODES, np.int64)
    for top in range(0, rows, step):
        total += cv2.calcHist([codes[top : top + step]], [0], None, [_CODES], [0, _CODES])[:, 0].astype(np.int64)
    # (quadrant, column modulo 4, mask, value)
    counts[:] = total.reshape(4, 4, 2, 256).sum(axis=1).transpose(1, 0, 2)
    return split


def centroid_split(mask: UInt8, matlab: bool) -> tuple[int, int]:
    """Rows and columns of the upper-left quadrant: the 1-based centroid of the foreground.

    Args:
        mask: (H, W) uint8, 255 in the foreground.
        matlab: round halves away from zero on 1-based coordinates; else halves to even on 0-based ones.

    Returns:
        the whole picture's size where there is no foreground (the S-measure then has no use for quadrants).

    >>> centroid_split(np.array([[255, 255, 0]], np.uint8), matlab=True)
    (1, 2)
    >>> centroid_split(np.array([[255, 255, 0]], np.uint8), matlab=False)
    (1, 1)
    """
    kind = cv2.CV_32S if max(mask.shape) < 1 << 22 else cv2.CV_64F  # int32 holds 255 times the longest side
    by_row = cv2.reduce(mask, 1, cv2.REDUCE_SUM, dtype=kind)[:, 0].astype(np.int64) // 255
    by_column = cv2.reduce(mask, 0, cv2.REDUCE_SUM, dtype=kind)[0].astype(np.int64) // 255
    total = int(by_row.sum())
    if total == 0:
        return mask.shape[0], mask.shape[1]
    split = []
    for line in (by_row, by_column):
        weighted = int(line @ np.arange(len(line)))
        if matlab:
            split.append((2 * (weighted + total) + total) // (2 * total))
        else:
            split.append(round(weighted / total) + 1)
    return split[0], split[1]


def _ties(total: Int, low: Int) -> Bool:
    """Where a pixel's level equals twice the mean exactly, so that rounding decides on which side it is.

    Args:
        total: (B, 256) pixels by value.
        low: (B,) the smallest value.

    Returns:
        (B,); a constant map has none, its sum being exact or far from a tie.
    """
    above = np.arange(256) - low[:, None]
    twice = 2 * (total * above).sum(axis=1)
    tied = (total > 0) & (total.sum(axis=1)[:, None] * above == twice[:, None])
    return tied.any(axis=1) & (twice > 0)


def of_counts(counts: Int, sizes: Int, split: Int, blank: Bool, pixels: Callable[[int], UInt8]) -> JointHistogram:
    """A :class:`JointHistogram` from what has been counted.

    Args:
        counts: (B, 2, 4, 256), as in the result.
        sizes: (B, 2).
        split: (B, 2).
        blank: (B,).
        pixels: gives the map of a picture, for the rare ones whose mean rounding decides.
    """
    batch = len(counts)
    total = counts.sum(axis=(1, 2))
    low, high = (total > 0).argmax(axis=1), 255 - (total[:, ::-1] > 0).argmax(axis=1)
    levels = np.array([min_max_levels(*ends) for ends in zip(low, high, strict=True)]).reshape(batch, 256)
    mean = (total * levels).sum(axis=1) / total.sum(axis=1)
    for i in np.flatnonzero(_ties(total, low)):
        mean[i] = levels[i][pixels(int(i))].mean()
    return JointHistogram(counts, sizes, split, levels, mean, blank)
