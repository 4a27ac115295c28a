"""The weighted F-measure of a batch on an accelerator, in batched operations."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qefpn.metrics.device import DeviceBatch
from qefpn.metrics.distance import FAR, NEAR, OFFSETS, PAD, REACH
from qefpn.metrics.histogram import Float, JointHistogram
from qefpn.metrics.weighted_f import GAUSS, WEIGHTS, weighted_f_of_errors

_CHUNK = 1 << 25  # sums of the min-plus pass held at once: 128 MB
_NONE = 1 << 20  # further than any row


def device_weighted_f(batch: DeviceBatch, histogram: JointHistogram) -> Float:
    """As ``weighted_f.weighted_f_measure`` for every picture: (B,), 0 for an empty mask."""
    levels = torch.from_numpy(histogram.levels).to(batch.mask.device)
    errors, first = [], 0
    for part in batch.parts():
        errors.append(_errors(part, levels[first : first + len(part)]).cpu().numpy())
        first += len(part)
    missed, false_sum = np.concatenate(errors, axis=1)
    positives = histogram.positives
    return np.where(positives > 0, weighted_f_of_errors(missed, false_sum, positives.astype(np.float64)), 0.0)


def _errors(batch: DeviceBatch, levels: Tensor) -> Tensor:
    """(2, B) float64: mean error of the foreground, sum of the weighted errors of the background."""
    saliency, mask = batch.saliency, batch.mask
    squared = near_squared_distances(mask)
    weights = torch.from_numpy(WEIGHTS).to(mask.device)[squared]
    false_sum = (_look_up(levels, saliency) * weights).sum(dim=(1, 2))
    spread = _look_up(1 - levels, lend_to_background(saliency, squared))
    missed = torch.where(mask, torch.minimum(spread, _window_mean(spread)), 0).sum(dim=(1, 2))
    return torch.stack([missed / mask.sum(dim=(1, 2)).clamp(min=1), false_sum])


def _look_up(levels: Tensor, values: Tensor) -> Tensor:
    """(B, H, W) of ``levels`` (B, 256) at ``values`` (B, H, W)."""
    return levels.gather(1, values.flatten(1).long()).view(values.shape)


def _window_mean(values: Tensor) -> Tensor:
    """The Gaussian mean, 0 outside the picture."""
    _, height, width = values.shape
    for axis, length in ((1, height), (2, width)):
        pad = (0, 0, REACH, REACH) if axis == 1 else (REACH, REACH)
        wide = F.pad(values, pad)
        values = GAUSS[0] * wide.narrow(axis, 0, length)
        for step in range(1, len(GAUSS)):
            values.add_(wide.narrow(axis, step, length), alpha=float(GAUSS[step]))
    return values


def near_squared_distances(mask: Tensor) -> Tensor:
    """Squared distances to the foreground: along one axis by running extremes, then the minimum over the other.

    Args:
        mask: (B, H, W) bool.

    Returns:
        (B, H, W) int32: exact below 256 px, and ``distance.FAR`` from there on or where there is no foreground.

    >>> near_squared_distances(torch.tensor([[[False, False, True, False]]])).tolist()
    [[[4, 1, 0, 1]]]
    """
    if mask.shape[2] > mask.shape[1]:  # the second pass costs the square of its axis
        return near_squared_distances(mask.transpose(1, 2)).transpose(1, 2)
    number, height, width = mask.shape
    rows = torch.arange(height, dtype=torch.int32, device=mask.device)[:, None]
    above = torch.where(mask, rows, -_NONE).cummax(dim=1).values
    below = torch.where(mask, rows, _NONE).flip(1).cummin(dim=1).values.flip(1)
    gap = torch.minimum(rows - above, below - rows).clamp_(max=FAR // 256 + 1)
    columns = torch.arange(width, dtype=torch.int32, device=mask.device)
    apart = (columns[:, None] - columns).square_()
    lines = gap.square_().view(number * height, 1, width)
    nearest = [(part + apart).amin(dim=2) for part in lines.split(max(1, _CHUNK // width**2))]
    return torch.cat(nearest).clamp_(max=FAR).view(number, height, width)


def lend_to_background(saliency: Tensor, squared: Tensor) -> Tensor:
    """As ``distance.lend_to_background``, for a batch.

    Args:
        saliency: (B, H, W) uint8.
        squared: (B, H, W) of :func:`near_squared_distances`.

    Returns:
        (B, H, W) uint8, of use in the foreground and within ``distance.REACH`` of it.
    """
    border = (PAD, PAD, PAD, PAD)
    filled = F.pad(saliency, border)
    lengths = F.pad(squared, border, value=FAR).flatten()
    offsets = torch.from_numpy(OFFSETS[..., 0] * filled.shape[2] + OFFSETS[..., 1]).to(saliency.device)
    place = ((lengths > 0) & (lengths <= NEAR)).nonzero()[:, 0]
    length = lengths[place]
    nearest = place
    for steps in offsets.T.flip(0):  # the first that hits counts, so it comes last
        source = place + steps[length]
        nearest = torch.where(lengths[source] == 0, source, nearest)
    flat = filled.flatten()
    flat[place] = flat[nearest]
    return flat.view(filled.shape)[:, PAD:-PAD, PAD:-PAD]
