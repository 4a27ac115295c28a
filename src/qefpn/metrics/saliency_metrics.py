"""All metrics of a set in one pass, as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from qefpn.metrics.exact import LIMBS, mean, split
from qefpn.metrics.inputs import check_names
from qefpn.metrics.protocol import Protocol, get_protocol
from qefpn.metrics.scores import CURVES, SCORES, Measured, curve_figures, measure


class SaliencyMetrics(Metric):
    """MAE, F, weighted F, S, E, binary ratio and their curves over a set of pictures.

    The states are sums of integers and counts, so that any number of processes with any shares of the pictures, in
    any order, gives what one process gives, to the last bit. A score that is NaN for a picture is left out of its
    mean and counted.

    Args:
        protocol: "f3net" (the paper's Table I) or "pysod" (PySODMetrics 1.6).
        kwargs: of ``torchmetrics.Metric``.

    ``update(pred, target)`` takes (H, W), (B, H, W) or (B, 1, H, W), or lists of (H, W) of mixed sizes; torch
    or NumPy; uint8 0-255 or float 0-1 (which becomes ``round(255 x)``). ``compute()`` gives float64 tensors:
    ``mae``, ``mean_f`` and ``e_measure`` (at the adaptive threshold), ``weighted_f``, ``max_f``,
    ``s_measure``, ``binary_ratio`` (percent), ``mean_curve_f``, ``mean_e``, ``max_e``, ``images``,
    ``undefined`` (NaN scores left out), and ``precision``, ``recall`` and ``f_curve`` (256,), index 0 the
    threshold 255.

    Raises:
        ValueError: unknown protocol, shapes that do not fit, floats outside [0, 1], NaN.

    >>> import torch
    >>> mask = torch.zeros(2, 1, 8, 8)
    >>> mask[..., 2:6, 2:6] = 1
    >>> metric = SaliencyMetrics("f3net")
    >>> metric.update(0.5 * mask, mask)
    >>> result = metric.compute()
    >>> result["max_f"].item(), int(result["images"]), result["f_curve"].shape
    (1.0, 2, torch.Size([256]))
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False

    def __init__(self, protocol: str | Protocol = "f3net", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol = get_protocol(protocol)
        self.sums: Tensor
        self.undefined: Tensor
        self.curve_sums: Tensor
        self.images: Tensor
        self.add_state("sums", torch.zeros(LIMBS, len(SCORES), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("undefined", torch.zeros(len(SCORES), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("curve_sums", torch.zeros(LIMBS, len(CURVES), 256, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, pred: Any, target: Any, *, measured: Measured | None = None) -> None:
        """Add maps and their masks.

        Args:
            pred: maps, of one picture or a batch.
            target: masks, the same.
            measured: the scores of these pictures, where they have been measured already.
        """
        measured = measure(pred, target, self.protocol) if measured is None else measured
        scores = np.array([measured.values[name] for name in SCORES])
        undefined = np.isnan(scores)
        curves = np.stack([split(measured.values[name]).sum(axis=1) for name in CURVES], axis=1)
        device = self.sums.device  # the states are replaced, not changed: whoever holds one keeps its value
        self.sums = self.sums + torch.from_numpy(split(np.where(undefined, 0.0, scores)).sum(axis=2)).to(device)
        self.undefined = self.undefined + torch.from_numpy(undefined.sum(axis=1)).to(device)
        self.curve_sums = self.curve_sums + torch.from_numpy(curves).to(device)
        self.images = self.images + len(measured)

    def score_batch(
        self, pred: Any, target: Any, names: Sequence[str] | None = None, *, curves: bool = False
    ) -> list[dict[str, Any]]:
        """:meth:`update`, and give one record a picture, of the same pass.

        The records are those of :func:`saliency_scores`, always in a list.
        """
        measured = measure(pred, target, self.protocol)
        checked = check_names(names, len(measured))
        self.update(pred, target, measured=measured)
        return measured.records(checked, curves)

    def compute(self) -> dict[str, Tensor]:
        """The figures of all pictures so far; NaN before the first."""
        images = self.images.cpu().numpy()
        means = mean(self.sums.cpu().numpy(), images - self.undefined.cpu().numpy())
        curves = mean(self.curve_sums.cpu().numpy(), images)
        figures: dict[str, Any] = dict(zip(SCORES, means, strict=True))
        figures.update(curve_figures(dict(zip(CURVES, curves, strict=True)), self.protocol))
        figures.update(images=self.images, undefined=self.undefined.sum())
        device = self.sums.device
        return {
            name: torch.as_tensor(value, dtype=torch.float64, device=device).clone() for name, value in figures.items()
        }
