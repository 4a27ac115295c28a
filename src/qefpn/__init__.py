"""Quasi-equilibrium feature pyramid network for salient object detection.

``from qefpn import QEFPN, load_model`` is the network, ``Predictor`` a trained one on pictures of one's own;
``SaliencyModule`` and ``SaliencyDataModule`` are what a Lightning trainer takes; the subpackages ``implicit``,
``metrics``, ``data`` and ``losses`` stand on their own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qefpn.version import __version__

if TYPE_CHECKING:
    from qefpn.data import SaliencyDataModule
    from qefpn.inference.predictor import Predictor
    from qefpn.models import QEFPN, load_model
    from qefpn.training.module import SaliencyModule

__all__ = ["QEFPN", "Predictor", "SaliencyDataModule", "SaliencyModule", "__version__", "load_model"]

_FROM = {
    "QEFPN": "qefpn.models",
    "load_model": "qefpn.models",
    "Predictor": "qefpn.inference.predictor",
    "SaliencyModule": "qefpn.training.module",
    "SaliencyDataModule": "qefpn.data",
}


def __getattr__(name: str) -> Any:
    # Importing the network costs seconds (torchvision, timm); `qefpn --help` must not pay them.
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    raise AttributeError(f"module 'qefpn' has no attribute {name!r}")
