"""From the backbone's features to the pyramid's: a neck brings every level to one width, fully connected fusion gives
every level all the others (paper, III-C)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qefpn.models.layers import NormFactory, activation_named, conv3x3, kaiming_, resize


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


class FullyConnectedFusion(nn.Module):
    """Each level becomes the sum of itself and all others brought to its size, then the activation.

    A finer level comes down by a chain of 3×3 convolutions of stride 2, one a halving, each followed by a
    norm and, but for the last, the activation. A coarser one comes up by a 1×1 convolution, a norm and
    bilinear resizing. No convolution has a bias; with four levels there are 16 convolutions and 16 norms of
    ``channels``.

    Convolutions that read the same map are kept as one wide convolution (and later links of parallel chains
    as one grouped convolution), which is the same function with fewer and larger operations: 9 instead of 16.

    Args:
        channels: channels of every level.
        levels: pyramid levels, increasing; level l has stride 2^l.
        norm: ``norm(channels, copies)``: a norm over ``copies`` stacked blocks that treats each by itself.
        activation: name of the activation.
    """

    def __init__(self, channels: int, levels: Sequence[int], norm: NormFactory, activation: str = "relu") -> None:
        super().__init__()
        self.channels = channels
        self.activation = activation_named(activation)
        # chains[i][s]: the targets whose chain from level i has a link number s, nearest first
        self.chains: list[list[list[int]]] = []
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for i, level in enumerate(levels):
            depth = levels[-1] - level
            chain = [[j for j in range(i + 1, len(levels)) if levels[j] - level > s] for s in range(depth)]
            self.chains.append(chain)
            self.down.append(
                nn.ModuleList(
                    nn.Sequential(
                        conv3x3(
                            channels * (len(targets) if s else 1),
                            channels * len(targets),
                            2,
                            groups=len(targets) if s else 1,
                        ),
                        norm(channels, len(targets)),
                    )
                    for s, targets in enumerate(chain)
                )
            )
            if i:
                self.up.append(nn.Sequential(nn.Conv2d(channels, channels * i, 1, bias=False), norm(channels, i)))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Features (B, channels, Hi, Wi), finest first → the same shapes."""
        sums = list(features)
        for i, feature in enumerate(features):
            if i:
                for j, part in enumerate(torch.split(self.up[i - 1](feature), self.channels, dim=1)):
                    sums[j] = sums[j] + resize(part, sums[j].shape[-2:])
            running = feature
            for s, link in enumerate(self.down[i].children()):
                targets = self.chains[i][s]
                running = link(running)
                later = self.chains[i][s + 1] if s + 1 < len(self.chains[i]) else []
                if len(targets) > len(later):  # the nearest target's chain ends here; it is the first block
                    ended, running = running[:, : self.channels], running[:, self.channels :]
                    j = targets[0]
                    sums[j] = sums[j] + resize(ended, sums[j].shape[-2:])
                if later:
                    running = self.activation(running)
        return tuple(self.activation(total) for total in sums)
