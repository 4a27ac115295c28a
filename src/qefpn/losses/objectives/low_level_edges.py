"""Edges predicted from the lowest features in place of edges extracted from the prediction."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from qefpn.losses.base import LOSSES, SaliencyLoss
from qefpn.losses.extractor import full_precision
from qefpn.losses.functional import mask_cross_entropy


@LOSSES.register("low_level_edges")
class LowLevelEdgesLoss(SaliencyLoss):
    """CE + IoU + CE between a predicted edge map and the edges of the mask (Table V; EGNet, ICCV 2019).

    The edge map comes from the network's lowest pyramid level (``low_level_edges=True``). It is resized
    bilinearly to the mask where its size differs, and supervised by the soft edges of the mask.
    """

    default_weights: ClassVar[dict[str, float]] = {**SaliencyLoss.default_weights, "edge": 1.0}
    needs_edge_logits: ClassVar[bool] = True

    def contour_terms(self, logits: Tensor, target: Tensor, edge_logits: Tensor | None) -> dict[str, Tensor]:
        if edge_logits is None:
            raise ValueError("loss low_level_edges needs edge_logits: the network wants low_level_edges=True")
        if edge_logits.ndim != 4 or edge_logits.shape[:2] != target.shape[:2]:
            raise ValueError(
                f"edge_logits of shape {tuple(edge_logits.shape)} must be (B, 1, h, w) "
                f"for a target of shape {tuple(target.shape)}"
            )
        predicted = full_precision(edge_logits)
        if predicted.shape != target.shape:
            predicted = F.interpolate(predicted, size=target.shape[-2:], mode="bilinear", align_corners=False)
        return {"edge": mask_cross_entropy(predicted, self.extract(target))}
