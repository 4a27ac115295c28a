"""E-measure, the enhanced alignment of a binarised map with its mask (Fan et al., IJCAI 2018)."""

from __future__ import annotations

import numpy as np

from qefpn.metrics.histogram import Float, Int, JointHistogram
from qefpn.metrics.protocol import EPS


def enhanced_alignment(hits: Int, false: Int, positives: Int, pixels: Int) -> Float:
    """E-measure from the counts of a binarised map.

    With the deviations ``a = M - mean(M)`` of the map and ``b = G - mean(G)`` of the mask at each pixel,
    ``E = sum((2 a b / (a^2 + b^2 + eps) + 1)^2 / 4) / (N - 1 + eps)``. Both take two values, so that the sum
    has four terms. Where the mask is empty (full) the share that is background (foreground) counts instead.

    Args:
        hits: selected pixels of foreground.
        false: selected pixels of background, the same shape.
        positives: pixels of foreground, broadcastable.
        pixels: N, broadcastable.

    Returns:
        float64 of the shape of ``hits``; about [0, 1] (a picture of one pixel divides by eps, as in the
        field's code).
    """
    selected = hits + false
    missed = positives - hits
    counts = np.stack([hits, false, missed, pixels - selected - missed])
    terms = (4, *(1 for _ in np.shape(hits)))
    in_map, in_mask = np.array([1, 1, 0, 0]).reshape(terms), np.array([1, 0, 1, 0]).reshape(terms)
    a, b = in_map - selected / pixels, in_mask - positives / pixels
    alignment = 2 * (a * b) / (a**2 + b**2 + EPS)
    total = ((alignment + 1) ** 2 / 4 * counts).sum(axis=0)
    total = np.where(positives == 0, pixels - selected, np.where(positives == pixels, selected, total))
    return total / (pixels - 1 + EPS)


def adaptive_e_measure(histogram: JointHistogram, strict: bool) -> Float:
    """(B,) E-measure at the threshold ``2 * mean(S)``; ``strict`` selects with ``>`` (f3net), else ``>=``."""
    hits, false = histogram.at_adaptive_threshold(strict)
    return enhanced_alignment(hits, false, histogram.positives, histogram.pixels)


def e_measure_curve(histogram: JointHistogram) -> Float:
    """(B, 256) E-measure of ``floor(255 * S) >= t``; index 0 is the threshold 255."""
    hits, false = histogram.above[:, 1], histogram.above[:, 0]
    return enhanced_alignment(hits, false, histogram.positives[:, None], histogram.pixels[:, None])
