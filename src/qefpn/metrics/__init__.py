"""Saliency metrics: exact, in one pass, under the field's protocols.

``saliency_scores`` measures each picture, ``combine`` a set of such records, and both need NumPy and numba alone.
``SaliencyMetrics`` is the torchmetrics metric of a set, and one class each does a single figure; ``paired_bootstrap``
says how sure the difference of two methods is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qefpn.metrics.bootstrap import Interval, MeanInterval, bootstrap_interval, paired_bootstrap
    from qefpn.metrics.figures import choose
    from qefpn.metrics.inputs import resize_map, to_uint8
    from qefpn.metrics.protocol import F3NET, PROTOCOLS, PYSOD, SALEVAL, Protocol, get_protocol
    from qefpn.metrics.saliency_metrics import (
        MAE,
        BinaryRatio,
        EMeasure,
        FMeasure,
        PrecisionRecallCurve,
        SaliencyMetrics,
        SMeasure,
        WeightedFMeasure,
    )
    from qefpn.metrics.scores import combine, measure, saliency_scores

_FROM = {
    "bootstrap": ("Interval", "MeanInterval", "bootstrap_interval", "paired_bootstrap"),
    "figures": ("choose",),
    "inputs": ("resize_map", "to_uint8"),
    "protocol": ("F3NET", "PROTOCOLS", "PYSOD", "SALEVAL", "Protocol", "get_protocol"),
    "saliency_metrics": (
        *("MAE", "BinaryRatio", "EMeasure", "FMeasure", "PrecisionRecallCurve", "SMeasure", "SaliencyMetrics"),
        "WeightedFMeasure",
    ),
    "scores": ("combine", "measure", "saliency_scores"),
}

__all__ = [
    "F3NET",
    "MAE",
    "PROTOCOLS",
    "PYSOD",
    "SALEVAL",
    "BinaryRatio",
    "EMeasure",
    "FMeasure",
    "Interval",
    "MeanInterval",
    "PrecisionRecallCurve",
    "Protocol",
    "SMeasure",
    "SaliencyMetrics",
    "WeightedFMeasure",
    "bootstrap_interval",
    "choose",
    "combine",
    "get_protocol",
    "measure",
    "paired_bootstrap",
    "resize_map",
    "saliency_scores",
    "to_uint8",
]


def __getattr__(name: str) -> Any:
    # torch and torchmetrics take seconds to import, which a process that scores files need not pay
    for module, names in _FROM.items():
        if name in names:
            return getattr(importlib.import_module(f"qefpn.metrics.{module}"), name)
    raise AttributeError(f"module 'qefpn.metrics' has no attribute {name!r}")
