"""Mean absolute error (Perazzi et al., CVPR 2012)."""

from __future__ import annotations

from qefpn.metrics.histogram import Float, JointHistogram


def mean_absolute_error(histogram: JointHistogram) -> Float:
    """Mean over the pixels of ``|S - G|``, S the map after min-max and G the binary mask.

    Returns:
        (B,) in [0, 1], 0 the best.
    """
    background = (histogram.by_mask[:, 0] * histogram.levels).sum(axis=1)
    foreground = (histogram.by_mask[:, 1] * (1 - histogram.levels)).sum(axis=1)
    return (background + foreground) / histogram.pixels
