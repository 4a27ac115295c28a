"""The network and its parts."""

from __future__ import annotations

from qefpn.models.backbone import Backbone, build_backbone
from qefpn.models.decoder import DECODERS, Decoder
from qefpn.models.fusion import FullyConnectedFusion, Neck
from qefpn.models.layers import ACTIVATIONS
from qefpn.models.loading import load_model
from qefpn.models.network import QEFPN, NetworkOutput
from qefpn.models.pyramid import ImplicitPyramid, PlainPyramid
from qefpn.models.transformation import Transformation

__all__ = [
    "ACTIVATIONS",
    "DECODERS",
    "QEFPN",
    "Backbone",
    "Decoder",
    "FullyConnectedFusion",
    "ImplicitPyramid",
    "Neck",
    "NetworkOutput",
    "PlainPyramid",
    "Transformation",
    "build_backbone",
    "load_model",
]
