"""What the paper calls a Laplacian filter."""

from __future__ import annotations

from qefpn.losses.kernels import EDGE_FILTERS, Kernel


@EDGE_FILTERS.register("laplacian")
def laplacian() -> Kernel:
    """Difference between a pixel and its right neighbour (L of Eq. 16).

    This is no Laplacian: it is a one-sided *first* difference, and with its transpose the magnitude is that
    of the forward-difference gradient. The name is the paper's (Table VI) and stays so that the ablation
    can be repeated as printed.
    """
    return ((0.0, 0.0, 0.0), (0.0, 1.0, -1.0), (0.0, 0.0, 0.0))
