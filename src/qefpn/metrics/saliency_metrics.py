"""All metrics of a set in one pass, as torchmetrics metrics: one with everything, and one class each, its views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from qefpn.metrics.figures import Figures, choose
from qefpn.metrics.inputs import check_names
from qefpn.metrics.protocol import Protocol, get_protocol
from qefpn.metrics.scores import Measured, measure
from qefpn.metrics.sums import Sums


class SaliencyMetrics(Metric):
    """MAE, F, weighted F, S, E, binary ratio and their curves over a set of pictures, and what is asked for beside.

    The state is sums of integers and counts, so that any number of processes with any shares of the pictures, in any
    order, gives what one process gives, to the last bit. A score that is NaN for a picture is left out of its mean and
    counted. The classes below keep the same state: in a ``MetricCollection`` pixels are read once for all of them.

    Args:
        protocol: "f3net" (the paper's Table I), "pysod" (PySODMetrics 1.6) or "saleval".
        metrics: "sod", "cod", "dis", "all", or names of figures: what is measured beside the figures of "sod".
        quantize: whether maps of floats or of 16 bits become 8-bit ones, as a saved PNG would hold them; else they are
            measured as they are, one by one.
        kwargs: of ``torchmetrics.Metric``.

    ``update(pred, target)`` takes (H, W), (B, H, W) or (B, 1, H, W), or lists of (H, W) of mixed sizes; torch or NumPy;
    uint8 0-255 or float 0-1. ``compute()`` gives float64 tensors: ``mae``, ``mean_f`` and ``e_measure`` (at the
    adaptive threshold), ``weighted_f``, ``max_f``, ``s_measure``, ``binary_ratio`` (percent), ``mean_curve_f``,
    ``mean_e``, ``max_e``; the F and E among them once more as ``f_adaptive``, ``f_mean``, ``f_max``, ``e_adaptive``,
    ``e_mean``, ``e_max``; ``images``, ``undefined`` (NaN scores left out); and ``precision``, ``recall``, ``f_curve``
    and ``e_curve`` (256,), index 0 the threshold 255.

    Raises:
        ValueError: unknown protocol or metric, shapes that do not fit, floats outside [0, 1], NaN.

    >>> import torch
    >>> mask = torch.zeros(2, 1, 8, 8)
    >>> mask[..., 2:6, 2:6] = 1
    >>> metric = SaliencyMetrics("f3net", metrics=["iou"])
    >>> metric.update(0.5 * mask, mask)
    >>> result = metric.compute()
    >>> result["max_f"].item(), int(result["images"]), result["f_curve"].shape, result["iou_mean"].item()
    (1.0, 2, torch.Size([256]), 0.9970703125)
    """

    full_state_update = False
    is_differentiable = False

    def __init__(
        self,
        protocol: str | Protocol = "f3net",
        metrics: str | Sequence[str] | Figures = "sod",
        quantize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.protocol = get_protocol(protocol)
        self.figures = choose(metrics, quantize)
        self.sums: Tensor
        self.add_state("sums", torch.from_numpy(Sums(self.protocol, self.figures).kept), dist_reduce_fx="sum")

    def update(self, pred: Any, target: Any, *, measured: Measured | None = None) -> None:
        """Add maps and their masks.

        Args:
            pred: maps, of one picture or a batch.
            target: masks, the same.
            measured: the scores of these pictures, where they have been measured already.
        """
        measured = measure(pred, target, self.protocol, self.figures) if measured is None else measured
        added = Sums(self.protocol, self.figures)
        if len(measured):
            added.add(measured.values, measured.blank_maps)
        # replaced, not changed: whoever holds the state keeps its value
        self.sums = self.sums + torch.from_numpy(added.kept).to(self.sums.device)

    def score_batch(
        self, pred: Any, target: Any, names: Sequence[str] | None = None, *, curves: bool = False
    ) -> list[dict[str, Any]]:
        """:meth:`update`, and give one record a picture, of the same pass.

        The records are those of :func:`saliency_scores`, always in a list.
        """
        measured = measure(pred, target, self.protocol, self.figures)
        checked = check_names(names, len(measured))
        self.update(pred, target, measured=measured)
        return measured.records(checked, curves)

    def _sums(self) -> Sums:
        return Sums(self.protocol, self.figures, self.sums.cpu().numpy())

    @property
    def undefined(self) -> Tensor:
        """How often each score of ``figures.scores`` was NaN."""
        return torch.from_numpy(self._sums().undefined.copy())

    def _all_figures(self) -> dict[str, Tensor]:
        return {
            name: torch.as_tensor(np.array(value), dtype=torch.float64, device=self.sums.device)
            for name, value in self._sums().compute().items()
        }

    def compute(self) -> Any:
        """The figures of all pictures so far; NaN before the first."""
        return self._all_figures()


class _One(SaliencyMetrics):
    """A view of :class:`SaliencyMetrics`: one figure, or some by name.

    Args:
        protocol: "f3net", "pysod" or "saleval".
    """

    entries: ClassVar[tuple[str, ...]]

    def __init__(self, protocol: str | Protocol = "f3net", **kwargs: Any) -> None:
        super().__init__(protocol, **kwargs)

    def compute(self) -> Any:
        """The figures so far: a float64 scalar, or tensors by name where there are several."""
        found = self._all_figures()
        return found[self.entries[0]] if len(self.entries) == 1 else {name: found[name] for name in self.entries}


class MAE(_One):
    """Mean absolute error, ``mean |S - G|``, 0 the best.

    >>> import torch
    >>> MAE("pysod")(torch.tensor([[0.0, 0.5], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])).item()
    0.12549019607843137
    """

    higher_is_better = False
    entries = ("mae",)


class WeightedFMeasure(_One):
    """Weighted F-measure of Margolin et al. (CVPR 2014), beta squared 1, 1 the best.

    >>> import torch
    >>> mask = torch.zeros(9, 9)
    >>> mask[3:6, 3:6] = 1
    >>> round(WeightedFMeasure()(mask, mask).item(), 6)
    1.0
    """

    higher_is_better = True
    entries = ("weighted_f",)


class SMeasure(_One):
    """Structure measure of Fan et al. (ICCV 2017), alpha 0.5, 1 the best.

    A picture for which it is NaN is left out of the mean; ``metric.undefined`` counts them, by score.

    >>> import torch
    >>> mask = torch.zeros(9, 9)
    >>> mask[3:6, 3:6] = 1
    >>> round(SMeasure()(mask, mask).item(), 6)
    1.0
    """

    higher_is_better = True
    entries = ("s_measure",)


class BinaryRatio(_One):
    """Share, in percent, of pixels above 0.9 or below 0.1, before min-max (the paper's Table V).

    ``update(pred, target)``; the mask gives the size and, under "f3net", whether the picture counts as 0. It may be
    left out, and every map counts as it is.

    >>> import torch
    >>> BinaryRatio()(torch.tensor([[0.0, 0.5], [0.95, 1.0]])).item()
    75.0
    """

    higher_is_better = True
    entries = ("binary_ratio",)

    def update(self, pred: Any, target: Any = None, *, measured: Measured | None = None) -> None:
        """Add maps, with or without their masks."""
        super().update(pred, _full_masks(pred) if target is None else target, measured=measured)


def _full_masks(pred: Any) -> Any:
    if isinstance(pred, (list, tuple)):
        return [np.ones(tuple(item.shape), np.bool_) for item in pred]
    return np.ones(tuple(pred.shape), np.bool_)


class PrecisionRecallCurve(_One):
    """Precision and recall at the thresholds 255, 254, ..., 0, averaged over the pictures.

    ``compute()`` gives ``precision`` and ``recall``, float64 (256,), index 0 the threshold 255.

    >>> import torch
    >>> mask = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> curve = PrecisionRecallCurve()(mask, mask)
    >>> curve["precision"][[0, 254, 255]].tolist(), curve["recall"][0].item()
    ([1.0, 1.0, 0.5], 1.0)
    """

    entries = ("precision", "recall")


class FMeasure(_One):
    """F-measure, ``1.3 P R / (0.3 P + R)``, 1 the best.

    Under "f3net" the curve is that of the mean precision and recall, under "pysod" the mean of the pictures' curves.
    ``compute()`` gives float64 ``mean_f`` (at the adaptive threshold ``min(2 mean(S), 1)``), ``max_f`` and
    ``mean_curve_f`` of the curve, and ``f_curve`` (256,), index 0 the threshold 255.

    >>> import torch
    >>> mask = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> result = FMeasure()(mask, mask)
    >>> result["mean_f"].item(), result["max_f"].item()
    (1.0, 1.0)
    """

    higher_is_better = True
    entries = ("mean_f", "max_f", "mean_curve_f", "f_curve")


class EMeasure(_One):
    """Enhanced alignment measure of Fan et al. (IJCAI 2018), 1 the best.

    The adaptive threshold selects with ``>`` under "f3net" and with ``>=`` under "pysod". ``compute()`` gives float64
    ``e_measure`` (at the adaptive threshold ``2 * mean(S)``), ``max_e`` and ``mean_e`` of the mean curve, and
    ``e_curve`` (256,), index 0 the threshold 255.

    >>> import torch
    >>> mask = torch.zeros(4, 4)
    >>> mask[:2] = 1
    >>> round(EMeasure("pysod")(mask, mask)["e_measure"].item(), 4)  # 16 / 15: the field divides by N - 1
    1.0667
    """

    higher_is_better = True
    entries = ("e_measure", "max_e", "mean_e", "e_curve")
