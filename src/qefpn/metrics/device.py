"""A batch of one size on an accelerator: the joint histogram without moving a pixel or looping over pictures.

Pixels are counted where they lie. The counts are small; the scores come from them as everywhere else, so that a score
is that of the CPU to the last bit (the weighted F-measure, which needs distances, is in ``device_weighted_f``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qefpn.metrics.histogram import Int, JointHistogram, of_counts
from qefpn.metrics.inputs import check_range, warn_of_ones
from qefpn.metrics.protocol import Protocol

_SPREAD = 8
"""Bins a value: neighbours of one value, of which a saliency map is full, are added to different ones."""

PIXELS = 1 << 23
"""Pixels worked on at once, which bounds the memory: about 100 bytes each."""


@dataclass(frozen=True)
class DeviceBatch:
    """B maps and masks of one size.

    Args:
        saliency: (B, H, W) uint8.
        mask: (B, H, W) bool, the foreground.
    """

    saliency: Tensor
    mask: Tensor

    def __len__(self) -> int:
        return len(self.saliency)

    def parts(self) -> list[DeviceBatch]:
        """The batch in parts of at most :data:`PIXELS` pixels (or one picture)."""
        step = max(1, PIXELS // math.prod(self.mask.shape[1:]))
        pairs = zip(self.saliency.split(step), self.mask.split(step), strict=True)
        return [DeviceBatch(saliency, mask) for saliency, mask in pairs]


def device_batch(pred: Any, target: Any, protocol: Protocol) -> DeviceBatch | None:
    """Take maps and masks as they are where they lie on a CUDA device and need no resizing; else None.

    Args:
        pred: tensor (H, W), (B, H, W) or (B, 1, H, W), uint8, bool or float in [0, 1].
        target: masks, the same.
        protocol: how a mask becomes foreground and background.

    Raises:
        ValueError: floats outside [0, 1], or NaN.
    """
    if not (isinstance(pred, Tensor) and isinstance(target, Tensor) and _lies_on_device(pred, target)):
        return None
    maps, masks = _as_batch(pred), _as_batch(target)
    if maps is None or masks is None or maps.shape != masks.shape or maps.numel() == 0:
        return None  # the CPU resizes, or says what is wrong
    saliency, grey = _to_uint8(maps, "map"), _to_uint8(masks, "mask")
    return DeviceBatch(saliency, _foreground(grey, protocol))


def _lies_on_device(*tensors: Tensor) -> bool:
    return all(tensor.is_cuda for tensor in tensors) and len({tensor.device for tensor in tensors}) == 1


def _as_batch(value: Tensor) -> Tensor | None:
    value = value.detach()
    if value.dtype not in (torch.uint8, torch.bool) and not value.is_floating_point():
        return None
    if value.dim() == 4 and value.shape[1] == 1:
        return value[:, 0]
    if value.dim() == 2:
        return value[None]
    return value if value.dim() == 3 else None


def _to_uint8(values: Tensor, what: str) -> Tensor:
    """As ``inputs.to_uint8``, on the device."""
    if values.dtype == torch.uint8:
        return values
    if values.dtype == torch.bool:
        return values.to(torch.uint8) * 255
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    low, high = torch.stack(values.aminmax()).tolist()
    check_range(low, high, what)
    return (values * 255).round_().to(torch.uint8)


def _foreground(grey: Tensor, protocol: Protocol) -> Tensor:
    """As ``inputs.binarize``: (B, H, W) bool."""
    low, high = (ends.int() for ends in grey.flatten(1).aminmax(dim=1))
    if bool((high == 1).any()):
        warn_of_ones(protocol)
    if not protocol.relative_mask:
        return grey > 128
    half = low + (high - low + 1) // 2
    return grey >= torch.where(low == high, 128, half)[:, None, None]


def device_histogram(batch: DeviceBatch, protocol: Protocol) -> JointHistogram:
    """The :class:`JointHistogram` of a batch, which is that of the CPU."""
    counted: list[tuple[Int, Int]] = []
    for part in batch.parts():
        places = _centroid_splits(part.mask, protocol.matlab_centroid)
        counted.append((_count(part, places).cpu().numpy(), places.cpu().numpy()))
    counts, split = (np.concatenate(parts) for parts in zip(*counted, strict=True))
    sizes = np.tile(np.array(batch.mask.shape[1:], np.int64), (len(batch), 1))
    blank = np.zeros(len(batch), np.bool_)
    if protocol.skip_blank:
        blank = (counts[:, 1].sum(axis=(1, 2)) == 0) | (counts[..., 1:].sum(axis=(1, 2, 3)) == 0)
    return of_counts(counts, sizes, split, blank, lambda i: batch.saliency[i].cpu().numpy())


def _centroid_splits(mask: Tensor, matlab: bool) -> Tensor:
    """As ``histogram.centroid_split``: (B, 2) int64."""
    size = torch.tensor(mask.shape[1:], device=mask.device)
    lines = [mask.sum(dim=2), mask.sum(dim=1)]
    total = lines[0].sum(dim=1)[:, None]
    weighted = torch.stack([(line * torch.arange(line.shape[1], device=mask.device)).sum(dim=1) for line in lines], 1)
    some = total.clamp(min=1)
    if matlab:
        split = (2 * (weighted + some) + some) // (2 * some)
    else:
        split = (weighted.double() / some).round().long() + 1
    return torch.where(total == 0, size, split)


def _count(batch: DeviceBatch, split: Tensor) -> Tensor:
    """(B, 2, 4, 256) int64 counts."""
    number, height, width = batch.mask.shape
    device = batch.mask.device
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    lower, right = rows >= split[:, :1], columns >= split[:, 1:]
    place = 4 * 2 * torch.arange(number, device=device)[:, None, None]
    place = place + 2 * lower[:, :, None] + right[:, None, :]
    place = (place + 4 * batch.mask) * 256 + batch.saliency
    place = place * _SPREAD + columns % _SPREAD
    counts = torch.bincount(place.flatten(), minlength=number * 2048 * _SPREAD)
    return counts.view(number, 2, 4, 256, _SPREAD).sum(dim=4)
