"""What the numbers of true and false positives and negatives give, compiled: IoU, Dice, F1, and their kind."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

from qefpn.metrics.compiled import compiled
from qefpn.metrics.figures import COUNTED
from qefpn.metrics.protocol import Float, Int


@compiled()
def _ratio(numerator, denominator):  # type: ignore[no-untyped-def]
    return numerator / denominator if denominator != 0 else 0.0


@compiled()
def _value(kind, tp, fp, tn, fn):  # type: ignore[no-untyped-def]
    """One figure, by its place in :data:`COUNTED`; a quotient is 0 where its denominator is, as in PySODMetrics."""
    pixels = tp + fp + tn + fn
    if kind == 0:  # IoU
        return _ratio(tp, tp + fp + fn)
    if kind == 1:  # Dice
        return _ratio(2 * tp, 2 * tp + fp + fn)
    if kind == 2:  # F1
        precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
        return _ratio(2 * precision * recall, precision + recall)
    if kind == 3:  # specificity
        return _ratio(tn, tn + fp)
    if kind == 4:  # FPR
        return _ratio(fp, tn + fp)
    if kind == 5:  # BER
        return 1 - 0.5 * (_ratio(tp, tp + fn) + _ratio(tn, tn + fp))
    accuracy = _ratio(tp + tn, pixels)
    if kind == 7:  # overall accuracy
        return accuracy
    chance = _ratio((tp + fp) * (tp + fn) + (tn + fn) * (tn + tp), pixels * pixels)
    return _ratio(accuracy - chance, 1 - chance)  # kappa


@compiled(
    numba.void(
        *(numba.int64[::1], numba.int64[:, :, ::1], numba.int64[::1], numba.int64[::1], numba.float64[:, :, ::1]),
    )
)
def _fill(kinds, selected, positives, pixels, out):  # type: ignore[no-untyped-def]
    for k in range(len(kinds)):
        for i in range(len(selected)):
            for t in range(selected.shape[2]):
                fp, tp = selected[i, 0, t], selected[i, 1, t]
                out[k, i, t] = _value(kinds[k], tp, fp, pixels[i] - positives[i] - fp, positives[i] - tp)


def counted_values(names: Sequence[str], selected: Int, positives: Int, pixels: Int) -> dict[str, Float]:
    """Scores (B,) and curves (B, 256) of :data:`COUNTED`.

    Args:
        names: which.
        selected: (B, 2, 258) of ``histogram_scores.Scored``.
        positives: (B,) pixels of foreground.
        pixels: (B,) pixels.
    """
    found = np.empty((len(names), *selected[:, 0].shape))
    _fill(np.array([COUNTED.index(name) for name in names]), selected, positives, pixels, found)
    values: dict[str, Float] = {}
    for name, one in zip(names, found, strict=True):
        values |= {f"{name}_curve": one[:, :256], f"{name}_adaptive": one[:, 256], f"{name}_binary": one[:, 257]}
    return values
