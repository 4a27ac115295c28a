"""Quasi-equilibrium feature pyramid network for salient object detection.

``from qefpn import QEFPN, load_model`` is the network, ``Predictor`` a trained one on pictures of one's own; the
subpackages ``implicit``, ``metrics``, ``data`` and ``losses`` stand on their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qefpn.version import __version__

if TYPE_CHECKING:
    from qefpn.models import QEFPN, load_model
    from qefpn.training.predictor import Predictor

__all__ = ["QEFPN", "Predictor", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    # Importing the network costs seconds (torchvision, timm); `qefpn --help` must not pay them.
    if name in ("QEFPN", "load_model"):
        from qefpn import models

        return getattr(models, name)
    if name == "Predictor":
        from qefpn.training.predictor import Predictor

        return Predictor
    raise AttributeError(f"module 'qefpn' has no attribute {name!r}")
