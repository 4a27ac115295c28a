"""The scores that a joint histogram carries: MAE, precision and recall, F-, E- and S-measure, binary ratio.

F is that of Achanta et al. (CVPR 2009), E, the enhanced alignment of a binarised map with its mask, that of Fan et al.
(IJCAI 2018), S, the structural similarity, that of Fan et al. (ICCV 2017), MAE that of Perazzi et al. (CVPR 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from qefpn.metrics.compiled import compiled
from qefpn.metrics.histogram import JointHistogram, mean_in_order
from qefpn.metrics.protocol import BETA2, EPS, PYSOD, Bool, Float, Int, Protocol, levels_of

ALPHA = 0.5
"""The weight of the S-measure's object part against its region part."""

_SCORES = ("mae", "mean_f", "s_measure", "e_measure", "binary_ratio")
_CURVES = ("precision", "recall", "f_curve", "e_curve")


@dataclass(frozen=True)
class Scored:
    """What a histogram says of B pictures.

    Args:
        values: by name, scores (B,) and curves (B, 256), index 0 the threshold 255.
        selected: (B, 2, 258) pixels of background and foreground at or above each threshold, then those selected by the
            adaptive threshold and by a level above 0.5.
    """

    values: dict[str, Float]
    selected: Int


@compiled()
def _f_measure(hits, selected, positives):  # type: ignore[no-untyped-def]
    """Precision TP / (TP + FP), recall TP / P, and ``(1 + b) P R / (b P + R)`` with b = 0.3; 0 where it is 0 / 0."""
    precision, recall = hits / max(selected, 1), hits / max(positives, 1)
    numerator = (1 + BETA2) * precision * recall
    return precision, recall, (numerator / (BETA2 * precision + recall) if numerator != 0 else 0.0)


@compiled()
def _alignment(in_map, in_mask):  # type: ignore[no-untyped-def]
    aligned = 2 * (in_map * in_mask) / (in_map * in_map + in_mask * in_mask + EPS)
    return (aligned + 1) * (aligned + 1) / 4


@compiled()
def _e_measure(hits, false, positives, pixels):  # type: ignore[no-untyped-def]
    """``sum((2 a b / (a^2 + b^2 + eps) + 1)^2 / 4) / (N - 1 + eps)`` of the deviations ``a`` of the binary map and
    ``b`` of the mask from their means; both take two values, so that the sum has four terms. Where the mask is empty
    (full) the share that is background (foreground) counts instead."""
    selected = hits + false
    missed = positives - hits
    if positives == 0:
        total = float(pixels - selected)
    elif positives == pixels:
        total = float(selected)
    else:
        m, g = selected / pixels, positives / pixels
        total = _alignment(1 - m, 1 - g) * hits + _alignment(1 - m, -g) * false
        total += _alignment(-m, 1 - g) * missed + _alignment(-m, -g) * (pixels - selected - missed)
    return total / (pixels - 1 + EPS)


@compiled()
def _moments(counts, levels):  # type: ignore[no-untyped-def]
    """Number, mean and sum of squared distances to it of the pixels counted."""
    number, total = np.int64(0), 0.0
    for value in range(len(counts)):
        number += counts[value]
        total += counts[value] * levels[value]
    mean, squares = total / number, 0.0
    for value in range(len(counts)):
        distance = levels[value] - mean
        squares += counts[value] * distance * distance
    return number, mean, squares


@compiled()
def _ssim(background, foreground, both, levels):  # type: ignore[no-untyped-def]
    """SSIM ``4 x y s_xy / ((x^2 + y^2)(s_x + s_y) + eps)`` of a quadrant, and whether map and mask have one value each:
    it is 1 then, unless rounding decides otherwise."""
    number, x, squares = _moments(both, levels)
    ones, kinds = np.int64(0), np.int64(0)
    apart_0, apart_1 = 0.0, 0.0
    for value in range(len(both)):
        ones += foreground[value]
        kinds += np.int64(both[value] > 0)
        apart_0 += background[value] * (levels[value] - x)
        apart_1 += foreground[value] * (levels[value] - x)
    if kinds == 1 and (ones == 0 or ones == number):
        return 1.0, True
    y = ones / number
    divisor = number - 1 + EPS
    s_y = (ones * (1 - y) * (1 - y) + (number - ones) * y * y) / divisor
    s_xy = (apart_1 * (1 - y) - apart_0 * y) / divisor
    alpha = 4 * x * y * s_xy
    beta = (x * x + y * y) * (squares / divisor + s_y)
    if alpha != 0:
        return alpha / (beta + EPS), False
    return (1.0 if beta == 0 else 0.0), False


@compiled()
def _object_score(counts, levels, of_background):  # type: ignore[no-untyped-def]
    """Similarity to 1 of the map's values inside the foreground (to 0 in the background); deviation by n - 1."""
    number, mean, squares = _moments(counts, levels)
    if of_background:
        mean = abs(mean - 1)
    return 2 * mean / (mean * mean + 1 + math.sqrt(squares / max(number - 1, 1)) + EPS)


@compiled()
def _s_measure(parts, levels, positives, size, split, weights, uniform):  # type: ignore[no-untyped-def]
    """Of a picture with foreground and background; ``parts`` are, by mask, four quadrants and their sum. Fills the
    quadrants' shares of the area, and which of them are uniform."""
    height, width, upper, left = size[0], size[1], split[0], split[1]
    pixels = height * width
    share = positives / pixels
    of_object = _object_score(parts[1, 4], levels, False) * share
    of_object += _object_score(parts[0, 4], levels, True) * (1 - share)
    weights[0], weights[1] = upper * left / pixels, upper * (width - left) / pixels
    weights[2] = (height - upper) * left / pixels
    weights[3] = 1 - weights[0] - weights[1] - weights[2]
    region = 0.0
    for quadrant in range(4):
        similarity, uniform[quadrant] = _ssim(parts[0, quadrant], parts[1, quadrant], parts[2, quadrant], levels)
        region += similarity * weights[quadrant]
    return ALPHA * of_object + (1 - ALPHA) * region


@compiled()
def _curves(background, foreground, bins, positives, pixels, selected, curves, i):  # type: ignore[no-untyped-def]
    above = np.zeros((2, 256), np.int64)
    for value in range(len(bins)):
        above[0, 255 - bins[value]] += background[value]
        above[1, 255 - bins[value]] += foreground[value]
    false, hits = np.int64(0), np.int64(0)
    for t in range(256):
        false += above[0, t]
        hits += above[1, t]
        selected[0, t], selected[1, t] = false, hits
        curves[0, i, t], curves[1, i, t], curves[2, i, t] = _f_measure(hits, hits + false, positives)
        curves[3, i, t] = _e_measure(hits, false, positives, pixels)


@compiled()
def _from(background, foreground, cut):  # type: ignore[no-untyped-def]
    hits, false = np.int64(0), np.int64(0)
    for value in range(cut, len(background)):
        false += background[value]
        hits += foreground[value]
    return hits, false


@compiled(
    numba.void(
        *(numba.int64[:, :, :, ::1], numba.float64[:, ::1], numba.float64[:, ::1], numba.float64[::1]),
        *(numba.uint8[:, ::1], numba.int64[:, ::1], numba.boolean[::1], numba.int64[:, ::1], numba.int64[:, ::1]),
        *(numba.float64[:, ::1], numba.float64[:, :, ::1], numba.int64[:, :, ::1]),
        *(numba.float64[:, ::1], numba.boolean[:, ::1]),
    )
)
def _scores(  # type: ignore[no-untyped-def]
    counts, levels, mae_levels, mean, bins, cuts, extremes, sizes, splits, scores, curves, selected, weights, uniform
):
    parts = np.empty((3, 5, counts.shape[3]), np.int64)  # background, foreground, both; four quadrants and their sum
    for i in range(len(counts)):
        level, mae_level, counted = levels[i], mae_levels[i], counts[i]
        pixels, positives = sizes[i, 0] * sizes[i, 1], np.int64(0)
        error, extreme = 0.0, np.int64(0)
        for value in range(counts.shape[3]):
            for quadrant in range(4):
                parts[0, quadrant, value] = counted[0, quadrant, value]
                parts[1, quadrant, value] = counted[1, quadrant, value]
                parts[2, quadrant, value] = counted[0, quadrant, value] + counted[1, quadrant, value]
            for side in range(3):
                part = parts[side]
                part[4, value] = part[0, value] + part[1, value] + part[2, value] + part[3, value]
            positives += parts[1, 4, value]
            error += parts[0, 4, value] * mae_level[value] + parts[1, 4, value] * (1 - mae_level[value])
            if extremes[value]:
                extreme += parts[2, 4, value]
        background, foreground = parts[0, 4], parts[1, 4]
        scores[0, i], scores[4, i] = error / pixels, 100 * extreme / pixels
        hits, false = _from(background, foreground, cuts[i, 0])
        selected[i, 0, 256], selected[i, 1, 256] = false, hits
        scores[1, i] = _f_measure(hits, hits + false, positives)[2]
        hits, false = _from(background, foreground, cuts[i, 1])
        scores[3, i] = _e_measure(hits, false, positives, pixels)
        hits, false = _from(background, foreground, cuts[i, 2])
        selected[i, 0, 257], selected[i, 1, 257] = false, hits
        uniform[i] = False
        if positives == 0:
            scores[2, i] = 1 - mean[i]
        elif positives == pixels:
            scores[2, i] = mean[i]
        else:
            scores[2, i] = _s_measure(parts, level, positives, sizes[i], splits[i], weights[i], uniform[i])
        _curves(background, foreground, bins[i], positives, pixels, selected[i], curves, i)


def histogram_scores(histogram: JointHistogram, protocol: Protocol) -> Scored:
    """All scores and curves that the histogram carries; blank pictures are measured like others.

    S has divisor n - 1, alpha 0.5, and is NaN where the centroid leaves a quadrant without a pixel, as in the field's
    code; without the clamp it reaches down to -0.5. The binary ratio is the share in percent of values above 0.9 or
    below 0.1 (the paper's Table V).
    """
    batch = len(histogram.counts)
    scores, curves = np.empty((len(_SCORES), batch)), np.empty((len(_CURVES), batch, 256))
    selected = np.empty((batch, 2, 258), np.int64)
    weights, uniform = np.empty((batch, 4)), np.empty((batch, 4), np.bool_)
    mae_levels = histogram.levels
    if protocol.mae_again:
        ends = histogram.ends.tolist()
        stretched = [
            levels_of(low, high, PYSOD, histogram.values) if low < high else np.full(len(levels), np.nan)
            for (low, high), levels in zip(ends, histogram.levels, strict=True)
        ]
        mae_levels = np.array(stretched).reshape(histogram.levels.shape)
    values = np.arange(256) / 255 if histogram.values is None else histogram.values
    extremes = (values < 0.1) | (values > 0.9)
    of_map = (histogram.levels, mae_levels, histogram.mean, histogram.bins, histogram.cuts, extremes)
    _scores(histogram.counts, *of_map, histogram.sizes, histogram.split, scores, curves, selected, weights, uniform)
    if uniform.any():
        scores[2] -= (1 - ALPHA) * (weights * _rounded_apart(histogram, uniform, protocol)).sum(axis=1, where=uniform)
    if protocol.clamp_s:
        scores[2] = np.where(scores[2] < 0, 0.0, scores[2])  # NaN stays
    return Scored(
        dict(zip(_SCORES, scores, strict=True)) | dict(zip(_CURVES, curves, strict=True)),
        selected,
    )


def _rounded_apart(histogram: JointHistogram, uniform: Bool, protocol: Protocol) -> Bool:
    """(B, 4) the quadrants of one value whose similarity rounding makes 0.

    Both variances are 0 there and the similarity is 1; but where the rounded mean of equal numbers misses them by an
    ulp the field's code sees a variance and gives 0. It depends on nothing but the value, the shape and the order in
    which numbers are added, so that summing a like array tells which.
    """
    apart = np.zeros(uniform.shape, np.bool_)
    for i, quadrant in np.argwhere(uniform):
        value = histogram.levels[i, histogram.counts[i, :, quadrant].sum(axis=0).argmax()]
        if value in (0.0, 1.0):
            continue
        (rows, columns), (upper, left) = histogram.sizes[i], histogram.split[i]
        height = upper if quadrant < 2 else rows - upper
        part = slice(None, left) if quadrant % 2 == 0 else slice(None, columns - left)
        # the strides of a quadrant cut out of the picture, on which NumPy's order of addition depends
        apart[i, quadrant] = mean_in_order(np.full((height, columns), value)[:, part], protocol) != value
    return apart
