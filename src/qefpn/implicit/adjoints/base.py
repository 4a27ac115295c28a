"""What adjoints share: how a solved value gets a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qefpn.implicit.driver import SolveResult, solve
from qefpn.implicit.problem import FlatMap, Problem
from qefpn.implicit.solvers import Solver
from qefpn.implicit.stats import BackwardRecord, SolveStats
from qefpn.registry import Registry

ADJOINTS: Registry[type[Adjoint]] = Registry("adjoint")


@dataclass(frozen=True)
class Call:
    """One call of :func:`qefpn.implicit.fixed_point`, as an adjoint gets it.

    Attributes:
        problem: f on flat states; its Jacobian is the one of Eq. 3.
        f: what is solved: the residual's map.
        z: (B, N), the starting point.
        solver: the forward solver.
        record: where a backward pass leaves its statistics.
        compact: as :func:`qefpn.implicit.driver.solve` has it.
    """

    problem: Problem
    f: FlatMap
    z: Tensor
    solver: Solver
    record: BackwardRecord
    compact: bool = False

    def solve(self, last: FlatMap | None = None) -> SolveResult:
        """:func:`qefpn.implicit.driver.solve`, without a graph."""
        with torch.no_grad():
            return solve(self.solver, self.f, self.z.detach(), last=last, compact=self.compact)


class Adjoint(ABC):
    """How gradients reach what f depends on, independently of how its fixed point is found."""

    def check(self, solver: Solver) -> None:  # noqa: B027  (most adjoints take any solver)
        """Raise ``ValueError`` where this adjoint cannot work with ``solver``."""

    @abstractmethod
    def run(self, call: Call) -> tuple[Tensor, SolveStats]:
        """Solve: the value (B, N), attached to the graph of f, and the statistics. Called with grad enabled and
        autocast disabled."""


class _Attach(torch.autograd.Function):
    """The value of one tensor with the gradient path of another, its gradient transformed on the way."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor, transform: Callable[[Tensor], Tensor] | None) -> Tensor:
        ctx.transform = transform
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a compiler refuses those itself
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
