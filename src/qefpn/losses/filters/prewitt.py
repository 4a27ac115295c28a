"""The Prewitt filter."""

from __future__ import annotations

from qefpn.losses.kernels import EDGE_FILTERS, Kernel


@EDGE_FILTERS.register("prewitt")
def prewitt() -> Kernel:
    """Horizontal derivative, smoothed by a box across it (P of Eq. 16)."""
    return ((1.0, 0.0, -1.0), (1.0, 0.0, -1.0), (1.0, 0.0, -1.0))
