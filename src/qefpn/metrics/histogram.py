"""The joint histogram value x mask x quadrant of an 8-bit map: all that most saliency metrics need of it.

MAE, the F-measures, the precision-recall curve, the S- and E-measures, IoU and its kind, the binary ratio and the
adaptive threshold are functions of 2048 counts, so that the pixels are read once and a batch of pictures of mixed sizes
becomes one array. Where exact arithmetic meets a tie (a level that equals the adaptive threshold, a quadrant of one
value), the rounding of the field's own sums decides the score: those rare cases are summed again over the pixels in the
protocol's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from qefpn.metrics.compiled import BYTES, compiled
from qefpn.metrics.inputs import Picture
from qefpn.metrics.protocol import Bool, Float, Int, Protocol, levels_of

_EDGES = np.arange(256) / 255


@dataclass(frozen=True)
class JointHistogram:
    """Counts of a batch of B pictures.

    Args:
        counts: (B, 2, 4, 256) pixels by mask (background, foreground), quadrant (upper left, upper right, lower left,
            lower right) and 8-bit value.
        sizes: (B, 2) rows and columns.
        split: (B, 2) rows and columns of the upper-left quadrant, the centroid's own included.
        ends: (B, 2) smallest and largest value.
        levels: (B, 256) the level in [0, 1] of an 8-bit value.
        mean: (B,) mean level.
        bins: (B, 256) the largest of the thresholds 0 to 255 that a value reaches.
        cuts: (B, 3) the smallest value selected at the adaptive threshold of the F-measure, at that of the E-measure,
            and by a level above 0.5; more than 255 where none is.
        blank: (B,) pictures whose scores are all 0 under the protocol.
        values: (K,) of the one map, where it is not of 8 bits: K stands for 256 everywhere then, and ``ends`` are its.
    """

    counts: Int
    sizes: Int
    split: Int
    ends: npt.NDArray[Any]
    levels: Float
    mean: Float
    bins: npt.NDArray[np.uint8]
    cuts: Int
    blank: Bool
    values: Float | None = None

    @cached_property
    def total(self) -> Int:
        """(B, 256) pixels by value."""
        return self.counts.sum(axis=(1, 2))

    @cached_property
    def pixels(self) -> Int:
        """(B,) pixels a picture."""
        return self.sizes[:, 0] * self.sizes[:, 1]

    @cached_property
    def positives(self) -> Int:
        """(B,) pixels of foreground."""
        return self.counts[:, 1].sum(axis=(1, 2))


@compiled()
def _centroid(mask, matlab):  # type: ignore[no-untyped-def]
    """Rows and columns of the upper-left quadrant: the 1-based centroid of the foreground, or the whole size where
    there is none (the S-measure then has no use for quadrants)."""
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
def count(saliency, mask, matlab, counts):  # type: ignore[no-untyped-def]
    """Count one picture.

    Args:
        saliency: (H, W) uint8.
        mask: (H, W) uint8, 255 in the foreground.
        matlab: round halves of the centroid away from zero on 1-based coordinates; else to even on 0-based ones.
        counts: (2, 4, 256) int64, filled, as in :class:`JointHistogram`.

    Returns:
        the split.
    """
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


def joint_histogram(pictures: Sequence[Picture], protocol: Protocol) -> JointHistogram:
    """Read the pixels of B pictures, of any sizes, into one :class:`JointHistogram`; of one that is not of 8 bits."""
    if pictures and pictures[0].values is not None:
        (picture,) = pictures
        return _of_floats(picture, pictures[0].values, protocol)
    batch = len(pictures)
    counts = np.empty((batch, 2, 4, 256), np.int64)
    sizes = np.array([picture.mask.shape for picture in pictures], np.int64).reshape(batch, 2)
    split = np.empty((batch, 2), np.int64)
    for i, picture in enumerate(pictures):
        split[i] = count(picture.saliency, picture.mask, protocol.matlab_centroid, counts[i])
    blank = np.array([picture.blank for picture in pictures], np.bool_)
    total = counts.sum(axis=(1, 2))
    there = total > 0
    ends = np.empty((batch, 2), np.int64)
    ends[:, 0], ends[:, 1] = there.argmax(axis=1), 255 - there[:, ::-1].argmax(axis=1)
    levels, bins = np.empty((batch, 256)), np.empty((batch, 256), np.uint8)
    cuts = np.empty((batch, 3), np.int64)
    for i, (low, high) in enumerate(ends.tolist()):
        levels[i], bins[i], cuts[i, 2] = _scale_of_bytes(low, high, protocol)
    mean = (total * levels).sum(axis=1) / total.sum(axis=1)
    for i, twice in enumerate((2 * mean).tolist()):
        cuts[i, :2] = _adaptive_cuts(levels[i], twice, levels[i], twice, protocol)
    for i in np.flatnonzero(_ties(total, ends, protocol)):
        mean[i], cuts[i, :2] = _decide(pictures[int(i)], levels[i], protocol)
    return JointHistogram(counts, sizes, split, ends, levels, mean, bins, cuts, blank)


def _of_floats(picture: Picture, values: Float, protocol: Protocol) -> JointHistogram:
    """The histogram of a map of K values, in which nothing is rounded; sums over its pixels decide adaptive cuts."""
    height, width = picture.mask.shape
    unused = np.empty((2, 4, 256), np.int64)
    split = count(np.zeros_like(picture.mask), picture.mask, protocol.matlab_centroid, unused)
    quadrant = 2 * (np.arange(height) >= split[0])[:, None] + (np.arange(width) >= split[1])
    places = ((picture.mask > 0) * 4 + quadrant) * len(values) + picture.saliency
    counts = np.bincount(places.ravel(), minlength=8 * len(values)).reshape(1, 2, 4, -1)
    ends = values[[0, -1]]
    levels, bins, half = _scale(float(ends[0]), float(ends[1]), protocol, values)
    mean, cuts = _decide(picture, levels, protocol)
    return JointHistogram(
        counts, np.array([[height, width]]), np.array([split]), ends[None], levels[None], np.array([mean]),
        bins[None], np.array([[*cuts, half]]), np.array([picture.blank]), values,
    )  # fmt: skip


def _scale(
    low: float, high: float, protocol: Protocol, values: Float | None = None
) -> tuple[Float, npt.NDArray[np.uint8], int]:
    """Levels, bins and the cut at a level above 0.5, which a map's extremes (and its values, not of 8 bits) decide."""
    levels = levels_of(low, high, protocol, values)
    if protocol.bins == "floor":
        bins = levels.clip(0, 1) * 255
    else:
        bins = np.searchsorted(_EDGES, levels.clip(0, 1), side="right") - 1
    return levels, bins.astype(np.uint8), int(levels.searchsorted(0.5, side="right"))


_scale_of_bytes = lru_cache(1024)(_scale)


def _adaptive_cuts(levels: Float, twice: float, of_e: Float, twice_of_e: float, protocol: Protocol) -> tuple[int, int]:
    """The smallest value selected at the adaptive threshold of F and of E; levels never fall from value to value."""
    side, threshold = ("right", twice_of_e) if protocol.strict_e else ("left", min(twice_of_e, 1.0))
    return int(levels.searchsorted(min(twice, 1.0))), int(of_e.searchsorted(threshold, side=side))  # type: ignore[call-overload]


def _ties(total: Int, ends: Int, protocol: Protocol) -> Bool:
    """Where a pixel's level equals twice the mean exactly, so that rounding decides on which side it is.

    Args:
        total: (B, 256) pixels by value.
        ends: (B, 2) the smallest and the largest value.

    Returns:
        (B,); a map of one value has none, its sum being exact or far from a tie.
    """
    zero = np.zeros_like(ends[:, :1]) if protocol.levels == "maximum" else ends[:, :1]
    above = np.arange(256) - zero
    twice = 2 * (total * above).sum(axis=1)
    tied = (total > 0) & (total.sum(axis=1)[:, None] * above == twice[:, None])
    return tied.any(axis=1) & (twice > 0) & (ends[:, 0] < ends[:, 1])


def mean_in_order(values: Float, protocol: Protocol) -> float:
    """Mean of (H, W) as the protocol's own code adds: column by column one after the other, or as NumPy does."""
    if not protocol.column_sums:
        return float(values.mean())
    return float(np.cumsum(values.T.ravel())[-1] / values.size) if values.size else float("nan")


def _decide(picture: Picture, levels: Float, protocol: Protocol) -> tuple[float, tuple[int, int]]:
    """The mean, and the cuts of F and E, with the protocol's own rounding."""
    mean = mean_in_order(levels[picture.saliency], protocol)
    of_e, twice = levels, 2 * mean
    if protocol.e_again and mean > 0:  # the largest level may miss 1 by a rounding
        of_e = levels * (1 / levels[picture.saliency.max()])
        twice = 2 * mean_in_order(of_e[picture.saliency], protocol)
    return mean, _adaptive_cuts(levels, 2 * mean, of_e, twice, protocol)
