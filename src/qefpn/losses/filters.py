"""The edge filters by name: an entry here and a file in ``conf/edge_filter`` add one."""

from __future__ import annotations

import math
from collections.abc import Callable

from qefpn.registry import Registry

Kernel = tuple[tuple[float, ...], ...]

#: name -> function returning the rows of the horizontal filter; the vertical one is its transpose
EDGE_FILTERS: Registry[Callable[[], Kernel]] = Registry("edge filter")


@EDGE_FILTERS.register("sobel")
def sobel() -> Kernel:
    """Horizontal derivative, smoothed 1-2-1 across it (Eq. 12): the paper's own choice."""
    return ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


@EDGE_FILTERS.register("prewitt")
def prewitt() -> Kernel:
    """Horizontal derivative, smoothed by a box across it (P of Eq. 16)."""
    return ((1.0, 0.0, -1.0), (1.0, 0.0, -1.0), (1.0, 0.0, -1.0))


@EDGE_FILTERS.register("frei_chen")
def frei_chen() -> Kernel:
    """Horizontal derivative, smoothed 1-√2-1 across it.

    F of Eq. 16, whose first row is printed as 1 0 1: a derivative filter sums to zero, so that row is
    1 0 -1 here.
    """
    root2 = math.sqrt(2.0)
    return ((1.0, 0.0, -1.0), (root2, 0.0, -root2), (1.0, 0.0, -1.0))


@EDGE_FILTERS.register("laplacian")
def laplacian() -> Kernel:
    """Difference between a pixel and its right neighbour (L of Eq. 16).

    This is no Laplacian: it is a one-sided *first* difference, and with its transpose the magnitude is that
    of the forward-difference gradient. The name is the paper's (Table VI) and stays so that the ablation
    can be repeated as printed.
    """
    return ((0.0, 0.0, 0.0), (0.0, 1.0, -1.0), (0.0, 0.0, 0.0))


@EDGE_FILTERS.register("scharr")
def scharr() -> Kernel:
    """Horizontal derivative, smoothed 3-10-3 across it: more isotropic than Sobel; not in the paper."""
    return ((3.0, 0.0, -3.0), (10.0, 0.0, -10.0), (3.0, 0.0, -3.0))
