"""Figures that need a pass of their own, each by its authors' definition, on the protocol's map and mask.

Size-invariant MAE and F, HCE and the context measure agree with PySODMetrics 1.6.2, and so does MSIoU where its sums
are exact (it adds in half precision); boundary IoU and mBA are those of their papers. Binary maps are levels above 0.5,
and at least the adaptive threshold ``min(2 mean, 1)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from qefpn.metrics.figures import PASSES, Figures
from qefpn.metrics.histogram import JointHistogram
from qefpn.metrics.inputs import Picture
from qefpn.metrics.protocol import BETA2, EPS, Bool, Float

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_CELLS = tuple(2**k for k in range(10))  # of MSIoU, in pixels
_RELAX = 5  # pixels around the borders that HCE does not ask to correct
_TOLERANCE = 2.0  # of HCE's polygons, in pixels
_OBJECT = 50  # pixels from which on a component counts as an object, where one does


def _adaptive(levels: Float) -> Bool:
    return np.asarray(levels >= min(2 * levels.mean(), 1))


def _edges(binary: Bool) -> npt.NDArray[np.uint8]:
    """Where one of Sobel's two derivatives is not 0, of booleans, in which differences of two sides do not cancel."""
    from scipy import ndimage

    return np.asarray(np.logical_or(*(ndimage.sobel(binary, axis=axis, mode="constant") for axis in (0, 1))), np.uint8)


def _cells(edges: npt.NDArray[np.uint8], size: int) -> Bool:
    """Which cells of a grid, aligned at the lower right, hold an edge."""
    height, width = edges.shape
    padded = np.pad(edges, ((-height % size, 0), (-width % size, 0)))
    return np.asarray(padded.reshape(padded.shape[0] // size, size, -1, size).any(axis=(1, 3)))


def msiou(levels: Float, truth: Bool) -> dict[str, Any]:
    """Multiscale IoU (Ahmadzadeh et al., ICIP 2021): the area below the shares of the mask's edge cells that the map's
    edges meet, ``(both + 1) / (mask's + 1)``, in grids of 1, 2, 4, ..., 512 px; of the adaptive and the binary map."""
    of_mask = [_cells(_edges(truth), size) for size in _CELLS]
    found = {}
    for name, binary in (("msiou_adaptive", _adaptive(levels)), ("msiou_binary", levels > 0.5)):
        edges = _edges(binary)
        shares = [
            ((_cells(edges, size) & cells).sum() + 1) / (cells.sum() + 1)
            for size, cells in zip(_CELLS, of_mask, strict=True)
        ]
        found[name] = (sum(shares) - (shares[0] + shares[-1]) / 2) / (len(shares) - 1)
    return found


def _grown(part: Bool, within: Bool) -> Bool:
    """A region grown by :data:`_RELAX` steps inside another."""
    for _ in range(_RELAX):
        part = (cv2.dilate(part.astype(np.uint8), _CROSS) > 0) & within
    return part


def _corrections(part: Bool, beside: Bool) -> int:
    """Clicks to mend a region: corners of its outline where it borders on ``beside``, and one for each component that
    borders on nothing."""
    near = cv2.dilate(beside.astype(np.uint8), _CROSS) > 0
    number, labels = cv2.connectedComponents(part.astype(np.uint8), connectivity=8)
    alone = np.ones(number, np.bool_)
    alone[0] = False
    seen = np.zeros(part.shape, np.bool_)
    clicks = 0
    contours, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        pieces: list[list[tuple[int, int]]] = [[]]
        for column, row in contour[:, 0].tolist():
            if near[row, column] and not seen[row, column]:
                pieces[-1].append((column, row))
                seen[row, column] = True
                alone[labels[row, column]] = False
            elif pieces[-1]:
                pieces.append([])
        pieces = [piece for piece in pieces if piece]
        if len(pieces) > 1:
            (x, y), (u, v) = pieces[0][0], pieces[-1][-1]
            if max(abs(x - u), abs(y - v)) == 1:  # the outline began in the middle of a piece
                pieces[-1].extend(pieces.pop(0)[::-1])
        clicks += sum(len(cv2.approxPolyDP(np.array(piece)[:, None], _TOLERANCE, False)) for piece in pieces)
    return clicks + int(alone.sum())


def hce(levels: Float, truth: Bool) -> dict[str, Any]:
    """Human correction effort (Qin et al., ECCV 2022): the clicks that mend a binary map, 0 the best; errors within 5
    px of a border are forgiven, thin parts of the mask are not. Needs scikit-image, whose skeleton its authors took."""
    from skimage.morphology import skeletonize

    binary = levels > 0.5
    hit = binary & truth
    false, missed = binary & ~truth, truth & ~binary
    core = cv2.erode((truth | binary).astype(np.uint8), _CROSS, iterations=_RELAX) > 0
    false = false & _grown(false & core, ~truth)
    missed = missed & _grown(missed & core, ~binary)
    missed |= skeletonize(truth).astype(np.bool_) & ~hit
    return {"hce": float(_corrections(false, hit | missed) + _corrections(missed, ~(hit | false | missed)))}


def _boundary(binary: Bool) -> Bool:
    """What an erosion by 2 % of the diagonal takes away, the outside of the picture being background."""
    depth = max(1, round(0.02 * math.hypot(*binary.shape)))
    padded = cv2.copyMakeBorder(binary.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=depth)[1:-1, 1:-1]
    found: Bool = binary & (eroded == 0)
    return found


def biou(levels: Float, truth: Bool) -> dict[str, Any]:
    """Boundary IoU (Cheng et al., CVPR 2021) of the binary map, 1 the best; 1 where neither has a boundary."""
    ours, theirs = _boundary(levels > 0.5), _boundary(truth)
    union = np.count_nonzero(ours | theirs)
    return {"biou": np.count_nonzero(ours & theirs) / union if union else 1.0}


def mba(levels: Float, truth: Bool) -> dict[str, Any]:
    """Mean boundary accuracy (Cheng et al., CVPR 2020): the share of right pixels of the binary map around the mask's
    border, in bands of five radii up to (W + H) / 300; NaN where the mask has no border."""
    height, width = truth.shape
    right = (levels > 0.5) == truth
    largest, accuracies = (width + height) / 300, []
    for step in range(5):
        radius = 1 + int((largest - 1) / 5 * step)
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        band = cv2.morphologyEx(truth.astype(np.uint8), cv2.MORPH_GRADIENT, disk) > 0
        accuracies.append(right[band].mean() if band.any() else math.nan)
    return {"mba": sum(accuracies) / 5}


def _boxes(truth: Bool) -> list[tuple[slice, slice]]:
    """The boxes around the mask's objects: components (of 4 neighbours) of at least 50 px, or the largest ones."""
    number, _, stats, _ = cv2.connectedComponentsWithStats(truth.astype(np.uint8), connectivity=4)
    areas = stats[1:number, cv2.CC_STAT_AREA]
    chosen = areas >= min(_OBJECT, areas.max(initial=0))
    return [(slice(y, y + height), slice(x, x + width)) for x, y, width, height in stats[1:number][chosen, :4].tolist()]


def si_mae(levels: Float, truth: Bool) -> dict[str, Any]:
    """Size-invariant MAE (Li et al., ICML 2024): the MAE in each object's box and outside all of them, the last weighed
    by its area against theirs, divided by the sum of weights; plain MAE where the mask has no object."""
    error, boxes = np.abs(levels - truth), _boxes(truth)
    if not boxes:
        return {"si_mae": float(error.mean())}
    outside = np.ones(truth.shape, np.bool_)
    for box in boxes:
        outside[box] = False
    area = np.count_nonzero(outside)
    ratio = area / (truth.size - area)
    total = sum(error[box].mean() for box in boxes) + (ratio * error[outside].mean() if area else 0.0)
    return {"si_mae": float(total / (len(boxes) + ratio))}


def _f_of(hits: Any, selected: Any, positives: Any) -> Float:
    precision, recall = hits / np.maximum(selected, 1), hits / max(positives, 1)
    numerator = (1 + BETA2) * precision * recall
    return numerator / np.where(numerator == 0, 1, BETA2 * precision + recall)


def si_f(levels: Float, truth: Bool) -> dict[str, Any]:
    """Size-invariant F (Li et al., ICML 2024): the F-measure of the map inside each object's box, 0 outside, averaged
    over objects; at the adaptive threshold, and at 256 thresholds."""
    adaptive, curves = [], []
    for box in _boxes(truth) or [(slice(None), slice(None))]:
        inside, map_inside = truth[box], levels[box]
        rest = truth.size - inside.size
        positives = np.count_nonzero(inside)
        zeroed = np.zeros(truth.shape)
        zeroed[box] = map_inside
        chosen = map_inside >= (threshold := min(2 * zeroed.mean(), 1))
        selected = np.count_nonzero(chosen) + (rest if threshold <= 0 else 0)
        adaptive.append(float(_f_of(np.count_nonzero(chosen & inside), selected, positives)))
        values = (map_inside * 255).astype(np.uint8)
        hits, false = (np.bincount(values[part], minlength=256)[::-1].cumsum() for part in (inside, ~inside))
        false[-1] += rest
        curves.append(_f_of(hits, hits + false, positives))
    return {"si_f_adaptive": np.mean(adaptive), "si_f_curve": np.mean(curves, axis=0)}


def context_measure(levels: Float, truth: Bool) -> dict[str, Any]:
    """Context measure (Wang et al., arXiv 2512.07076), beta squared 1, alpha 6: how far the map is backed by the mask
    near it and the mask by the map, in a Gaussian window shaped as the mask; NaN where its pixels lie on a slant line,
    which has no such window."""
    places, target = np.argwhere(truth), truth.astype(np.float64)
    if len(places) <= 1:
        covariance, reach = np.diag([0.25, 0.25]), (1, 1)
    else:
        covariance = np.cov(places, rowvar=False)
        np.fill_diagonal(covariance, np.where(covariance.diagonal() == 0, EPS, covariance.diagonal()))
        spread = 6 * np.sqrt(covariance.diagonal()) / np.sqrt(covariance.trace())
        covariance = 36 * covariance / np.sqrt(covariance.trace()) ** 2
        reach = (round(3 * spread[0]), round(3 * spread[1]))
    if (determinant := np.linalg.det(covariance)) <= 0:
        return {"context_measure": math.nan}
    steps = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1)
    exponent = np.einsum("...i,ij,...j->...", steps, np.linalg.inv(covariance), steps)
    kernel = np.exp(-0.5 * exponent) / (2 * np.pi * np.sqrt(determinant))
    kernel /= kernel.sum()
    near_mask = (levels > 0) * cv2.filter2D(target.astype(np.float32), cv2.CV_32F, kernel)
    relevance = (near_mask * levels).sum() / (levels.sum() + EPS)
    covered = math.e / (math.e - 1) * target * (1 - np.exp(-cv2.filter2D(levels, -1, kernel)))
    completeness = (covered * target).sum() / (target.sum() + EPS)
    return {"context_measure": 2 * relevance * completeness / (relevance + completeness + EPS)}


_COMPUTED: Mapping[str, Callable[[Float, Bool], dict[str, Any]]] = {
    "msiou": msiou,
    "hce": hce,
    "biou": biou,
    "mba": mba,
    "si_mae": si_mae,
    "si_f": si_f,
    "context_measure": context_measure,
}


def pass_values(figures: Figures, pictures: Sequence[Picture], histogram: JointHistogram) -> dict[str, Float]:
    """Scores (B,) and curves (B, 256) of ``figures.passes``; blank pictures are not measured and have 0."""
    values = {
        name: np.zeros((len(pictures), *shape))
        for one in figures.passes
        for names, shape in zip(PASSES[one], ((), (256,)), strict=True)
        for name in names
    }
    for i, picture in enumerate(pictures):
        if picture.blank:
            continue
        levels, truth = histogram.levels[i][picture.saliency], picture.mask > 0
        for one in figures.passes:
            for name, value in _COMPUTED[one](levels, truth).items():
                values[name][i] = value
    return values
