"""SSIM in place of the edge term."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from qefpn.losses.base import LOSSES, SaliencyLoss
from qefpn.losses.functional import ssim_loss


@LOSSES.register("ssim")
class SSIMLoss(SaliencyLoss):
    """CE + IoU + (1 - SSIM): BASNet's hybrid loss (Table V, "SSIM loss"). The edge filter is not used."""

    default_weights: ClassVar[dict[str, float]] = {**SaliencyLoss.default_weights, "ssim": 1.0}

    def contour_terms(self, logits: Tensor, target: Tensor, edge_logits: Tensor | None) -> dict[str, Tensor]:
        return {"ssim": ssim_loss(logits.sigmoid(), target)}
