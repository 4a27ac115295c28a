"""Overlap of the boundaries in place of the cross-entropy of the edges."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from qefpn.losses.base import LOSSES, SaliencyLoss
from qefpn.losses.functional import boundary_iou_loss


@LOSSES.register("weighted_iou")
class WeightedIoULoss(SaliencyLoss):
    """CE + IoU + boundary IoU of the extracted edges (Table V, "weighted IoU loss").

    The boundary term is that of Luo et al. (CVPR 2017), see `boundary_iou_loss`.
    """

    default_weights: ClassVar[dict[str, float]] = {**SaliencyLoss.default_weights, "boundary_iou": 1.0}

    def contour_terms(self, logits: Tensor, target: Tensor, edge_logits: Tensor | None) -> dict[str, Tensor]:
        return {"boundary_iou": boundary_iou_loss(self.extract(logits.sigmoid()), self.extract(target))}
