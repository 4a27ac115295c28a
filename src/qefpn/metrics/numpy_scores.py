"""The scores that a joint histogram carries, in NumPy."""

from __future__ import annotations

from qefpn.metrics.binary_ratio import binary_ratio
from qefpn.metrics.e_measure import adaptive_e_measure, e_measure_curve
from qefpn.metrics.f_measure import adaptive_f_measure, f_measure
from qefpn.metrics.histogram import Float, JointHistogram
from qefpn.metrics.mae import mean_absolute_error
from qefpn.metrics.pr_curve import precision_recall_curve
from qefpn.metrics.protocol import Protocol
from qefpn.metrics.s_measure import s_measure


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
