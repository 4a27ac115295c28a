"""The objectives by name, and what they share: mask terms, intermediate supervision, weights and precision.

A class here and a file in ``conf/loss`` add one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qefpn.errors import UserError
from qefpn.losses.extractor import EdgeExtractor, full_precision
from qefpn.losses.filters import Kernel
from qefpn.losses.functional import boundary_iou_loss, edge_cross_entropy, iou_loss, mask_cross_entropy, ssim_loss
from qefpn.registry import Registry


class SaliencyLoss(nn.Module):
    """CE and IoU on the mask, plus what a subclass adds for the contours.

    Args:
        edge_filter: filter of `EdgeExtractor`.
        weights: by name; `default_weights` of the class lists the names. ``side`` weighs the mask terms of
            each intermediate prediction, relative to those of the final one.

    Raises:
        UserError: a weight that the objective does not have, or that is negative or not finite.
        ValueError: unknown edge filter.
    """

    #: weight of every term of the objective; subclasses extend it
    default_weights: ClassVar[dict[str, float]] = {"ce": 1.0, "iou": 1.0, "side": 0.5}
    #: whether `forward` needs the network's low-level edge logits
    needs_edge_logits: ClassVar[bool] = False

    def __init__(self, edge_filter: str | Kernel = "sobel", **weights: float) -> None:
        super().__init__()
        self.extract = EdgeExtractor(edge_filter)
        for name, value in weights.items():
            if name not in self.default_weights:
                names = ", ".join(self.default_weights)
                raise UserError(f"loss has no weight {name!r}; its weights are: {names}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"loss.{name} must be a number, not {value!r}")
            if not (math.isfinite(value) and value >= 0):
                raise UserError(f"loss weight {name}={value} must be finite and at least 0")
        self.weights = {**self.default_weights, **{name: float(value) for name, value in weights.items()}}

    def contour_terms(self, logits: Tensor, target: Tensor, edge_logits: Tensor | None) -> dict[str, Tensor]:
        """The terms that a subclass adds, unweighted, by the name of their weight."""
        return {}

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        side_logits: Sequence[Tensor] = (),
        edge_logits: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum and its parts.

        Args:
            logits: (B, 1, H, W), the network's final prediction before the sigmoid.
            target: (B, 1, H, W) in [0, 1]; soft values count as they are.
            side_logits: intermediate predictions, each like ``logits``.
            edge_logits: (B, 1, h, w), the edge map predicted from low-level features.

        Returns:
            the total, a scalar that carries the gradient, and the unweighted terms, detached scalars.
            Intermediate predictions are summed into the term "side".

        Raises:
            ValueError: shapes that do not match, or ``edge_logits`` missing where the objective needs it.
        """
        for name, tensor in [("logits", logits), *(("side_logits", side) for side in side_logits)]:
            if tensor.shape != target.shape or tensor.ndim != 4:
                raise ValueError(
                    f"{name} of shape {tuple(tensor.shape)} and target of shape {tuple(target.shape)} "
                    "must be equal and (B, 1, H, W)"
                )
        with torch.autocast(device_type=logits.device.type, enabled=False):
            logits = full_precision(logits)
            target = target.to(logits)
            terms = self._mask_terms(logits, target)
            terms.update(self.contour_terms(logits, target, edge_logits))
            total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
            if side_logits:
                sides = [self._mask_terms(full_precision(side), target) for side in side_logits]
                weighted = [self.weights[name] * term for side in sides for name, term in side.items()]
                terms["side"] = torch.stack(weighted).sum()
                total = total + self.weights["side"] * terms["side"]
        return total, {name: term.detach() for name, term in terms.items()}

    @staticmethod
    def _mask_terms(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"ce": mask_cross_entropy(logits, target), "iou": iou_loss(logits.sigmoid(), target)}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value:g}" for name, value in self.weights.items())


LOSSES: Registry[type[SaliencyLoss]] = Registry("loss")


@LOSSES.register("paper")
class PaperLoss(SaliencyLoss):
    """CE(G(S), G(E)) + CE(S, E) + IoU(S, E) (Eq. 15)."""

    default_weights: ClassVar[dict[str, float]] = {**SaliencyLoss.default_weights, "edge": 1.0}

    def contour_terms(self, logits: Tensor, target: Tensor, edge_logits: Tensor | None) -> dict[str, Tensor]:
        return {"edge": edge_cross_entropy(self.extract(logits.sigmoid()), self.extract(target))}


@LOSSES.register("ssim")
class SSIMLoss(SaliencyLoss):
    """CE + IoU + (1 - SSIM): BASNet's hybrid loss (Table V, "SSIM loss"). The edge filter is not used."""

    default_weights: ClassVar[dict[str, float]] = {**SaliencyLoss.default_weights, "ssim": 1.0}

    def contour_terms(self, logits: Tensor, target: Tensor, edge_logits: Tensor | None) -> dict[str, Tensor]:
        return {"ssim": ssim_loss(logits.sigmoid(), target)}


@LOSSES.register("weighted_iou")
class WeightedIoULoss(SaliencyLoss):
    """CE + IoU + boundary IoU of the extracted edges (Table V, "weighted IoU loss").

    The boundary term is that of Luo et al. (CVPR 2017), see `boundary_iou_loss`.
    """

    default_weights: ClassVar[dict[str, float]] = {**SaliencyLoss.default_weights, "boundary_iou": 1.0}

    def contour_terms(self, logits: Tensor, target: Tensor, edge_logits: Tensor | None) -> dict[str, Tensor]:
        return {"boundary_iou": boundary_iou_loss(self.extract(logits.sigmoid()), self.extract(target))}


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


@LOSSES.register("no_edges")
class NoEdgesLoss(SaliencyLoss):
    """CE + IoU (Table V, "w/o edge extractor"). The edge filter is not used."""


def build_loss(name: str, edge_filter: str | Kernel = "sobel", **weights: Any) -> SaliencyLoss:
    """The objective called ``name``.

    Args:
        name: "paper" (Eq. 15), "ssim", "weighted_iou", "low_level_edges" or "no_edges" (Table V).
        edge_filter: filter of the edge extractor.
        weights: weight of each term, e.g. ``edge=2.0``; 1 by default, ``side`` 0.5.

    Raises:
        ValueError: unknown name or filter (the message lists what exists); as `UserError` for a weight.
    """
    return LOSSES.get(name)(edge_filter, **weights)
