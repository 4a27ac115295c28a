"""The f3net protocol once more, slowly: plain NumPy over pixels, straight from the formulas.

It shares nothing with ``qefpn.metrics``: no histogram, no window, no table. Where a loop says more clearly
what is meant, it is a loop.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

EPS = np.finfo(np.float64).eps
CURVES = ("precision", "recall", "f_curve", "e_curve")
SCORES = ("mae", "mean_f", "weighted_f", "s_measure", "e_measure", "binary_ratio")
OF_CURVES = ("max_f", "mean_curve_f", "max_e", "mean_e")


def mat2gray(values: np.ndarray) -> np.ndarray:
    """MATLAB's: ``imlincomb(delta, A, -low * delta)``, then clipped; a picture of one value is clipped alone."""
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    if high > low:
        delta = 1 / (high - low)
        values = values * delta + (-low * delta)
    return values.clip(0, 1)


def mean(values: np.ndarray) -> float:
    """One pixel after the other, column by column."""
    total = 0.0
    for value in values.T.ravel():
        total += value
    return total / values.size


def scores(saliency: np.ndarray, mask: np.ndarray, step: int = 1) -> dict[str, Any]:
    """All scores of one picture; map and mask uint8 of one size. The curves have every ``step``-th threshold."""
    g = mat2gray(mask) >= 0.5
    if saliency.max() == 0 or not g.any():
        zero: dict[str, Any] = dict.fromkeys(SCORES + OF_CURVES, 0.0)
        return zero | {name: np.zeros(256)[::step] for name in CURVES}
    s = mat2gray(saliency)
    again = mat2gray(s)
    precision, recall, f_curve, e_curve = curves(s, g, step)
    return {
        "mae": np.abs(s - g).mean(),
        "mean_f": adaptive_f(s, g),
        "weighted_f": weighted_f(s, g),
        "s_measure": s_measure(s, g),
        "e_measure": e_measure(again > 2 * mean(again), g),
        "binary_ratio": 100 * np.mean((saliency / 255 > 0.9) | (saliency / 255 < 0.1)),
        "max_f": f_curve.max(),
        "mean_curve_f": f_curve.mean(),
        "max_e": e_curve.max(),
        "mean_e": e_curve.mean(),
        "precision": precision,
        "recall": recall,
        "f_curve": f_curve,
        "e_curve": e_curve,
    }


def f_of(precision: float, recall: float) -> float:
    """F with beta squared 0.3."""
    if precision * recall == 0:
        return 0.0
    return 1.3 * precision * recall / (0.3 * precision + recall)


def curves(s: np.ndarray, g: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    """Precision, recall, F and E, one threshold after the other from 255 down."""
    level = np.floor(s * 255)
    rows = []
    for threshold in range(255, -1, -step):
        chosen = level >= threshold
        hits = np.sum(chosen & g)
        precision = hits / chosen.sum() if chosen.any() else 0.0
        recall = hits / g.sum()
        rows.append((precision, recall, f_of(precision, recall), e_measure(chosen, g)))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def adaptive_f(s: np.ndarray, g: np.ndarray) -> float:
    """F at min(2 mean, 1)."""
    chosen = s >= min(2 * mean(s), 1)
    hits = np.sum(chosen & g)
    return f_of(hits / chosen.sum(), hits / g.sum()) if hits else 0.0


def e_measure(chosen: np.ndarray, g: np.ndarray) -> float:
    """Enhanced alignment over the pixels."""
    m, t = chosen.astype(float), g.astype(float)
    if t.all():
        enhanced = m
    else:
        a, b = m - m.mean(), t - t.mean()
        enhanced = (2 * a * b / (a * a + b * b + EPS) + 1) ** 2 / 4
    return enhanced.sum() / (g.size - 1 + EPS)


def matlab_round(x: float) -> int:
    """Halves away from zero, of a positive number."""
    return math.floor(x + 0.5)


def s_measure(s: np.ndarray, g: np.ndarray) -> float:
    """Object and region parts in equal shares."""
    if g.all():
        return s.mean()
    share = g.mean()
    of_object = share * object_score(s[g]) + (1 - share) * object_score(1 - s[~g])
    height, width = g.shape
    rows, columns = np.nonzero(g)
    y, x = matlab_round((rows + 1).mean()), matlab_round((columns + 1).mean())
    area = height * width
    w1, w2, w3 = x * y / area, (width - x) * y / area, x * (height - y) / area
    with np.errstate(all="ignore"):
        of_region = (
            w1 * ssim(s[:y, :x], g[:y, :x])
            + w2 * ssim(s[:y, x:], g[:y, x:])
            + w3 * ssim(s[y:, :x], g[y:, :x])
            + (1 - w1 - w2 - w3) * ssim(s[y:, x:], g[y:, x:])
        )
    return 0.5 * of_object + 0.5 * of_region


def object_score(values: np.ndarray) -> float:
    """Similarity of the map's values to 1."""
    mean = values.mean()
    deviation = values.std(ddof=1) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + deviation + EPS)


def ssim(s: np.ndarray, g: np.ndarray) -> float:
    """Similarity of a quadrant; NaN where it has no pixel."""
    if s.size == 0:
        return math.nan
    x, y = mean(s), mean(g)
    divisor = s.size - 1 + EPS
    s_x, s_y = np.sum((s - x) ** 2) / divisor, np.sum((g - y) ** 2) / divisor
    s_xy = np.sum((s - x) * (g - y)) / divisor
    alpha, beta = 4 * x * y * s_xy, (x**2 + y**2) * (s_x + s_y)
    if alpha != 0:
        return alpha / (beta + EPS)
    return 1.0 if beta == 0 else 0.0


def weighted_f(s: np.ndarray, g: np.ndarray) -> float:
    """Margolin's measure with beta 1."""
    distance, nearest = distance_transform_edt(~g, return_indices=True)
    error = np.abs(s - g)
    lent = error[nearest[0], nearest[1]]
    offsets = np.arange(-3, 4)
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 5**2))
    kernel /= kernel.sum()
    padded = np.pad(lent, 3)
    mean = np.zeros(s.shape)
    for i in range(7):
        for j in range(7):
            mean += kernel[i, j] * padded[i : i + s.shape[0], j : j + s.shape[1]]
    smaller = np.where(g & (mean < error), mean, error)
    exponent = np.float32(np.log(1 - 0.5) / 5) * distance.astype(np.float32)  # MATLAB's distances are single
    weight = np.where(g, 1, 2 - np.exp(exponent.astype(np.float64)).astype(np.float32))
    weighted = smaller * weight
    hit, false = g.sum() - weighted[g].sum(), weighted[~g].sum()
    recall, precision = 1 - weighted[g].mean(), hit / (EPS + hit + false)
    return 2 * recall * precision / (EPS + recall + precision)


def of_set(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a set; a NaN score is left out of its mean."""
    figures = {name: np.nanmean([record[name] for record in records]) for name in SCORES}
    precision = np.mean([record["precision"] for record in records], axis=0)
    recall = np.mean([record["recall"] for record in records], axis=0)
    f_curve = 1.3 * precision * recall / (0.3 * precision + recall + EPS)
    e_curve = np.mean([record["e_curve"] for record in records], axis=0)
    figures |= {"precision": precision, "recall": recall, "f_curve": f_curve}
    figures |= {"max_f": f_curve.max(), "mean_curve_f": f_curve.mean()}
    return figures | {"max_e": e_curve.max(), "mean_e": e_curve.mean()}
