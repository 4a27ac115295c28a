"""S-measure, the structural similarity of a map with its mask (Fan et al., ICCV 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qefpn.metrics.histogram import Bool, Float, JointHistogram
from qefpn.metrics.protocol import EPS

ALPHA = 0.5
"""The weight of the object part against the region part."""


def s_measure(histogram: JointHistogram, clamp: bool) -> Float:
    """``S = alpha * object + (1 - alpha) * region`` with alpha = 0.5.

    The object part compares the map's mean and deviation (divisor n - 1) inside the foreground and the
    background; the region part is an SSIM in the four quadrants around the foreground's centroid, weighted by
    their areas. An empty mask scores ``1 - mean(S)``, a full one ``mean(S)``.

    Args:
        histogram: the pictures.
        clamp: a negative score becomes 0 (pysod).

    Returns:
        (B,) in [0, 1], 1 the best (without the clamp it reaches down to -0.5, the region part being an SSIM); NaN where
        the centroid leaves a quadrant without a pixel, as in the field's code.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        moments = _moments(histogram)
        score = ALPHA * _object_part(histogram, moments) + (1 - ALPHA) * _region_part(histogram, moments)
    if clamp:
        score = np.maximum(score, 0)
    positives = histogram.positives
    score = np.where(positives == 0, 1 - histogram.mean, score)
    return np.where(positives == histogram.pixels, histogram.mean, score)


@dataclass(frozen=True)
class _Moments:
    """Sums over the six parts of each picture: its four quadrants, the background and the foreground.

    Args:
        number: (B, 6) pixels.
        mean: (B, 6) mean level.
        squares: (B, 6) sum of the squared distances to that mean.
        apart: (B, 2, 4) sum, by mask and quadrant, of the distances to the quadrant's mean.
    """

    number: Float
    mean: Float
    squares: Float
    apart: Float


def _moments(histogram: JointHistogram) -> _Moments:
    counts, levels = histogram.counts.astype(np.float64), histogram.levels[:, None]
    parts = np.concatenate([counts.sum(axis=1), counts.sum(axis=2)], axis=1)
    number = parts.sum(axis=2)
    mean = (parts * levels).sum(axis=2) / number
    distance = levels - mean[..., None]
    apart = (counts * distance[:, None, :4]).sum(axis=3)
    parts *= distance
    parts *= distance
    return _Moments(number, mean, parts.sum(axis=2), apart)


def _object_part(histogram: JointHistogram, moments: _Moments) -> Float:
    number, mean = moments.number[:, 4:], moments.mean[:, 4:] - [1, 0]
    np.abs(mean, out=mean)  # the background's is 1 - mean
    deviation = np.sqrt(moments.squares[:, 4:] / np.maximum(number - 1, 1))
    score = 2 * mean / (mean**2 + 1 + deviation + EPS)
    share = histogram.positives / histogram.pixels
    return score[:, 1] * share + score[:, 0] * (1 - share)


def _region_part(histogram: JointHistogram, moments: _Moments) -> Float:
    rows, columns = histogram.sizes.T
    upper, left = histogram.split.T
    area = rows * columns
    w0, w1, w2 = upper * left / area, upper * (columns - left) / area, (rows - upper) * left / area
    weights = (w0, w1, w2, 1 - w0 - w1 - w2)
    score = _ssim(histogram, moments)
    return sum((score[:, q] * weights[q] for q in range(1, 4)), score[:, 0] * weights[0])


def _ssim(histogram: JointHistogram, moments: _Moments) -> Float:
    """(B, 4) SSIM of the quadrants: ``4 x y s_xy / ((x^2 + y^2)(s_x + s_y) + eps)``."""
    ones, pixels = histogram.counts[:, 1].sum(axis=2), moments.number[:, :4]
    x, y = moments.mean[:, :4], ones / pixels
    divisor = pixels - 1 + EPS
    s_x = moments.squares[:, :4] / divisor
    s_y = (ones * (1 - y) ** 2 + (pixels - ones) * y**2) / divisor
    s_xy = (moments.apart[:, 1] * (1 - y) - moments.apart[:, 0] * y) / divisor
    alpha = 4 * x * y * s_xy
    beta = (x**2 + y**2) * (s_x + s_y)
    score = np.where(alpha != 0, alpha / (beta + EPS), np.where(beta == 0, 1.0, 0.0))
    one_mask = (ones == 0) | (ones == pixels)
    if not one_mask.any():
        return score
    uniform = one_mask & ((histogram.counts.sum(axis=1) > 0).sum(axis=2) == 1)
    return np.where(uniform, _uniform_score(histogram, uniform), score)


def _uniform_score(histogram: JointHistogram, uniform: Bool) -> Float:
    """(B, 4) SSIM of the quadrants in which map and mask have one value each.

    Both variances are 0 there and the score is 1; but where the rounded mean of equal numbers misses them by
    an ulp the field's code sees a variance and scores 0. It depends on nothing but the value, the shape and
    the order in which NumPy adds, so that summing a like array tells which.
    """
    score = np.ones(uniform.shape)
    for i, quadrant in np.argwhere(uniform):
        value = histogram.levels[i, histogram.counts[i, :, quadrant].sum(axis=0).argmax()]
        if value in (0.0, 1.0):
            continue
        (rows, columns), (upper, left) = histogram.sizes[i], histogram.split[i]
        height = upper if quadrant < 2 else rows - upper
        part = slice(None, left) if quadrant % 2 == 0 else slice(None, columns - left)
        # the strides of a quadrant cut out of the picture, on which NumPy's order of addition depends
        if np.full((height, columns), value)[:, part].mean() != value:
            score[i, quadrant] = 0
    return score
