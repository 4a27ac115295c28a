"""A trained network as one closed graph, for formats that other programs run: resizing, normalising, a solve of a fixed
number of steps and the sigmoid inside, nothing that depends on values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qefpn.errors import UserError
from qefpn.implicit import Broyden, FixedPointIteration, Unroll
from qefpn.models import QEFPN
from qefpn.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from qefpn.models.pyramid import PlainPyramid

State = tuple[Tensor, ...]
LINEAR_STEPS = 256
"""Weights of OpenCV's INTER_LINEAR_EXACT are multiples of 1/256."""


class FixedNetwork(nn.Module):
    """The network for floating-point images of one square size, with every step of its solve taken.

    Args:
        network: whose solver is Broyden's method, plain iteration or unrolling, or that has no pyramid.
        steps: of the solve; ``None`` for the most that its solver takes.

    Raises:
        UserError: another solver, whose steps depend on values in ways that a graph cannot hold.
    """

    def __init__(self, network: QEFPN, steps: int | None = None) -> None:
        super().__init__()
        self.network = network.eval()
        self.steps = 0
        if isinstance(network.pyramid, PlainPyramid):
            if steps is not None:
                raise UserError("steps: the network has no pyramid that would take any")
            return
        solver = network.pyramid.solver
        if not isinstance(solver, Broyden | FixedPointIteration | Unroll):
            name = type(solver).__name__
            raise UserError(f"a network whose solver is {name} cannot be exported: broyden, fixed_point and unroll can")
        self.broyden = isinstance(solver, Broyden)
        self.steps = solver.max_steps if steps is None else steps

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S), floating-point in [0, 1] → logits (B, 1, S, S)."""
        network, size = self.network, images.shape[-2:]
        injection = network.fusion(network.neck(network.backbone(network.normalized(images))))
        return network.decoded(self._state(tuple(injection)), size)[0]

    def _state(self, injection: State) -> State:
        pyramid = self.network.pyramid
        if isinstance(pyramid, PlainPyramid):
            return injection
        start = tuple(torch.zeros_like(x) for x in injection)

        def f(z: State) -> State:
            return tuple(pyramid.transformation(z, *injection))

        return broyden(f, start, self.steps) if self.broyden else iterate(f, start, self.steps)


def iterate(f: Callable[[State], State], z: State, steps: int) -> State:
    """f applied ``steps`` times."""
    for _ in range(steps):
        z = f(z)
    return z


def broyden(f: Callable[[State], State], z: State, steps: int) -> State:
    """Broyden's method from −I on tuples of (B, ...), every step taken: the iterate with the smallest ‖f(z) − z‖.

    The inverse estimate is a product of rank-one factors of the directions alone (C. T. Kelley, Iterative Methods for
    Linear and Nonlinear Equations, SIAM 1995, section 7.3): what `qefpn.implicit.Broyden` computes at rtol = atol = 0.
    """
    g = _minus(f(z), z)
    best, least = z, _dot(g, g)
    directions: list[State] = []
    squares: list[Tensor] = []
    for _ in range(steps):
        d = g
        for j in range(len(directions) - 1):
            d = _plus(d, _dot(directions[j], d) / squares[j], directions[j + 1])
        if directions:
            along = _dot(directions[-1], d) / squares[-1]
            d = tuple(x / _wide(1 - along, x) for x in d)
        directions.append(d)
        squares.append(_dot(d, d).clamp_min(torch.finfo(torch.float32).tiny))
        z = tuple(a + b for a, b in zip(z, d, strict=True))
        g = _minus(f(z), z)
        norm = _dot(g, g)
        better = norm < least
        best = tuple(torch.where(_wide(better, a), a, b) for a, b in zip(z, best, strict=True))
        least = torch.where(better, norm, least)
    return best


def _minus(a: State, b: State) -> State:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def _plus(a: State, factor: Tensor, b: State) -> State:
    return tuple(x + _wide(factor, y) * y for x, y in zip(a, b, strict=True))


def _dot(a: State, b: State) -> Tensor:
    """(B,) products of the samples."""
    total = (a[0] * b[0]).sum(dim=(1, 2, 3))
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + (x * y).sum(dim=(1, 2, 3))
    return total


def _wide(factor: Tensor, like: Tensor) -> Tensor:
    return factor.reshape(-1, *[1] * (like.dim() - 1))


def resizing_matrices(length: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Weights that resize a side to ``size`` pixels as :class:`~qefpn.data.reading.TestTransform` does.

    (size, length) for the mean over each new pixel's own stretch where the side shrinks (else the pixels as they are,
    below them zeros), then (size, size) for the line between two pixels where it grows (else each pixel as it is).

    Args:
        length: a range 0 to length − 1, floating-point, whose number of elements is the side.
    """
    count = torch.ones_like(length).sum()
    target = torch.arange(size, dtype=length.dtype, device=length.device)
    rows = target[:, None]
    # in units of 1 / size of a pixel, so that all is whole numbers, and exact
    until = torch.minimum((length + 1) * size, (rows + 1) * count)
    area = (until - torch.maximum(length * size, rows * count)).clamp_min(0) / count
    same = (1 - (rows - length).abs()).clamp_min(0)
    centre = torch.minimum((((2 * rows + 1) * count - size) / (2 * size)).clamp_min(0), count - 1)
    linear = ((1 - (centre - target).abs()).clamp_min(0) * LINEAR_STEPS).round() / LINEAR_STEPS
    identity = (1 - (rows - target).abs()).clamp_min(0)
    return torch.where(count > size, area, same), torch.where(count < size, linear, identity)


class PhotographToMap(nn.Module):
    """uint8 (B, H, W, 3) RGB of any size → float32 (B, H, W) in [0, 1], as :class:`~qefpn.Predictor` makes them."""

    def __init__(self, fixed: FixedNetwork, image_size: int) -> None:
        super().__init__()
        self.fixed = fixed
        self.image_size = image_size

    def forward(self, images: Tensor) -> Tensor:
        """The maps of a batch of pictures of one size."""
        height, width = images.shape[1], images.shape[2]
        down, up = resizing_matrices(torch.arange(height, dtype=torch.float32, device=images.device), self.image_size)
        left, right = resizing_matrices(torch.arange(width, dtype=torch.float32, device=images.device), self.image_size)
        pixels = images.to(torch.float32).permute(0, 3, 1, 2)
        shrunk = torch.matmul(torch.matmul(down, pixels), left.T).round()
        small = (torch.matmul(torch.matmul(up, shrunk), right.T) + 0.5).floor() / 255
        logits = self.fixed(small)
        full = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
        return full[:, 0].sigmoid().clamp(0.0, 1.0)  # onnxruntime's sigmoid gives 1.0000001, too


class RembgModel(nn.Module):
    """What rembg's custom U²-Net sessions call: (B, 3, 320, 320), normalised as ImageNet's are → (B, 1, 320, 320)."""

    SIZE = 320
    matrix: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, fixed: FixedNetwork, image_size: int) -> None:
        super().__init__()
        self.fixed = fixed
        side = torch.arange(self.SIZE, dtype=torch.float32)
        down, up = resizing_matrices(side, image_size)
        self.register_buffer("matrix", up @ down)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """The maps, each of a picture that was brought to 320 × 320."""
        pixels = (images * self.std + self.mean) * 255
        small = torch.matmul(torch.matmul(self.matrix, pixels), self.matrix.T).round() / 255
        logits = self.fixed(small)
        full = F.interpolate(logits, size=(self.SIZE, self.SIZE), mode="bilinear", align_corners=False)
        return full.sigmoid().clamp(0.0, 1.0)
