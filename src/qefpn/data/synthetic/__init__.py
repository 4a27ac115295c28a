"""A synthetic data set for salient object detection: `synthesize` writes it, `render` draws one picture."""

from __future__ import annotations

from qefpn.data.synthetic.scene import render
from qefpn.data.synthetic.writer import SyntheticReport, synthesize

__all__ = ["SyntheticReport", "render", "synthesize"]
