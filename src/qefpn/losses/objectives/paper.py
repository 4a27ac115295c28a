"""The paper's own objective."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from qefpn.losses.base import LOSSES, SaliencyLoss
from qefpn.losses.functional import edge_cross_entropy


@LOSSES.register("paper")
class PaperLoss(SaliencyLoss):
    """CE(G(S), G(E)) + CE(S, E) + IoU(S, E) (Eq. 15)."""

    default_weights: ClassVar[dict[str, float]] = {**SaliencyLoss.default_weights, "edge": 1.0}

    def contour_terms(self, logits: Tensor, target: Tensor, edge_logits: Tensor | None) -> dict[str, Tensor]:
        return {"edge": edge_cross_entropy(self.extract(logits.sigmoid()), self.extract(target))}
