"""Precision and recall at 256 thresholds."""

from __future__ import annotations

import numpy as np

from qefpn.metrics.histogram import Float, JointHistogram


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
