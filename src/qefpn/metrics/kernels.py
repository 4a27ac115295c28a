"""Which functions measure on a CPU: compiled by numba, or of NumPy and OpenCV where numba is missing.

This is the one place that chooses, at the first measurement: importing ``qefpn.metrics`` imports no numba. Both give
the same integers, and scores that differ by at most 1e-12.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from qefpn.metrics.histogram import Float, Int, JointHistogram
from qefpn.metrics.inputs import UInt8
from qefpn.metrics.protocol import Protocol


@dataclass(frozen=True)
class Kernels:
    """The functions in which the time goes.

    Args:
        name: "numba" or "numpy".
        count: (saliency, mask, matlab, counts): fills ``counts``, (2, 4, 256), as ``histogram.count`` says, and gives
            the split.
        weighted_f: (saliency, mask, levels): ``weighted_f.weighted_f_measure``.
        scores: (histogram, protocol): all other scores and curves, by name; blank pictures are measured like others.
    """

    name: str
    count: Callable[[UInt8, UInt8, bool, Int], tuple[int, int]]
    weighted_f: Callable[[UInt8, UInt8, Float], float]
    scores: Callable[[JointHistogram, Protocol], dict[str, Float]]


def numpy_kernels() -> Kernels:
    """NumPy and OpenCV."""
    from qefpn.metrics import histogram, histogram_scores, weighted_f

    return Kernels("numpy", histogram.count, weighted_f.weighted_f_measure, histogram_scores.histogram_scores)


def numba_kernels() -> Kernels:
    """Compiled; the first call on a machine takes seconds, later ones read the machine code from numba's cache.

    Raises:
        ImportError: numba is missing, or does not fit the NumPy there is.
    """
    from qefpn.metrics import numba_histogram, numba_weighted_f

    functions = (numba_histogram.count, numba_weighted_f.weighted_f_measure, numba_histogram.histogram_scores)
    return Kernels("numba", *functions)


@cache
def kernels() -> Kernels:
    """The functions to use: numba's where it can be imported and is not switched off by ``NUMBA_DISABLE_JIT=1``."""
    try:
        import numba

        return numpy_kernels() if numba.config.DISABLE_JIT else numba_kernels()
    except ImportError:
        return numpy_kernels()
