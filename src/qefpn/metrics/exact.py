"""Sums that do not depend on the order of what is summed: the same to the last bit for any share of the work."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from qefpn.metrics.protocol import Float

Limbs = npt.NDArray[np.int64]

LIMBS = 3
_DIGITS = (-8, 32, 72)
"""Binary digits after the point at which each limb ends. A score of a picture of one pixel is divided by the machine's
epsilon in some protocols, 2^52, hence the first one; half a million of them can be summed."""


def split(values: Float) -> Limbs:
    """Numbers as three integers each, whose sums are exact.

    Args:
        values: (...), finite, of magnitude up to 2^52.

    Returns:
        (3, ...): ``first · 2^8 + second · 2^-32 + third · 2^-72``, the value itself to 2^-73.
    """
    rest = np.asarray(values, np.float64)
    limbs = []
    for digits in _DIGITS:
        scaled = np.ldexp(rest, digits)
        whole = np.rint(scaled) if digits == _DIGITS[-1] else np.trunc(scaled)
        limbs.append(whole)
        rest = rest - np.ldexp(whole, -digits)
    return np.stack(limbs).astype(np.int64)


def mean(limbs: Any, count: Any) -> Float:
    """The mean of what was split and summed, rounded once.

    Args:
        limbs: (3, ...), int64, sums of :func:`split`.
        count: how many were summed, (...) or one number for all; where it is 0 the mean is NaN.
    """
    parts = np.asarray(limbs, np.int64)
    counts = np.broadcast_to(np.asarray(count, np.int64), parts.shape[1:])
    last = _DIGITS[-1]
    means = [
        sum(int(part) << (last - digits) for part, digits in zip(some, _DIGITS, strict=True)) / (int(n) << last)
        if n
        else np.nan
        for some, n in zip(parts.reshape(LIMBS, -1).T, counts.ravel(), strict=True)
    ]
    return np.array(means, np.float64).reshape(counts.shape)
