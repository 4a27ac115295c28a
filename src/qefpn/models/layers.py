"""Small pieces that several parts of the network share: norms, activations, resizing, initialisation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

from qefpn.implicit.torch_private import transforms_active
from qefpn.text import did_you_mean

NormFactory = Callable[[int, int], nn.Module]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}
"""Activations by name; each has a forward derivative."""

IN_PLACE: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
}
"""Those whose derivative can be told from their output."""


def activation_named(name: str, *, inplace: bool = False) -> nn.Module:
    """A new activation module. ``ValueError`` names the close ones for an unknown ``name``.

    ``inplace`` overwrites the input where the activation can (a request, not a promise). It is for inputs
    that nothing else reads, such as the output of a norm, where it saves a tenth of f_theta's time on a CPU.
    """
    if name not in ACTIVATIONS:
        hint = did_you_mean(name, ACTIVATIONS, " (did you mean {!r}?)")
        raise ValueError(f"activation: unknown {name!r}{hint}; there are: {', '.join(sorted(ACTIVATIONS))}")
    return (IN_PLACE if inplace and name in IN_PLACE else ACTIVATIONS)[name]()


def group_count(channels: int, most: int = 8) -> int:
    """Groups of a group norm: the largest divisor of ``channels`` up to ``most`` that leaves two channels a
    group.

    One channel a group is an instance norm, which erases a map of one pixel (the coarsest level of a 32-px
    picture) whatever it held; hence the second condition.
    """
    for groups in range(min(most, channels // 2), 1, -1):
        if channels % groups == 0:
            return groups
    return 1


def group_normed(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """``F.group_norm`` of (B, C, H, W), with a forward derivative also inside ``torch.compile``.

    There the fused operator has none, so it is written out; a compiler fuses it again. In forward mode without
    ``torch.func``, :class:`_ForwardGroupNorm` gives the same derivative in a third of the time.
    """
    if torch.compiler.is_exporting():
        return F.group_norm(x, groups, weight, bias, eps)  # which formats know as one operation
    if not torch.compiler.is_compiling():
        plain = torch.is_grad_enabled() or transforms_active()
        if plain or forward_ad.unpack_dual(x).tangent is None:
            return F.group_norm(x, groups, weight, bias, eps)
        normed: Tensor = _ForwardGroupNorm.apply(x, weight, bias, groups, eps)[0]
        return normed
    blocks = x.unflatten(1, (groups, -1))
    centred = blocks - blocks.mean(dim=(2, 3, 4), keepdim=True)
    scaled = centred * (centred.square().mean(dim=(2, 3, 4), keepdim=True) + eps).rsqrt()
    return torch.addcmul(bias[:, None, None], scaled.flatten(1, 2), weight[:, None, None])


class _ForwardGroupNorm(torch.autograd.Function):
    """Group norm with a forward derivative in a dozen operations on plain tensors.

    torch takes the fused operator's derivative apart into some forty operations on dual tensors, which on small
    maps cost far more than their arithmetic.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, C, H, W), weight and bias (C,) → the normed map; mean and 1/deviation of each group, (B, groups)."""
        batch, channels, height, width = x.shape
        return torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep what the derivative is made of."""
        _, mean, rstd = output
        ctx.mark_non_differentiable(mean, rstd)
        ctx.set_materialize_grads(False)  # no tangent of the weights is None
        ctx.save_for_forward(inputs[0], inputs[1], mean, rstd)

    @staticmethod
    def jvp(
        ctx: Any, direction: Tensor, slope: Tensor | None, shift: Tensor | None, *_: None
    ) -> tuple[Tensor, None, None]:
        """The derivative of the normed map along the tangents of x, of weight and of bias."""
        x, weight, mean, rstd = ctx.saved_tensors
        batch, channels, height, width = x.shape
        dense = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
        direction, x = direction.contiguous(memory_format=dense), x.contiguous(memory_format=dense)
        # normalising projects, and a projection is its own transpose: the fused backward operator is its derivative
        shape = (batch, channels, height * width, mean.shape[1])
        along: Tensor = torch.ops.aten.native_group_norm_backward(
            direction, x, mean, rstd, None, *shape, [True, False, False]
        )[0]
        along = along.mul_(weight[:, None, None])
        if slope is not None:
            blocks = x.unflatten(1, (mean.shape[1], -1)) - mean[:, :, None, None, None]
            along = along.addcmul_((blocks * rstd[:, :, None, None, None]).flatten(1, 2), slope[:, None, None])
        return along if shift is None else along + shift[:, None, None], None, None


def _is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` by :func:`group_normed`."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return group_normed(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(channels: int, copies: int = 1) -> nn.GroupNorm:
    """Group norm over ``copies`` stacked blocks of ``channels``, each block normed by itself."""
    return GroupNorm(group_count(channels) * copies, channels * copies)


def batch_norm(channels: int, copies: int = 1) -> nn.BatchNorm2d:
    """Batch norm over ``copies`` stacked blocks of ``channels``."""
    return nn.BatchNorm2d(channels * copies)


def conv3x3(inputs: int, outputs: int, stride: int = 1, *, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    """3×3 convolution that keeps H×W (or ⌈H/stride⌉×⌈W/stride⌉)."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups, bias=bias)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) to ``size`` = (H, W); ``x`` itself if that is its size already."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def kaiming_(module: nn.Module) -> None:
    """Kaiming normal for every convolution of ``module`` (fan in, ReLU), zero biases; norms start as
    identity."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_in", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def small_normal_(module: nn.Module, std: float = 0.01) -> None:
    """Normal weights of a small spread for every convolution of ``module``, as multiscale DEQs start
    (MDEQ)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=std)


@functools.cache
def channels_last_has_forward_derivative() -> bool:
    """Whether group norm of a channels-last map has a forward derivative: in torch 2.13 it raises, in 2.15 it has one.

    Only versions before that are asked, since the first forward derivative of a process imports torch's compiler: 2 s.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 15):
        return True
    x = torch.ones(2, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    try:
        torch.func.jvp(nn.GroupNorm(2, 4), (x,), (torch.ones_like(x),))
    except RuntimeError:
        return False
    return True


def as_float(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class WeightNorm(nn.Module):
    """w = g·v/‖v‖, one g an output channel (Salimans and Kingma, 2016), as a parametrization of ``weight``.

    It stores what ``torch.nn.utils.parametrizations.weight_norm`` stores, ``original0`` = g and ``original1`` = v.
    """

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        """g (O, 1, 1, 1) and v (O, I, H, W) → the weight, in v's memory format."""
        return v * (g / _channel_norms(v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """g and v that give ``weight``."""
        return _channel_norms(weight), weight


def _channel_norms(v: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True)
    return norms


def weight_normed_(module: nn.Module) -> None:
    """Put :class:`WeightNorm` on every convolution of ``module``; its function does not change by that."""
    for part in list(module.modules()):
        if isinstance(part, nn.Conv2d):
            parametrize.register_parametrization(part, "weight", WeightNorm(), unsafe=True)
