"""f's evaluations and Jacobian products without a solver: what no solver can go below."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Products(torch.autograd.Function):
    """The identity, whose backward pass spends ``count`` products with the Jacobian of f on nothing.

    All levels pass through one node: it runs before any of f's graph has been used up by the gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, leaves: list[Tensor], outputs: list[Tensor], count: int, *levels: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.work = leaves, outputs, count
        return tuple(level.view_as(level) for level in levels)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        leaves, outputs, count = ctx.work
        products: Any = grads
        for _ in range(count):
            products = torch.autograd.grad(outputs, leaves, products, retain_graph=True)
        return None, None, None, *grads


class FloorPyramid(nn.Module):
    """In the place of a pyramid: plain evaluations of f_theta and its products, and nothing else.

    Args:
        transformation: f_theta.
        evaluations: of f in the forward pass, the last with its graph.
        products: with the Jacobian in the backward pass, before the one that reaches the parameters.
    """

    def __init__(self, transformation: nn.Module, evaluations: int, products: int) -> None:
        super().__init__()
        self.transformation = transformation
        self.evaluations, self.products = evaluations, products

    def forward(self, injection: tuple[Tensor, ...], **_: object) -> tuple[tuple[Tensor, ...], None]:
        """As ``ImplicitPyramid``, with a state that is no fixed point."""
        state: tuple[Tensor, ...] = tuple(torch.zeros_like(x) for x in injection)
        with torch.no_grad():
            for _ in range(self.evaluations - 1):
                state = self.transformation(state, *injection)
        leaves = [part.detach().requires_grad_() for part in state]
        outputs = list(self.transformation(leaves, *injection))
        levels: tuple[Tensor, ...] = _Products.apply(leaves, outputs, self.products, *outputs)
        return levels, None
