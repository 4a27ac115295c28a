"""No contour term at all."""

from __future__ import annotations

from qefpn.losses.base import LOSSES, SaliencyLoss


@LOSSES.register("no_edges")
class NoEdgesLoss(SaliencyLoss):
    """CE + IoU (Table V, "w/o edge extractor"). The edge filter is not used."""
