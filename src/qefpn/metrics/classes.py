"""One torchmetrics class for each saliency metric."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from qefpn.metrics.protocol import Protocol, get_protocol
from qefpn.metrics.scores import f_curve_of_means, measure


class _Mean(Metric):
    """Mean over the pictures of some entries of ``Measured.values``; subclasses say which."""

    full_state_update = False
    is_differentiable = False
    scorers: ClassVar[tuple[str, ...]]
    entries: ClassVar[dict[str, tuple[int, ...]]]

    def __init__(self, protocol: str | Protocol = "f3net", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol = get_protocol(protocol)
        self.images: Tensor
        self.undefined: Tensor
        for entry, shape in self.entries.items():
            self.add_state(f"{entry}_sum", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("undefined", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, pred: Any, target: Any) -> None:
        """Add maps and their masks, as ``SaliencyMetrics.update`` takes them."""
        measured = measure(pred, target, self.protocol, self.scorers)
        for entry in self.entries:
            state = f"{entry}_sum"
            total: Tensor = getattr(self, state)
            added = torch.as_tensor(np.nansum(measured.values[entry], axis=0))
            setattr(self, state, total + added.to(total.device))
        first = measured.values[next(iter(self.entries))]
        self.undefined = self.undefined + (int(np.isnan(first).sum()) if first.ndim == 1 else 0)
        self.images = self.images + len(measured)

    def mean(self, entry: str) -> Tensor:
        """Mean of one entry over the pictures for which it is defined; NaN before the first."""
        mean: Tensor = getattr(self, f"{entry}_sum") / (self.images - self.undefined)
        return mean


class _Score(_Mean):
    def compute(self) -> Tensor:
        """The mean over the pictures so far, a float64 scalar."""
        return self.mean(next(iter(self.entries)))


class MAE(_Score):
    """Mean absolute error, ``mean |S - G|``, 0 the best.

    Args:
        protocol: "f3net" or "pysod".

    >>> import torch
    >>> MAE("pysod")(torch.tensor([[0.0, 0.5], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])).item()
    0.12549019607843137
    """

    higher_is_better = False
    scorers = ("mae",)
    entries: ClassVar = {"mae": ()}


class WeightedFMeasure(_Score):
    """Weighted F-measure of Margolin et al. (CVPR 2014), beta squared 1, 1 the best.

    Args:
        protocol: "f3net" or "pysod".

    >>> import torch
    >>> mask = torch.zeros(9, 9)
    >>> mask[3:6, 3:6] = 1
    >>> round(WeightedFMeasure()(mask, mask).item(), 6)
    1.0
    """

    higher_is_better = True
    scorers = ("weighted_f",)
    entries: ClassVar = {"weighted_f": ()}


class SMeasure(_Score):
    """Structure measure of Fan et al. (ICCV 2017), alpha 0.5, 1 the best.

    A picture for which it is NaN is left out of the mean; ``metric.undefined`` counts them.

    Args:
        protocol: "f3net" or "pysod".

    >>> import torch
    >>> mask = torch.zeros(9, 9)
    >>> mask[3:6, 3:6] = 1
    >>> round(SMeasure()(mask, mask).item(), 6)
    1.0
    """

    higher_is_better = True
    scorers = ("s_measure",)
    entries: ClassVar = {"s_measure": ()}


class BinaryRatio(_Score):
    """Share, in percent, of pixels above 0.9 or below 0.1, before min-max (the paper's Table V).

    ``update(pred, target)``; the mask gives the size and, under "f3net", whether the picture counts as 0. It
    may be left out, and every map counts as it is.

    Args:
        protocol: "f3net" or "pysod".

    >>> import torch
    >>> BinaryRatio()(torch.tensor([[0.0, 0.5], [0.95, 1.0]])).item()
    75.0
    """

    higher_is_better = True
    scorers = ("binary_ratio",)
    entries: ClassVar = {"binary_ratio": ()}

    def update(self, pred: Any, target: Any = None) -> None:
        """Add maps, with or without their masks."""
        super().update(pred, _full_masks(pred) if target is None else target)


def _full_masks(pred: Any) -> Any:
    if isinstance(pred, (list, tuple)):
        return [np.ones(tuple(item.shape), np.bool_) for item in pred]
    return np.ones(tuple(pred.shape), np.bool_)


class PrecisionRecallCurve(_Mean):
    """Precision and recall at the thresholds 255, 254, ..., 0, averaged over the pictures.

    Args:
        protocol: "f3net" or "pysod".

    ``compute()`` gives ``precision`` and ``recall``, float64 (256,), index 0 the threshold 255.

    >>> import torch
    >>> mask = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> curve = PrecisionRecallCurve()(mask, mask)
    >>> curve["precision"][[0, 254, 255]].tolist(), curve["recall"][0].item()
    ([1.0, 1.0, 0.5], 1.0)
    """

    scorers = ("curves",)
    entries: ClassVar = {"precision": (256,), "recall": (256,)}

    def compute(self) -> dict[str, Tensor]:
        """Mean precision and recall of the pictures so far."""
        return {entry: self.mean(entry) for entry in self.entries}


class FMeasure(_Mean):
    """F-measure, ``1.3 P R / (0.3 P + R)``, 1 the best.

    Args:
        protocol: under "f3net" the curve is that of the mean precision and recall, under "pysod" the mean of
            the pictures' curves.

    ``compute()`` gives float64 ``mean_f`` (at the adaptive threshold ``min(2 mean(S), 1)``), ``max_f`` and
    ``mean_curve_f`` of the curve, and ``f_curve`` (256,), index 0 the threshold 255.

    >>> import torch
    >>> mask = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> result = FMeasure()(mask, mask)
    >>> result["mean_f"].item(), result["max_f"].item()
    (1.0, 1.0)
    """

    higher_is_better = True
    scorers = ("mean_f", "curves")
    entries: ClassVar = {"mean_f": (), "precision": (256,), "recall": (256,), "f_curve": (256,)}

    def compute(self) -> dict[str, Tensor]:
        """Adaptive, maximal and mean F-measure, and the curve, of the pictures so far."""
        curve = self.mean("f_curve")
        if self.protocol.curve_of_means:
            means = (self.mean(entry).cpu().numpy() for entry in ("precision", "recall"))
            curve = torch.from_numpy(f_curve_of_means(*means)).to(curve.device)
        mean_f = self.mean("mean_f")
        return {"mean_f": mean_f, "max_f": curve.max(), "mean_curve_f": curve.mean(), "f_curve": curve}


class EMeasure(_Mean):
    """Enhanced alignment measure of Fan et al. (IJCAI 2018), 1 the best.

    Args:
        protocol: the adaptive threshold selects with ``>`` under "f3net" and with ``>=`` under "pysod".

    ``compute()`` gives float64 ``e_measure`` (at the adaptive threshold ``2 mean(S)``), ``max_e`` and
    ``mean_e`` of the mean curve, and ``e_curve`` (256,), index 0 the threshold 255.

    >>> import torch
    >>> mask = torch.zeros(4, 4)
    >>> mask[:2] = 1
    >>> round(EMeasure("pysod")(mask, mask)["e_measure"].item(), 4)  # 16 / 15: the field divides by N - 1
    1.0667
    """

    higher_is_better = True
    scorers = ("e_measure", "e_curve")
    entries: ClassVar = {"e_measure": (), "e_curve": (256,)}

    def compute(self) -> dict[str, Tensor]:
        """Adaptive, maximal and mean E-measure, and the curve, of the pictures so far."""
        curve = self.mean("e_curve")
        e_measure = self.mean("e_measure")
        return {"e_measure": e_measure, "max_e": curve.max(), "mean_e": curve.mean(), "e_curve": curve}
