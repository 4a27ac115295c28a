"""EfficientNet-Lite without the libraries that hold many networks, which take longer to import than torch.

Names and order of the tensors are those of timm's ``tf_efficientnet_lite*``, and so are the outputs, to the bit: the
tests compare both. The first network that somebody meets (``qefpn predict``) is built of these.

Source: Liu, "Higher accuracy on vision models with EfficientNet-Lite" (2020); Tan and Le, "EfficientNet" (ICML 2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

STEM = 32
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
"""Of the smallest: blocks, kernel, stride of the first block, expansion, channels."""
LAST = {2: 1, 3: 2, 4: 4, 5: 6}
"""Level → the last stage of that resolution."""


@dataclass(frozen=True)
class Scale:
    """How a network of the family differs from the smallest, in channels and in blocks."""

    width: float = 1.0
    depth: float = 1.0

    def channels(self, count: int) -> int:
        """A multiple of 8, at least nine tenths of what the width asks for."""
        wanted = count * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    def blocks(self, stage: int) -> int:
        """The first and the last stage keep theirs."""
        count = STAGES[stage][0]
        return count if stage in (0, len(STAGES) - 1) else math.ceil(count * self.depth)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow does: ⌈size / stride⌉ outputs, an odd pixel at the right and the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ⌈H / stride⌉, ⌈W / stride⌉)."""
        pads: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Without a bias; drawn from a normal distribution of the outputs' fan."""
    kind = SameConv2d if stride > 1 else nn.Conv2d
    made = kind(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False)
    nn.init.normal_(made.weight, std=math.sqrt(2 / (kernel * kernel * outputs // groups)))
    return made


def norm(channels: int) -> nn.BatchNorm2d:
    """As TensorFlow has it."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class DepthwiseSeparable(nn.Module):
    """A convolution of each channel, then one over channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = convolution(inputs, inputs, kernel, groups=inputs), norm(inputs)
        self.conv_pw, self.bn2 = convolution(inputs, outputs), norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', H, W)."""
        x = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        return self.bn2(self.conv_pw(x))


class InvertedResidual(nn.Module):
    """Wider, a convolution of each channel, narrower; added to what came in where that has the same shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.conv_pw, self.bn1 = convolution(inputs, wide), norm(wide)
        self.conv_dw, self.bn2 = convolution(wide, wide, kernel, stride, groups=wide), norm(wide)
        self.conv_pwl, self.bn3 = convolution(wide, outputs), norm(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C', ⌈H / stride⌉, ⌈W / stride⌉)."""
        y = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        y = F.relu6(self.bn2(self.conv_dw(y)), inplace=True)
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.adds else y


class LiteTrunk(nn.Module):
    """The features of an EfficientNet-Lite, without its head.

    Args:
        scale: which of the family.
        levels: wanted, increasing, from 2 to 5: strides 4 to 32.

    Attributes:
        channels: of each feature, finest first.
    """

    def __init__(self, scale: Scale, levels: Sequence[int]) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = convolution(3, STEM, 3, 2), norm(STEM)
        self.taken = [LAST[level] for level in levels]
        self.blocks = nn.Sequential()
        inputs = STEM
        for number, (_, kernel, stride, expansion, count) in enumerate(STAGES[: self.taken[-1] + 1]):
            outputs, stage = scale.channels(count), nn.Sequential()
            for place in range(scale.blocks(number)):
                if expansion == 1:
                    stage.append(DepthwiseSeparable(inputs, outputs, kernel))
                else:
                    stage.append(InvertedResidual(inputs, outputs, kernel, 1 if place else stride, expansion))
                inputs = outputs
            self.blocks.append(stage)
        self.channels = tuple(scale.channels(STAGES[stage][-1]) for stage in self.taken)

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        """Of the first convolution and its norm."""
        yield from self.conv_stem.parameters()
        yield from self.bn1.parameters()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised → features (B, channels[i], Hi, Wi), finest first."""
        x = F.relu6(self.bn1(self.conv_stem(images)), inplace=True)
        found = []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in self.taken:
                found.append(x)
        return found
