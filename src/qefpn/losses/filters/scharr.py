"""The Scharr filter, more isotropic than Sobel; not in the paper."""

from __future__ import annotations

from qefpn.losses.kernels import EDGE_FILTERS, Kernel


@EDGE_FILTERS.register("scharr")
def scharr() -> Kernel:
    """Horizontal derivative, smoothed 3-10-3 across it."""
    return ((3.0, 0.0, -3.0), (10.0, 0.0, -10.0), (3.0, 0.0, -3.0))
