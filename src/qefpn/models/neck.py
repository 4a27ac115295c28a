"""From the backbone's channels to the pyramid's: one 1×1 convolution and batch norm a level."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from qefpn.models.layers import kaiming_


class Neck(nn.Module):
    """Bring each level to ``channels``: 1×1 convolution with bias, batch norm.

    Args:
        inputs: channels of each feature of the backbone, finest first.
        channels: channels of every level afterwards.
    """

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, channels, 1), nn.BatchNorm2d(channels)) for width in inputs
        )
        kaiming_(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Features (B, inputs[i], Hi, Wi) → (B, channels, Hi, Wi)."""
        return tuple(level(feature) for level, feature in zip(self.levels, features, strict=True))
