"""PySODMetrics, one picture at a time, under the names of our scores."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import py_sod_metrics


def pysod_scores(saliency: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
    """The scores and curves of one picture."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        classes = ("MAE", "Fmeasure", "WeightedFmeasure", "Smeasure", "Emeasure")
        results: dict[str, Any] = {}
        for name in classes:
            metric = getattr(py_sod_metrics, name)()
            metric.step(saliency, mask)
            results |= metric.get_results()
    f_curve, e_curve = results["fm"]["curve"], results["em"]["curve"]
    return {
        "mae": results["mae"],
        "mean_f": results["fm"]["adp"],
        "max_f": f_curve.max(),
        "mean_curve_f": f_curve.mean(),
        "weighted_f": results["wfm"],
        "s_measure": results["sm"],
        "e_measure": results["em"]["adp"],
        "max_e": e_curve.max(),
        "mean_e": e_curve.mean(),
        "precision": results["pr"]["p"],
        "recall": results["pr"]["r"],
        "f_curve": f_curve,
        "e_curve": e_curve,
    }
