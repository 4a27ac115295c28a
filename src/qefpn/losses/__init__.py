"""Objectives for saliency maps, and the differentiable edge extractor."""

from __future__ import annotations

from qefpn.losses.extractor import EdgeExtractor, edges
from qefpn.losses.filters import EDGE_FILTERS
from qefpn.losses.functional import (
    boundary_iou_loss,
    edge_cross_entropy,
    iou_loss,
    mask_cross_entropy,
    ssim_loss,
)
from qefpn.losses.objectives import (
    LOSSES,
    LowLevelEdgesLoss,
    NoEdgesLoss,
    PaperLoss,
    SaliencyLoss,
    SSIMLoss,
    WeightedIoULoss,
    build_loss,
)

__all__ = [
    "EDGE_FILTERS",
    "LOSSES",
    "EdgeExtractor",
    "LowLevelEdgesLoss",
    "NoEdgesLoss",
    "PaperLoss",
    "SSIMLoss",
    "SaliencyLoss",
    "WeightedIoULoss",
    "boundary_iou_loss",
    "build_loss",
    "edge_cross_entropy",
    "edges",
    "iou_loss",
    "mask_cross_entropy",
    "ssim_loss",
]
