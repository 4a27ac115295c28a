"""Share of nearly binary pixels (the paper's Table V)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qefpn.metrics.histogram import Float


def binary_ratio(total: npt.NDArray[np.int64]) -> Float:
    """Share, in percent, of pixels above 0.9 or below 0.1, before min-max.

    Args:
        total: (B, 256) pixels by 8-bit value; 0.9 lies between 229 and 230, 0.1 between 25 and 26.

    Returns:
        (B,) in [0, 100].
    """
    return 100 * (total[:, :26].sum(axis=1) + total[:, 230:].sum(axis=1)) / total.sum(axis=1)
