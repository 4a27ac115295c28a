"""Sums that do not depend on the order of what is summed: the same to the last bit for any share of the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np

from qefpn.metrics.compiled import compiled
from qefpn.metrics.figures import Figures, f_curve_of_means, with_aliases
from qefpn.metrics.protocol import Float, Int, Protocol

_REDUCED = ("mean_f",)
"""The scores whose mean a blank map does not count in, where the protocol has it so; all curves beside."""

LIMBS = 3
_DIGITS = (-8, 32, 72)
"""Binary digits after the point at which each limb ends. A score of a picture of one pixel is divided by the machine's
epsilon in some protocols, 2^52, hence the first one; half a million of them can be summed."""

_UP, _DOWN = tuple(2.0**n for n in _DIGITS), tuple(2.0**-n for n in _DIGITS)


@compiled(numba.void(numba.types.Array(numba.float64, 3, "A", readonly=True), numba.int64[:, :, ::1]))
def add(values, sums):  # type: ignore[no-untyped-def]
    """Add numbers to exact sums, in place.

    Args:
        values: (S, B, N) float64, finite, of magnitude up to 2^52; summed over B.
        sums: (3, S, N) int64: ``first * 2^8 + second * 2^-32 + third * 2^-72``, each number to 2^-73.
    """
    for s in range(values.shape[0]):
        for b in range(values.shape[1]):
            for n in range(values.shape[2]):
                rest = values[s, b, n]
                first = np.trunc(rest * _UP[0])
                rest -= first * _DOWN[0]
                second = np.trunc(rest * _UP[1])
                rest -= second * _DOWN[1]
                sums[0, s, n] += np.int64(first)
                sums[1, s, n] += np.int64(second)
                sums[2, s, n] += np.int64(np.rint(rest * _UP[2]))


def mean(limbs: Any, count: Any) -> Float:
    """The mean of what was added, rounded once.

    Args:
        limbs: (3, ...), int64, of :func:`add`.
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


class Sums:
    """What is kept of a set: sums of integers, so that any number of shares in any order add up to the same bits.

    Args:
        protocol: of the pictures.
        figures: of what is kept.
        kept: all of it, one int64 array, to go on from; None: nothing yet.

    Attributes:
        kept: all of it; the others are views of it.
        scores: (3, S), of :func:`add`, NaN left out.
        undefined: (S,), how many scores were NaN.
        curves: (3, C, 256).
        images: (2,), pictures, and blank maps among them.
    """

    def __init__(self, protocol: Protocol, figures: Figures, kept: Int | None = None) -> None:
        self.protocol, self.figures = protocol, figures
        scores, curves = len(figures.scores), len(figures.curves)
        ends = (LIMBS * scores, (LIMBS + 1) * scores, (LIMBS + 1) * scores + 2)
        self.kept = np.zeros(ends[-1] + LIMBS * curves * 256, np.int64) if kept is None else kept
        self.scores = self.kept[: ends[0]].reshape(LIMBS, scores)
        self.undefined, self.images = self.kept[ends[0] : ends[1]], self.kept[ends[1] : ends[2]]
        self.curves = self.kept[ends[2] :].reshape(LIMBS, curves, 256)

    def add(self, values: Mapping[str, Any], blank_maps: Any, *, curves: bool = True) -> None:
        """Add B pictures, by name scores (B,) and, unless told otherwise, curves (B, 256)."""
        scores = np.array([values[name] for name in self.figures.scores], np.float64)
        undefined = np.isnan(scores)
        add(np.where(undefined, 0.0, scores)[..., None], self.scores[..., None])
        self.undefined += undefined.sum(axis=1)
        if curves:
            add(np.array([values[name] for name in self.figures.curves], np.float64), self.curves)
        self.images += np.array([len(blank_maps), np.count_nonzero(blank_maps)])

    def compute(self, *, curves: bool = True) -> dict[str, Any]:
        """The set's figures; NaN where no picture has the score."""
        images, blank = (int(number) for number in self.images)
        seen = images - (0 if self.protocol.blank_map_counts else blank)
        numbers = [(seen if name in _REDUCED else images) for name in self.figures.scores] - self.undefined
        figures: dict[str, Any] = dict(zip(self.figures.scores, mean(self.scores, numbers).tolist(), strict=True))
        if curves:
            means = dict(zip(self.figures.curves, mean(self.curves, seen), strict=True))
            if self.protocol.curve_of_means:
                means["f_curve"] = f_curve_of_means(means["precision"], means["recall"])
            figures |= {**self.figures.of_curves(means), **means}
        return with_aliases(figures) | {"images": images, "undefined": int(self.undefined.sum())}
