"""The Sobel filter, the paper's own choice."""

from __future__ import annotations

from qefpn.losses.kernels import EDGE_FILTERS, Kernel


@EDGE_FILTERS.register("sobel")
def sobel() -> Kernel:
    """Horizontal derivative, smoothed 1-2-1 across it (Eq. 12)."""
    return ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))
