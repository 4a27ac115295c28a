"""Autograd through the iterations themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qefpn.implicit.adjoints.base import ADJOINTS, Adjoint
from qefpn.implicit.checks import check_flag
from qefpn.implicit.problem import FlatMap, Problem
from qefpn.implicit.solvers.base import Solver, SolveResult
from qefpn.implicit.stats import BackwardRecord


@ADJOINTS.register("unrolled")
@dataclass(frozen=True)
class UnrolledAdjoint(Adjoint):
    """Autograd through every iteration from z0, which gets a gradient too. Memory grows with the steps.

    Needs a solver that is a plain iteration: ``Unroll`` or ``FixedPointIteration``. Second derivatives work.

    Args:
        checkpoint: keep only the states and evaluate f again in backward.
    """

    checkpoint: bool = False

    def __post_init__(self) -> None:
        check_flag("UnrolledAdjoint", "checkpoint", self.checkpoint)

    def check(self, solver: Solver) -> None:
        if not solver.unrolls:
            raise ValueError(
                "UnrolledAdjoint needs a solver that autograd can run through, Unroll or "
                f"FixedPointIteration, got {type(solver).__name__}; or take ImplicitAdjoint"
            )

    def run(
        self, problem: Problem, residual_map: FlatMap, z: Tensor, solver: Solver, record: BackwardRecord
    ) -> SolveResult:
        if not self.checkpoint:
            return solver.solve(residual_map, z)

        def recomputed(state: Tensor) -> Tensor:
            value: Any = checkpoint(residual_map, state, use_reentrant=False)
            assert isinstance(value, Tensor)
            return value

        return solver.solve(recomputed, z)
