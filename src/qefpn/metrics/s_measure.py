"""S-measure, the structural similarity of a map with its mask (Fan et al., ICCV 2017)."""

from __future__ import annotations

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
        (B,) in [0, 1], 1 the best; NaN where the centroid leaves a quadrant without a pixel, as in the
        field's code.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        score = ALPHA * _object_part(histogram) + (1 - ALPHA) * _region_part(histogram)
    if clamp:
        score = np.maximum(score, 0)
    positives = histogram.positives
    score = np.where(positives == 0, 1 - histogram.mean, score)
    return np.where(positives == histogram.pixels, histogram.mean, score)


def _object_part(histogram: JointHistogram) -> Float:
    counts, inside = histogram.by_mask, histogram.levels
    share = histogram.positives / histogram.pixels
    foreground = _object(counts[:, 1], inside)
    background = _object(counts[:, 0], 1 - inside)
    return foreground * share + background * (1 - share)


def _object(counts: np.ndarray, values: Float) -> Float:
    number = counts.sum(axis=1)
    mean = (counts * values).sum(axis=1) / number
    squares = (counts * (values - mean[:, None]) ** 2).sum(axis=1)
    deviation = np.sqrt(squares / np.maximum(number - 1, 1))
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def _region_part(histogram: JointHistogram) -> Float:
    rows, columns = histogram.sizes.T
    upper, left = histogram.split.T
    area = rows * columns
    w0, w1, w2 = upper * left / area, upper * (columns - left) / area, (rows - upper) * left / area
    weights = (w0, w1, w2, 1 - w0 - w1 - w2)
    score = _ssim(histogram)
    return sum((score[:, q] * weights[q] for q in range(1, 4)), score[:, 0] * weights[0])


def _ssim(histogram: JointHistogram) -> Float:
    """(B, 4) SSIM of the quadrants: ``4 x y s_xy / ((x^2 + y^2)(s_x + s_y) + eps)``."""
    background, foreground = histogram.counts[:, 0], histogram.counts[:, 1]
    both = background + foreground
    ones, pixels = foreground.sum(axis=2), both.sum(axis=2)
    levels = histogram.levels[:, None]
    x, y = (both * levels).sum(axis=2) / pixels, ones / pixels
    apart = levels - x[..., None]
    divisor = pixels - 1 + EPS
    s_x = (both * apart**2).sum(axis=2) / divisor
    s_y = (ones * (1 - y) ** 2 + (pixels - ones) * y**2) / divisor
    s_xy = ((foreground * apart).sum(axis=2) * (1 - y) - (background * apart).sum(axis=2) * y) / divisor
    alpha = 4 * x * y * s_xy
    beta = (x**2 + y**2) * (s_x + s_y)
    score = np.where(alpha != 0, alpha / (beta + EPS), np.where(beta == 0, 1.0, 0.0))
    uniform = ((both > 0).sum(axis=2) == 1) & ((ones == 0) | (ones == pixels))
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
