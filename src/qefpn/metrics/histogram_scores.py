"""The scores that a joint histogram carries, in NumPy: MAE, precision and recall, F-measure, E-measure, binary ratio.

The F-measure is that of Achanta et al. (CVPR 2009), the E-measure, the enhanced alignment of a binarised map with its
mask, that of Fan et al. (IJCAI 2018). The S-measure has a file of its own.
"""

from __future__ import annotations

import numpy as np

from qefpn.metrics.histogram import Float, Int, JointHistogram
from qefpn.metrics.protocol import BETA2, EPS, Protocol
from qefpn.metrics.s_measure import s_measure


def mean_absolute_error(histogram: JointHistogram) -> Float:
    """Mean over the pixels of ``|S - G|``, S the map after min-max and G the binary mask (Perazzi et al., CVPR 2012).

    Returns:
        (B,) in [0, 1], 0 the best.
    """
    background = (histogram.by_mask[:, 0] * histogram.levels).sum(axis=1)
    foreground = (histogram.by_mask[:, 1] * (1 - histogram.levels)).sum(axis=1)
    return (background + foreground) / histogram.pixels


def binary_ratio(total: Int) -> Float:
    """Share, in percent, of pixels above 0.9 or below 0.1, before min-max (the paper's Table V).

    Args:
        total: (B, 256) pixels by 8-bit value; 0.9 lies between 229 and 230, 0.1 between 25 and 26.

    Returns:
        (B,) in [0, 100].
    """
    return 100 * (total[:, :26].sum(axis=1) + total[:, 230:].sum(axis=1)) / total.sum(axis=1)


def precision_recall_curve(histogram: JointHistogram) -> tuple[Float, Float]:
    """Precision ``TP / (TP + FP)`` and recall ``TP / P`` of ``floor(255 * S) >= t`` for t = 255, 254, ..., 0.

    Where nothing is selected, or nothing is foreground, the quotient is 0.

    Returns:
        two arrays (B, 256) in [0, 1]; index 0 is the threshold 255.
    """
    selected = histogram.above[:, 1]
    precision = selected / np.maximum(histogram.above.sum(axis=1), 1)
    recall = selected / np.maximum(histogram.positives, 1)[:, None]
    return precision, recall


def f_measure(precision: Float, recall: Float) -> Float:
    """``(1 + b) P R / (b P + R)`` with b = 0.3, and 0 where ``P R`` is 0.

    Args:
        precision: any shape, in [0, 1].
        recall: the same shape.

    >>> f_measure(np.array([0.5, 0.0]), np.array([0.5, 1.0])).tolist()
    [0.5, 0.0]
    """
    numerator = (1 + BETA2) * precision * recall
    return numerator / np.where(numerator == 0, 1, BETA2 * precision + recall)


def adaptive_f_measure(histogram: JointHistogram) -> Float:
    """F-measure of ``S >= min(2 * mean(S), 1)``: the "mean F" of most papers.

    Returns:
        (B,) in [0, 1]; 0 where no foreground is selected.
    """
    hits, false = histogram.at_adaptive_threshold(strict=False)
    return f_measure(hits / np.maximum(hits + false, 1), hits / np.maximum(histogram.positives, 1))


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


def histogram_scores(histogram: JointHistogram, protocol: Protocol) -> dict[str, Float]:
    """All scores (B,) and curves (B, 256) but the weighted F-measure, by name."""
    precision, recall = precision_recall_curve(histogram)
    return {
        "mae": mean_absolute_error(histogram),
        "mean_f": adaptive_f_measure(histogram),
        "s_measure": s_measure(histogram, clamp=protocol.clamp_s),
        "e_measure": adaptive_e_measure(histogram, strict=protocol.strict_e),
        "binary_ratio": binary_ratio(histogram.by_mask.sum(axis=1)),
        "precision": precision,
        "recall": recall,
        "f_curve": f_measure(precision, recall),
        "e_curve": e_measure_curve(histogram),
    }
