"""F-measure (Achanta et al., CVPR 2009), at the adaptive threshold and as a curve."""

from __future__ import annotations

import numpy as np

from qefpn.metrics.histogram import Float, JointHistogram
from qefpn.metrics.protocol import BETA2


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
