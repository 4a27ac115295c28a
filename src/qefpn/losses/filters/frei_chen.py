"""The Frei-Chen filter, between Prewitt and Sobel."""

from __future__ import annotations

import math

from qefpn.losses.kernels import EDGE_FILTERS, Kernel

ROOT2 = math.sqrt(2.0)


@EDGE_FILTERS.register("frei_chen")
def frei_chen() -> Kernel:
    """Horizontal derivative, smoothed 1-√2-1 across it.

    F of Eq. 16, whose first row is printed as 1 0 1: a derivative filter sums to zero, so that row is
    1 0 -1 here.
    """
    return ((1.0, 0.0, -1.0), (ROOT2, 0.0, -ROOT2), (1.0, 0.0, -1.0))
