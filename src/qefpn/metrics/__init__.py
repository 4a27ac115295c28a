"""Saliency metrics: exact, in one pass, under the field's two protocols.

``SaliencyMetrics`` measures a set, ``saliency_scores`` each picture, and one class each does a single metric;
``paired_bootstrap`` says how sure the difference of two methods is.
"""

from __future__ import annotations

from qefpn.metrics.bootstrap import Interval, MeanInterval, bootstrap_interval, paired_bootstrap
from qefpn.metrics.classes import (
    MAE,
    BinaryRatio,
    EMeasure,
    FMeasure,
    PrecisionRecallCurve,
    SMeasure,
    WeightedFMeasure,
)
from qefpn.metrics.inputs import resize_map, to_uint8
from qefpn.metrics.protocol import F3NET, PROTOCOLS, PYSOD, Protocol, get_protocol
from qefpn.metrics.saliency_metrics import SaliencyMetrics
from qefpn.metrics.scores import combine, measure, saliency_scores

__all__ = [
    "F3NET",
    "MAE",
    "PROTOCOLS",
    "PYSOD",
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
    "combine",
    "get_protocol",
    "measure",
    "paired_bootstrap",
    "resize_map",
    "saliency_scores",
    "to_uint8",
]
