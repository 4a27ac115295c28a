"""f_theta, the one layer whose fixed point is the pyramid (paper, Eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from qefpn.models.fusion import FullyConnectedFusion
from qefpn.models.layers import (
    activation_named,
    channels_last_has_forward_derivative,
    conv3x3,
    group_norm,
    group_normed,
    small_normal_,
    weight_normed_,
)

INITIAL_STD = 0.01
INITIAL_GAIN = 0.5
"""Spread of the weights, and gain of the last norms, at the start. With these 20 plain iterations from z =
0 end at a relative residual of 3e-5 (32 channels; spectral radius about 0.6); a gain of 1 ends at 4e-2
(radius 0.9), and Kaiming's spread does not converge (radius above 1)."""


class InjectedResidualBlock(nn.Module):
    """z, x → N(a(z + N(x + W₂ a(N(W₁ z))))): a wide residual block that the injection x enters.

    W are 3×3 convolutions (``channels`` → ``expansion`` · ``channels`` and back), N group norms, a the
    activation.

    Args:
        half: run what is ``expansion`` times as wide, W₁, its norm and W₂, in bfloat16; the rest stays as
            it is.
    """

    def __init__(self, channels: int, expansion: int, activation: str, *, half: bool = False) -> None:
        super().__init__()
        wide = channels * expansion
        self.half_precision = half
        self.expand = conv3x3(channels, wide)
        self.expand_norm = group_norm(wide)
        self.reduce = conv3x3(wide, channels)
        self.inject_norm = group_norm(channels)
        self.output_norm = group_norm(channels)
        self.activation = activation_named(activation, inplace=True)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        """State z and injection x, both (B, channels, H, W) → the same shape."""
        injected = self.inject_norm(self._transformed(z) + x)
        out: Tensor = self.output_norm(self.activation(injected + z))
        return out

    def _transformed(self, z: Tensor) -> Tensor:
        hidden: Tensor
        if not self.half_precision:
            hidden = self.reduce(self.activation(self.expand_norm(self.expand(z))))
            return hidden
        # casts spelt out: a convolution under autocast has no forward derivative
        norm, low = self.expand_norm, torch.bfloat16
        hidden = F.conv2d(z.to(low), self.expand.weight.to(low), padding=1)
        hidden = group_normed(hidden, norm.num_groups, norm.weight.to(low), norm.bias.to(low), norm.eps)
        return F.conv2d(self.activation(hidden), self.reduce.weight.to(low), padding=1).to(z.dtype)


class Transformation(nn.Module):
    """One weight-tied layer of the implicit pyramid: a block a level, fusion over the levels, 1×1 and norm.

    Group norm only and neither batch norm nor dropout: each sample's map is the same function at every
    evaluation and does not depend on the rest of the batch.

    Args:
        channels: channels of every level.
        levels: pyramid levels, increasing.
        expansion: width of the residual block over ``channels``.
        activation: name of the activation.
        half: the wide part of the blocks in bfloat16 (see ``InjectedResidualBlock``).
        weight_norm: weight norm on every convolution. It starts as the same function.

    Attributes:
        channels_last: memory format inside; the state may come and go in any.
    """

    def __init__(
        self,
        channels: int,
        levels: Sequence[int],
        expansion: int = 5,
        activation: str = "relu",
        *,
        half: bool = False,
        weight_norm: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(InjectedResidualBlock(channels, expansion, activation, half=half) for _ in levels)
        self.fusion = FullyConnectedFusion(channels, levels, group_norm, activation)
        self.post = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), group_norm(channels)) for _ in levels
        )
        small_normal_(self, INITIAL_STD)
        for level in self.post:
            nn.init.constant_(level.get_parameter("1.weight"), INITIAL_GAIN)
        if weight_norm:
            weight_normed_(self)
        self.channels_last = channels_last_has_forward_derivative()
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def forward(self, z: Sequence[Tensor], *injection: Tensor) -> tuple[Tensor, ...]:
        """State z (a level each) and as many injections, (B, channels, Hi, Wi) each → the next state."""
        memory_format = torch.channels_last if self.channels_last else torch.contiguous_format
        states = [
            block(state.contiguous(memory_format=memory_format), x.contiguous(memory_format=memory_format))
            for block, state, x in zip(self.blocks, z, injection, strict=True)
        ]
        return tuple(post(fused) for post, fused in zip(self.post, self.fusion(states), strict=True))

    @contextmanager
    def weights_kept(self) -> Iterator[None]:
        """A block for one solve: with weight norm, the weights are normalised here once and not at each call.

        Gradients reach the parameters through the weights computed here, so it is entered with grad enabled where
        they are wanted.
        """
        normed = [part for part in self.modules() if parametrize.is_parametrized(part)]
        if not normed:
            yield
            return
        with parametrize.cached():
            for convolution in normed:
                getattr(convolution, "weight")  # noqa: B009  (computed here, with its graph)
            yield
