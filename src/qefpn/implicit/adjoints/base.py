"""What adjoints share: how a solved value gets a gradient."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from qefpn.implicit.problem import FlatMap, Problem
from qefpn.implicit.solvers.base import Solver, SolveResult
from qefpn.implicit.stats import BackwardRecord
from qefpn.registry import Registry

ADJOINTS: Registry[type[Adjoint]] = Registry("adjoint")


class Adjoint(ABC):
    """How gradients reach what f depends on, independently of how its fixed point is found."""

    def check(self, solver: Solver) -> None:  # noqa: B027  (most adjoints take any solver)
        """Raise ``ValueError`` where this adjoint cannot work with ``solver``."""

    @abstractmethod
    def run(
        self, problem: Problem, residual_map: FlatMap, z: Tensor, solver: Solver, record: BackwardRecord
    ) -> SolveResult:
        """Solve with gradients. Called with grad enabled and autocast disabled.

        Args:
            problem: f on flat states; its Jacobian is the one of Eq. 3.
            residual_map: what the solver solves.
            z: (B, N), the starting point.
            solver: the forward solver.
            record: where a backward pass leaves its statistics.

        Returns:
            The result, whose ``value`` is attached to the graph of f.
        """


class _Attach(torch.autograd.Function):
    """The value of one tensor with the gradient path of another, its gradient transformed on the way."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor, transform: Callable[[Tensor], Tensor] | None) -> Tensor:
        ctx.transform = transform
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "second derivatives through fixed_point are not available: a backward pass with "
                "create_graph=True reached it. Use UnrolledAdjoint with Unroll or FixedPointIteration for "
                "those, or call backward without create_graph"
            )
        grad = grads[0]
        return None, grad if ctx.transform is None else ctx.transform(grad), None


def attach(value: Tensor, surrogate: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """``value`` whose gradient, after ``transform``, goes to ``surrogate``; both (B, N)."""
    result: Tensor = _Attach.apply(value.detach(), surrogate, transform)
    return result


@contextlib.contextmanager
def keep_saved_tensors() -> Iterator[None]:
    """Keep this block's saved tensors as they are under non-reentrant checkpointing (or offloading).

    A backward solve walks one graph of f many times; under a checkpoint's hooks each walk would run the whole
    checkpointed region again, and that region holds the forward solve.
    """
    active = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    if active is None or active(False) is None:
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        yield
