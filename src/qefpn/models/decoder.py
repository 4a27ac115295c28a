"""Decoders: from the levels of the pyramid to one map at the size of the finest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from qefpn.models.layers import activation_named, conv3x3, kaiming_, resize
from qefpn.registry import Registry

DECODERS: Registry[type[Decoder]] = Registry("decoder")


class Decoder(nn.Module):
    """Contract of a decoder: levels (B, C, Hi, Wi), finest first → its map and intermediate maps.

    ``forward`` returns the map (B, C, H0, W0) that the head reads and ``side_maps`` further maps of C
    channels at any size, which intermediate supervision reads.
    """

    side_maps: int

    def __init__(self, channels: int, levels: int, passes: int, activation: str) -> None:
        super().__init__()

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See the class."""
        raise NotImplementedError


def _unit(inputs: int, outputs: int, activation: str) -> nn.Sequential:
    return nn.Sequential(
        conv3x3(inputs, outputs, bias=True),
        nn.BatchNorm2d(outputs),
        activation_named(activation, inplace=True),
    )


class CrossFeatureModule(nn.Module):
    """Two branches, fine and coarse, that select what they agree on and pass it back to each.

    Each branch has four units (3×3 convolution with bias, batch norm, activation): two, then the product of
    both branches, one on the product plus the branch's first output, and one more. The coarse input is
    first resized to the fine one. The structure is that of F3Net's cross feature module (Wei et al., AAAI
    2020).
    """

    def __init__(self, channels: int, activation: str = "relu") -> None:
        super().__init__()
        self.fine = nn.ModuleList(_unit(channels, channels, activation) for _ in range(4))
        self.coarse = nn.ModuleList(_unit(channels, channels, activation) for _ in range(4))

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Fine (B, C, H, W) and coarse (B, C, h, w) → both at (B, C, H, W)."""
        first_fine = self.fine[0](fine)
        first_coarse = self.coarse[0](resize(coarse, fine.shape[-2:]))
        shared = self.fine[1](first_fine) * self.coarse[1](first_coarse)
        return (
            self.fine[3](self.fine[2](shared) + first_fine),
            self.coarse[3](self.coarse[2](shared) + first_coarse),
        )


@DECODERS.register("cross_feature")
class CrossFeatureDecoder(Decoder):
    """Passes of cross-feature modules from the coarsest level to the finest.

    A pass has one module for each pair of neighbouring levels; its coarse output goes on to the next. The
    map of a pass, resized, is added to every input of the next pass, whose fine inputs are the fine outputs
    before it. The decoder's map is the sum of the last pass's coarse output and all its fine outputs at the
    finest size, so that every branch is trained.

    Args:
        channels: channels of every level.
        levels: number of levels.
        passes: 1 or 2 in practice; any number from 1 on.
        activation: name of the activation.
    """

    def __init__(self, channels: int, levels: int, passes: int = 2, activation: str = "relu") -> None:
        super().__init__(channels, levels, passes, activation)
        self.passes = nn.ModuleList(
            nn.ModuleList(CrossFeatureModule(channels, activation) for _ in range(levels - 1)) for _ in range(passes)
        )
        self.side_maps = (passes - 1) + (levels - 1)
        kaiming_(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Side maps: the map of each pass but the last, then the last pass's fine outputs, coarsest first."""
        *fine_inputs, coarsest = features
        maps: list[Tensor] = []
        fine: list[Tensor] = []
        for number, modules in enumerate(self.passes):
            if number:
                fine_inputs = [level + resize(maps[-1], level.shape[-2:]) for level in fine_inputs]
                coarsest = coarsest + resize(maps[-1], coarsest.shape[-2:])
            coarse, fine = coarsest, []
            for module, level in zip(modules.children(), reversed(fine_inputs), strict=True):
                output, coarse = module(level, coarse)
                fine.append(output)
            fine_inputs = fine[::-1]
            maps.append(coarse)
        size = features[0].shape[-2:]
        total = maps[-1]
        for output in fine:
            total = total + resize(output, size)
        return total, [*maps[:-1], *fine]


@DECODERS.register("fpn")
class TopDownDecoder(Decoder):
    """Light: from the coarsest level on, resize, add the next finer level, one 3×3 unit."""

    def __init__(self, channels: int, levels: int, passes: int = 1, activation: str = "relu") -> None:
        super().__init__(channels, levels, passes, activation)
        self.units = nn.ModuleList(_unit(channels, channels, activation) for _ in range(levels))
        self.side_maps = levels - 1
        kaiming_(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Side maps: the output of every level but the finest, coarsest first."""
        outputs: list[Tensor] = []
        for unit, level in zip(self.units, reversed(features), strict=True):
            outputs.append(unit(level + resize(outputs[-1], level.shape[-2:]) if outputs else level))
        return outputs[-1], outputs[:-1]


@DECODERS.register("sum")
class SumDecoder(Decoder):
    """Lightest: all levels resized to the finest and added, one 3×3 unit."""

    def __init__(self, channels: int, levels: int, passes: int = 1, activation: str = "relu") -> None:
        super().__init__(channels, levels, passes, activation)
        self.unit = _unit(channels, channels, activation)
        self.side_maps = levels
        kaiming_(self)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Side maps: the levels themselves, coarsest first."""
        size = features[0].shape[-2:]
        total = torch.stack([resize(level, size) for level in features]).sum(0)
        return self.unit(total), list(reversed(features))
