"""The joint histogram of a picture and the scores that it carries, compiled; and the door to numba's compiler.

The formulas are those of ``histogram``, ``histogram_scores`` and ``s_measure``, picture by picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from qefpn.metrics.histogram import Float, Int, JointHistogram
from qefpn.metrics.inputs import UInt8
from qefpn.metrics.protocol import BETA2, EPS, Protocol
from qefpn.metrics.s_measure import ALPHA, s_measure

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = {"nogil": True, "error_model": "numpy"}  # divisions by zero give inf and NaN, as NumPy's do

BYTES = numba.types.Array(numba.uint8, 2, "C", readonly=True)
"""(H, W) uint8, writable or not."""

_SCORES = ("mae", "mean_f", "s_measure", "e_measure", "binary_ratio")
_CURVES = ("precision", "recall", "f_curve", "e_curve")


def compiled(*signature: Any, **options: Any) -> Callable[[F], F]:
    """Compile a function, and keep the machine code for later processes where there is a place for it.

    Args:
        signature: of a function that is called from Python: compiled when its module is imported, so that input of
            another type is an error and not another compilation. None for a function that compiled ones call.
        options: of ``numba.njit``.
    """

    if not signature:  # no door for Python, which takes a third of the compiler's time
        options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    def wrap(function: F) -> F:
        try:
            kernel: F = numba.njit(*signature, cache=True, **_OPTIONS, **options)(function)
        except (RuntimeError, OSError):  # neither the package's directory nor the user's cache can be written
            kernel = numba.njit(*signature, **_OPTIONS, **options)(function)
        return kernel

    return wrap


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


@compiled()
def _f_measure(hits, selected, positives):  # type: ignore[no-untyped-def]
    precision, recall = hits / max(selected, 1), hits / max(positives, 1)
    numerator = (1 + BETA2) * precision * recall
    return precision, recall, (numerator / (BETA2 * precision + recall) if numerator != 0 else 0.0)


@compiled()
def _alignment(in_map, in_mask):  # type: ignore[no-untyped-def]
    aligned = 2 * (in_map * in_mask) / (in_map * in_map + in_mask * in_mask + EPS)
    return (aligned + 1) * (aligned + 1) / 4


@compiled()
def _e_measure(hits, false, positives, pixels):  # type: ignore[no-untyped-def]
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
    for value in range(256):
        number += counts[value]
        total += counts[value] * levels[value]
    mean, squares = total / number, 0.0
    for value in range(256):
        distance = levels[value] - mean
        squares += counts[value] * distance * distance
    return number, mean, squares


@compiled()
def _ssim(background, foreground, both, levels):  # type: ignore[no-untyped-def]
    """SSIM of a quadrant, and whether map and mask have one value each, so that rounding decides."""
    number, x, squares = _moments(both, levels)
    ones, kinds = np.int64(0), np.int64(0)
    apart_0, apart_1 = 0.0, 0.0
    for value in range(256):
        ones += foreground[value]
        kinds += np.int64(both[value] > 0)
        apart_0 += background[value] * (levels[value] - x)
        apart_1 += foreground[value] * (levels[value] - x)
    y = ones / number
    divisor = number - 1 + EPS
    s_y = (ones * (1 - y) * (1 - y) + (number - ones) * y * y) / divisor
    s_xy = (apart_1 * (1 - y) - apart_0 * y) / divisor
    alpha = 4 * x * y * s_xy
    beta = (x * x + y * y) * (squares / divisor + s_y)
    if alpha != 0:
        score = alpha / (beta + EPS)
    else:
        score = 1.0 if beta == 0 else 0.0
    return score, kinds == 1 and (ones == 0 or ones == number)


@compiled()
def _object_score(counts, levels, of_background):  # type: ignore[no-untyped-def]
    number, mean, squares = _moments(counts, levels)
    if of_background:
        mean = abs(mean - 1)
    return 2 * mean / (mean * mean + 1 + math.sqrt(squares / max(number - 1, 1)) + EPS)


@compiled()
def _s_measure(parts, levels, positives, size, split):  # type: ignore[no-untyped-def]
    """Of a picture with foreground and background; ``parts`` are, by mask, four quadrants and their sum."""
    height, width, upper, left = size[0], size[1], split[0], split[1]
    pixels = height * width
    share = positives / pixels
    of_object = _object_score(parts[1, 4], levels, False) * share
    of_object += _object_score(parts[0, 4], levels, True) * (1 - share)
    weights = np.empty(4)
    weights[0], weights[1] = upper * left / pixels, upper * (width - left) / pixels
    weights[2] = (height - upper) * left / pixels
    weights[3] = 1 - weights[0] - weights[1] - weights[2]
    region, unsure = 0.0, False
    for quadrant in range(4):
        similarity, uniform = _ssim(parts[0, quadrant], parts[1, quadrant], parts[2, quadrant], levels)
        region += similarity * weights[quadrant]
        unsure = unsure or uniform
    return ALPHA * of_object + (1 - ALPHA) * region, unsure


@compiled()
def _curves(background, foreground, levels, positives, pixels, curves, i):  # type: ignore[no-untyped-def]
    above = np.zeros((2, 256), np.int64)
    for value in range(256):
        place = 255 - np.int64(min(max(levels[value], 0.0), 1.0) * 255)
        above[0, place] += background[value]
        above[1, place] += foreground[value]
    false, hits = np.int64(0), np.int64(0)
    for t in range(256):
        false += above[0, t]
        hits += above[1, t]
        curves[0, i, t], curves[1, i, t], curves[2, i, t] = _f_measure(hits, hits + false, positives)
        curves[3, i, t] = _e_measure(hits, false, positives, pixels)


@compiled()
def _selected(background, foreground, levels, threshold, strict):  # type: ignore[no-untyped-def]
    hits, false = np.int64(0), np.int64(0)
    for value in range(256):
        if levels[value] > threshold or (levels[value] == threshold and not strict):
            false += background[value]
            hits += foreground[value]
    return hits, false


@compiled(
    numba.void(
        *(numba.int64[:, :, :, ::1], numba.float64[:, ::1], numba.float64[::1], numba.int64[:, ::1]),
        *(numba.int64[:, ::1], numba.boolean, numba.float64[:, ::1], numba.float64[:, :, ::1], numba.boolean[::1]),
    )
)
def _scores(counts, levels, mean, sizes, splits, strict_e, scores, curves, unsure):  # type: ignore[no-untyped-def]
    parts = np.empty((3, 5, 256), np.int64)  # background, foreground, both; four quadrants and their sum
    for i in range(len(counts)):
        level, count = levels[i], counts[i]
        pixels, positives = sizes[i, 0] * sizes[i, 1], np.int64(0)
        error, extreme = 0.0, np.int64(0)
        for value in range(256):
            for quadrant in range(4):
                parts[0, quadrant, value], parts[1, quadrant, value] = (
                    count[0, quadrant, value],
                    count[1, quadrant, value],
                )
                parts[2, quadrant, value] = count[0, quadrant, value] + count[1, quadrant, value]
            for side in range(3):
                part = parts[side]
                part[4, value] = part[0, value] + part[1, value] + part[2, value] + part[3, value]
            positives += parts[1, 4, value]
            error += parts[0, 4, value] * level[value] + parts[1, 4, value] * (1 - level[value])
            if value < 26 or value > 229:
                extreme += parts[2, 4, value]
        background, foreground = parts[0, 4], parts[1, 4]
        scores[0, i], scores[4, i] = error / pixels, 100 * extreme / pixels
        hits, false = _selected(background, foreground, level, min(2 * mean[i], 1.0), False)
        scores[1, i] = _f_measure(hits, hits + false, positives)[2]
        if strict_e:
            hits, false = _selected(background, foreground, level, 2 * mean[i], True)
        scores[3, i] = _e_measure(hits, false, positives, pixels)
        unsure[i] = False
        if positives == 0:
            scores[2, i] = 1 - mean[i]
        elif positives == pixels:
            scores[2, i] = mean[i]
        else:
            scores[2, i], unsure[i] = _s_measure(parts, level, positives, sizes[i], splits[i])
        _curves(background, foreground, level, positives, pixels, curves, i)


def histogram_scores(histogram: JointHistogram, protocol: Protocol) -> dict[str, Float]:
    """All scores and curves but the weighted F-measure, by name, as the NumPy modules give them to 1e-12."""
    batch = len(histogram.counts)
    scores, curves = np.empty((len(_SCORES), batch)), np.empty((len(_CURVES), batch, 256))
    unsure = np.empty(batch, np.bool_)
    of_pictures = (histogram.counts, histogram.levels, histogram.mean, histogram.sizes, histogram.split)
    _scores(*of_pictures, protocol.strict_e, scores, curves, unsure)
    values: dict[str, Float] = dict(zip(_SCORES, scores, strict=True)) | dict(zip(_CURVES, curves, strict=True))
    if protocol.clamp_s:
        values["s_measure"] = np.where(scores[2] < 0, 0.0, scores[2])  # NaN stays
    if unsure.any():  # rare: a quadrant of one value, which scores as NumPy's sum rounds
        values["s_measure"] = np.where(unsure, s_measure(histogram, protocol.clamp_s), values["s_measure"])
    return values
